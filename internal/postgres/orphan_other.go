//go:build !linux

package postgres

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// canSeeProcesses says whether processesIn finds every process.
const canSeeProcesses = false

// processesIn returns the postmaster if the process of that number is one of this cluster.
func processesIn(pg string, master int) []int {
	if master == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) //nolint:forbidigo // a question to ps, bounded by itself
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-o", "command=", "-p", strconv.Itoa(master)).Output()
	if err != nil || !strings.Contains(string(out), "postgres") || !strings.Contains(string(out), pg) {
		return nil
	}
	return []int{master}
}
