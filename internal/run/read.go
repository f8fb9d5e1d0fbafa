package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/run/internal/rundb"
)

// Filter chooses runs of a list: of each field any of the values, all of the fields together; what is empty is no
// condition.
type Filter struct {
	ProjectIDs, TestIDs []uuid.UUID
	SuiteID             uuid.UUID
	Statuses            []Status
	Triggers            []Trigger
	Regions             []string
	From, To            time.Time // requested in [From, To)
	Limit               int
	After               *Cursor
}

// Cursor is the place in a list of runs after which the next page begins.
type Cursor struct {
	ID uuid.UUID `json:"id"`
}

// EventView is one event of a run as the API shows it.
type EventView struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	Position   int64           `json:"position"`
	Version    int             `json:"version"`
	RecordedAt time.Time       `json:"recordedAt"`
	Data       json.RawMessage `json:"data"`
}

// Header is one header line.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// StepBody is what a target answered, as far as it was kept.
type StepBody struct {
	Attempt, Step    int
	Iteration        int
	Status           int
	ContentType      string
	Headers          []Header
	HeadersTruncated bool
	RequestHeaders   []Header
	Size             int64 // of the whole body
	Truncated        bool  // Body is only its beginning
	Body             []byte
}

// List returns a page of runs, newest first, and the cursor of the next page, nil when there is none.
func (s *Service) List(ctx context.Context, orgID uuid.UUID, f Filter) (items []Run, next *Cursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return nil, nil, err
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		e := fault.New(fault.Invalid, "run.range_invalid", "The time range is not valid.")
		e.Fields = append(e.Fields, fault.Field{Parameter: "from", Detail: "It must be before to."})
		return nil, nil, e
	}
	query, args := listSQL(orgID, f)
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return fmt.Errorf("list runs: %w", err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[rundb.Run])
		if err != nil {
			return fmt.Errorf("list runs: %w", err)
		}
		for _, row := range found {
			items = append(items, runOf(row))
		}
		return nil
	})
	if err == nil && len(items) > f.Limit {
		items = items[:f.Limit]
		next = &Cursor{ID: items[len(items)-1].ID}
	}
	return items, next, err
}

// listSQL writes the query of a list from conditions that stand here; values are parameters.
func listSQL(orgID uuid.UUID, f Filter) (string, []any) {
	where, args := []string{"org_id = $1"}, []any{orgID}
	and := func(condition string, value any) {
		args = append(args, value)
		where = append(where, strings.ReplaceAll(condition, "?", "$"+strconv.Itoa(len(args))))
	}
	either(and, "project_id", "uuid", f.ProjectIDs)
	either(and, "test_id", "uuid", f.TestIDs)
	either(and, "status", "text", f.Statuses)
	either(and, "trigger", "text", f.Triggers)
	either(and, "region", "text", f.Regions)
	if f.SuiteID != uuid.Nil {
		and("suite_id = ?", f.SuiteID)
	}
	// The time of a request is close to that in its id, which the index has; the exact one decides.
	if !f.From.IsZero() {
		and("requested_at >= ?", f.From)
		and("run_id >= ?", floorID(f.From.Add(-clockSlack)))
	}
	if !f.To.IsZero() {
		and("requested_at < ?", f.To)
		and("run_id < ?", floorID(f.To.Add(clockSlack)))
	}
	if f.After != nil {
		and("run_id < ?", f.After.ID)
	}
	args = append(args, f.Limit+1)
	return "SELECT " + runColumns + " FROM runs WHERE " + strings.Join(where, " AND ") + " ORDER BY run_id DESC LIMIT $" + strconv.Itoa(len(args)), args
}

// either adds a condition that one of values holds; one value alone lets an index do the order too.
func either[T any](and func(string, any), column, typ string, values []T) {
	switch len(values) {
	case 0:
	case 1:
		and(column+" = ?::"+typ, values[0])
	default:
		and(column+" = ANY(?::"+typ+"[])", values)
	}
}

// runColumns are the columns of rundb.Run, in its order.
const runColumns = `run_id, org_id, project_id, test_id, test_name, revision, environment_id, environment_name, region, trigger, suite_id,
	rerun_of, requested_kind, requested_by, requested_at, timeout_ms, status, reason, error_code, error_message, attempts, started_at,
	finished_at, duration_ms, queued_ms, steps, steps_failed, steps_skipped, assertions, assertions_failed, soft_failed`

// clockSlack is how far a process's clock, which makes ids, may be from the database's, which dates events.
const clockSlack = 5 * time.Minute

// floorID is the lowest UUIDv7 of a time.
func floorID(t time.Time) (id uuid.UUID) {
	ms := max(t.UnixMilli(), 0)
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i))) //nolint:gosec // one byte of it
	}
	return id
}

// Get returns a run with its attempts, steps and assertion results, folded from its own events.
func (s *Service) Get(ctx context.Context, orgID, runID uuid.UUID) (d Detail, err error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return Detail{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		row, err := getRow(ctx, tx, runID)
		if err != nil {
			return err
		}
		events, err := s.Store.ReadRun(ctx, tx, orgID, runID)
		if err != nil {
			return err
		}
		d, err = fold(runOf(row), events)
		return err
	})
	return d, err
}

