package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/seal"
	"github.com/testflow/testflow/internal/vault"
)

// sealed is a fixture with a sealer.
type sealed struct {
	*fixture
	org    uuid.UUID
	who    auth.Principal
	keys   *audit.SealingKeys
	sealer *audit.Sealer

	mu        sync.Mutex
	published []string
}

func newSealed(t *testing.T) *sealed {
	t.Helper()
	s := &sealed{fixture: newFixture(t), org: newID()}
	s.who = principal(s.org, auth.Manager)
	s.service.Evidence = audit.Seals
	master, err := vault.NewMaster(vault.GenerateMasterKey())
	require.NoError(t, err)
	s.keys = &audit.SealingKeys{DB: s.DB.DB, Master: master, Now: func() time.Time { return s.now() }}
	s.service.Signer = s.keys.Signer
	s.sealer = s.newSealer()
	return s
}

// newSealer returns a sealer as another process would have it.
func (s *sealed) newSealer() *audit.Sealer {
	return audit.NewSealer(audit.SealerConfig{
		DB: s.DB.DB, Keys: s.keys, Now: func() time.Time { return s.now() }, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		Published: func(_ context.Context, _ seal.Head, note string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.published = append(s.published, note)
			return nil
		},
	})
}

// another is the same installation for another organization.
func (s *sealed) another() *sealed {
	org := newID()
	return &sealed{fixture: s.fixture, org: org, who: principal(org, auth.Manager), keys: s.keys, sealer: s.sealer}
}

// work appends events in n streams of three, and seals after every third of them.
func (s *sealed) work(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		_, err := s.System.Exec(t.Context(), `SELECT nextval('es.pos_seq')`) // a gap, as an append that failed leaves one
		require.NoError(t, err)
		s.append(t, s.org, newID(), s.who, event{"thing.changed", fmt.Sprint("name ", i)}, event{"thing.secured", "<&>"}, event{"thing.hidden", "x"})
		if i%3 == 2 {
			require.NoError(t, s.sealer.Pass(t.Context()))
		}
	}
}

// superuser runs statements as somebody to whom no trigger and no policy applies.
func (s *sealed) superuser(t *testing.T, statements string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	_, err = conn.Exec(t.Context(), `SET session_replication_role = replica`)
	require.NoError(t, err)
	tag, err := conn.Exec(t.Context(), statements, args...)
	require.NoError(t, err)
	require.NotZero(t, tag.RowsAffected(), "nothing was changed")
}

func (s *sealed) export(t *testing.T, f audit.Filter) []byte {
	t.Helper()
	var buf bytes.Buffer
	_, err := s.service.Export(auth.With(t.Context(), s.who), s.org, audit.Request{Filter: f, Format: audit.NDJSON}, &buf)
	require.NoError(t, err)
	return buf.Bytes()
}

func (s *sealed) verify(t *testing.T, export []byte, o seal.Options) seal.Report {
	t.Helper()
	r, err := seal.Verify(t.Context(), bytes.NewReader(export), o)
	require.NoError(t, err)
	return r
}

