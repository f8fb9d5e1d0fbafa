package app

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/analytics"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/eventstore/eventtest"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/projection"
	"github.com/testflow/testflow/internal/run"
)

// TestHouse_eventSamples holds every event that was ever stored to what the program makes of it: each registered type has
// a sample of each schema; all are lifted, decoded, appended, taken by the inline read models and by the projections.
func TestHouse_eventSamples(t *testing.T) {
	t.Parallel()
	samples := eventtest.Samples(t, eventTypes(), "../*/testdata/events")
	db := pgtest.New(t)
	store := eventstore.New(eventstore.Config{DB: db.DB, Types: eventTypes(), Inline: inlineModels(), Now: time.Now, NewID: newID})
	require.NoError(t, store.Sync(t.Context()))

	org, runID := newID(), newID()
	streams := map[string]uuid.UUID{}
	// Things are made before they are changed, and removed last; what a sample calls its project exists.
	age := func(name string) int {
		switch {
		case strings.HasSuffix(name, ".created"):
			return 1
		case strings.HasSuffix(name, ".deleted"):
			return 3
		}
		return 2
	}
	slices.SortStableFunc(samples, func(a, b eventtest.Sample) int { return age(a.Type.Name) - age(b.Type.Name) })
	for _, s := range samples {
		var named struct{ ProjectID uuid.UUID }
		require.NoError(t, json.Unmarshal(s.Lifted, &named))
		if named.ProjectID != uuid.Nil && s.Type.Lane == eventstore.Ledger {
			streams["project"] = named.ProjectID
		}
	}
	next := 100_001
	for _, s := range samples {
		err := db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if s.Type.Lane == eventstore.Runs {
				version := next
				switch s.Type.Name {
				case run.TypeRequested:
					version = eventstore.VersionRequested
				case run.TypeFinished:
					version = eventstore.VersionFinished
				default:
					next++
				}
				columns := eventstore.RunColumns{ProjectID: newID(), TestID: newID(), Region: "default", Status: string(run.Passed), Duration: time.Second}
				in, err := store.AppendRuns(ctx, tx, []eventstore.RunEvent{{OrgID: org, RunID: runID, Version: version, Data: s.Data, RunColumns: columns}})
				require.Len(t, in, 1)
				return err
			}
			kind := kindOf(s.Type.Name)
			if _, ok := streams[kind]; !ok {
				streams[kind] = newID()
			}
			_, err := store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: streams[kind], Kind: kind}, eventstore.AnyVersion, nil, s.Data)
			return err
		})
		require.NoError(t, err, "%s schema %d: what was stored must stay readable for the read models", s.Type.Name, s.Schema)
	}

	runner := projection.NewRunner(projection.Config{Store: store, DB: db.Analytics, Projections: analytics.Projections(), Now: time.Now})
	require.NoError(t, runner.Setup(t.Context()))
	for _, p := range analytics.Projections() {
		require.NoError(t, runner.Rebuild(t.Context(), p.Name, nil))
	}
	builds, err := runner.List(t.Context())
	require.NoError(t, err)
	for _, b := range builds {
		require.Zero(t, b.DeadLetters, "%s takes every sample", b.Name)
	}
}

// kindOf is the kind of stream that holds an event: its name's first word.
func kindOf(name string) string {
	for i, c := range name {
		if c == '.' {
			return name[:i]
		}
	}
	return name
}
