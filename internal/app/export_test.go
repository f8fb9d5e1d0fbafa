package app_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/postgres"
)

const (
	// exportEvents is the ledger of the test in an ordinary run; `make bench/audit` has a million.
	exportEvents = 20_000
	// exportGrowth and verifyMemory bound what an export may add to the server and what the verifier may take, in KiB,
	// whatever the size of the ledger.
	exportGrowth = 96 << 10
	verifyMemory = 160 << 10
)

// An organization's whole ledger leaves through the door and is verified by the command line, each in memory that doesn't
// depend on its size. Then one byte is changed in the database by a superuser, and the next export names its place.
func TestExport_ofAnySize_isVerifiedInConstantMemory(t *testing.T) {
	n := exportEvents
	if text := os.Getenv("TESTFLOW_AUDIT_EVENTS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	} else {
		t.Parallel()
	}
	in := newInstallation(t)
	var p *program
	p = in.mustStart("TESTFLOW_AUDIT_SEAL_EVERY=24h")
	u := register(t, func() string { return p.url }, "auditor")
	require.Zero(t, p.stop())
	say := func(what string, count int, took time.Duration, more string) {
		t.Logf("%-34s %9d in %8s  %9.0f/s  %s", what, count, took.Round(time.Millisecond), float64(count)/took.Seconds(), more)
	}

	start := time.Now()
	fillLedger(t, in, uuid.MustParse(u.orgID), accountOf(t, in), n)
	say("events appended", n, time.Since(start), "through the store, 500 a transaction, 4 writers")

	end := scalar(t, in, `SELECT max(position) FROM es.ledger_event`)
	start = time.Now()
	p = in.mustStart("TESTFLOW_AUDIT_SEAL_EVERY=100ms")
	require.Eventually(t, func() bool { return scalar(t, in, `SELECT position FROM es.sealer`) >= end }, 10*time.Minute, 20*time.Millisecond)
	say("events sealed", n, time.Since(start), "by the server, its start included")

	file := filepath.Join(t.TempDir(), "audit.ndjson")
	before := memoryOf(t, p, "VmRSS")
	require.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0)) // its peak begins anew
	start = time.Now()
	size := download(t, u, file)
	took := time.Since(start)
	peak := memoryOf(t, p, "VmHWM")
	say("events exported over HTTP", n, took, fmt.Sprintf("%d MiB, %.0f MiB/s; server's memory %d MiB before, %d MiB at its peak", size>>20, float64(size>>20)/took.Seconds(), before>>10, peak>>10))
	require.Less(t, peak-before, exportGrowth, "the export is not in constant memory")

	start = time.Now()
	out, code, memory := in.verify(t, file)
	say("events verified", n, time.Since(start), fmt.Sprintf("verifier's memory %d MiB at its peak", memory>>10))
	require.Zero(t, code, out)
	require.Contains(t, out, "event is what was sealed")
	require.Less(t, memory, verifyMemory, "the verifier is not in constant memory")
	t.Log("\n" + out)
	anchors(t, in, file, n, say)

	// The middle one of them.
	position := scalar(t, in, `SELECT position FROM es.ledger_event WHERE type_id = (SELECT type_id FROM es.event_type WHERE name = 'org.renamed') ORDER BY position OFFSET `+strconv.Itoa(n/2)+` LIMIT 1`)
	conn := superuserOf(t, in)
	_, err := conn.Exec(t.Context(), `SET session_replication_role = replica`)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `UPDATE es.ledger_event SET data = jsonb_set(data, '{to}', '"mischief"') WHERE position = $1`, position)
	require.NoError(t, err)
	download(t, u, file)
	out, code, _ = in.verify(t, file)
	require.Equal(t, 1, code, out)
	require.Contains(t, out, fmt.Sprintf("position %d: the event's content doesn't give its content hash", position))
	require.Equal(t, 2, strings.Count(out, "CHANGED"), "and no other: %s", out)
	require.Zero(t, p.stop())
}