// scalar reads one number.
func (s *sealed) scalar(t *testing.T, sql string, args ...any) (n int64) {
	t.Helper()
	require.NoError(t, s.System.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

// event number i of the organization, from 0, by position.
func (s *sealed) position(t *testing.T, i int) int64 {
	t.Helper()
	return s.scalar(t, `SELECT position FROM es.ledger_event WHERE org_id = $1 ORDER BY position OFFSET $2 LIMIT 1`, s.org, i)
}

func (s *sealed) keptHead(t *testing.T) string {
	t.Helper()
	var note string
	require.NoError(t, s.System.QueryRow(t.Context(), `SELECT note FROM es.sealed_head WHERE org_id = $1 ORDER BY number DESC LIMIT 1`, s.org).Scan(&note))
	return note
}

func TestSeal_anHonestExportVerifies(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.append(t, newID(), newID(), s.who, event{"thing.changed", "TFCANARY-other tenant"})
	s.work(t, 9)
	first := s.keptHead(t)
	_, err := s.keys.Rotate(t.Context())
	require.NoError(t, err)
	s.work(t, 400) // several pages, and levels of the tree that are stored
	require.NoError(t, s.sealer.Pass(t.Context()))
	export := s.export(t, audit.Filter{})
	keys, err := s.keys.List(t.Context())
	require.NoError(t, err)

	r := s.verify(t, export, seal.Options{Pins: []string{keys[0].Key.Fingerprint()}, Kept: []string{first}})
	require.Empty(t, r.Findings)
	require.EqualValues(t, 3*409, r.Sealed)
	require.EqualValues(t, 3*409+1, r.Events, "with the record of the export itself")
	require.EqualValues(t, 1, r.Unsealed)
	require.EqualValues(t, 3+134, r.Heads)
	require.Equal(t, 1, r.KeptChecked)
	require.True(t, r.Pinned)
	require.Len(t, r.Keys, 2)
	require.EqualValues(t, 3*409+1, r.OpenedSigned)
	require.Zero(t, r.Opened)
	require.NotContains(t, string(export), "TFCANARY")

	// Parts, and parts behind each other.
	whole := bytes.SplitAfter(export, []byte("\n"))
	var cut []byte
	var after int64
	for i, line := range whole {
		cut = append(cut, line...)
		if bytes.Contains(line, []byte(`"line":"cursor"`)) && i > 600 {
			_, err := fmt.Sscanf(string(line), `{"line":"cursor","position":%d}`, &after)
			require.NoError(t, err)
			break
		}
	}
	_, err = seal.Verify(t.Context(), bytes.NewReader(cut), seal.Options{})
	require.ErrorIs(t, err, seal.ErrCutOff)
	rest := s.export(t, audit.Filter{After: after})
	r = s.verify(t, rest, seal.Options{Pins: []string{keys[1].Key.String()}, Kept: []string{first, s.keptHead(t)}})
	require.Empty(t, r.Findings)
	require.Positive(t, r.FirstSize)
	require.Equal(t, []int{1, 1}, []int{r.KeptBefore, r.KeptChecked})

	// A selection, each event with its proof.
	r = s.verify(t, s.export(t, audit.Filter{Types: []string{"thing.secured"}}), seal.Options{Kept: []string{s.keptHead(t)}})
	require.Empty(t, r.Findings)
	require.True(t, r.Filtered)
	require.EqualValues(t, 409, r.Sealed)
	require.Equal(t, 1, r.KeptChecked)

	// An organization where nothing is sealed yet.
	quiet := s.another()
	quiet.append(t, quiet.org, newID(), quiet.who, event{"thing.changed", "1"})
	r = quiet.verify(t, quiet.export(t, audit.Filter{}), seal.Options{})
	require.Empty(t, r.Findings)
	require.EqualValues(t, 2, r.Unsealed)
}

// Whatever somebody with all rights in the database changes behind the sealer's back, the verifier names the place. Each
// case is done to the same history of 30 events in four seals; 27 of them are sealed.
func TestVerify_namesThePlaceOfEachTampering(t *testing.T) {
	t.Parallel()
	const at = 13 // the event that is meddled with
	base := newSealed(t)
	for name, c := range map[string]struct {
		do    func(t *testing.T, s *sealed, position int64)
		named string // %d is the event's position
	}{
		"a byte of the data":              {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `data = jsonb_set(data, '{text}', '"mischief"')`) }, "position %d: the event's content doesn't give its content hash"},
		"a field added to the data":       {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `data = data || '{"x": null}'`) }, "position %d: the event's content doesn't give its content hash"},
		"a byte, with the hash made anew": {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `data = '{"text": "mischief"}'`); s.rehash(t, p) }, "position %d: the event isn't what was sealed"},
		"the actor": {func(t *testing.T, s *sealed, p int64) {
			s.set(t, p, `meta = jsonb_set(meta, '{actorId}', to_jsonb(gen_random_uuid()))`)
		}, "position %d: the event's content doesn't give its content hash"},
		"the kind of actor": {func(t *testing.T, s *sealed, p int64) {
			s.set(t, p, `meta = jsonb_set(meta, '{actorKind}', '"system"')`)
		}, "position %d: the event's content doesn't give its content hash"},
		"the address": {func(t *testing.T, s *sealed, p int64) {
			s.set(t, p, `meta = jsonb_set(meta, '{address}', '"sealed:x"')`)
		}, "position %d: the event's content doesn't give its content hash"},
		"the agent": {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `meta = meta - 'agent'`) }, "position %d: the event's content doesn't give its content hash"},
		"the request": {func(t *testing.T, s *sealed, p int64) {
			s.set(t, p, `meta = jsonb_set(meta, '{requestId}', '"req-2"')`)
		}, "position %d: the event's content doesn't give its content hash"},
		"an actor that is none": {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `meta = '{"actorId": 7}'`) }, "position %d: the event's content doesn't give its content hash"},
		"a meta that is none":   {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `meta = '[]'`) }, "position %d: the event's stored form can't be read"},
		"the time": {func(t *testing.T, s *sealed, p int64) {
			s.set(t, p, `recorded_at = recorded_at - interval '1 microsecond'`)
		}, "position %d: the event isn't what was sealed"},
		"the type": {func(t *testing.T, s *sealed, p int64) {
			s.set(t, p, `type_id = (SELECT type_id FROM es.event_type WHERE name = 'other.changed')`)
		}, "position %d: the event's content doesn't give its content hash"},
		"a type that is none":           {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `type_id = 32000`) }, "position %d: the event's content doesn't give its content hash"},
		"the schema":                    {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `schema_ver = 0`) }, "position %d: the event's content doesn't give its content hash"},
		"the kind of stream":            {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `kind = 'org'`) }, "position %d: the event's content doesn't give its content hash"},
		"the stream":                    {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `stream_id = gen_random_uuid()`) }, "position %d: the event's content doesn't give its content hash"},
		"the version":                   {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `version = 77`) }, "position %d: behind version 1 of stream"},
		"the content hash":              {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `content_hash = sha256('x')`) }, "position %d: the event's content doesn't give its content hash"},
		"its position":                  {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `position = 900000`) }, "position %d: the event is gone"},
		"moved to another organization": {func(t *testing.T, s *sealed, p int64) { s.set(t, p, `org_id = gen_random_uuid()`) }, "position %d: the event is gone"},
		"deleted": {func(t *testing.T, s *sealed, p int64) {
			s.superuser(t, `DELETE FROM es.ledger_event WHERE position = $1`, p)
		}, "position %d: the event is gone: it was sealed as number 14 of the history"},
		"deleted, with its leaf": {func(t *testing.T, s *sealed, p int64) {
			s.superuser(t, `DELETE FROM es.ledger_event WHERE position = $1`, p)
			s.superuser(t, `DELETE FROM es.sealed_leaf WHERE position = $1`, p)
		}, "the leaves go on at 14, and there were 13 before"},
		"deleted, the rest moved up": {func(t *testing.T, s *sealed, p int64) {
			s.superuser(t, `DELETE FROM es.ledger_event WHERE position = $1`, p)
			s.superuser(t, `DELETE FROM es.sealed_leaf WHERE position = $1`, p)
			s.superuser(t, `UPDATE es.sealed_leaf SET leaf = leaf + 1000 WHERE org_id = $2 AND position > $1`, p, s.org)
			s.superuser(t, `UPDATE es.sealed_leaf SET leaf = leaf - 1001 WHERE org_id = $2 AND position > $1`, p, s.org)
		}, "do not give the tree of seal 2"},
		"inserted": {func(t *testing.T, s *sealed, p int64) {
			s.superuser(t, `INSERT INTO es.ledger_event (position, recorded_at, version, type_id, schema_ver, org_id, stream_id, append_id, actor_id, kind, content_hash, meta, data)
				SELECT $1, recorded_at, 1, type_id, schema_ver, org_id, gen_random_uuid(), append_id, actor_id, kind, content_hash, meta, data FROM es.ledger_event WHERE position = $2`, s.gap(t), p)
		}, "position %d: the event isn't in the sealed history"},
		"inserted, with a leaf": {func(t *testing.T, s *sealed, p int64) {
			g := s.gap(t)
			s.superuser(t, `INSERT INTO es.ledger_event (position, recorded_at, version, type_id, schema_ver, org_id, stream_id, append_id, actor_id, kind, content_hash, meta, data)
				SELECT $1, recorded_at, 1, type_id, schema_ver, org_id, gen_random_uuid(), append_id, actor_id, kind, content_hash, meta, data FROM es.ledger_event WHERE position = $2`, g, p)
			s.rehash(t, g)
			s.superuser(t, `INSERT INTO es.sealed_leaf SELECT org_id, 5000, $1, hash FROM es.sealed_leaf WHERE position = $2`, g, p)
		}, "the leaves go on at 5000, and there were"},
		"two swapped": {func(t *testing.T, s *sealed, p int64) {
			q := s.position(t, at+4)
			s.superuser(t, `UPDATE es.ledger_event SET position = -position WHERE position = $1`, p)
			s.superuser(t, `UPDATE es.ledger_event SET position = $1 WHERE position = $2`, p, q)
			s.superuser(t, `UPDATE es.ledger_event SET position = $1 WHERE position = -$2::bigint`, q, p)
		}, "position %d: the event isn't what was sealed"},
		"two swapped, with their leaves": {func(t *testing.T, s *sealed, p int64) {
			q := s.position(t, at+3)
			for _, table := range []string{"es.ledger_event", "es.sealed_leaf"} {
				s.superuser(t, `UPDATE `+table+` SET position = -position WHERE position = $1`, p)
				s.superuser(t, `UPDATE `+table+` SET position = $1 WHERE position = $2`, p, q)
				s.superuser(t, `UPDATE `+table+` SET position = $1 WHERE position = -$2::bigint`, q, p)
			}
		}, "position %d: stream "},
		"the tail cut off": {func(t *testing.T, s *sealed, p int64) {
			s.superuser(t, `DELETE FROM es.ledger_event WHERE org_id = $2 AND position >= $1`, p, s.org)
		}, "position %d: the event is gone"},
		"a stored hash": {func(t *testing.T, s *sealed, p int64) {
			s.superuser(t, `UPDATE es.sealed_leaf SET hash = sha256('x') WHERE position = $1`, p)
		}, "position %d: the event is as it was sealed, but the hash that the sealer stored of it was changed"},
		"a stored hash taken away": {func(t *testing.T, s *sealed, p int64) {
			s.superuser(t, `DELETE FROM es.sealed_leaf WHERE position = $1`, p)
		}, "position %d: the hash that the sealer stored of the event was taken away"},
		"event, hash and stored hash": {func(t *testing.T, s *sealed, p int64) {
			s.set(t, p, `data = '{"text": "mischief"}'`)
			s.rehash(t, p)
			s.releaf(t, p)
		}, "do not give the tree of seal 2"},
		"a seal replaced by one of another key": {func(t *testing.T, s *sealed, _ int64) { s.replaceHead(t, 2, false) }, "seal 2 (18 events, position %[2]d, of "},
		"a seal with a changed root": {func(t *testing.T, s *sealed, _ int64) {
			s.superuser(t, `UPDATE es.sealed_head SET note = replace(note, E'\n18\n', E'\n17\n') WHERE number = 2 AND org_id = $1`, s.org)
		}, "is not genuine: its signature doesn't hold"},
		"a seal replaced with the stolen key": {func(t *testing.T, s *sealed, _ int64) { s.replaceHead(t, 2, true) }, "seal 3 follows another seal 2 than the one that stands here"},
		"a seal taken away": {func(t *testing.T, s *sealed, _ int64) {
			s.superuser(t, `DELETE FROM es.sealed_head WHERE number = 2 AND org_id = $1`, s.org)
		}, "seal 2 to 2 are missing or were replaced"},
		"the first seal taken away": {func(t *testing.T, s *sealed, _ int64) {
			s.superuser(t, `DELETE FROM es.sealed_head WHERE number = 1 AND org_id = $1`, s.org)
		}, "the seals before number 2 are missing"},
		"another organization's seal": {func(t *testing.T, s *sealed, _ int64) {
			other := newID()
			s.append(t, other, newID(), s.who, event{"thing.changed", "1"})
			require.NoError(t, s.sealer.Pass(t.Context()))
			s.superuser(t, `UPDATE es.sealed_head h SET note = o.note FROM es.sealed_head o WHERE h.org_id = $1 AND h.number = 2 AND o.org_id = $2`, s.org, other)
		}, "is another organization's"},
		"the key replaced": {func(t *testing.T, s *sealed, _ int64) {
			thief, err := seal.NewSigner()
			require.NoError(t, err)
			st, err := seal.NewStatement(1, thief, nil, time.Now())
			require.NoError(t, err)
			s.superuser(t, `UPDATE es.sealing_key SET statement = $1, public_key = $2`, st.Note, thief.Key().String())
		}, "none of the sealing keys of this export is the one that you know"},
	} {
		t.Run(name, func(t *testing.T) {
			s := base.another()
			if name == "the key replaced" {
				s = newSealed(t)
			}
			s.work(t, 10)
			keys, err := s.keys.List(t.Context())
			require.NoError(t, err)
			pin := seal.Options{Pins: []string{keys[0].Key.Fingerprint()}}
			require.Empty(t, s.verify(t, s.export(t, audit.Filter{}), pin).Findings)
			p := s.position(t, at)
			end, gap := s.position(t, 17), s.gap(t)
			c.do(t, s, p)
			r := s.verify(t, s.export(t, audit.Filter{}), pin)
			require.NotEmpty(t, r.Findings)
			want := c.named
			if name == "inserted" {
				p = gap
			}
			if bytes.Contains([]byte(want), []byte("%")) {
				want = fmt.Sprintf(want, p, end)
				want = trimExtra(want)
			}
			var all string
			for _, f := range r.Findings {
				all += f.String() + "\n"
			}
			require.Contains(t, all, want)
		})
	}
}

