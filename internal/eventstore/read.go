package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// runKind is the Kind of every event in the lane of runs.
const runKind = "run"

// MaxPage is the most events that one read returns.
const MaxPage = 5000

const (
	ledgerColumns = `'L'::text AS lane, e.position, e.recorded_at, e.version, e.type_id, e.schema_ver, e.org_id, e.stream_id, e.kind, e.content_hash, e.meta,
		NULL::uuid AS project_id, NULL::uuid AS test_id, NULL::uuid AS environment_id, NULL::text AS region, NULL::text AS status, NULL::int AS duration_us, NULL::boolean AS ok, e.data::json AS data`
	runColumns = `'R'::text AS lane, e.position, e.recorded_at, e.version, e.type_id, e.schema_ver, e.org_id, e.stream_id, NULL::text AS kind, NULL::bytea AS content_hash, NULL::jsonb AS meta,
		e.project_id, e.test_id, e.environment_id, e.region, e.status, e.duration_us, e.ok, e.data`
	feedColumns = `lane::text, position, recorded_at, version, type_id, schema_ver, org_id, stream_id, kind, content_hash, meta,
		project_id, test_id, environment_id, region, status, duration_us, ok, data`
)

// Read returns a ledger stream from its first event, in order; nothing when there is none or it is another organization's.
func (s *Store) Read(ctx context.Context, tx pgx.Tx, orgID, streamID uuid.UUID) ([]Event, error) {
	rows, err := tx.Query(ctx, `SELECT `+ledgerColumns+` FROM es.ledger_event e WHERE e.org_id = $1 AND e.stream_id = $2 ORDER BY e.version`, orgID, streamID)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", streamID, err)
	}
	events, _, err := s.collect(ctx, tx, rows, false)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", streamID, err)
	}
	return events, nil
}

// ReadRun returns a run's events by version, so its end is the last; nothing when there are none or it is another
// organization's.
func (s *Store) ReadRun(ctx context.Context, tx pgx.Tx, orgID, runID uuid.UUID) ([]Event, error) {
	rows, err := tx.Query(ctx, `SELECT `+runColumns+` FROM es.run_event e WHERE e.org_id = $1 AND e.stream_id = $2 AND e.bucket = es.uuid7_day($2) ORDER BY e.version`, orgID, runID)
	if err != nil {
		return nil, fmt.Errorf("read run %s: %w", runID, err)
	}
	events, _, err := s.collect(ctx, tx, rows, false)
	if err != nil {
		return nil, fmt.Errorf("read run %s: %w", runID, err)
	}
	return events, nil
}

// ReadAll returns the first settled events after a position, of all organizations, in order; no event will ever appear
// at or below To. types names the wanted ones, none = all. With fewer than limit events, To is the last settled event's
// position, of whatever type. limit is at most MaxPage.
func (s *Store) ReadAll(ctx context.Context, after int64, limit int, types ...string) (Batch, error) {
	return s.readFeed(ctx, after, feedQuery{limit: limit, types: types, look: true})
}

// ReadPublished is ReadAll up to what the pulse has published, which may be a few milliseconds behind the end; it looks
// for itself when nothing is published after the position. Under load it costs a fraction of ReadAll.
func (s *Store) ReadPublished(ctx context.Context, after int64, limit int, types ...string) (Batch, error) {
	return s.readFeed(ctx, after, feedQuery{limit: limit, types: types})
}

// feedQuery is what a read of the whole log wants.
type feedQuery struct {
	limit int
	types []string // none = all
	look  bool     // whether to find the end of what is settled instead of going by what is published
	bare  bool     // without the data of runs' events
}

