package audit_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
)

// fill appends n events in n/per transactions.
func (f *fixture) fill(t *testing.T, org uuid.UUID, who eventstore.Actor, n, per int) {
	t.Helper()
	for i := 0; i < n; i += per {
		data := make([]eventstore.Data, 0, per)
		for j := range min(per, n-i) {
			data = append(data, event{"thing.changed", fmt.Sprint("<&> ", i+j)})
		}
		f.append(t, org, newID(), who, data...)
	}
}

// positionsOf are the positions of the events in an NDJSON export, and its other lines by kind.
func positionsOf(t *testing.T, export []byte) (positions []int64, others map[string][]map[string]any) {
	t.Helper()
	others = map[string][]map[string]any{}
	lines := bufio.NewScanner(bytes.NewReader(export))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line map[string]any
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line), lines.Text())
		kind := line["line"].(string)
		if kind == "event" {
			positions = append(positions, int64(line["position"].(float64)))
			continue
		}
		others[kind] = append(others[kind], line)
	}
	require.NoError(t, lines.Err())
	return positions, others
}

// An export holds everything that was settled when it began, once and in order, and tells where it began and ended.
func TestExport_isTheWholeLedgerUpToItsFence(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org := newID()
	who := principal(org, auth.Manager)
	const n = 1234
	f.fill(t, org, who, n, 7)
	var buf bytes.Buffer
	late := &lateWriter{buf: &buf, first: func() { f.append(t, org, newID(), who, event{"thing.changed", "late"}) }}
	done, err := f.service.Export(auth.With(t.Context(), who), org, audit.Request{Format: audit.NDJSON}, late)
	require.NoError(t, err)
	require.Equal(t, n+1, done.Events, "and that this export began")
	positions, others := positionsOf(t, buf.Bytes())
	require.Len(t, positions, n+1)
	require.True(t, slices.IsSorted(positions))
	require.NotContains(t, buf.String(), "late")
	require.NotContains(t, buf.String(), `\u003c`)
	require.Len(t, others["header"], 1)
	require.Equal(t, org.String(), others["header"][0]["organizationId"])
	require.NotContains(t, others["header"][0], "filter", "nothing was left out, and it says so")
	require.Len(t, others["cursor"], 2, "one after each page but the last")
	require.EqualValues(t, n+1, others["end"][0]["events"])
	require.EqualValues(t, positions[n], others["end"][0]["position"])

	var types []string
	require.NoError(t, f.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
		events, _, err := f.store.ReadOrg(ctx, tx, org, eventstore.OrgQuery{Types: []string{"audit.*"}})
		for _, e := range events {
			types = append(types, e.Type)
		}
		require.JSONEq(t, fmt.Sprintf(`{"exportId": %q, "events": 1235, "upTo": %d, "complete": true}`, exportID(t, events[0]), positions[n]), string(events[1].Data))
		require.Equal(t, "192.0.2.7", strings.TrimPrefix(events[0].Meta.Address, "sealed:"+who.AccountID.String()+":"))
		return err
	}))
	require.Equal(t, []string{audit.TypeExportStarted, audit.TypeExportEnded}, types, "who takes a copy is in the log")
}

func exportID(t *testing.T, e eventstore.Event) string {
	t.Helper()
	var d audit.ExportStarted
	require.NoError(t, e.Decode(&d))
	return d.ExportID.String()
}

type lateWriter struct {
	buf   *bytes.Buffer
	first func()
}

func (w *lateWriter) Write(b []byte) (int, error) {
	if w.first != nil {
		w.first()
		w.first = nil
	}
	return w.buf.Write(b)
}

// Each line of an event carries what is needed to compute its content hash without the database.
func TestExport_linesHoldWhatTheirHashCovers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, subject := newID(), newID()
	who := principal(org, auth.Admin)
	who.AccountID = f.erased
	f.append(t, org, subject, who, event{"thing.changed", "x"})
	var buf bytes.Buffer
	_, err := f.service.Export(auth.With(t.Context(), who), org, audit.Request{Format: audit.NDJSON, Filter: audit.Filter{Subjects: []uuid.UUID{subject}}}, &buf)
	require.NoError(t, err)
	var line struct {
		audit.Entry
		Stored struct {
			Schema     int
			Meta, Data json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal(bytes.Split(buf.Bytes(), []byte("\n"))[1], &line))
	require.Equal(t, audit.Erased, line.Address, "the person is gone")
	if line.Stored.Data == nil {
		line.Stored.Data = line.Data
	}
	hash, err := eventstore.ContentHash(eventstore.Stream{OrgID: org, ID: subject, Kind: "thing"}, line.Type, line.Stored.Schema, line.Stored.Meta, line.Stored.Data)
	require.NoError(t, err)
	require.Equal(t, line.ContentHash, fmt.Sprintf("%x", hash), "and the hash still holds, over what was sealed")
}