// trimExtra takes away what Sprintf says of an argument that a text doesn't name.
func trimExtra(s string) string {
	if i := bytes.Index([]byte(s), []byte("%!(EXTRA")); i >= 0 {
		return s[:i]
	}
	return s
}

// set changes columns of an event.
func (s *sealed) set(t *testing.T, position int64, assignment string) {
	t.Helper()
	s.superuser(t, `UPDATE es.ledger_event SET `+assignment+` WHERE position = $1`, position)
}

// gap returns a position among the sealed ones where there is no event.
func (s *sealed) gap(t *testing.T) int64 {
	t.Helper()
	return s.position(t, 12) - 1
}

// rehash computes an event's content hash anew, as a thief who knows how would.
func (s *sealed) rehash(t *testing.T, position int64) {
	t.Helper()
	var st eventstore.Stream
	var typ string
	var schema int
	var meta, data []byte
	require.NoError(t, s.System.QueryRow(t.Context(), `SELECT org_id, stream_id, kind, name, schema_ver, meta, data FROM es.ledger_event JOIN es.event_type USING (type_id) WHERE position = $1`, position).
		Scan(&st.OrgID, &st.ID, &st.Kind, &typ, &schema, &meta, &data))
	hash, err := eventstore.ContentHash(st, typ, schema, meta, data)
	require.NoError(t, err)
	s.superuser(t, `UPDATE es.ledger_event SET content_hash = $2 WHERE position = $1`, position, hash)
}

