//go:build faultpoints

package fault_test

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/testflow/testflow/internal/fault"
)

func TestHit_killsAtTheNth(t *testing.T) {
	if os.Getenv("FAULT_CHILD") == "1" {
		fault.Hit(fault.PointRunStarted)
		fault.Hit(fault.PointRunEnded)
		_, _ = os.Stdout.WriteString("alive")
		fault.Hit(fault.PointRunEnded)
		_, _ = os.Stdout.WriteString("undead")
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHit_killsAtTheNth$")
	cmd.Env = append(os.Environ(), "FAULT_CHILD=1", fault.FaultVariable+"="+fault.PointRunEnded+":2")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("the child lived: %v", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v, not by SIGKILL", exit)
	}
	if string(out) != "alive" {
		t.Fatalf("output %q: died at another time", out)
	}
}
