package run_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/run"
)

// BenchmarkRuns measures runs from their request to their committed end: one step, three assertions, a target in this
// process. cpu-s/1000 is the processor time of this process (target and feed included) and of its Postgres backends.
func BenchmarkRuns(b *testing.B) {
	w := newWorld(b)
	n := w.newWorker(b, "bench")
	test := w.test(b, w.get("/pets/1"))
	w.start(b, n, map[string]int{"default": 100}, 0)
	w.finish(b, w.begin(b, test, run.StartInput{}).ID)
	const clients = 32
	backends := w.backends(b)
	before, own := cpuOf(b, backends), selfCPU(b)
	b.ResetTimer()
	ids := make([]uuid.UUID, b.N)
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := c; i < b.N; i += clients {
				runs, err := w.Start(w.ctx, w.org, test.ID, run.StartInput{})
				if err != nil {
					b.Error(err)
					return
				}
				ids[i] = runs[0].ID
			}
		})
	}
	all.Wait()
	requested := b.Elapsed()
	if b.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Minute)
	defer cancel()
	runs, err := w.WaitFinished(ctx, w.org, ids)
	require.NoError(b, err)
	b.StopTimer()
	for _, r := range runs {
		require.Equal(b, run.Passed, r.Status)
	}
	pg, us := cpuOf(b, w.backends(b))-before, selfCPU(b)-own
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
	b.ReportMetric(float64(b.N)/requested.Seconds(), "requests/s")
	b.ReportMetric((pg+us).Seconds()/float64(b.N)*1000, "cpu-s/1000")
	b.ReportMetric(pg.Seconds()/float64(b.N)*1000, "pg-cpu-s/1000")
}

// backends are the processes of the database's connections.
func (w *world) backends(b *testing.B) (pids []int) {
	b.Helper()
	require.NoError(b, w.db.InSystem(b.Context(), func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE datname = current_database()`)
		if err != nil {
			return err
		}
		pids, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	}))
	return pids
}

// cpuOf is the processor time that processes have used, in ticks of 10 ms each.
func cpuOf(b *testing.B, pids []int) (total time.Duration) {
	b.Helper()
	for _, pid := range pids {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it ended
		}
		_, rest, _ := strings.Cut(string(raw), ") ")
		fields := strings.Fields(rest)
		for _, i := range []int{11, 12} { // utime, stime
			ticks, err := strconv.Atoi(fields[i])
			require.NoError(b, err)
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total
}

func selfCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