// releaf computes an event's leaf anew.
func (s *sealed) releaf(t *testing.T, position int64) {
	t.Helper()
	var version int
	var at time.Time
	var hash []byte
	require.NoError(t, s.System.QueryRow(t.Context(), `SELECT version, recorded_at, content_hash FROM es.ledger_event WHERE position = $1`, position).Scan(&version, &at, &hash))
	leaf := seal.Leaf(position, version, at, seal.Hash(hash))
	s.superuser(t, `UPDATE es.sealed_leaf SET hash = $2 WHERE position = $1`, position, leaf[:])
}

// replaceHead puts another head in the place of one; stolen = signed with the real key.
func (s *sealed) replaceHead(t *testing.T, number int64, stolen bool) {
	t.Helper()
	var note string
	require.NoError(t, s.System.QueryRow(t.Context(), `SELECT note FROM es.sealed_head WHERE org_id = $1 AND number = $2`, s.org, number).Scan(&note))
	h, err := seal.ReadHead(note)
	require.NoError(t, err)
	h.Time = h.Time.Add(time.Microsecond)
	key, err := seal.NewSigner()
	require.NoError(t, err)
	if stolen {
		key = s.steal(t)
	}
	note, err = h.Sign(key)
	require.NoError(t, err)
	s.superuser(t, `UPDATE es.sealed_head SET note = $3 WHERE org_id = $1 AND number = $2`, s.org, number, note)
}

