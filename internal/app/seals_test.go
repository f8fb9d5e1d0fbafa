package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/seal"
)

// auditor is somebody with a file and the command line, and nothing else.
type auditor struct {
	*installation
	*user
	t   *testing.T
	dir string
}

func (a auditor) export(name string) (file string) {
	a.t.Helper()
	file = filepath.Join(a.dir, name)
	download(a.t, a.user, file)
	return file
}

func (a auditor) audit(args ...string) (out string, code int) {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), a.binary, append([]string{"audit", "verify"}, args...)...)
	cmd.Env = []string{} // it needs nothing: no settings, no database
	raw, err := cmd.CombinedOutput()
	require.NotNil(a.t, cmd.ProcessState, "%v", err)
	return string(raw), cmd.ProcessState.ExitCode()
}

// honest requires that a file proves all that people read of it.
func (a auditor) honest(args ...string) string {
	a.t.Helper()
	out, code := a.audit(append(args, "--strict", "--require-sealed")...)
	require.Zero(a.t, code, out)
	require.Contains(a.t, out, "result        every event is what was sealed\n")
	return out
}

// A superuser changes the log of a running server in each of five ways. The next export names the place; an export from
// before stays good, and its last seal finds what came after; and who does the same to the file is named by line.
func TestAudit_whatASuperuserChanged_isNamed(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	for name, c := range map[string]struct {
		database []string // statements: $1 is the organization, $2 the position of its fifth event, $3 that of the sixth, $4 a position where no event is
		named    string   // by the next export: %d is the fifth event's position, or what it is about
		file     func(lines []string, event int) []string
		line     string // how the file's place is named: %d is the line of the fifth event
	}{
		"a byte flipped": {
			[]string{`UPDATE es.ledger_event SET data = overlay(data::text placing 'X' from position('Engines' in data::text))::jsonb WHERE org_id = $1 AND position = $2 AND $3 > 0 AND $4 > 0`},
			"position %d: the event's content doesn't give its content hash",
			func(l []string, e int) []string { l[e] = strings.Replace(l[e], "Engines", "Xngines", 1); return l },
			"line %d, position %d: the line isn't as the server wrote it",
		},
		"deleted": {
			[]string{`DELETE FROM es.ledger_event WHERE org_id = $1 AND position = $2 AND $3 > 0 AND $4 > 0`},
			"position %d: the event is gone: it was sealed as number",
			func(l []string, e int) []string { return append(l[:e:e], l[e+1:]...) },
			"line %d, position %[3]d: a line that the server wrote before this one was taken away",
		},
		"inserted": {
			[]string{`INSERT INTO es.ledger_event (position, recorded_at, version, type_id, schema_ver, org_id, stream_id, append_id, actor_id, kind, content_hash, meta, data)
				SELECT $4, recorded_at, 1, type_id, schema_ver, org_id, gen_random_uuid(), append_id, actor_id, kind, content_hash, meta, data FROM es.ledger_event WHERE org_id = $1 AND position = $2 AND $3 > 0`},
			"position %[2]d: the event isn't in the sealed history, though later ones are: it was inserted afterwards",
			func(l []string, e int) []string {
				return append(append(append([]string{}, l[:e+1]...), l[e]), l[e+1:]...)
			},
			"line %[4]d, position %[2]d: the server didn't write this line: it was put into the file",
		},
		"two in another order": {
			[]string{
				`UPDATE es.ledger_event SET position = -position WHERE org_id = $1 AND position IN ($2, $3) AND $4 > 0`,
				`UPDATE es.ledger_event SET position = CASE -position WHEN $2::bigint THEN $3::bigint ELSE $2::bigint END WHERE org_id = $1 AND position < 0 AND $4::bigint > 0`,
			},
			"position %d: the event isn't what was sealed",
			func(l []string, e int) []string { l[e], l[e+1] = l[e+1], l[e]; return l },
			"line %d, position %[3]d: the server wrote this line behind the next one: they were swapped in the file",
		},
		"a seal replaced": {
			[]string{`UPDATE es.sealed_head h SET note = n.note FROM es.sealed_head n WHERE h.org_id = $1 AND n.org_id = $1 AND h.number = 2 AND n.number = 3 AND $2 > 0 AND $3 > 0 AND $4 > 0`},
			"seal 2 to 2 are missing or were replaced: behind seal 1 stands seal 3",
			func(l []string, _ int) []string {
				heads := linesWith(l, `{"line":"head"`)
				l[heads[1]] = l[heads[2]]
				return l
			},
			"a line that the server wrote before this one was taken away",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := in.mustStart("TESTFLOW_AUDIT_SEAL_EVERY=24h") // each export seals, and nobody else
			defer p.kill()
			a := auditor{in, register(t, func() string { return p.url }, strings.ReplaceAll(name, " ", "-")), t, t.TempDir()}
			for i := range 4 {
				for j := range 3 {
					_ = scalar(t, in, `SELECT nextval('es.pos_seq')`) // a gap, as an append that failed leaves one
					a.must(http.StatusCreated, "POST", "/api/projects", map[string]any{"name": fmt.Sprintf("Engines %d.%d", i, j)}, nil)
				}
				a.export("sealing") // makes a seal
			}
			before, kept := a.export("before"), filepath.Join(a.dir, "kept")
			a.honest(before, "--save-head", kept)

			positions := make([]any, 0, 4)
			rows, err := in.db.System.Query(t.Context(), `SELECT e.position FROM es.ledger_event e JOIN es.event_type USING (type_id) WHERE org_id = $1 AND name = 'project.created' ORDER BY position LIMIT 2 OFFSET 3`, a.orgID)
			require.NoError(t, err)
			positions = append(positions, a.orgID)
			for rows.Next() {
				var p int64
				require.NoError(t, rows.Scan(&p))
				positions = append(positions, p)
			}
			require.NoError(t, rows.Err())
			require.Len(t, positions, 3)
			fifth, sixth := positions[1].(int64), positions[2].(int64)
			gap := scalar(t, in, fmt.Sprintf(`SELECT max(p) FROM generate_series(1, %d) p WHERE NOT EXISTS (SELECT FROM es.ledger_event WHERE position = p) AND p > (SELECT min(position) FROM es.ledger_event WHERE org_id = '%s')`, fifth, a.orgID))
			positions = append(positions, gap)

			whole, err := os.ReadFile(before)
			require.NoError(t, err)
			lines := strings.SplitAfter(string(whole), "\n")
			event := linesWith(lines, fmt.Sprintf(`"position":%d,`, fifth))[0]
			edited := filepath.Join(a.dir, "edited")
			require.NoError(t, os.WriteFile(edited, []byte(strings.Join(c.file(lines, event), "")), 0o600))
			out, code := a.audit(edited)
			require.Equal(t, 1, code, out)
			require.Contains(t, out, said(c.line, event+1, fifth, sixth, event+2))

			conn := superuserOf(t, in)
			_, err = conn.Exec(t.Context(), `SET session_replication_role = replica`)
			require.NoError(t, err)
			for _, statement := range c.database {
				tag, err := conn.Exec(t.Context(), statement, positions...)
				require.NoError(t, err)
				require.Positive(t, tag.RowsAffected(), "nothing was changed")
			}
			after := a.export("after")
			out, code = a.audit(after)
			require.Equal(t, 1, code, out)
			require.Contains(t, out, said(c.named, fifth, gap))
			require.NotContains(t, out, "as the server wrote it", "the file is what the server wrote")
			a.honest(before, "--head", kept)
			out, code = a.audit(after, "--head", kept)
			require.Equal(t, 1, code, out)
		})
	}
}

