//go:build faultpoints

package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// PointsEnabled reports whether this build can be made to die at a point.
const PointsEnabled = true

// FaultVariable names the environment variable that arms one point: "name" or "name:nth", nth from 1.
const FaultVariable = "TESTFLOW_FAULT"

var armed = sync.OnceValue(func() *arming { return parseFault(os.Getenv(FaultVariable)) })

type arming struct {
	mu   sync.Mutex
	name string
	left int
}

func parseFault(s string) *arming {
	name, nth, _ := strings.Cut(s, ":")
	n, err := strconv.Atoi(nth)
	if err != nil || n < 1 {
		n = 1
	}
	return &arming{name: name, left: n}
}

// Hit kills the process, as kill -9 does, when name is armed and this is the nth time that it is hit.
func Hit(name string) {
	a := armed()
	if a.name != name {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left--; a.left != 0 {
		return
	}
	fmt.Fprintln(os.Stderr, "fault point hit: "+name)
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		os.Exit(137)
	}
	select {} // the signal is on its way; nothing may run after the point
}