// steal returns the signing key, as somebody with the database and the master key can.
func (s *sealed) steal(t *testing.T) *seal.Signer {
	t.Helper()
	var public string
	var wrapped, private []byte
	require.NoError(t, s.System.QueryRow(t.Context(), `SELECT public_key, wrapped_key, private_key FROM es.sealing_key WHERE private_key IS NOT NULL`).Scan(&public, &wrapped, &private))
	data, err := s.keys.Master.Unwrap(wrapped, "sealing key", "1")
	require.NoError(t, err)
	plain, err := data.Open(private, "sealing key", "1")
	require.NoError(t, err)
	key, err := seal.ParseKey(public)
	require.NoError(t, err)
	signer, err := seal.ParseSigner(string(plain), key)
	require.NoError(t, err)
	return signer
}

// Parts of one log verify together, wherever the first one ends: at a position between two seals, or cut in any line.
func TestVerify_partsBehindEachOther(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.work(t, 9)
	for i := range 27 {
		at := s.position(t, i)
		first := s.export(t, audit.Filter{UpTo: at})
		second := s.export(t, audit.Filter{After: at})
		r := s.verify(t, append(bytes.Clone(first), second...), seal.Options{Kept: []string{s.keptHead(t)}})
		require.Empty(t, r.Findings, i)
		require.GreaterOrEqual(t, r.Sealed, int64(27), i)
		forged := bytes.Replace(first, []byte(`"text":"name`), []byte(`"text":"nome`), 1)
		r = s.verify(t, append(forged, second...), seal.Options{})
		require.NotEmpty(t, r.Findings, i)
	}
	for _, signed := range []bool{true, false} {
		if !signed {
			s.service.Signer = nil
		}
		whole := s.export(t, audit.Filter{})
		for cut := bytes.Index(whole, []byte(`"line":"event"`)); cut < len(whole)-1; cut += 1999 {
			_, err := seal.Verify(t.Context(), bytes.NewReader(whole[:cut]), seal.Options{})
			require.ErrorIs(t, err, seal.ErrCutOff)
			last, signature := int64(0), int64(0) // where it can go on: by its last event, by its last signature
			for line := range bytes.Lines(whole[:cut]) {
				var e struct {
					Line     string
					Position int64
				}
				if json.Unmarshal(line, &e) != nil {
					break // the cut went through it
				}
				switch e.Line {
				case "event":
					last = e.Position
				case "signed":
					signature = e.Position
				}
			}
			says := last
			if signed {
				says = signature
			}
			require.ErrorContains(t, err, fmt.Sprintf("?after=%d", says))
			for _, after := range []int64{last, says} {
				r := s.verify(t, append(bytes.Clone(whole[:cut]), s.export(t, audit.Filter{After: after})...), seal.Options{})
				require.Empty(t, r.Findings, cut)
				require.GreaterOrEqual(t, r.Sealed, int64(27))
				require.Equal(t, signed && after == signature, r.Opened == 0, "cut at %d, after %d: %d events are shown in the open without a signature", cut, after, r.Opened)
			}
		}
	}
}

