// Command guards shows that the product's protections are what stops the attacks of its tests. For each guard of
// .ci/guards it builds the program without it (by go's overlay: nothing in the tree changes), runs the test that
// carries the attack out, and demands that the attack succeeds: that the test fails, by an assertion. With the guard
// in place the same test must pass. It needs a Postgres in TESTFLOW_TEST_DATABASE_URL; `make guards` gives it one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// verdict is what came out for one guard.
type verdict struct {
	guard Guard
	took  time.Duration
	err   error // nil: the attack succeeds without the guard, and fails with it
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := command(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guards:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, w io.Writer, args []string) error {
	flags := flag.NewFlagSet("guards", flag.ContinueOnError)
	root := flags.String("root", ".", "the module's folder")
	only := flags.String("run", "", "only guards whose area or name matches this regexp")
	list := flags.Bool("list", false, "list the guards and check that none is stale; run nothing")
	jobs := flags.Int("jobs", 2, "how many at once")
	verbose := flags.Bool("v", false, "show what the tests say without their guards")
	if err := flags.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	guards, err := load(*root + "/.ci/guards")
	if err != nil {
		return err
	}
	guards = slices.DeleteFunc(guards, func(g Guard) bool { return !match.MatchString(g.id()) })
	if len(guards) == 0 {
		return fmt.Errorf("no guard matches %q", *only)
	}
	if err := stale(*root, guards); err != nil {
		return err
	}
	if *list {
		return printList(w, guards)
	}
	return (&runner{root: *root, jobs: max(*jobs, 1), verbose: *verbose, w: w}).all(ctx, guards)
}

func printList(w io.Writer, guards []Guard) error {
	for _, g := range guards {
		if _, err := fmt.Fprintf(w, "%-12s %-40s %s\n", g.area, g.Name, g.Attack); err != nil {
			return err
		}
	}
	return nil
}

// all runs every guard and prints a line for each as it is done.
func (r *runner) all(ctx context.Context, guards []Guard) error {
	begin := time.Now()
	whole, err := r.withGuards(ctx, guards)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(r.w, "%d tests pass with their guards (%.0f s)\n\n%-12s %-44s %5s  %s\n",
		whole, time.Since(begin).Seconds(), "area", "guard", "s", "attack succeeds without it"); err != nil {
		return err
	}
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		bad   []error
		queue = make(chan Guard)
	)
	for range r.jobs {
		wg.Go(func() {
			for g := range queue {
				v := r.withoutGuard(ctx, g)
				mu.Lock()
				if v.err != nil {
					bad = append(bad, v.err)
				}
				r.line(v)
				mu.Unlock()
			}
		})
	}
	for _, g := range guards {
		if ctx.Err() != nil {
			break
		}
		queue <- g
	}
	close(queue)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(bad) > 0 {
		return fmt.Errorf("%d of %d guards aren't shown:\n\n%w", len(bad), len(guards), errors.Join(bad...))
	}
	_, err = fmt.Fprintf(r.w, "\n%d guards, each of which is what stops its attack (%.0f s)\n", len(guards), time.Since(begin).Seconds())
	return err
}

func (r *runner) line(v verdict) {
	said := "yes: " + v.guard.Attack
	if v.err != nil {
		said = "NOT SHOWN"
		if first, _, _ := strings.Cut(v.err.Error(), "\n"); first != "" {
			said += ": " + first
		}
	}
	fmt.Fprintf(r.w, "%-12s %-44s %5.1f  %s\n", v.guard.area, v.guard.Name, v.took.Seconds(), said)
}