// A client that was cut anywhere goes on after its last whole line and has everything once.
func TestExport_resumesWithoutGapOrDouble(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org := newID()
	who := principal(org, auth.Admin)
	ctx := auth.With(t.Context(), who)
	f.fill(t, org, who, 1600, 40)
	var whole bytes.Buffer
	done, err := f.service.Export(ctx, org, audit.Request{Format: audit.NDJSON}, &whole)
	require.NoError(t, err)
	want, _ := positionsOf(t, whole.Bytes())
	for _, format := range []audit.Format{audit.NDJSON, audit.CSV, audit.CloudEvents} {
		var got []int64
		for cut := 7_001; ; cut = cut*3 + 11 { // bytes that the connection lets through
			r := audit.Request{Format: format, Filter: audit.Filter{UpTo: done.UpTo}}
			if len(got) > 0 {
				r.Filter.After = got[len(got)-1]
			}
			var part bytes.Buffer
			_, err := f.service.Export(ctx, org, r, &cutWriter{w: &part, left: cut})
			got = append(got, wholeLines(t, format, part.Bytes())...)
			if err == nil {
				break
			}
			require.ErrorIs(t, err, errCut)
		}
		require.Equal(t, want, got, format)
	}
}

var errCut = errors.New("the connection is gone")

type cutWriter struct {
	w    io.Writer
	left int
}

func (c *cutWriter) Write(b []byte) (int, error) {
	if len(b) > c.left {
		n, _ := c.w.Write(b[:c.left])
		c.left = 0
		return n, errCut
	}
	c.left -= len(b)
	return c.w.Write(b)
}

// wholeLines are the positions of the events whose line came to its end.
func wholeLines(t *testing.T, format audit.Format, part []byte) (positions []int64) {
	t.Helper()
	part = part[:bytes.LastIndexByte(part, '\n')+1]
	for i, line := range strings.Split(strings.TrimSpace(string(part)), "\n") {
		var p int64
		var err error
		switch format {
		case audit.NDJSON:
			var l struct {
				Line     string
				Position int64
			}
			require.NoError(t, json.Unmarshal([]byte(line), &l))
			if l.Line != "event" {
				continue
			}
			p = l.Position
		case audit.CSV:
			if i == 0 || line == "" {
				continue
			}
			first, _, _ := strings.Cut(line, ",")
			p, err = strconv.ParseInt(first, 10, 64)
		case audit.CloudEvents:
			if line == "[" || line == "]" {
				continue
			}
			var l struct{ Position string }
			require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(line, ",")), &l))
			p, err = strconv.ParseInt(l.Position, 10, 64)
		}
		require.NoError(t, err)
		positions = append(positions, p)
	}
	return positions
}

// What holds an export is pages, however long the log and however slow its reader: at most one page's rows are read
// ahead of what was written, and no transaction is open while the reader takes its time.
func TestExport_memoryAndTransactionsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org := newID()
	who := principal(org, auth.Admin)
	n := 200_000
	if testing.Short() {
		n = 20_000
	}
	f.flood(t, org, n)
	w := &meter{every: n / 10, stop: func() {
		require.Zero(t, f.API.Stat().AcquiredConns(), "nobody waits for a slow reader")
	}}
	done, err := f.service.Export(auth.With(t.Context(), who), org, audit.Request{Format: audit.NDJSON}, w)
	require.NoError(t, err)
	require.Equal(t, n+1, done.Events)
	require.Greater(t, w.looks, 5)
	require.Less(t, w.peak, uint64(64<<20), "live heap while %d MiB were written", w.bytes>>20)
	t.Logf("%d events, %d MiB; live heap at most %d KiB above the start", done.Events, w.bytes>>20, w.peak>>10)
}