// A big page is signed in sections, so that whoever verifies it needn't hold it; cut in any of them it goes on there, a
// selection too.
func TestVerify_partsOfBigPages(t *testing.T) { // not beside the test of an export's memory
	s := newSealed(t)
	big := strings.Repeat("x", 1<<20)
	for range 3 {
		s.append(t, s.org, newID(), s.who, event{"thing.changed", big}, event{"thing.changed", big}, event{"thing.secured", big}, event{"thing.changed", big})
	}
	require.NoError(t, s.sealer.Pass(t.Context()))
	for _, f := range []audit.Filter{{}, {Types: []string{"thing.changed"}}} {
		whole := s.export(t, f)
		require.Greater(t, bytes.Count(whole, []byte(`{"line":"signed"`)), 2)
		want := s.verify(t, whole, seal.Options{})
		require.Empty(t, want.Findings)
		require.Zero(t, want.Opened)
		for cut := 1 << 20; cut < len(whole); cut += 3 << 20 {
			_, err := seal.Verify(t.Context(), bytes.NewReader(whole[:cut]), seal.Options{})
			require.ErrorIs(t, err, seal.ErrCutOff)
			_, said, ok := strings.Cut(err.Error(), "?after=")
			require.True(t, ok, err)
			f.After, err = strconv.ParseInt(strings.TrimRight(said[:strings.IndexAny(said+",", ",")], " "), 10, 64)
			require.NoError(t, err)
			r := s.verify(t, append(bytes.Clone(whole[:cut]), s.export(t, f)...), seal.Options{})
			require.Empty(t, r.Findings)
			require.Zero(t, r.Opened)
			require.GreaterOrEqual(t, r.Sealed, want.Sealed)
			require.Equal(t, r.Events, r.OpenedSigned, "each is counted once")
		}
	}
}

