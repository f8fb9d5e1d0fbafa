// Package cli holds the commands that people type: kong structs with a Run method, which app puts into its grammar.
//
// A command talks to a server only through its API, writes data to stdout and everything else to stderr, and ends with an
// error that carries its exit code. The package opens no database and reads no configuration file.
package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/mattn/go-isatty"
)

// Exit codes of every command.
const (
	ExitOK          = 0   // done; for runs: all passed
	ExitFailed      = 1   // a test failed
	ExitUsage       = 2   // the command or a file is wrong
	ExitCouldNot    = 3   // the server, the network or the sign-in was in the way
	ExitInterrupted = 130 // Ctrl-C
)

// Env is the world around a command; app fills it in once.
type Env struct {
	Stdout, Stderr io.Writer
	Terminal       bool // stdout is a terminal
	Color          bool // colours are wanted: a terminal, and neither NO_COLOR nor TERM=dumb
	Now            func() time.Time
	HTTP           *http.Client // for the API; nil = one with a timeout
	Getenv         func(string) string
}

// NewEnv returns the Env of this process. getenv is os.Getenv.
func NewEnv(stdout, stderr *os.File, getenv func(string) string, now func() time.Time) Env {
	terminal := isatty.IsTerminal(stdout.Fd()) || isatty.IsCygwinTerminal(stdout.Fd())
	return Env{
		Stdout: stdout, Stderr: stderr, Terminal: terminal, Now: now, Getenv: getenv,
		Color: terminal && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb",
	}
}

// Exit is an error with the exit code of the process. kong asks for ExitCode.
type Exit struct {
	Code int
	Err  error // what is printed, after "testflow: "; nil = nothing
}

// Error returns what is printed.
func (e *Exit) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Exit) Unwrap() error { return e.Err }

// ExitCode is the exit code of the process.
func (e *Exit) ExitCode() int { return e.Code }

// ExitCodeOf returns the exit code of a command's error, ExitOK for nil and ExitCouldNot for one that names none.
func ExitCodeOf(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[*Exit](err); ok {
		return e.Code
	}
	return ExitCouldNot
}

func usage(format string, args ...any) error {
	return &Exit{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

func couldNot(format string, args ...any) error {
	return &Exit{Code: ExitCouldNot, Err: fmt.Errorf(format, args...)}
}
