package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// Wrap finds or starts one server for all packages, says on w which, runs a command that sees its address in
// TESTFLOW_TEST_DATABASE_URL, stops the server, and returns the command's exit code (2: it could not be run).
func Wrap(w io.Writer, command []string) int {
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		fmt.Fprintln(w, "usage: pgwrap -- command [argument…]")
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	code, err := wrap(ctx, w, command)
	if err != nil {
		fmt.Fprintln(w, "pgwrap:", err)
	}
	return code
}

func wrap(ctx context.Context, w io.Writer, command []string) (code int, err error) {
	begin := time.Now()
	s, err := find(ctx, true)
	if err != nil {
		return 2, err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if errStop := s.stop(end); errStop != nil {
			err, code = errors.Join(err, errStop), max(code, 1)
		}
	}()
	if _, err := s.template(ctx); err != nil {
		return 2, err
	}
	fmt.Fprintf(w, "tests run on %s (ready in %s)\n", s.what, time.Since(begin).Round(time.Millisecond))

	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "TESTFLOW_TEST_PG=url", "TESTFLOW_TEST_DATABASE_URL="+s.url)
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 2, err
	}
	return 0, nil
}