// An export seals what it shows before it begins, the record of itself too: nothing in it is left unproven, while the log
// goes on.
func TestExport_isSealedToItsEnd(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.service.Settle = s.sealer.Settle
	s.work(t, 4)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for n := 0; n < 120 && ctx.Err() == nil; n++ {
				s.append(t, s.org, newID(), s.who, event{"thing.changed", "meanwhile"}, event{"thing.secured", "x"})
			}
		})
	}
	for i := range 8 {
		export := s.export(t, audit.Filter{})
		r := s.verify(t, export, seal.Options{})
		require.Empty(t, r.Findings)
		require.Zero(t, r.Unsealed, "%d: from position %d of %d\n%s", i, r.UnsealedFrom, r.Last.Position, s.log.String())
		require.Positive(t, r.Sealed)
		require.Zero(t, r.Opened)
		require.Contains(t, string(export), audit.TypeExportStarted)
		selection := s.export(t, audit.Filter{Types: []string{"thing.secured"}})
		require.Zero(t, s.verify(t, selection, seal.Options{}).Unsealed)
		other := s.another() // its first seal of all
		other.service.Settle = s.sealer.Settle
		require.Zero(t, other.verify(t, other.export(t, audit.Filter{}), seal.Options{}).Unsealed)
	}
	cancel()
	writers.Wait()
	s.append(t, s.org, newID(), s.who, event{"thing.changed", "later"})
	require.Positive(t, s.scalar(t, `SELECT count(*) FROM es.ledger_event WHERE org_id = $1 AND position > (SELECT max(position) FROM es.sealed_head WHERE org_id = $1)`, s.org), "exports don't seal what comes after them")

	// The turn is another's: the export waits for it, and no longer than it may.
	held, err := s.System.Begin(t.Context())
	require.NoError(t, err)
	_, err = held.Exec(t.Context(), `SELECT 1 FROM es.sealer FOR UPDATE`)
	require.NoError(t, err)
	s.service.Settle = func(ctx context.Context) (int64, error) {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		return s.sealer.Settle(short)
	}
	s.service.Signer = nil
	r := s.verify(t, s.export(t, audit.Filter{}), seal.Options{})
	require.Empty(t, r.Findings)
	require.Positive(t, r.Unsealed, "it goes on with what was sealed")
	require.NoError(t, held.Rollback(t.Context()))
	require.Contains(t, s.log.String(), "an export goes on with what was sealed before it")
}