// flood writes n events as fast as the database takes them, past the door of the log.
func (f *fixture) flood(t *testing.T, org uuid.UUID, n int) {
	t.Helper()
	require.NoError(t, f.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			WITH entered AS MATERIALIZED (SELECT es.enter())
			INSERT INTO es.ledger_event (position, version, type_id, schema_ver, org_id, stream_id, append_id, actor_id, kind, content_hash, meta, data)
			SELECT nextval('es.pos_seq'), (i % 100) + 1, CASE WHEN i % 1000 = 0 THEN rare.type_id ELSE often.type_id END, 1, $1,
			       ('00000000-0000-7000-8000-' || lpad(to_hex(i / 100), 12, '0'))::uuid, gen_random_uuid(),
			       ('00000000-0000-7000-9000-' || lpad(to_hex(i % 997), 12, '0'))::uuid, 'thing', sha256(i::text::bytea),
			       jsonb_build_object('actorKind', 'apiKey', 'requestId', 'req-' || i), jsonb_build_object('text', repeat('x', 200) || i)
			  FROM entered, generate_series(1, $2) i, es.event_type often, es.event_type rare
			 WHERE often.name = 'thing.changed' AND rare.name = 'other.changed'`, org, n)
		return err
	}))
}

// meter is a slow reader that looks at the heap now and then.
type meter struct {
	every, lines, looks int
	bytes               int
	start, peak         uint64
	stop                func()
}

func (m *meter) Write(b []byte) (int, error) {
	m.bytes += len(b)
	if m.lines%m.every == 0 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		if m.start == 0 {
			m.start = s.HeapAlloc
		}
		m.peak = max(m.peak, s.HeapAlloc-min(m.start, s.HeapAlloc))
		m.looks++
		m.stop()
	}
	m.lines++
	return len(b), nil
}

func TestExport_ofWhoWasRemovedMeanwhile_ends(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org := newID()
	who := principal(org, auth.Admin)
	f.fill(t, org, who, 1100, 50)
	clock := time.Now()
	f.now = func() time.Time { clock = clock.Add(time.Second); return clock }
	checks := 0
	f.service.Check = func(_ context.Context, p auth.Principal) (auth.Principal, error) {
		if checks++; checks > 1 {
			p.Role = auth.Viewer
		}
		return p, nil
	}
	done, err := f.service.Export(auth.With(t.Context(), who), org, audit.Request{Format: audit.CSV}, io.Discard)
	require.Equal(t, fault.Forbidden, fault.KindOf(err), "a reader who was demoted gets no further page: %v", err)
	require.Less(t, done.Events, 1100)
}

// RFC 4180, and nothing in it that a spreadsheet would compute.
func TestExport_csvIsSafeToOpen(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org := newID()
	who := principal(org, auth.Admin)
	agents := []string{
		`=HYPERLINK("http://evil","x")`, "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", `"=1`, "'=1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20x", "\u200b=1", "\ufeff=1", "\u00a0=1", "\u2212 1",
		"plain, with \"quotes\"", "Mozilla/5.0 (=1)",
	}
	for _, a := range agents {
		who.Agent = a
		f.append(t, org, newID(), who, event{"thing.changed", a})
	}
	var buf bytes.Buffer
	_, err := f.service.Export(auth.With(t.Context(), who), org, audit.Request{Format: audit.CSV, Filter: audit.Filter{Types: []string{"thing.*"}}}, &buf)
	require.NoError(t, err)
	require.True(t, bytes.HasSuffix(buf.Bytes(), []byte("\r\n")))
	rows, err := csv.NewReader(&buf).ReadAll()
	require.NoError(t, err)
	require.Equal(t, "position", rows[0][0])
	require.Len(t, rows, len(agents)+1)
	for i, row := range rows[1:] {
		agent := row[8]
		// a reader of CSV makes \n of \r\n, nothing else is lost
		require.Contains(t, agent, strings.TrimSpace(strings.ReplaceAll(agents[i], "\r", "")))
		require.Equal(t, i < 17, strings.HasPrefix(agent, "'"), "%q", agents[i])
		for _, cell := range row {
			require.False(t, strings.HasPrefix(cell, "="), cell)
		}
		require.True(t, json.Valid([]byte(row[11])))
	}
}

func TestExport_cloudEventsAreABatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, subject := newID(), newID()
	who := principal(org, auth.Admin)
	f.append(t, org, subject, who, event{"thing.changed", "1"}, event{"thing.changed", "2"})
	f.append(t, org, subject, nil, event{"thing.changed", "3"})
	var buf bytes.Buffer
	_, err := f.service.Export(auth.With(t.Context(), who), org, audit.Request{Format: audit.CloudEvents, Filter: audit.Filter{Subjects: []uuid.UUID{subject}}}, &buf)
	require.NoError(t, err)
	var batch []map[string]any
	require.NoError(t, json.Unmarshal(buf.Bytes(), &batch), buf.String())
	require.Len(t, batch, 3)
	seen := map[string]bool{}
	for _, e := range batch {
		require.Equal(t, "1.0", e["specversion"])
		require.Equal(t, "testflow.thing.changed", e["type"])
		require.Equal(t, "/api/organizations/"+org.String(), e["source"])
		require.Equal(t, "thing/"+subject.String(), e["subject"])
		_, err := time.Parse(time.RFC3339Nano, e["time"].(string))
		require.NoError(t, err)
		require.False(t, seen[e["id"].(string)], "source and id name one event")
		seen[e["id"].(string)] = true
		for name, value := range e {
			require.Regexp(t, `^[a-z0-9]{1,20}$`, name, "names of attributes")
			if n, ok := value.(float64); ok {
				require.Less(t, n, float64(1<<31), "%s: integers have 32 bits", name)
			}
		}
	}
	require.Equal(t, "192.0.2.7", batch[0]["address"])
	require.NotContains(t, batch[2], "actorid")

	buf.Reset()
	_, err = f.service.Export(auth.With(t.Context(), who), org, audit.Request{Format: audit.CloudEvents, Filter: audit.Filter{Subjects: []uuid.UUID{newID()}}}, &buf)
	require.NoError(t, err)
	require.JSONEq(t, "[]", buf.String())
}