func (s *Store) readFeed(ctx context.Context, after int64, q feedQuery) (Batch, error) {
	b := Batch{From: after, To: after, Bare: q.bare}
	q.limit = min(max(q.limit, 1), MaxPage)
	// One statement, in no transaction of the caller's: the fence wants a snapshot after it.
	pool := s.cfg.DB.System
	fail := func(err error) (Batch, error) { return Batch{}, fmt.Errorf("read the log after %d: %w", after, err) }
	var ids []int16 // nil = every type
	if len(q.types) > 0 {
		var err error
		if ids, err = s.typeIDs(ctx, pool, q.types); err != nil {
			return fail(err)
		}
	}
	rows, err := pool.Query(ctx, `SELECT `+feedColumns+` FROM es.read_feed($1, $2, $3, $4, $5)`, after, q.limit, ids, q.look, !q.bare)
	if err != nil {
		return fail(err)
	}
	events, end, err := s.collect(ctx, pool, rows, false)
	if err != nil {
		return fail(err)
	}
	b.Events, b.To = events, max(after, end)
	if n := len(events); n > 0 {
		b.To = max(b.To, events[n-1].Position)
	}
	return b, nil
}

// ReadAt returns the event at a position, of any organization. ok is false when there is none (any more).
func (s *Store) ReadAt(ctx context.Context, position int64) (e Event, ok bool, err error) {
	pool := s.cfg.DB.System
	rows, err := pool.Query(ctx, `SELECT `+feedColumns+` FROM (SELECT `+ledgerColumns+` FROM es.ledger_event e WHERE e.position = $1 UNION ALL SELECT `+runColumns+` FROM es.run_event e WHERE e.position = $1) e`, position)
	if err != nil {
		return Event{}, false, fmt.Errorf("read position %d: %w", position, err)
	}
	events, _, err := s.collect(ctx, pool, rows, false)
	if err != nil {
		return Event{}, false, fmt.Errorf("read position %d: %w", position, err)
	}
	if len(events) == 0 {
		return Event{}, false, nil
	}
	return events[0], true, nil
}

// End returns the position of the last settled event of all; 0 in an empty log.
func (s *Store) End(ctx context.Context) (position int64, err error) {
	if err := s.cfg.DB.System.QueryRow(ctx, `SELECT es.last_event(0, es.fence())`).Scan(&position); err != nil {
		return 0, fmt.Errorf("find the end of the log: %w", err)
	}
	return position, nil
}