// fillLedger appends n events to an organization, through the store.
func fillLedger(t *testing.T, in *installation, orgID, account uuid.UUID, n int) {
	t.Helper()
	store := eventstore.New(eventstore.Config{
		DB: in.db.DB, Types: org.Types(), Now: time.Now, NewID: func() uuid.UUID { return uuid.Must(uuid.NewV7()) },
		Seal: func(context.Context, pgx.Tx, uuid.UUID, string) (string, error) {
			return "sealed:" + strings.Repeat("x", 64), nil // as long as the real one, which nobody opens here
		},
	})
	require.NoError(t, store.Sync(t.Context()))
	const batch, streams = 500, 10
	var writers sync.WaitGroup
	var done atomic.Int64
	errs := make(chan error, 4)
	for w := range 4 {
		writers.Go(func() {
			who := auth.Principal{Kind: auth.User, AccountID: account, OrgID: orgID, Address: "192.0.2.7", Agent: "curl/8.0", Request: uuid.NewString()}
			for done.Add(batch) <= int64(n) {
				err := in.db.InOrg(t.Context(), orgID, func(ctx context.Context, tx postgres.OrgTx) error {
					for s := range streams {
						data := make([]eventstore.Data, batch/streams)
						for i := range data {
							data[i] = org.Renamed{From: fmt.Sprintf("Engines of %d.%d, as they were", w, s), To: fmt.Sprintf("Engines number %d, “new” & improved", i)}
						}
						stream := eventstore.Stream{OrgID: orgID, ID: uuid.Must(uuid.NewV7()), Kind: "engine"}
						if _, err := store.Append(ctx, tx, stream, 0, who, data...); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	writers.Wait()
	close(errs)
	require.NoError(t, <-errs)
}

// download writes the export of the user's organization into a file and returns its size.
func download(t *testing.T, u *user, file string) int64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.url()+"/api/audit/export?format=ndjson", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+u.token)
	req.Header.Set("Accept-Encoding", "identity")
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	out, err := os.Create(file)
	require.NoError(t, err)
	size, err := io.Copy(out, res.Body)
	require.NoError(t, errors.Join(err, out.Close()))
	return size
}

// verify runs the command line on a file; memory is its peak in KiB.
func (i *installation) verify(t *testing.T, file string) (out string, code, memory int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), i.binary, "audit", "verify", "--strict", "--require-sealed", file)
	cmd.Env = []string{} // it needs nothing: no settings, no database
	raw, err := cmd.CombinedOutput()
	require.NotNil(t, cmd.ProcessState, "%v", err)
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	require.True(t, ok)
	return string(raw), cmd.ProcessState.ExitCode(), int(usage.Maxrss)
}

// anchors are what the same bytes cost without us.
func anchors(t *testing.T, in *installation, file string, n int, say func(string, int, time.Duration, string)) {
	t.Helper()
	start := time.Now()
	tag, err := superuserOf(t, in).PgConn().CopyTo(t.Context(), io.Discard, `COPY (SELECT * FROM es.ledger_event ORDER BY position) TO STDOUT`)
	require.NoError(t, err)
	say("beside: COPY of the bare table", int(tag.RowsAffected()), time.Since(start), "")
	start = time.Now()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	size, err := io.Copy(sha256.New(), f)
	require.NoError(t, err)
	say("beside: SHA-256 of the file", n, time.Since(start), fmt.Sprintf("%.0f MiB/s", float64(size>>20)/time.Since(start).Seconds()))
}

func superuserOf(t *testing.T, in *installation) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), in.db.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// accountOf is the one account of an installation.
func accountOf(t *testing.T, in *installation) (id uuid.UUID) {
	t.Helper()
	require.NoError(t, in.db.System.QueryRow(t.Context(), `SELECT account_id FROM accounts`).Scan(&id))
	return id
}

func scalar(t *testing.T, in *installation, sql string) (n int64) {
	t.Helper()
	require.NoError(t, in.db.System.QueryRow(t.Context(), sql).Scan(&n))
	return n
}

// memoryOf reads a field of a program's status, in KiB.
func memoryOf(t *testing.T, p *program, field string) (kib int) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(raw), field+":")
	require.True(t, ok)
	_, err = fmt.Sscan(rest, &kib)
	require.NoError(t, err)
	return kib
}
