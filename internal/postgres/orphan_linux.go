package postgres

import (
	"os"
	"path/filepath"
	"strconv"
)

// canSeeProcesses says whether processesIn finds every process.
const canSeeProcesses = true

// processesIn returns the processes whose working directory is the cluster's, which is true of a postmaster and all
// its children, the postmaster first.
func processesIn(pg string, master int) []int {
	if real, err := filepath.EvalSymlinks(pg); err == nil {
		pg = real
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cwd, err := os.Readlink("/proc/" + e.Name() + "/cwd")
		if err != nil || cwd != pg {
			continue
		}
		if pid == master {
			pids = append([]int{pid}, pids...)
		} else {
			pids = append(pids, pid)
		}
	}
	return pids
}
