package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/testflow/testflow/internal/analytics"
	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/projection"
	"github.com/testflow/testflow/internal/run"
)

type doctorCommand struct {
	Invariants bool   `help:"Check what must always hold: each run ends once, versions have no gaps, projections equal a rebuild." default:"true" negatable:""`
	Heads      string `help:"File with seals that were kept: the audit log must still be what they say." env:"TESTFLOW_AUDIT_HEADS_FILE" placeholder:"FILE"`
}

// Run prints a line for each invariant and one for each violation; exit code 1 says that there are some.
func (d *doctorCommand) Run(ctx context.Context, t terminal) error {
	return withStore(ctx, t, func(ctx context.Context, dbs *databases, store *eventstore.Store, log *slog.Logger) error {
		if !d.Invariants {
			t.printf("The database answers, and its schema is this version's.\n")
			return nil
		}
		var heads []string
		if d.Heads != "" {
			var err error
			if heads, err = cli.ReadHeads(d.Heads); err != nil {
				return &cli.Exit{Code: cli.ExitUsage, Err: fmt.Errorf("read the seals that were kept: %w", err)}
			}
		}
		runner := projection.NewRunner(projection.Config{Store: store, DB: dbs.analytics, Projections: analytics.Projections(), Now: time.Now, Logger: log})
		if err := runner.Setup(ctx); err != nil {
			return err
		}
		bad := 0
		for _, inv := range invariants(dbs, store, runner, heads, log) {
			start := time.Now()
			found, err := inv.check(ctx)
			verdict := "ok"
			switch {
			case errors.Is(err, errDropped):
				verdict = "not checked: " + err.Error()
			case err != nil:
				return fmt.Errorf("check %s: %w", inv.name, err)
			case len(found) > 0:
				verdict = violations(len(found))
				bad += len(found)
			}
			t.printf("%-3s %-72s %s (%s)\n", inv.name, inv.says, verdict, time.Since(start).Round(time.Millisecond))
			for _, v := range found {
				t.printf("         %s\n", v)
			}
		}
		if bad > 0 {
			return &cli.Exit{Code: cli.ExitFailed, Err: fmt.Errorf("%s; keep a copy of the database before you change anything", violations(bad))}
		}
		return nil
	})
}

// violations says how many.
func violations(n int) string {
	if n == 1 {
		return "1 violation"
	}
	return fmt.Sprintf("%d violations", n)
}

// invariant is a rule that must hold at any moment, and what finds the places where it doesn't.
type invariant struct {
	name, says string
	check      func(ctx context.Context) (violations []string, err error)
}

func invariants(dbs *databases, store *eventstore.Store, runner *projection.Runner, heads []string, log *slog.Logger) []invariant {
	runs := &run.Doctor{DB: dbs.main, Store: store, Now: time.Now}
	seals := &audit.Service{DB: dbs.main, Store: store, Evidence: audit.Seals, Now: time.Now, NewID: newID, Log: log}
	return []invariant{
		{"I2", "each requested run reaches exactly one end, in time", runs.CheckEnds},
		{"I3", "an acknowledged command is stored exactly once", store.CheckCommands},
		{"I4", "versions have no gaps, and positions grow with them", store.CheckVersions},
		{"I5", "an organization's feed, page by page, is the scan of its events", store.CheckFeed},
		{"I6", "projections equal a rebuild from zero", func(ctx context.Context) ([]string, error) { return compareAll(ctx, runner) }},
		{"I8", "what is done twice is recorded once", runs.CheckResults},
		{"I11", "the audit log is what was sealed, by every seal that was kept", func(ctx context.Context) ([]string, error) { return seals.CheckSeals(ctx, heads) }},
	}
}

// errDropped says why nothing can be compared with the beginning of the log.
var errDropped = errors.New("old runs were dropped, and what they added can't be added again")

func compareAll(ctx context.Context, runner *projection.Runner) (violations []string, err error) {
	if dropped, err := runner.Dropped(ctx); err != nil {
		return nil, err
	} else if dropped > 0 {
		return nil, errDropped
	}
	for _, p := range analytics.Projections() {
		c, err := runner.Compare(ctx, p.Name)
		if err != nil {
			return nil, err
		}
		if !c.Equal() {
			violations = append(violations, c.String())
		}
	}
	return violations, nil
}