// Summary returns a run as lists show it, without reading its events.
func (s *Service) Summary(ctx context.Context, orgID, runID uuid.UUID) (r Run, err error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return Run{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		row, err := getRow(ctx, tx, runID)
		r = runOf(row)
		return err
	})
	return r, err
}

// Events returns the events of a run in the order of their positions.
func (s *Service) Events(ctx context.Context, orgID, runID uuid.UUID) (views []EventView, err error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return nil, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		events, err := s.Store.ReadRun(ctx, tx, orgID, runID)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return noRun()
		}
		for _, e := range events {
			views = append(views, EventView{ID: e.ID(), Type: e.Type, Position: e.Position, Version: e.Version, RecordedAt: e.RecordedAt, Data: e.Data})
		}
		return nil
	})
	return views, err
}

// StepResponse returns what the target answered to a step, in an attempt (0 = the run's last) and one of its iterations
// (from 0). When nothing was kept it is fault.NotFound.
func (s *Service) StepResponse(ctx context.Context, orgID, runID uuid.UUID, step, attempt, iteration int) (b StepBody, err error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return StepBody{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		row, err := getRow(ctx, tx, runID)
		if err != nil {
			return err
		}
		if attempt == 0 {
			attempt = int(row.Attempts)
		}
		body, err := rundb.New(tx).GetBody(ctx, rundb.GetBodyParams{OrgID: orgID, RunID: runID, Step: count(step), Attempt: count(attempt), Iteration: count(iteration)})
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.New(fault.NotFound, "run.no_response", "No response of this step is kept.")
		}
		if err != nil {
			return fmt.Errorf("read the response of run %s: %w", runID, err)
		}
		b, err = bodyOf(body)
		return err
	})
	return b, err
}

// GetSuite returns a suite with its runs as they are now.
func (s *Service) GetSuite(ctx context.Context, orgID, suiteID uuid.UUID) (suite Suite, err error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return Suite{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		rows, err := rundb.New(tx).ListSuite(ctx, rundb.ListSuiteParams{OrgID: orgID, SuiteID: &suiteID})
		if err != nil {
			return fmt.Errorf("read suite %s: %w", suiteID, err)
		}
		if len(rows) == 0 {
			return fault.New(fault.NotFound, "suite.not_found", "There is no such suite.")
		}
		for _, row := range rows {
			suite.Runs = append(suite.Runs, runOf(row))
		}
		return nil
	})
	suite.ID, suite.Verdict = suiteID, Verdict(suite.Runs)
	return suite, err
}

// getRow returns a run's row, or fault.NotFound.
func getRow(ctx context.Context, tx postgres.OrgTx, runID uuid.UUID) (rundb.Run, error) {
	row, err := rundb.New(tx).GetRun(ctx, rundb.GetRunParams{OrgID: tx.OrgID(), RunID: runID})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return rundb.Run{}, noRun()
	case err != nil:
		return rundb.Run{}, fmt.Errorf("read run %s: %w", runID, err)
	}
	return row, nil
}

func noRun() error { return fault.New(fault.NotFound, "run.not_found", "There is no such run.") }

func runOf(r rundb.Run) Run {
	out := Run{
		ID: r.RunID, OrgID: r.OrgID, TestID: r.TestID, TestName: r.TestName, Revision: int(r.Revision), ProjectID: r.ProjectID,
		EnvironmentID: orNil(r.EnvironmentID), EnvironmentName: r.EnvironmentName, SuiteID: orNil(r.SuiteID), RerunOf: orNil(r.RerunOf),
		Region: r.Region, Trigger: Trigger(r.Trigger), Status: Status(r.Status), Reason: Reason(r.Reason), Attempts: int(r.Attempts),
		RequestedAt: r.RequestedAt, RequestedBy: By{Kind: r.RequestedKind, ID: orNil(r.RequestedBy)}, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt,
		DurationMs: r.DurationMs, QueuedMs: r.QueuedMs,
		Counts: Counts{
			Steps: int(r.Steps), StepsFailed: int(r.StepsFailed), StepsSkipped: int(r.StepsSkipped), Assertions: int(r.Assertions),
			AssertionsFailed: int(r.AssertionsFailed), SoftFailed: int(r.SoftFailed),
		},
	}
	if r.ErrorCode != "" {
		out.Error = &Problem{Code: r.ErrorCode, Message: r.ErrorMessage}
	}
	return out
}

func bodyOf(r rundb.RunBody) (StepBody, error) {
	b := StepBody{
		Attempt: int(r.Attempt), Step: int(r.Step), Iteration: int(r.Iteration), Status: int(r.Status), ContentType: string(r.ContentType), HeadersTruncated: r.HeadersTruncated,
		Size: r.Size, Truncated: r.Truncated, Body: r.Body,
	}
	if err := json.Unmarshal(r.Headers, &b.Headers); err != nil {
		return StepBody{}, fmt.Errorf("read the headers of run %s: %w", r.RunID, err)
	}
	if err := json.Unmarshal(r.RequestHeaders, &b.RequestHeaders); err != nil {
		return StepBody{}, fmt.Errorf("read the headers of run %s: %w", r.RunID, err)
	}
	return b, nil
}

func orNil(id *uuid.UUID) uuid.UUID {
	if id == nil {
		return uuid.Nil
	}
	return *id
}
