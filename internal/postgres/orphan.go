package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// orphanPoll is how often we look whether an orphan has gone; nobody tells us, since it isn't our child.
const orphanPoll = 50 * time.Millisecond

// stopOrphans ends what a killed predecessor left running on the cluster and removes its postmaster.pid. The caller
// holds the directory's lock, so whatever runs there has no owner. Postgres' own check of the file cannot tell a
// process that got the same number later; we look where processes live.
func stopOrphans(ctx context.Context, pg string, log *slog.Logger) error {
	pidFile := filepath.Join(pg, "postmaster.pid")
	master := readPID(pidFile)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		left := processesIn(pg, master)
		if len(left) == 0 {
			break
		}
		log.WarnContext(ctx, "stopping a postgres that outlived its testflow", slog.Int("processes", len(left)), slog.String("signal", sig.String()))
		for _, pid := range left {
			// The postmaster stops the others; without it each must be told.
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("a postgres (process %d) still runs on %s and cannot be stopped (%w): stop it", pid, pg, err)
			}
			if pid == master {
				break
			}
		}
		if err := awaitNone(ctx, pg, master, stopTimeout); err != nil {
			return err
		}
	}
	if left := processesIn(pg, master); len(left) > 0 {
		return fmt.Errorf("a postgres (process %d) still runs on %s: stop it", left[0], pg)
	}
	if !canSeeProcesses {
		return nil // Postgres' own check has to do
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return dirError(pg, err)
	}
	return nil
}

func awaitNone(ctx context.Context, pg string, master int, limit time.Duration) error {
	tick := time.NewTicker(orphanPoll)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for len(processesIn(pg, master)) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// readPID returns the first line of postmaster.pid as a number, 0 when there is none.
func readPID(file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}
