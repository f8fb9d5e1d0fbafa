package project

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/project/internal/projectdb"
)

// readModel keeps the tables projects and environments in the append's own transaction.
type readModel struct{}

// ReadModel returns the inline read model of projects and environments.
func ReadModel() eventstore.ReadModel { return readModel{} }

// Apply writes what the events changed.
func (readModel) Apply(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
	q := projectdb.New(tx)
	for _, e := range events {
		var err error
		switch e.Kind {
		case Kind:
			err = applyProject(ctx, q, e)
		case KindEnvironment:
			err = applyEnvironment(ctx, q, e)
		}
		if err != nil {
			return fmt.Errorf("apply %s: %w", e.Type, err)
		}
	}
	return nil
}

func applyProject(ctx context.Context, q *projectdb.Queries, e eventstore.Event) error {
	switch e.Type {
	case TypeCreated:
		var d Created
		if err := e.Decode(&d); err != nil {
			return err
		}
		if err := q.InsertProject(ctx, projectdb.InsertProjectParams{
			ProjectID: e.StreamID, OrgID: e.OrgID, Name: d.Name, Description: d.Description, CreatedAt: stored(e.RecordedAt),
		}); err != nil {
			return err
		}
	case TypeRenamed:
		var d Renamed
		if err := e.Decode(&d); err != nil {
			return err
		}
		if err := q.RenameProject(ctx, projectdb.RenameProjectParams{OrgID: e.OrgID, ProjectID: e.StreamID, Name: d.To}); err != nil {
			return err
		}
	case TypeDescribed:
		var d Described
		if err := e.Decode(&d); err != nil {
			return err
		}
		if err := q.DescribeProject(ctx, projectdb.DescribeProjectParams{OrgID: e.OrgID, ProjectID: e.StreamID, Description: d.Description}); err != nil {
			return err
		}
	case TypeSharedVariablesChanged:
		var d SharedVariablesChanged
		if err := e.Decode(&d); err != nil {
			return err
		}
		set, err := object(d.Set)
		if err != nil {
			return err
		}
		if d.Removed == nil {
			d.Removed = []string{}
		}
		if err := q.ChangeProjectVariables(ctx, projectdb.ChangeProjectVariablesParams{
			OrgID: e.OrgID, ProjectID: e.StreamID, Changed: set, Removed: d.Removed, Version: int32(e.Version), //nolint:gosec // versions are int on disk
		}); err != nil {
			return err
		}
	case TypeDeleted:
		return q.DeleteProject(ctx, projectdb.DeleteProjectParams{OrgID: e.OrgID, ProjectID: e.StreamID})
	}
	return q.TouchProject(ctx, projectdb.TouchProjectParams{
		OrgID: e.OrgID, ProjectID: e.StreamID, Version: int32(e.Version), UpdatedAt: stored(e.RecordedAt), //nolint:gosec // versions are int on disk
	})
}

func applyEnvironment(ctx context.Context, q *projectdb.Queries, e eventstore.Event) error {
	switch e.Type {
	case TypeEnvironmentCreated:
		if err := insertEnvironment(ctx, q, e); err != nil {
			return err
		}
	case TypeEnvironmentRenamed:
		var d EnvironmentRenamed
		if err := e.Decode(&d); err != nil {
			return err
		}
		if err := q.RenameEnvironment(ctx, projectdb.RenameEnvironmentParams{OrgID: e.OrgID, EnvironmentID: e.StreamID, Name: d.To}); err != nil {
			return err
		}
	case TypeEnvironmentDescribed:
		var d EnvironmentDescribed
		if err := e.Decode(&d); err != nil {
			return err
		}
		if err := q.DescribeEnvironment(ctx, projectdb.DescribeEnvironmentParams{OrgID: e.OrgID, EnvironmentID: e.StreamID, Description: d.Description}); err != nil {
			return err
		}
	case TypeVariablesChanged:
		if err := changeVariables(ctx, q, e); err != nil {
			return err
		}
	case TypeEnvironmentDeleted:
		return q.DeleteEnvironment(ctx, projectdb.DeleteEnvironmentParams{OrgID: e.OrgID, EnvironmentID: e.StreamID})
	}
	return q.TouchEnvironment(ctx, projectdb.TouchEnvironmentParams{
		OrgID: e.OrgID, EnvironmentID: e.StreamID, Version: int32(e.Version), UpdatedAt: stored(e.RecordedAt), //nolint:gosec // versions are int on disk
	})
}

func insertEnvironment(ctx context.Context, q *projectdb.Queries, e eventstore.Event) error {
	var d EnvironmentCreated
	if err := e.Decode(&d); err != nil {
		return err
	}
	variables, err := object(d.Variables)
	if err != nil {
		return err
	}
	return q.InsertEnvironment(ctx, projectdb.InsertEnvironmentParams{
		EnvironmentID: e.StreamID, OrgID: e.OrgID, ProjectID: d.ProjectID, Name: d.Name, Description: d.Description,
		Variables: variables, CreatedAt: stored(e.RecordedAt),
	})
}

func changeVariables(ctx context.Context, q *projectdb.Queries, e eventstore.Event) error {
	var d VariablesChanged
	if err := e.Decode(&d); err != nil {
		return err
	}
	set, err := object(d.Set)
	if err != nil {
		return err
	}
	removed := d.Removed
	if removed == nil {
		removed = []string{}
	}
	return q.ChangeVariables(ctx, projectdb.ChangeVariablesParams{OrgID: e.OrgID, EnvironmentID: e.StreamID, Changed: set, Removed: removed})
}

// object encodes a map as a JSON object, an empty one when m is nil.
func object(m map[string]string) ([]byte, error) {
	if m == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(m)
}

// stored is a time as the database keeps it.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
