package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

type plain struct{ name string }

func (p plain) EventType() string { return p.name }

// Every question that the audit log takes is answered from an index, under row-level security, in a log of many events of
// which one organization has nearly all; and what is read stays near what is answered.
func TestReadOrg_neverScansTheLedger(t *testing.T) {
	t.Parallel()
	const n = 100_000
	db := pgtest.New(t)
	typ := func(name string) Type {
		return Type{Name: name, Lane: Ledger, Schema: 1, Visibility: VisibleAudit, New: func() Data { return plain{name} }}
	}
	s := New(Config{
		DB: db.DB, Types: []Type{typ("thing.changed"), typ("rare.one"), typ("rare.two")},
		Now: time.Now, NewID: uuid.New, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, s.Sync(t.Context()))
	org := uuid.New()
	require.NoError(t, db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			WITH entered AS MATERIALIZED (SELECT es.enter())
			INSERT INTO es.ledger_event (position, recorded_at, version, type_id, schema_ver, org_id, stream_id, append_id, actor_id, kind, content_hash, meta, data)
			SELECT nextval('es.pos_seq'), now() - make_interval(secs => $2 - i), (i % 100) + 1,
			       (SELECT type_id FROM es.event_type WHERE name = CASE WHEN i % 5000 = 0 THEN 'rare.one' WHEN i % 5000 = 1 THEN 'rare.two' ELSE 'thing.changed' END), 1,
			       CASE WHEN i % 50 = 7 THEN gen_random_uuid() ELSE $1::uuid END, ('00000000-0000-7000-8000-' || lpad(to_hex(i / 100), 12, '0'))::uuid, gen_random_uuid(),
			       ('00000000-0000-7000-9000-' || lpad(to_hex(i % 997), 12, '0'))::uuid, 'thing', sha256('x'),
			       jsonb_build_object('requestId', 'req-' || i), jsonb_build_object('text', repeat('x', 100))
			  FROM entered, generate_series(1, $2::int) i`, org, n)
		return err
	}))
	owner, err := pgx.Connect(t.Context(), db.URL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, owner.Close(context.WithoutCancel(t.Context()))) })
	_, err = owner.Exec(t.Context(), `ANALYZE es.ledger_event`)
	require.NoError(t, err)

	now := time.Now()
	actor, stream := uuid.MustParse("00000000-0000-7000-9000-00000000000a"), uuid.MustParse("00000000-0000-7000-8000-000000000010")
	for name, q := range map[string]OrgQuery{
		"newest":             {Desc: true},
		"a page of a copy":   {After: n / 2, Limit: 500},
		"a stretch by place": {After: 5000, Before: 5100},
		"actor":              {ActorIDs: []uuid.UUID{actor}, Desc: true},
		"actors":             {ActorIDs: []uuid.UUID{actor, stream}, Desc: true},
		"subject":            {StreamIDs: []uuid.UUID{stream}, Desc: true},
		"type":               {Types: []string{"rare.one"}, Desc: true},
		"beginning of types": {Types: []string{"rare.*"}, Desc: true},
		"common type":        {Types: []string{"thing.changed"}, Desc: true},
		"request":            {RequestIDs: []string{"req-4711"}, Desc: true},
		"long ago":           {From: now.Add(-n * time.Second), To: now.Add(-(n - 60) * time.Second), Desc: true},
		"since yesterday":    {From: now.Add(-24 * time.Hour), Desc: true},
		"all at once":        {Types: []string{"rare.*"}, ActorIDs: []uuid.UUID{actor}, From: now.Add(-n * time.Second), Desc: true},
	} {
		q.Lanes = []Lane{Ledger}
		if q.Limit == 0 {
			q.Limit = 51
		}
		require.NoError(t, db.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
			sql, args, err := s.orgSQL(ctx, tx, org, q, 1<<40)
			require.NoError(t, err)
			var raw []byte
			require.NoError(t, tx.QueryRow(ctx, "EXPLAIN (ANALYZE, FORMAT JSON) "+sql, args...).Scan(&raw))
			var plans []struct{ Plan planNode }
			require.NoError(t, json.Unmarshal(raw, &plans))
			plans[0].Plan.walk(func(p planNode) {
				require.NotEqual(t, "Seq Scan", p.NodeType, "%s: %s", name, raw)
				if p.Relation == "ledger_event" {
					read := p.Rows + p.Removed
					require.LessOrEqual(t, read*p.Loops, 6000.0, "%s reads %v rows: %s", name, read, raw)
				}
			})
			return nil
		}), name)
	}
}

type planNode struct {
	NodeType string  `json:"Node Type"`              //nolint:tagliatelle // as Postgres writes it
	Relation string  `json:"Relation Name"`          //nolint:tagliatelle // as Postgres writes it
	Rows     float64 `json:"Actual Rows"`            //nolint:tagliatelle // as Postgres writes it
	Removed  float64 `json:"Rows Removed by Filter"` //nolint:tagliatelle // as Postgres writes it
	Loops    float64 `json:"Actual Loops"`           //nolint:tagliatelle // as Postgres writes it
	Plans    []planNode
}

func (p planNode) walk(fn func(planNode)) {
	fn(p)
	for _, child := range p.Plans {
		child.walk(fn)
	}
}

func (p planNode) String() string { return fmt.Sprint(p.NodeType, " ", p.Relation) }
