package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/realtime/livetest"
	"github.com/testflow/testflow/internal/run"
	"github.com/testflow/testflow/internal/vault"
)

// BenchmarkPlatform measures the whole platform on one Postgres, each figure beside its anchor, and prints a table. It is
// what `make bench` runs, once.
func BenchmarkPlatform(b *testing.B) {
	w := newBenchWorld(b)
	for b.Loop() {
		w.runs(b)
		w.latency(b)
		w.api(b)
	}
	w.print(b)
}

// BenchmarkRuns is the part of BenchmarkPlatform about runs alone, for profiles.
func BenchmarkRuns(b *testing.B) {
	w := newBenchWorld(b)
	for b.Loop() {
		w.runs(b)
	}
	w.print(b)
}

// TestTargetProcess is no test: the benchmark starts this binary again as the target of its runs, so that the target's
// work doesn't count as ours. It serves until its standard input closes.
func TestTargetProcess(t *testing.T) {
	if os.Getenv("TESTFLOW_TEST_TARGET") == "" {
		return
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	fmt.Println("listening on", l.Addr())
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"id":7,"name":"Ada","tags":["calm","indoor"]}`))
	}), ReadHeaderTimeout: time.Second}
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); _ = server.Close() }()
	_ = server.Serve(l)
}

func benchTarget(b *testing.B) (address string) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTargetProcess$")
	cmd.Env = append(os.Environ(), "TESTFLOW_TEST_TARGET=1")
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
}

// benchWorld is a platform in this process with one organization.
type benchWorld struct {
	*platform
	db         *pgtest.DB
	url        string
	target     string
	token      string
	ctx        context.Context // of the organization's user
	orgID      uuid.UUID
	projectID  uuid.UUID
	testID     uuid.UUID
	postmaster int
	table      []string
}

const benchConcurrency = 64

func newBenchWorld(b *testing.B) *benchWorld {
	b.Helper()
	w := &benchWorld{db: pgtest.Unopened(b), target: benchTarget(b)}
	secrets := ownSecrets{JWT: key48(), Refresh: key48(), MasterKey: vault.GenerateMasterKey()}
	c, err := config.Load(config.Up, []string{
		"DATABASE_URL=" + w.db.URL, "ANALYTICS_DATABASE_URL=" + w.db.AnalyticsURL, "TESTFLOW_DB_ROLE_PREFIX=" + w.db.RolePrefix, "PORT=0",
		"TESTFLOW_EGRESS_ALLOW=" + w.target, "TESTFLOW_WORKER_CONCURRENCY=" + strconv.Itoa(benchConcurrency), "TESTFLOW_LIMIT_LIVE_SOCKETS_USER=200",
		"RATE_LIMIT_MAX_REQUESTS=0", "RATE_LIMIT_EXECUTION_MAX_REQUESTS=0", "RATE_LIMIT_AUTH_MAX_PER_ADDRESS=0",
	})
	require.NoError(b, err)
	secrets.fill(c)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx := b.Context()
	dbs, err := openDatabases(ctx, c, false, log)
	require.NoError(b, err)
	w.platform, err = newPlatform(ctx, c, config.Up, dbs, log)
	require.NoError(b, err)
	l, err := listen(ctx, "127.0.0.1:0", 0)
	require.NoError(b, err)
	proc := newProcess(log, 20*time.Second)
	b.Cleanup(func() { require.NoError(b, proc.stopAll(context.Background())); dbs.close() })
	w.startDoors(ctx, proc, l)
	require.NoError(b, w.startWorker(ctx, proc))
	w.url = "http://" + l.Addr().String()
	require.NoError(b, w.feed.Wait(ctx, 0))
	w.found(b)
	var pid int
	require.NoError(b, dbs.main.System.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid))
	w.postmaster = parentOf(pid)
	return w
}

// found makes the organization with a project and a test of one step and three assertions.
func (w *benchWorld) found(b *testing.B) {
	b.Helper()
	in, err := w.orgs.SignUp(b.Context(), org.SignUpInput{
		Registration: account.Registration{Email: "bench@example.com", Name: "Bench", Password: vault.NewSecret("marble otter sunset")},
	}, account.Client{})
	require.NoError(b, err)
	w.token = in.AccessToken.Reveal()
	who, err := w.orgs.Authenticate(b.Context(), w.token, nil)
	require.NoError(b, err)
	w.orgID, w.ctx = who.OrgID, auth.With(b.Context(), who)
	p, err := w.projects.Create(w.ctx, w.orgID, project.Draft{Name: "Bench"})
	require.NoError(b, err)
	w.projectID = p.ID
	body := fmt.Sprintf(`{"projectId":%q,"name":"pet","steps":[{"name":"read","request":{"method":"GET","url":"http://%s/pets/7"},"assertions":[
		{"source":"status","operator":"equals","expected":200},{"source":"jsonpath","property":"$.id","operator":"equals","expected":7},
		{"source":"header","property":"content-type","operator":"contains","expected":"json"}]}]}`, p.ID, w.target)
	t, err := w.tests.Create(w.ctx, w.orgID, json.RawMessage(body))
	require.NoError(b, err)
	w.testID = t.ID
}

func (w *benchWorld) say(format string, args ...any) {
	w.table = append(w.table, fmt.Sprintf(format, args...))
}

// runs measures runs a second from execute to finished, beside River's no-op jobs and a bare loop.
func (w *benchWorld) runs(b *testing.B) {
	const n = 6000
	w.execute(b, 500) // warm
	own, postgres := w.cpu()
	took := w.execute(b, n)
	ours := n / took.Seconds()
	own, postgres = w.spent(n, own, postgres)
	spent := own.Seconds() + postgres.Seconds()
	ownNoop, postgresNoop := w.cpu()
	noop := n / w.queue(b, n, &benchNoop{}).Seconds()
	ownNoop, postgresNoop = w.spent(n, ownNoop, postgresNoop)
	ownBare, postgresBare := w.cpu()
	bare := n / w.queue(b, n, newBenchBare(b, w)).Seconds()
	ownBare, postgresBare = w.spent(n, ownBare, postgresBare)
	w.say("runs/s, execute to finished, 1 step, 3 assertions   %8.0f", ours)
	w.say("  River's no-op jobs/s, insert to completed          %8.0f   ratio %.2f (goal 0.15)", noop, ours/noop)
	w.say("  bare loop: GET + 3 rows group-committed + River    %8.0f   ratio %.2f (goal 0.4)", bare, ours/bare)
	w.say("CPU seconds for 1 000 runs, Postgres counted         %8.2f   (goal 1): testflow %.2f, Postgres %.2f", spent, own.Seconds(), postgres.Seconds())
	w.say("  for 1 000 of River's no-op jobs                    %8.2f   River %.2f, Postgres %.2f", (ownNoop + postgresNoop).Seconds(), ownNoop.Seconds(), postgresNoop.Seconds())
	w.say("  for 1 000 of the bare loop                         %8.2f   the loop %.2f, Postgres %.2f", (ownBare + postgresBare).Seconds(), ownBare.Seconds(), postgresBare.Seconds())
	w.say("memory: testflow %d MiB, Postgres %d MiB (proportional)", resident(os.Getpid(), "VmRSS")>>10, w.postgresMemory()>>20)
	b.ReportMetric(ours, "runs/s")
	b.ReportMetric(ours/noop, "of-noop")
	b.ReportMetric(ours/bare, "of-bare")
	b.ReportMetric(spent, "cpu-s/1000runs")
}

// execute starts n runs and waits until all have ended.
func (w *benchWorld) execute(b *testing.B, n int) time.Duration {
	b.Helper()
	ctx := auth.With(b.Context(), auth.Principal{Kind: auth.System, OrgID: w.orgID})
	// The feed says when all have ended: a table of ten thousands, polled, would be counted as work of the runs.
	var ends atomic.Int64
	ended := make(chan struct{})
	defer w.feed.Subscribe(func(batch eventstore.Batch) {
		for _, e := range batch.Events {
			if e.Type == run.TypeFinished && ends.Add(1) == int64(n) {
				close(ended)
			}
		}
	})()
	start := time.Now()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := w.platform.runs.Start(ctx, w.orgID, w.testID, run.StartInput{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case <-ended:
	case <-time.After(3 * time.Minute):
		b.Fatalf("%d of %d runs ended within three minutes", ends.Load(), n)
	}
	took := time.Since(start)
	var bad int
	require.NoError(b, w.platform.db.main.System.QueryRow(b.Context(), `SELECT count(*) FROM runs WHERE status <> 'passed'`).Scan(&bad))
	require.Zero(b, bad, "runs that did not pass")
	return took
}

// benchJob is a job of the anchors.
type benchJob struct {
	N int `json:"n"`
}

func (benchJob) Kind() string { return "bench_job" }

type benchNoop struct {
	river.WorkerDefaults[benchJob]
}

func (*benchNoop) Work(context.Context, *river.Job[benchJob]) error { return nil }

// benchBare does what a run can't do without: the request, three rows that are committed together with others', and the
// job's completion.
type benchBare struct {
	river.WorkerDefaults[benchJob]
	client *http.Client
	url    string
	queue  chan bareRow
}

type bareRow struct {
	id   uuid.UUID
	body []byte
	done chan error
}

func newBenchBare(b *testing.B, w *benchWorld) *benchBare {
	b.Helper()
	ctx := b.Context()
	admin, err := pgx.Connect(ctx, w.db.URL)
	require.NoError(b, err)
	b.Cleanup(func() { _ = admin.Close(context.Background()) })
	_, err = admin.Exec(ctx, `CREATE TABLE IF NOT EXISTS public.bench_bare (pos bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run uuid NOT NULL, n int NOT NULL, data jsonb NOT NULL)`)
	require.NoError(b, err)
	bare := &benchBare{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchConcurrency}}, url: "http://" + w.target + "/pets/7",
		queue: make(chan bareRow, 1024),
	}
	go bare.commit(ctx, admin)
	return bare
}

// commit writes what has gathered, in one statement a time.
func (w *benchBare) commit(ctx context.Context, conn *pgx.Conn) {
	for {
		var batch []bareRow
		select {
		case <-ctx.Done():
			return
		case r := <-w.queue:
			batch = append(batch, r)
		}
		for more := true; more && len(batch) < 200; {
			select {
			case r := <-w.queue:
				batch = append(batch, r)
			default:
				more = false
			}
		}
		var ids []uuid.UUID
		var ns []int32
		var data [][]byte
		for _, r := range batch {
			for n := range 3 {
				ids, ns, data = append(ids, r.id), append(ns, int32(n)), append(data, r.body)
			}
		}
		_, err := conn.Exec(ctx, `INSERT INTO public.bench_bare (run, n, data) SELECT * FROM unnest($1::uuid[], $2::int[], $3::jsonb[])`, ids, ns, data)
		for _, r := range batch {
			r.done <- err
		}
	}
}

func (w *benchBare) Work(ctx context.Context, _ *river.Job[benchJob]) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return err
	}
	r := bareRow{id: newID(), body: body, done: make(chan error, 1)}
	w.queue <- r
	return <-r.done
}

// queue inserts n jobs one by one, as commands do, from as many clients as execute has, while a worker with the same
// settings works them, and returns the time until all are completed.
func (w *benchWorld) queue(b *testing.B, n int, worker river.Worker[benchJob]) time.Duration {
	b.Helper()
	ctx := b.Context()
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	client, err := river.NewClient(riverpgxv5.New(w.platform.db.main.System), &river.Config{
		Schema: postgres.RiverSchema, Queues: map[string]river.QueueConfig{"bench": {MaxWorkers: benchConcurrency}}, Workers: workers,
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond, LeaderElectionDisabled: true,
		Logger: slog.New(slog.DiscardHandler), ReindexerIndexNames: []string{},
	})
	require.NoError(b, err)
	done, cancel := client.SubscribeConfig(&river.SubscribeConfig{Kinds: []river.EventKind{river.EventKindJobCompleted}, ChanSize: n})
	defer cancel()
	require.NoError(b, client.Start(ctx))
	start := time.Now()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := client.Insert(ctx, benchJob{}, &river.InsertOpts{Queue: "bench"}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	timeout := time.After(3 * time.Minute)
	for i := range n {
		select {
		case <-done:
		case <-timeout:
			b.Fatalf("%d of %d jobs completed within three minutes", i, n)
		}
	}
	took := time.Since(start)
	require.NoError(b, client.Stop(ctx))
	return took
}

// latency measures from a commit's return to the event's frame at each watcher.
func (w *benchWorld) latency(b *testing.B) {
	for _, watchers := range []int{1, 100} {
		report, err := livetest.Latency(w.ctx, livetest.LatencyConfig{
			URL: w.url, Token: w.token, Topics: []string{"organization"}, Watchers: watchers, Rate: 100, Duration: 10 * time.Second,
			Commit: func(ctx context.Context, n int) (string, error) {
				name := fmt.Sprintf("Bench %d of %d", n, watchers)
				p, err := w.projects.Update(ctx, w.orgID, w.projectID, project.Patch{Name: &name}, nil)
				return p.ID.String() + "." + strconv.Itoa(p.Version), err
			},
		})
		require.NoError(b, err)
		w.say("commit to socket, 100 events/s, %3d watchers          p50 %.1f ms, p95 %.1f ms, p99 %.1f ms  (goal p50 15, p99 50); the commit itself p50 %.1f ms",
			watchers, millis(report.P50), millis(report.P95), millis(report.P99), millis(report.CommitP50))
		b.ReportMetric(millis(report.P50), fmt.Sprintf("p50-ms-%dw", watchers))
		b.ReportMetric(millis(report.P99), fmt.Sprintf("p99-ms-%dw", watchers))
	}
}

// api measures reads and commands at a constant 200 requests a second over HTTP, the load generator on this machine.
func (w *benchWorld) api(b *testing.B) {
	runs, _, err := w.platform.runs.List(w.ctx, w.orgID, run.Filter{Limit: 50})
	require.NoError(b, err)
	header := http.Header{"Authorization": {"Bearer " + w.token}, "Content-Type": {"application/json"}}
	var n atomic.Int64
	targeter := func(t *vegeta.Target) error {
		i := n.Add(1)
		t.Header, t.Method, t.Body = header, http.MethodGet, nil
		switch i % 5 {
		case 0:
			t.URL = w.url + "/api/projects/" + w.projectID.String()
		case 1:
			t.URL = w.url + "/api/tests/" + w.testID.String()
		case 2, 3:
			t.URL = w.url + "/api/runs/" + runs[int(i)%len(runs)].ID.String()
		case 4:
			t.Method, t.URL = http.MethodPatch, w.url+"/api/projects/"+w.projectID.String()
			t.Body = fmt.Appendf(nil, `{"description":"request %d"}`, i)
		}
		return nil
	}
	took := map[string][]time.Duration{}
	attacker := vegeta.NewAttacker(vegeta.Workers(16))
	for r := range attacker.Attack(targeter, vegeta.Rate{Freq: 200, Per: time.Second}, 15*time.Second, "api") {
		require.Equal(b, uint16(http.StatusOK), r.Code, "%s %s: %s %s", r.Method, r.URL, r.Body, r.Error)
		took[r.Method] = append(took[r.Method], r.Latency)
	}
	reads, commands := percentile(took[http.MethodGet], 95), percentile(took[http.MethodPatch], 95)
	w.say("API at 200 requests/s                                reads p50 %.1f ms p95 %.1f ms (goal 20), commands p50 %.1f ms p95 %.1f ms (goal 50)",
		millis(percentile(took[http.MethodGet], 50)), millis(reads), millis(percentile(took[http.MethodPatch], 50)), millis(commands))
	b.ReportMetric(millis(reads), "read-p95-ms")
	b.ReportMetric(millis(commands), "command-p95-ms")
}

func (w *benchWorld) print(b *testing.B) {
	b.Helper()
	fmt.Printf("\n%s\n\n", strings.Join(w.table, "\n"))
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func percentile(all []time.Duration, p int) time.Duration {
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*p/100)]
}

// spent is what was spent for a thousand of n things since own and postgres.
func (w *benchWorld) spent(n int, own, postgres time.Duration) (ownNow, postgresNow time.Duration) {
	ownNow, postgresNow = w.cpu()
	return (ownNow - own) * 1000 / time.Duration(n), (postgresNow - postgres) * 1000 / time.Duration(n)
}

// cpu is what this process and all of the Postgres have spent so far.
func (w *benchWorld) cpu() (own, postgres time.Duration) {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	own = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	for _, pid := range w.postgresProcesses() {
		f := statOf(pid)
		if len(f) < 15 {
			continue // it ended; the postmaster has its time
		}
		ticks := number(f[11]) + number(f[12])
		if pid == w.postmaster {
			ticks += number(f[13]) + number(f[14]) // of its children that have ended
		}
		postgres += time.Duration(ticks) * tick
	}
	return own, postgres
}

func (w *benchWorld) postgresProcesses() []int {
	pids := []int{w.postmaster}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid := number(filepath.Base(d))
		if f := statOf(pid); len(f) > 1 && number(f[1]) == w.postmaster {
			pids = append(pids, pid)
		}
	}
	return pids
}

// postgresMemory is the proportional set size of all of Postgres's processes in bytes: shared pages count once.
func (w *benchWorld) postgresMemory() (bytes int) {
	for _, pid := range w.postgresProcesses() {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it ended
		}
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				bytes += number(f[1]) << 10
			}
		}
	}
	return bytes
}

// resident reads a field of a process's status in KiB.
func resident(pid int, field string) int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field+":" {
			return number(f[1])
		}
	}
	return 0
}

// statOf returns the fields of /proc/<pid>/stat from the state on, so that [1] is the parent.
func statOf(pid int) []string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(raw), ") ")
	return strings.Fields(rest)
}

func parentOf(pid int) int {
	f := statOf(pid)
	if len(f) < 2 {
		return 0
	}
	return number(f[1])
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
