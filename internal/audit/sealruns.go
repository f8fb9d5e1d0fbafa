package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/seal"
)

const (
	// TypeRunsSealed and KindRuns are stored for ever.
	TypeRunsSealed = "runs.sealed"
	// KindRuns is the kind of the streams of TypeRunsSealed: one an organization and day.
	KindRuns = "runs"

	// runsSettle is how long after its end a day is sealed: a run that began before midnight has ended by then.
	runsSettle = time.Hour
	// runsLock holds one sealing of runs at a time, in all processes.
	runsLock = 20
	// runsPage is how many events of runs are in memory.
	runsPage = 2000
	// runKind is the kind of a run's stream.
	runKind = "run"
)

// RunsSealed enters an organization's runs of one UTC day into the ledger, and so into its sealed history: a digest of
// every event of theirs, since the events themselves are dropped after a while. A run belongs to the day of its id.
type RunsSealed struct {
	Day    string `json:"day"` // 2026-11-22
	Runs   int64  `json:"runs"`
	Events int64  `json:"events"`
	UpTo   int64  `json:"upTo"`   // position; what the day's runs say later is not in the digest
	Digest string `json:"digest"` // hex: root of the tree (RFC 6962) of the events, by run and version
}

// EventType returns the stored name.
func (RunsSealed) EventType() string { return TypeRunsSealed }

// RunSealer seals days of runs. Any number of processes may have one.
type RunSealer struct {
	DB    *postgres.DB
	Store *eventstore.Store
	Now   func() time.Time
	Log   *slog.Logger
}

