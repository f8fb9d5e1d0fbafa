package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/testflow/testflow/internal/fault"
)

// Append adds events to a ledger stream in the caller's transaction (InOrg of the stream's organization, or InSystem),
// runs the inline read models and returns the stream's version and the last event's position. expected is the version
// that the decision was made on, 0 for a new stream, or AnyVersion; otherwise the error is a *VersionConflict and the
// transaction is lost. No data: nothing happens. Readers of the log wait for the transaction from here on, so what
// takes long comes before the append.
func (s *Store) Append(ctx context.Context, tx pgx.Tx, st Stream, expected int, who Actor, data ...Data) (Appended, error) {
	return s.AppendOnce(ctx, tx, s.cfg.NewID(), st, expected, who, data...)
}

// AppendOnce is Append under a name that the caller chose: a second append of that id to the stream stores nothing and
// returns what the first one did, whatever expected is.
func (s *Store) AppendOnce(ctx context.Context, tx pgx.Tx, appendID uuid.UUID, st Stream, expected int, who Actor, data ...Data) (Appended, error) {
	if len(data) == 0 {
		return Appended{Version: max(expected, 0)}, nil
	}
	if st.OrgID == uuid.Nil || st.ID == uuid.Nil || st.Kind == "" {
		return Appended{}, fmt.Errorf("append: stream %q is not whole", st)
	}
	meta, err := s.meta(ctx, tx, who)
	if err != nil {
		return Appended{}, err
	}
	rawMeta, err := json.Marshal(meta)
	if err != nil {
		return Appended{}, fmt.Errorf("encode meta: %w", err)
	}
	if !storable(rawMeta) {
		rawMeta = mend(rawMeta)
	}
	n := len(data)
	events := make([]Event, n)
	ids, schemas, hashes, raws := make([]int16, n), make([]int16, n), make([][]byte, n), make([][]byte, n)
	for i, d := range data {
		t, id, err := s.typeID(ctx, tx, d.EventType(), Ledger)
		if err != nil {
			return Appended{}, err
		}
		raw, _, err := encode(d, false)
		if err != nil {
			return Appended{}, err
		}
		hash, err := ContentHash(st, t.Name, t.Schema, rawMeta, raw)
		if err != nil {
			return Appended{}, err
		}
		ids[i], schemas[i], hashes[i], raws[i] = id, int16(t.Schema), hash, raw //nolint:gosec // check() bounds Schema
		events[i] = Event{Lane: Ledger, Type: t.Name, Schema: t.Schema, OrgID: st.OrgID, StreamID: st.ID, Kind: st.Kind, Meta: meta, ContentHash: hash, Data: raw}
	}
	var actor *uuid.UUID
	if meta.ActorID != uuid.Nil {
		actor = &meta.ActorID
	}
	rows, err := tx.Query(ctx, `SELECT o_version, o_position, o_recorded, o_replayed FROM es.append_ledger($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, //nolint:rowserrcheck // ForEachRow does
		st.OrgID, st.ID, st.Kind, expected, appendID, actor, []byte(rawMeta), ids, schemas, hashes, raws)
	if err != nil {
		return Appended{}, appendError(st, expected, err)
	}
	var out Appended
	var replayed bool
	i := 0
	var e Event
	_, err = pgx.ForEachRow(rows, []any{&e.Version, &e.Position, &e.RecordedAt, &replayed}, func() error {
		out = Appended{Version: e.Version, Position: e.Position}
		if i < n {
			events[i].Version, events[i].Position, events[i].RecordedAt = e.Version, e.Position, e.RecordedAt
		}
		i++
		return nil
	})
	if err != nil {
		return Appended{}, appendError(st, expected, err)
	}
	if replayed {
		return out, nil
	}
	if i != n {
		return Appended{}, fmt.Errorf("append to %s %s: %d of %d events were stored", st.Kind, st.ID, i, n)
	}
	return out, s.applyInline(ctx, tx, events)
}

// meta is who did it, with what is personal sealed.
func (s *Store) meta(ctx context.Context, tx pgx.Tx, who Actor) (Meta, error) {
	if who == nil {
		return Meta{ActorKind: "system"}, nil
	}
	m := Meta{ActorKind: who.ActorKind(), ActorID: who.ActorID(), RequestID: who.RequestID(), Address: who.RemoteAddress(), Agent: who.UserAgent()}
	if m.ActorKind != "user" && m.ActorKind != "apiKey" { // a key is used from where its holder is
		return m, nil
	}
	for _, field := range []*string{&m.Address, &m.Agent} {
		if *field == "" {
			continue
		}
		if s.cfg.Seal == nil {
			*field = ""
			continue
		}
		sealed, err := s.cfg.Seal(ctx, tx, m.ActorID, *field)
		if err != nil {
			return Meta{}, fmt.Errorf("seal the actor's data: %w", err)
		}
		*field = sealed
	}
	return m, nil
}

func appendError(st Stream, expected int, err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "TF409" {
		actual, convErr := strconv.Atoi(pe.Detail)
		if convErr != nil {
			return fmt.Errorf("append to %s %s: %w", st.Kind, st.ID, err)
		}
		return &VersionConflict{Stream: st, Actual: actual, Expected: expected}
	}
	return fmt.Errorf("append to %s %s: %w", st.Kind, st.ID, err)
}

// ErrRunID says that a new run's id is no UUIDv7 of these days (two back to one ahead), so that no partition would hold it.
var ErrRunID = errors.New("run id is not of these days")

// AppendRuns adds events of any number of runs in one statement, in the caller's transaction, runs the inline read models
// with what was stored, and returns that, in order. What a run has already, by version, is left out, and so is an
// attempt's first event when the run has its end: who finds his event absent has lost. Texts that Postgres cannot hold
// are mended, since they come from targets.
func (s *Store) AppendRuns(ctx context.Context, tx pgx.Tx, events []RunEvent) ([]Inserted, error) {
	rows, err := s.encodeRuns(ctx, tx, events)
	if err != nil || rows.len() == 0 {
		return nil, err
	}
	return s.appendRunRows(ctx, tx, rows)
}

// runRows are run events as columns, the shape that es.append_runs takes.
type runRows struct {
	orgs, runs, projects, tests, environments []uuid.UUID
	versions, durations                       []int32
	types, schemas                            []int16
	regions, statuses                         []string
	oks                                       []*bool
	data                                      [][]byte
	names                                     []string
	payloads                                  []Data
	bytes                                     int // of data
}

func (r *runRows) len() int { return len(r.runs) }

// encodeRuns turns events into columns.
func (s *Store) encodeRuns(ctx context.Context, q querier, events []RunEvent) (*runRows, error) {
	n := len(events)
	r := &runRows{
		orgs: make([]uuid.UUID, 0, n), runs: make([]uuid.UUID, 0, n), projects: make([]uuid.UUID, 0, n), tests: make([]uuid.UUID, 0, n), environments: make([]uuid.UUID, 0, n),
		versions: make([]int32, 0, n), durations: make([]int32, 0, n), types: make([]int16, 0, n), schemas: make([]int16, 0, n),
		regions: make([]string, 0, n), statuses: make([]string, 0, n), oks: make([]*bool, 0, n), data: make([][]byte, 0, n), names: make([]string, 0, n), payloads: make([]Data, 0, n),
	}
	for _, e := range events {
		t, id, err := s.typeID(ctx, q, e.Data.EventType(), Runs)
		if err != nil {
			return nil, err
		}
		if e.OrgID == uuid.Nil || e.RunID == uuid.Nil || e.Version < 1 || e.Version > VersionFinished {
			return nil, fmt.Errorf("append %s: run %s of organization %s at version %d is not whole", t.Name, e.RunID, e.OrgID, e.Version)
		}
		raw, same, err := encode(e.Data, true)
		if err != nil {
			return nil, err
		}
		payload := e.Data
		if !same {
			payload = nil // read models shall write what is stored
		}
		r.orgs, r.runs, r.projects, r.tests, r.environments = append(r.orgs, e.OrgID), append(r.runs, e.RunID), append(r.projects, e.ProjectID), append(r.tests, e.TestID), append(r.environments, e.EnvironmentID)
		r.versions = append(r.versions, int32(e.Version))
		r.durations = append(r.durations, micros(e.Duration))
		r.types, r.schemas = append(r.types, id), append(r.schemas, int16(t.Schema)) //nolint:gosec // check() bounds Schema
		r.regions, r.statuses, r.oks = append(r.regions, e.Region), append(r.statuses, e.Status), append(r.oks, e.OK)
		r.data, r.names, r.payloads = append(r.data, raw), append(r.names, t.Name), append(r.payloads, payload)
		r.bytes += len(raw)
	}
	return r, nil
}

// micros is a duration as it is stored: up to 35 minutes, which no attempt reaches.
func micros(d time.Duration) int32 {
	return int32(min(max(d.Microseconds(), 0), math.MaxInt32))
}

// append adds the rows of o.
func (r *runRows) append(o *runRows) {
	r.orgs, r.runs, r.projects, r.tests, r.environments = append(r.orgs, o.orgs...), append(r.runs, o.runs...), append(r.projects, o.projects...), append(r.tests, o.tests...), append(r.environments, o.environments...)
	r.versions, r.durations = append(r.versions, o.versions...), append(r.durations, o.durations...)
	r.types, r.schemas = append(r.types, o.types...), append(r.schemas, o.schemas...)
	r.regions, r.statuses, r.oks = append(r.regions, o.regions...), append(r.statuses, o.statuses...), append(r.oks, o.oks...)
	r.data, r.names, r.payloads = append(r.data, o.data...), append(r.names, o.names...), append(r.payloads, o.payloads...)
	r.bytes += o.bytes
}

type runKey struct {
	run     uuid.UUID
	version int
}

// appendRunRows is the one statement, and the inline read models after it.
func (s *Store) appendRunRows(ctx context.Context, tx pgx.Tx, r *runRows) ([]Inserted, error) {
	res, err := tx.Query(ctx, `SELECT o_run, o_version, o_position, o_recorded FROM es.append_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`, //nolint:rowserrcheck // ForEachRow does
		r.orgs, r.runs, r.versions, r.types, r.schemas, r.projects, r.tests, r.environments, r.regions, r.statuses, r.durations, r.oks, r.data)
	if err != nil {
		return nil, runsError(err)
	}
	stored := make([]Inserted, 0, r.len())
	var in Inserted
	_, err = pgx.ForEachRow(res, []any{&in.RunID, &in.Version, &in.Position, &in.RecordedAt}, func() error {
		stored = append(stored, in)
		return nil
	})
	if err != nil {
		return nil, runsError(err)
	}
	if len(s.cfg.Inline) == 0 || len(stored) == 0 {
		return stored, nil
	}
	index := make(map[runKey]int, r.len())
	for i := range r.runs {
		if _, twice := index[runKey{r.runs[i], int(r.versions[i])}]; !twice {
			index[runKey{r.runs[i], int(r.versions[i])}] = i
		}
	}
	events := make([]Event, 0, len(stored))
	for _, in := range stored {
		key := runKey{in.RunID, in.Version}
		e := r.event(index[key])
		e.Position, e.RecordedAt = in.Position, in.RecordedAt
		events = append(events, e)
	}
	return stored, s.applyInline(ctx, tx, events)
}

// event returns row i as it will be read back.
func (r *runRows) event(i int) Event {
	return Event{
		Lane: Runs, Type: r.names[i], Schema: int(r.schemas[i]), Version: int(r.versions[i]), OrgID: r.orgs[i], StreamID: r.runs[i], Kind: runKind, Data: r.data[i], payload: r.payloads[i],
		RunColumns: RunColumns{
			ProjectID: r.projects[i], TestID: r.tests[i], EnvironmentID: r.environments[i], Region: r.regions[i], Status: r.statuses[i],
			Duration: time.Duration(r.durations[i]) * time.Microsecond, OK: r.oks[i],
		},
	}
}

func runsError(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && (pe.Code == "TF422" || pe.Code == "23514" && pe.TableName == "run_event") {
		return fmt.Errorf("append runs: %w: %w", ErrRunID, err)
	}
	return fmt.Errorf("append runs: %w", err)
}

// NotFoundIfEmpty returns fault.NotFound when a stream has no events: its thing isn't there, or is another organization's.
func NotFoundIfEmpty(events []Event, noun string) error {
	if len(events) == 0 {
		return fault.New(fault.NotFound, noun+".not_found", "There is no such %s.", noun)
	}
	return nil
}
