package executor_test

import (
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

func TestMain(m *testing.M) {
	if os.Getenv(benchTarget) != "" {
		serveBenchTarget()
		return
	}
	goleak.VerifyTestMain(m)
}

// TestHostile_typedEnd runs against everything that a target can do to a client: each is a typed end, soon.
func TestHostile_typedEnd(t *testing.T) {
	target := targettest.New(t)
	targettest.Arm()
	e := newEngine(t, target)
	for path, want := range targettest.Hostile() {
		t.Run(path, func(t *testing.T) {
			// What must end by its deadline gets a short one; all else must end well before a long one.
			limit := "15s"
			if want == "timeout" {
				limit = "300ms"
			}
			started := time.Now()
			o := run(t, e, target, get("{{base}}"+path, `,"timeout":"`+limit+`"`))
			if string(o.Code) != want {
				t.Errorf("code %q (%v), want %q", o.Code, o.Error, want)
			}
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
			if want == "" && o.Status != executor.Passed {
				t.Errorf("status %s", o.Status)
			}
			if want == "blocked" && o.Status != executor.Inconclusive {
				t.Errorf("status %s, want inconclusive", o.Status)
			}
			if len(o.steps) != 1 || o.steps[0].Timings.Total <= 0 {
				t.Errorf("steps %+v", o.steps)
			}
		})
	}
}

// hostileRuns is how many runs TestHostile_flat makes: TESTFLOW_TEST_HOSTILE_RUNS, or some for every day.
func hostileRuns(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TESTFLOW_TEST_HOSTILE_RUNS")
	if text == "" {
		return 300
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("TESTFLOW_TEST_HOSTILE_RUNS is no number of runs: %q", text)
	}
	return n
}

// TestHostile_flat makes many runs against everything hostile, 50 at a time, and looks at what they leave behind:
// goroutines, descriptors, memory. `make test/hostile` makes 10 000.
func TestHostile_flat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	target := targettest.New(t)
	targettest.Arm()
	all := everythingHostile(target, target.NewHTTP3(t))
	names := slices.Sorted(maps.Keys(all))
	e := newEngine(t, target)
	many := func(n int) {
		var wg sync.WaitGroup
		next := make(chan string)
		for range 50 {
			wg.Go(func() {
				for name := range next {
					c := all[name]
					spec := strings.Replace(c.spec(), `"400ms"`, `"150ms"`, 1)
					o := run(t, e, target, spec)
					// What floods a connection of HTTP/2 may hit another run's stream on it.
					ok := string(o.Code) == c.code || o.Code == executor.CodeTimeout || o.Code == executor.CodeProtocol && strings.HasPrefix(name, "h2-")
					if !ok {
						t.Errorf("%s: code %q (%v), want %q", name, o.Code, o.Error, c.code)
					}
				}
			})
		}
		for i := range n {
			next <- names[i%len(names)]
		}
		close(next)
		wg.Wait()
		e.Close()
	}
	many(len(names))
	goroutines, files := settle(t)
	memory := heap()
	runs, started := hostileRuns(t), time.Now()
	many(runs)
	took := time.Since(started)
	g, f := settle(t)
	m := heap()
	t.Logf("%d runs against %d hostile behaviours, 50 at a time, in %s: goroutines %d → %d, descriptors %d → %d, heap %d → %d KiB",
		runs, len(names), took.Round(time.Millisecond), goroutines, g, files, f, memory>>10, m>>10)
	if g > goroutines+20 {
		t.Errorf("goroutines grew from %d to %d", goroutines, g)
	}
	if f > files+20 {
		t.Errorf("descriptors grew from %d to %d", files, f)
	}
	if m > memory+32<<20 {
		t.Errorf("the heap grew from %d to %d KiB", memory>>10, m>>10)
	}
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// settle waits until the number of goroutines stops falling and returns it with that of open descriptors.
func settle(t *testing.T) (goroutines, files int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	goroutines = runtime.NumGoroutine()
	// What was given up in a handshake goes on for its ten seconds.
	for same, ticks := 0, 0; same < 10 || ticks < int(12*time.Second/(20*time.Millisecond)); ticks++ {
		<-tick.C
		if n := runtime.NumGoroutine(); n < goroutines {
			goroutines, same = n, 0
		} else {
			goroutines, same = n, same+1
		}
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return goroutines, len(list)
}