// said fills a text that may name fewer than all of its arguments.
func said(format string, args ...any) string {
	text, _, _ := strings.Cut(fmt.Sprintf(format, args...), "%!(EXTRA")
	return text
}

// linesWith returns the indexes of the lines that hold a text.
func linesWith(lines []string, text string) (at []int) {
	for i, l := range lines {
		if strings.Contains(l, text) {
			at = append(at, i)
		}
	}
	return at
}

// The server is killed at each point of the sealer's work, and at random moments, while the log grows and exports seal it
// too. Whatever was published stays true: each head that was ever committed or stands in the file of heads is one of the
// history that the last export proves to its end.
func TestChaos_killedWhileSealing_goesOnWithTheSameTree(t *testing.T) {
	t.Parallel()
	heads := filepath.Join(t.TempDir(), "heads.ndjson")
	in := serving(t, "TESTFLOW_AUDIT_HEADS_FILE="+heads, "TESTFLOW_AUDIT_SEAL_EVERY=100ms")
	var at atomic.Value
	p := in.serve()
	at.Store(p.url)
	a := auditor{in, registerFirst(t, p), t, t.TempDir()}
	a.url = func() string { return at.Load().(string) }

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var acked sync.Map // name → true
	for c := range 3 {
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("Project %d of %d", n, c)
				if r, err := a.do(ctx, "POST", "/api/projects", map[string]any{"name": name}); err == nil && r.status == http.StatusCreated {
					acked.Store(name, true)
				}
				if c == 0 && n%5 == 0 {
					_, _ = a.do(ctx, "GET", "/api/audit/export", nil) // it seals too; the server may die under it
				}
				pause(5 * time.Millisecond)
			}
		})
	}
	committed := map[string]bool{} // every head that was in the database when the server was dead
	remember := func() {
		rows, err := in.db.System.Query(t.Context(), `SELECT note FROM es.sealed_head WHERE org_id = $1`, a.orgID)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var note string
			require.NoError(t, rows.Scan(&note))
			committed[note] = true
		}
		require.NoError(t, rows.Err())
	}
	points := fault.SealPoints()
	hit := map[string]int{}
	for k := range 2 * len(points) {
		p.kill()
		remember()
		point := ""
		if k < len(points) || k%2 == 0 {
			point = points[k%len(points)]
		}
		p = in.serve(fmt.Sprintf("TESTFLOW_FAULT=%s:%d", point, 2+rand.IntN(6)))
		at.Store(p.url)
		wait := 20 * time.Second // the point comes far sooner
		if point == "" {
			wait = time.Duration(rand.Int64N(int64(time.Second)))
		}
		select {
		case <-p.done:
		case <-time.After(wait):
		}
		if point != "" && strings.Contains(p.errs.String(), "fault point hit: "+point) {
			hit[point]++
		}
	}
	p.kill()
	remember()
	for _, point := range points {
		require.Positive(t, hit[point], "the server never died at %s", point)
	}
	p = in.serve()
	at.Store(p.url)
	cancel()
	clients.Wait()

	// What the server publishes from here on may be younger than the export.
	before, err := os.ReadFile(heads)
	require.NoError(t, err)
	heads = filepath.Join(a.dir, "published")
	require.NoError(t, os.WriteFile(heads, before, 0o600))
	file := a.export("audit")
	kept := filepath.Join(a.dir, "committed")
	var notes bytes.Buffer
	for note := range committed {
		require.NoError(t, json.NewEncoder(&notes).Encode(map[string]string{"note": note}))
	}
	require.NoError(t, os.WriteFile(kept, notes.Bytes(), 0o600))
	out := a.honest(file, "--head", kept, "--head", heads)
	published, err := cli.ReadHeads(heads)
	require.NoError(t, err)
	numbers := map[int64]string{}
	mine := 0
	for _, note := range published {
		h, err := seal.ReadHead(note)
		require.NoError(t, err)
		if h.OrgID.String() != a.orgID {
			continue
		}
		mine++
		require.NotContains(t, numbers, h.Number, "seal %d was published twice", h.Number)
		numbers[h.Number] = note
	}
	require.Contains(t, out, fmt.Sprintf("kept seals    %d agree with this history, 0 are from before it", len(committed)+mine))
	t.Logf("%d kills: %v; %d seals, %d of them in the file", 2*len(points), hit, scalar(t, in, `SELECT count(*) FROM es.sealed_head`), len(published))
	t.Log("\n" + out)

	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	acked.Range(func(name, _ any) bool {
		require.Contains(t, string(whole), `"`+name.(string)+`"`, "what was acknowledged is in the log")
		return true
	})
	require.Zero(t, p.stop(), p.errs)
	doctor, code := in.command(t.Context(), "doctor")
	require.Zero(t, code, doctor)
}