// Fence returns the position up to which the log is settled for statements that follow in tx, which must be READ
// COMMITTED.
func (s *Store) Fence(ctx context.Context, tx pgx.Tx) (position int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT es.fence()`).Scan(&position); err != nil {
		return 0, fmt.Errorf("read the fence: %w", err)
	}
	return position, nil
}

// OrgQuery selects from one organization's part of the log. Zero fields select nothing away.
type OrgQuery struct {
	Lanes         []Lane   // none = both
	Types         []string // event types; "org.*" is every type of that beginning; one that nobody registered matches nothing
	Kinds         []string // kinds of streams; "run" is the lane of runs
	ActorIDs      []uuid.UUID
	RequestIDs    []string    // ledger only, as actors
	StreamIDs     []uuid.UUID // subjects: streams, or runs
	ProjectID     uuid.UUID   // runs only, as the next two
	TestID        uuid.UUID
	EnvironmentID uuid.UUID
	From, To      time.Time // recordedAt, half-open
	After, Before int64     // position, both exclusive; 0 = none
	Limit         int       // 1 … MaxPage; 0 = 50
	Desc          bool      // newest first
}

// ReadOrg returns settled events of one organization, by position, and how far the answer reaches: ascending, every
// event that the query selects with a position at or below upTo is in the answer or was before After, for ever. It
// needs a READ COMMITTED transaction.
func (s *Store) ReadOrg(ctx context.Context, tx pgx.Tx, orgID uuid.UUID, q OrgQuery) (events []Event, upTo int64, err error) {
	if q.Limit <= 0 {
		q.Limit = 50
	}
	q.Limit = min(q.Limit, MaxPage)
	// Fence first, then a new snapshot. The watermark may be above a fence that was taken later: both are settled.
	var fence, watermark int64
	if err := tx.QueryRow(ctx, `SELECT es.fence(), (SELECT position FROM es.watermark)`).Scan(&fence, &watermark); err != nil {
		return nil, 0, fmt.Errorf("read the fence: %w", err)
	}
	sql, args, err := s.orgSQL(ctx, tx, orgID, q, max(fence, watermark))
	if err != nil {
		return nil, 0, err
	}
	upTo = max(watermark, q.After)
	if sql == "" {
		return nil, upTo, nil
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, 0, fmt.Errorf("read organization %s: %w", orgID, err)
	}
	events, _, err = s.collect(ctx, tx, rows, true)
	if err != nil {
		return nil, 0, fmt.Errorf("read organization %s: %w", orgID, err)
	}
	if n := len(events); n > 0 && !q.Desc {
		last := events[n-1].Position
		if n == q.Limit {
			upTo = last
		} else {
			upTo = max(upTo, last)
		}
	}
	return events, upTo, nil
}

// orgSQL builds the query of ReadOrg; every name in it stands in this function. "" = nothing can match.
func (s *Store) orgSQL(ctx context.Context, tx pgx.Tx, orgID uuid.UUID, q OrgQuery, settled int64) (string, []any, error) {
	args := []any{orgID, settled}
	arg := func(v any) string { args = append(args, v); return "$" + strconv.Itoa(len(args)) }
	where := []string{"e.org_id = $1", "e.position <= $2"}
	if q.After > 0 {
		where = append(where, "e.position > "+arg(q.After))
	}
	if q.Before > 0 {
		where = append(where, "e.position < "+arg(q.Before))
	}
	if !q.From.IsZero() {
		where = append(where, "e.recorded_at >= "+arg(q.From.UTC().Truncate(time.Microsecond)))
	}
	if !q.To.IsZero() {
		where = append(where, "e.recorded_at < "+arg(q.To.UTC().Truncate(time.Microsecond)))
	}
	if len(q.Types) > 0 {
		ids, err := s.matchingTypes(ctx, tx, q.Types)
		if err != nil {
			return "", nil, err
		}
		where = append(where, oneOf("e.type_id", ids, arg))
	}
	if len(q.StreamIDs) > 0 {
		where = append(where, oneOf("e.stream_id", q.StreamIDs, arg))
	}
	ledger := q.lane(Ledger) && q.ProjectID == uuid.Nil && q.TestID == uuid.Nil && q.EnvironmentID == uuid.Nil
	runs := q.lane(Runs) && len(q.ActorIDs) == 0 && len(q.RequestIDs) == 0 && (len(q.Kinds) == 0 || slices.Contains(q.Kinds, runKind))
	// A parameter that no part uses would have no type, so each lane's own are added only with the lane.
	where = slices.Clip(where)
	ledgerWhere, runWhere := where, where
	if ledger && len(q.ActorIDs) > 0 {
		ledgerWhere = append(ledgerWhere, oneOf("e.actor_id", q.ActorIDs, arg))
	}
	if ledger && len(q.RequestIDs) > 0 {
		ledgerWhere = append(ledgerWhere, oneOf("e.request_id", q.RequestIDs, arg))
	}
	if ledger && len(q.Kinds) > 0 {
		ledgerWhere = append(ledgerWhere, "e.kind = ANY ("+arg(q.Kinds)+")")
	}
	for _, c := range []struct {
		column string
		id     uuid.UUID
	}{{"project_id", q.ProjectID}, {"test_id", q.TestID}, {"environment_id", q.EnvironmentID}} {
		if runs && c.id != uuid.Nil {
			runWhere = append(runWhere, "e."+c.column+" = "+arg(c.id))
		}
	}
	if runs && len(q.StreamIDs) == 1 && q.StreamIDs[0].Version() == 7 {
		runWhere = append(runWhere, "e.bucket = es.uuid7_day("+arg(q.StreamIDs[0])+")")
	}
	order := " ORDER BY e.position"
	if q.Desc {
		order += " DESC"
	}
	limit := " LIMIT " + strconv.Itoa(q.Limit)
	var parts []string
	if ledger {
		parts = append(parts, "(SELECT "+ledgerColumns+" FROM es.ledger_event e WHERE "+strings.Join(ledgerWhere, " AND ")+order+limit+")")
	}
	if runs {
		parts = append(parts, "(SELECT "+runColumns+" FROM es.run_event e WHERE "+strings.Join(runWhere, " AND ")+order+limit+")")
	}
	if len(parts) == 0 {
		return "", nil, nil
	}
	return "SELECT " + feedColumns + " FROM (" + strings.Join(parts, " UNION ALL ") + ") e" + order + limit, args, nil
}

// oneOf is the condition that a column has one of the values. A single one is compared for itself, since only then an
// index on the column and the position gives its rows in order.
func oneOf[T any](column string, values []T, arg func(any) string) string {
	if len(values) == 1 {
		return column + " = " + arg(values[0])
	}
	return column + " = ANY (" + arg(values) + ")"
}

func (q OrgQuery) lane(l Lane) bool { return len(q.Lanes) == 0 || slices.Contains(q.Lanes, l) }

// collect reads the rows of one of the queries above and lifts them. A row without lane carries the end of what was
// looked at. With asIs a ledger event that can't have been appended so, since somebody changed it in the database, is
// shown as it lies there; what it is worth is the business of whoever verifies the log.
func (s *Store) collect(ctx context.Context, q querier, rows pgx.Rows, asIs bool) (events []Event, end int64, err error) {
	var (
		r     feedRow
		ids   []int16
		words = map[string]string{} // regions, statuses and kinds are few
	)
	_, err = pgx.ForEachRow(rows, r.targets(), func() error {
		if len(r.lane) == 0 {
			end = r.position
			return nil
		}
		e, err := r.event(words, asIs)
		if err != nil {
			return err
		}
		events, ids = append(events, e), append(ids, r.typeID.Int16)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	// After the rows are read, since an unknown number needs the connection.
	for i := range events {
		if events[i].Type, err = s.name(ctx, q, ids[i]); errors.Is(err, ErrUnknownType) && asIs {
			events[i].Type = "unknown#" + strconv.Itoa(int(ids[i]))
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if len(events[i].Data) == 0 {
			continue // left out
		}
		if err = s.lift(&events[i]); err != nil && !asIs {
			return nil, 0, err
		}
	}
	return events, end, nil
}

// feedRow is a row of one of the queries above, read without a pointer for each column that may be NULL: the feed reads
// every event.
type feedRow struct {
	lane, kind, region, status pgtype.DriverBytes // the connection's own memory, good for this row
	position                   int64
	recorded                   pgtype.Timestamptz
	version, duration          pgtype.Int4
	typeID, schema             pgtype.Int2
	org, stream                uuid.UUID
	project, test, environment uuid.UUID // NULL is uuid.Nil
	hash, data                 []byte
	meta                       pgtype.DriverBytes
	ok                         pgtype.Bool
}

// targets are what the columns of feedColumns are scanned into.
func (r *feedRow) targets() []any {
	return []any{
		&r.lane, &r.position, &r.recorded, &r.version, &r.typeID, &r.schema, &r.org, &r.stream, &r.kind, &r.hash, &r.meta,
		&r.project, &r.test, &r.environment, &r.region, &r.status, &r.duration, &r.ok, &r.data,
	}
}

// event is the row as an event without its type's name. words keeps one copy of each text that was seen.
func (r *feedRow) event(words map[string]string, asIs bool) (Event, error) {
	word := func(b []byte) string {
		if w, seen := words[string(b)]; seen {
			return w
		}
		w := string(b)
		words[w] = w
		return w
	}
	e := Event{
		Position: r.position, RecordedAt: r.recorded.Time, Lane: Lane(r.lane[0]), Schema: int(r.schema.Int16), Version: int(r.version.Int32),
		OrgID: r.org, StreamID: r.stream, Kind: runKind, ContentHash: r.hash, Data: r.data,
		RunColumns: RunColumns{
			ProjectID: r.project, TestID: r.test, EnvironmentID: r.environment, Region: word(r.region), Status: word(r.status),
			Duration: time.Duration(r.duration.Int32) * time.Microsecond,
		},
	}
	if r.ok.Valid {
		e.OK = &no
		if r.ok.Bool {
			e.OK = &yes
		}
	}
	if r.kind != nil {
		e.Kind = word(r.kind)
	}
	if r.meta != nil {
		if err := json.Unmarshal(r.meta, &e.Meta); err != nil && !asIs {
			return Event{}, fmt.Errorf("decode meta at %d: %w", r.position, err)
		}
		e.Stored = Stored{Schema: e.Schema, Meta: slices.Clone([]byte(r.meta)), Data: r.data}
	}
	return e, nil
}

// yes and no are what OK points to; nobody writes through it.
var yes, no = true, false
