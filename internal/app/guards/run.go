package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// testLimit ends a test that hangs without its guard; hanging is no failed assertion.
const testLimit = "300s"

type runner struct {
	root    string
	jobs    int
	verbose bool
	w       io.Writer
}

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
}

// outcome is what the tests of one go test said.
type outcome struct {
	state  map[string]string // by test: pass, fail or skip
	broken bool              // it didn't compile, or ended without saying how its tests went
	output string
}

// suite is what one go test can run at once.
type suite struct{ pkg, tags string }

// withGuards runs each test once as the tree is; all must pass. It returns how many there are.
func (r *runner) withGuards(ctx context.Context, guards []Guard) (tests int, err error) {
	suites := map[suite]map[string]bool{}
	for _, g := range guards {
		s := suite{g.Package, g.Tags}
		if suites[s] == nil {
			suites[s] = map[string]bool{}
		}
		top, _, _ := strings.Cut(g.Test, "/")
		suites[s][top] = true
	}
	order := slices.SortedFunc(maps.Keys(suites), func(a, b suite) int { return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.tags, b.tags)) })
	var faults []error
	for _, s := range order {
		names := slices.Sorted(maps.Keys(suites[s]))
		out, err := r.test(ctx, s, "^("+strings.Join(names, "|")+")$", "")
		if err != nil {
			return 0, err
		}
		if out.broken {
			faults = append(faults, fmt.Errorf("%s doesn't build or ends early:\n%s", s.pkg, out.tail()))
			continue
		}
		tests += len(names)
		fine := true
		for _, g := range guards {
			if (suite{g.Package, g.Tags}) != s {
				continue
			}
			if err := g.passes(out); err != nil {
				faults, fine = append(faults, err), false
			}
		}
		if !fine {
			faults = append(faults, fmt.Errorf("%s said:\n%s", s.pkg, out.tail()))
		}
	}
	return tests, errors.Join(faults...)
}

// passes demands that the guard's test ran and passed.
func (g Guard) passes(out outcome) error {
	ran := out.of(g)
	if len(ran) == 0 {
		return fmt.Errorf("%s: no test %s ran in %s", g.id(), g.Test, g.Package)
	}
	for _, name := range ran {
		if out.state[name] != "pass" {
			return fmt.Errorf("%s: with the guard in place %s is %s", g.id(), name, out.state[name])
		}
	}
	return nil
}

// withoutGuard takes the guard away and demands that its test fails.
func (r *runner) withoutGuard(ctx context.Context, g Guard) (v verdict) {
	begin := time.Now()
	v.guard = g
	defer func() { v.took = time.Since(begin) }()
	dir, err := os.MkdirTemp("", "testflow-guard-")
	if err != nil {
		v.err = err
		return v
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil && v.err == nil {
			v.err = err
		}
	}()
	overlay, err := g.overlay(r.root, dir)
	if err != nil {
		v.err = err
		return v
	}
	out, err := r.test(ctx, suite{g.Package, g.Tags}, g.run(), overlay)
	if err != nil {
		v.err = err
		return v
	}
	v.err = g.fails(out)
	if r.verbose {
		fmt.Fprintf(r.w, "--- %s\n%s\n", g.id(), out.tail())
	}
	return v
}

// fails demands that the guard's test said, by an assertion of its own, that the attack went through.
func (g Guard) fails(out outcome) error {
	ran := out.of(g)
	failed := slices.DeleteFunc(slices.Clone(ran), func(name string) bool { return out.state[name] != "fail" })
	switch {
	case out.broken:
		return fmt.Errorf("%s: without it the program doesn't build, or the test ends early:\n%s", g.id(), out.tail())
	case len(ran) == 0:
		return fmt.Errorf("%s: no test %s ran in %s", g.id(), g.Test, g.Package)
	case len(failed) == 0:
		return fmt.Errorf("%s: %s passes (or skips) without it, so the test doesn't hold it, or something else stops the attack too:\n%s", g.id(), g.Test, out.tail())
	}
	// A test that stumbles has not shown an attack.
	if found := stumble.FindString(out.output); found != "" {
		return fmt.Errorf("%s: without it the test breaks (%q) instead of failing by an assertion:\n%s", g.id(), strings.TrimSpace(found), out.tail())
	}
	return nil
}

// stumble is what a test says that could not do its work: no database, a migration that doesn't run, a crash, a hang.
var stumble = regexp.MustCompile(`(?m)(\bpgtest: |^\s*panic: |^fatal error: ).*`)

// of names the tests of out that the guard means.
func (o outcome) of(g Guard) []string {
	parts := strings.Split(g.Test, "/")
	var names []string
	for name := range o.state {
		have := strings.SplitN(name, "/", len(parts))
		if len(have) != len(parts) || strings.Contains(have[len(have)-1], "/") {
			continue
		}
		if anchored(parts, have) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// anchored tells whether each part of a test's name is what the pattern at its place means.
func anchored(patterns, name []string) bool {
	for i, p := range patterns {
		if ok, err := regexp.MatchString("^("+p+")$", name[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// routine is what go test says of tests that are well.
var routine = regexp.MustCompile(`^\s*(=== |--- PASS)`)

// tail is the last of what was said, but for what is well.
func (o outcome) tail() string {
	lines := slices.DeleteFunc(strings.Split(strings.TrimRight(o.output, "\n"), "\n"), routine.MatchString)
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// overlay writes the files as they are without the guard into dir and returns the path of go's overlay of them.
func (g Guard) overlay(root, dir string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	files, err := g.without(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for path, src := range files {
		other := filepath.Join(dir, fmt.Sprintf("%d%s", len(replace), filepath.Ext(path)))
		if err := os.WriteFile(other, src, 0o600); err != nil {
			return "", err
		}
		replace[path] = other
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, raw, 0o600)
}

// test runs go test and reads what it says. An error means that go could not be run; how the tests went is in outcome.
func (r *runner) test(ctx context.Context, s suite, run, overlay string) (outcome, error) {
	args := []string{"test", "-json", "-vet=off", "-count=1", "-timeout", testLimit, "-ldflags=-s -w", "-run", run}
	if overlay != "" {
		args = append(args, "-failfast")
	}
	if s.tags != "" {
		args = append(args, "-tags", s.tags)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, s.pkg)...) //nolint:gosec // what runs is written in the tree's own tables
	cmd.Dir = r.root
	if overlay != "" { // for the test's own go build of the program, too
		cmd.Env = append(os.Environ(), strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" '-overlay="+overlay+"'"))
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return outcome{}, fmt.Errorf("run go %s: %w", strings.Join(args, " "), err)
	}
	if err := ctx.Err(); err != nil {
		return outcome{}, err
	}
	out := read(raw)
	out.output += stderr.String()
	return out, nil
}

// read makes an outcome of the lines of go test -json.
func read(raw []byte) outcome {
	out := outcome{state: map[string]string{}}
	var said strings.Builder
	ended := false
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			said.Write(lines.Bytes()) // the go command speaks for itself
			said.WriteByte('\n')
			continue
		}
		switch e.Action {
		case "output", "build-output":
			said.WriteString(e.Output)
		case "build-fail":
			out.broken = true
		case "run":
			out.state[e.Test] = "running"
		case "pass", "fail", "skip":
			if e.Test == "" {
				ended = true
				continue
			}
			out.state[e.Test] = e.Action
		}
	}
	out.output = said.String()
	if err := lines.Err(); err != nil {
		out.output += "\n" + err.Error()
		ended = false
	}
	for _, state := range out.state {
		out.broken = out.broken || state == "running"
	}
	out.broken = out.broken || !ended
	return out
}
