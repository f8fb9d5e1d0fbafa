package executor_test

import (
	"flag"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

var rounds = flag.Int("rounds", 3, "how often TestHostile_flat runs against everything hostile")

// TestHostile_flat repeats the hostile routes and looks at goroutines and descriptors.
func TestHostile_flat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	target := targettest.New(t)
	targettest.Arm()
	e := newEngine(t, target)
	round := func() {
		for path, want := range targettest.Hostile() {
			if want == "timeout" {
				continue // waits by design; covered above
			}
			run(t, e, target, get("{{base}}"+path, `,"timeout":"15s"`))
		}
		e.Close()
	}
	round()
	goroutines, files := settle(t)
	for range *rounds {
		round()
	}
	g, f := settle(t)
	if g > goroutines+10 {
		t.Errorf("goroutines grew from %d to %d", goroutines, g)
	}
	if f > files+10 {
		t.Errorf("descriptors grew from %d to %d", files, f)
	}
}

// settle waits until the number of goroutines stops falling and returns it with that of open descriptors.
func settle(t *testing.T) (goroutines, files int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	goroutines = runtime.NumGoroutine()
	for same := 0; same < 10; {
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