// Pass seals every day that is over and wasn't sealed yet. It goes on where it was stopped.
func (r *RunSealer) Pass(ctx context.Context) error {
	var days []time.Time
	last := r.Now().UTC().Add(-runsSettle).Truncate(24 * time.Hour) // the first day that isn't over
	err := r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT d::date FROM generate_series((SELECT bucket FROM es.run_event ORDER BY position LIMIT 1), $1::date - 1, interval '1 day') d
			 WHERE NOT EXISTS (SELECT FROM es.sealed_day s WHERE s.day = d::date) ORDER BY d`, last)
		if err != nil {
			return err
		}
		days, err = pgx.CollectRows(rows, pgx.RowTo[time.Time])
		return err
	})
	if err != nil {
		return fmt.Errorf("look for days of runs: %w", err)
	}
	for _, day := range days {
		if err := r.sealDay(ctx, day); err != nil {
			return fmt.Errorf("seal the runs of %s: %w", day.Format(time.DateOnly), err)
		}
	}
	return nil
}

func (r *RunSealer) sealDay(ctx context.Context, day time.Time) error {
	var orgs []uuid.UUID
	err := r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT DISTINCT org_id FROM es.run_event WHERE bucket = $1 ORDER BY 1`, day)
		if err != nil {
			return err
		}
		orgs, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		return err
	})
	if err != nil {
		return err
	}
	for _, org := range orgs {
		if err := r.sealOrg(ctx, org, day); err != nil {
			return fmt.Errorf("organization %s: %w", org, err)
		}
	}
	return r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO es.sealed_day (day) VALUES ($1) ON CONFLICT DO NOTHING`, day)
		return err
	})
}

// sealOrg appends one organization's digest, unless it stands there.
func (r *RunSealer) sealOrg(ctx context.Context, org uuid.UUID, day time.Time) error {
	return r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(21575, $1)`, runsLock); err != nil {
			return err
		}
		st := runsStream(org, day)
		var there bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM es.ledger_stream WHERE org_id = $1 AND stream_id = $2)`, org, st.ID).Scan(&there); err != nil || there {
			return err
		}
		fence, err := r.Store.Fence(ctx, tx)
		if err != nil {
			return err
		}
		data, err := digestRuns(ctx, tx, org, day, fence)
		if err != nil {
			return err
		}
		if data.Events == 0 {
			return nil
		}
		if _, err := r.Store.Append(ctx, tx, st, 0, nil, data); err != nil {
			return err
		}
		r.Log.InfoContext(ctx, "runs sealed", slog.String("org_id", org.String()), slog.String("day", data.Day), slog.Int64("runs", data.Runs), slog.Int64("events", data.Events))
		return nil
	})
}

// runsStream is the stream of an organization's day.
func runsStream(org uuid.UUID, day time.Time) eventstore.Stream {
	return eventstore.Stream{OrgID: org, ID: uuid.NewSHA1(org, []byte(KindRuns+" "+day.UTC().Format(time.DateOnly))), Kind: KindRuns}
}

// runColumns are the fields of a run's event that stand beside its data.
type runColumns struct {
	ProjectID     *uuid.UUID `json:"projectId,omitempty"`
	TestID        *uuid.UUID `json:"testId,omitempty"`
	EnvironmentID *uuid.UUID `json:"environmentId,omitempty"`
	Region        *string    `json:"region,omitempty"`
	Status        *string    `json:"status,omitempty"`
	DurationUS    *int32     `json:"durationUs,omitempty"`
	OK            *bool      `json:"ok,omitempty"`
}

// runsOfDay is a page of an organization's events of runs.
const runsOfDay = `
	SELECT e.stream_id, e.version, e.position, e.recorded_at, coalesce(t.name, 'unknown#' || e.type_id), e.schema_ver,
	       e.project_id, e.test_id, e.environment_id, e.region, e.status, e.duration_us, e.ok, e.data
	  FROM es.run_event e LEFT JOIN es.event_type t USING (type_id)
	 WHERE e.org_id = $1 AND e.bucket = $2 AND (e.stream_id, e.version) > ($3, $4) AND e.position <= $5
	 ORDER BY e.stream_id, e.version LIMIT $6`

// digestRuns reads an organization's runs of a day, page by page, and hashes them in the order of run and version.
func digestRuns(ctx context.Context, tx pgx.Tx, org uuid.UUID, day time.Time, upTo int64) (RunsSealed, error) {
	out := RunsSealed{Day: day.UTC().Format(time.DateOnly), UpTo: upTo}
	tree := &seal.Frontier{}
	var run uuid.UUID
	version := 0
	for n := runsPage; n == runsPage; {
		rows, err := tx.Query(ctx, runsOfDay, org, day, run, version, upTo, runsPage) //nolint:rowserrcheck // ForEachRow does
		if err != nil {
			return out, fmt.Errorf("read runs: %w", err)
		}
		n = 0
		var (
			id       uuid.UUID
			position int64
			at       time.Time
			typ      string
			schema   int
			c        runColumns
			data     []byte
		)
		if _, err := pgx.ForEachRow(rows, []any{&id, &version, &position, &at, &typ, &schema, &c.ProjectID, &c.TestID, &c.EnvironmentID, &c.Region, &c.Status, &c.DurationUS, &c.OK, &data}, func() error {
			meta, err := json.Marshal(c)
			if err != nil {
				return err
			}
			hash, err := seal.Content{OrgID: org, StreamID: id, Kind: runKind, Type: typ, Schema: schema, Meta: meta, Data: data}.Hash()
			if err != nil {
				return err
			}
			tree.Add(seal.Leaf(position, version, at, hash), nil)
			if n++; id != run {
				run = id
				out.Runs++
			}
			out.Events++
			return nil
		}); err != nil {
			return out, fmt.Errorf("read runs: %w", err)
		}
	}
	root := tree.Root()
	out.Digest = hex.EncodeToString(root[:])
	return out, nil
}

// checkRuns returns the days of an organization whose runs are there and aren't what was sealed.
func (s *Service) checkRuns(ctx context.Context, org uuid.UUID) (found []string, err error) {
	var sealed []RunsSealed
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT e.data FROM es.ledger_event e JOIN es.event_type t USING (type_id) WHERE e.org_id = $1 AND t.name = $2 AND e.kind = $3 ORDER BY e.position`, org, TypeRunsSealed, KindRuns)
		if err != nil {
			return err
		}
		sealed, err = pgx.CollectRows(rows, pgx.RowTo[RunsSealed])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read what was sealed: %w", err)
	}
	for _, was := range sealed {
		day, err := time.Parse(time.DateOnly, was.Day)
		if err != nil {
			found = append(found, fmt.Sprintf("the runs of %q of organization %s: that is no day", was.Day, org))
			continue
		}
		err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			var kept bool // by its partition; retention takes days away whole
			if err := tx.QueryRow(ctx, `SELECT to_regclass('es.run_event_' || $1) IS NOT NULL`, strings.ReplaceAll(was.Day, "-", "")).Scan(&kept); err != nil || !kept {
				return err
			}
			is, err := digestRuns(ctx, tx, org, day, was.UpTo)
			if err == nil && is != was {
				found = append(found, fmt.Sprintf("the runs of %s of organization %s are not what was sealed: %d runs with %d events and digest %s, sealed were %d with %d and %s",
					was.Day, org, is.Runs, is.Events, is.Digest, was.Runs, was.Events, was.Digest))
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("check the runs of %s of %s", was.Day, org), err)
		}
	}
	return found, nil
}
