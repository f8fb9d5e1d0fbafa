package app_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
)

// TestChaos_killedAnywhere_losesNothing kills the program at each fault point and at random moments under load, starts it
// again, and then holds the log against what clients were told: each acknowledged run exists once and ends once, no
// request that isn't idempotent was sent twice for one run, and every invariant of the doctor holds.
// TESTFLOW_TEST_KILLS sets how often; without it, each point once and as many random kills as half of them.
func TestChaos_killedAnywhere_losesNothing(t *testing.T) {
	points := fault.Points()
	kills := len(points) + len(points)/2
	if s := os.Getenv("TESTFLOW_TEST_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		kills = n
	}
	var calls sync.Map // mark of a POST → *atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, _ := calls.LoadOrStore(r.URL.Query().Get("mark"), &atomic.Int64{})
			n.(*atomic.Int64).Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	}))
	t.Cleanup(target.Close)
	in := newInstallation(t, "TESTFLOW_EGRESS_ALLOW="+strings.TrimPrefix(target.URL, "http://"))

	var at atomic.Value // the address of the program that runs now
	p := in.mustStart()
	at.Store(p.url)
	u := register(t, func() string { return at.Load().(string) }, "chaos")
	step := func(method string) map[string]any {
		return map[string]any{"variables": map[string]string{"mark": "none"}, "steps": []any{map[string]any{
			"name":       "hit",
			"request":    map[string]any{"method": method, "url": target.URL + "/hit?mark={{mark}}"},
			"assertions": []any{map[string]any{"source": "status", "operator": "equals", "expected": 200}},
		}}}
	}
	_, get := u.newTest("reads", "read", step("GET"))
	_, post := u.newTest("writes", "write", step("POST"))

	l := &load{user: u, tests: []string{get, post}, acked: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() { l.client(ctx, c) })
	}
	hit := map[string]int{}
	for k := range kills {
		if k == 0 {
			p.kill() // it ran without a point
		}
		point := ""
		if k < len(points) || k%3 != 0 {
			point = points[k%len(points)]
		}
		nth := 1 + rand.IntN(15)
		var ok bool
		p, ok = in.start(fmt.Sprintf("TESTFLOW_FAULT=%s:%d", point, nth))
		if ok {
			at.Store(p.url)
			wait := 4 * time.Second // for a point that this load doesn't come to
			if point == "" {
				wait = time.Duration(rand.Int64N(int64(time.Second)))
			}
			select {
			case <-p.done:
			case <-time.After(wait):
			}
		}
		p.kill()
		if strings.Contains(p.errs.String(), "fault point hit: "+point) && point != "" {
			hit[point]++
		}
	}
	p = in.mustStart()
	at.Store(p.url)
	cancel()
	clients.Wait()
	for _, point := range points {
		require.Positive(t, hit[point], "the program never died at %s", point)
	}
	l.settle(t, in)
	t.Logf("%d kills, %d of them at fault points: %v; %d runs acknowledged", kills, sum(hit), hit, len(l.acked))

	twice := 0
	calls.Range(func(mark, n any) bool {
		if n.(*atomic.Int64).Load() > 1 {
			twice++
			t.Errorf("a POST was sent %d times for %v", n.(*atomic.Int64).Load(), mark)
		}
		return true
	})
	require.Zero(t, twice)
	require.Zero(t, p.stop(), p.errs)
	out, code := in.command(t.Context(), "doctor")
	require.Zero(t, code, out)
	t.Log("\n" + out)
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// load executes tests again and again, each with an idempotency key that it repeats until it has an answer.
type load struct {
	*user
	tests []string

	mu    sync.Mutex
	acked map[string]string // key → run
	keys  []string          // in the order of the first try
}

func (l *load) client(ctx context.Context, c int) {
	for n := 0; ctx.Err() == nil; n++ {
		key := fmt.Sprintf("client-%d-%d", c, n)
		l.mu.Lock()
		l.keys = append(l.keys, key)
		l.mu.Unlock()
		for {
			// Not with ctx: what was begun is asked until it is answered, so that each key has a fate.
			a, err := l.do(context.WithoutCancel(ctx), "POST", "/api/tests/"+l.tests[n%len(l.tests)]+"/execute",
				map[string]any{"variables": map[string]string{"mark": key}}, "Idempotency-Key", key)
			if err == nil && a.status == http.StatusAccepted {
				var out struct{ Runs []identified }
				a.into(l.t, &out)
				l.mu.Lock()
				l.acked[key] = out.Runs[0].ID
				l.mu.Unlock()
				break
			}
			if err == nil && a.status < 500 && a.status != http.StatusConflict {
				l.t.Errorf("%s: %d %s", key, a.status, a.body)
				return
			}
			pause(20 * time.Millisecond) // the program is being started again
		}
		pause(5 * time.Millisecond)
	}
}

// pause paces a client; nothing is concluded from its length.
func pause(d time.Duration) { <-time.After(d) }

// settle waits until every run has ended and then compares the log with what the clients know.
func (l *load) settle(t *testing.T, in *installation) {
	t.Helper()
	ctx := t.Context()
	query := func(sql string) (n int) {
		require.NoError(t, in.db.System.QueryRow(ctx, sql).Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return query(`SELECT count(*) FROM runs WHERE status IN ('queued','running')`) == 0 },
		2*time.Minute, 200*time.Millisecond, "runs that never end: %d", query(`SELECT count(*) FROM runs WHERE status IN ('queued','running')`))
	require.Len(t, l.acked, len(l.keys), "each key got its answer")
	runs := map[string]string{}
	for key, id := range l.acked {
		require.NotContains(t, runs, id, "%s and %s were answered with one run", key, runs[id])
		runs[id] = key
	}
	require.Equal(t, len(runs), query(`SELECT count(*) FROM es.run_event e JOIN es.event_type USING (type_id) WHERE name = 'run.requested'`), "one request for each key")
	rows, err := in.db.System.Query(ctx, `SELECT stream_id::text, count(*) FROM es.run_event JOIN es.event_type USING (type_id) WHERE name = 'run.finished' GROUP BY 1`)
	require.NoError(t, err)
	defer rows.Close()
	ended := 0
	for rows.Next() {
		var id string
		var n int
		require.NoError(t, rows.Scan(&id, &n))
		require.Equal(t, 1, n, "run %s", id)
		require.Contains(t, runs, id)
		ended++
	}
	require.NoError(t, rows.Err())
	require.Equal(t, len(runs), ended, "each run has its end")
	t.Logf("ends: %d passed, %d inconclusive, of %d", query(`SELECT count(*) FROM runs WHERE status = 'passed'`), query(`SELECT count(*) FROM runs WHERE status = 'inconclusive'`), ended)
}
