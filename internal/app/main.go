package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/alecthomas/kong"
	"github.com/lmittmann/tint"

	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/postgres"
)

// terminal is what a command talks to.
type terminal struct {
	out, err io.Writer
	environ  []string
	color    bool
}

// grammar is the command line. Commands that talk to a server through its API are cli's.
type grammar struct {
	Up      upCommand      `cmd:"" help:"Start everything in one process, with a Postgres of its own when DATABASE_URL is unset."`
	Serve   serveCommand   `cmd:"" help:"Start the API, the live stream, the pulse and the projections against DATABASE_URL."`
	Worker  workerCommand  `cmd:"" help:"Execute the runs of one region."`
	Migrate migrateCommand `cmd:"" help:"Bring the database to this version's schema, or show where it stands."`
	Watch   cli.Watch      `cmd:"" help:"Watch the live stream of a server in the terminal."`

	Projections projectionsCommand `cmd:"" help:"List the projections, or rebuild one beside the live one."`
	Audit       auditCommand       `cmd:"" help:"Verify an export of the audit log, or look after the keys that seal it."`
	Secrets     secretsCommand     `cmd:"" help:"Look after the keys that seal what is stored."`
	Region      regionCommand      `cmd:"" help:"Print the key that the workers of a region open secrets with."`
	Outbox      outboxCommand      `cmd:"" help:"Read the mail that up has kept on this machine."`
	Account     accountCommand     `cmd:"" help:"Help a person who can't sign in, or forget one."`
	Doctor      doctorCommand      `cmd:"" help:"Check the database: every invariant that must hold, with the places where it doesn't."`
	Health      healthCommand      `cmd:"" help:"Ask a server whether it is ready: exit code 0 when it is, 3 when it isn't."`
	Config      configCommand      `cmd:"" help:"Print every setting: its name, what it does, its default and its value."`
	Version     versionCommand     `cmd:"" help:"Print the version."`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

// Main runs the command line and returns the exit code. ctx ends with the first interrupt.
func Main(ctx context.Context, args []string, stdout, stderr *os.File) int {
	t := terminal{out: stdout, err: stderr, environ: os.Environ(), color: isTerminal(stderr) && os.Getenv("NO_COLOR") == ""}
	var g grammar
	exit := -1
	parser, err := kong.New(&g,
		kong.Name("testflow"),
		kong.Description("Runs API tests, shows live what happens, and can prove it afterwards."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.UsageOnError(),
		kong.Vars{"version": "testflow " + version()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(t, cli.NewEnv(stdout, stderr, os.Getenv, time.Now)),
	)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "testflow:", err)
		return cli.ExitUsage
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err := parser.Parse(args)
	if exit >= 0 { // --help has printed itself
		return exit
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "testflow: %v\nSee: testflow --help\n", err)
		return cli.ExitUsage
	}
	if err := kctx.Run(); err != nil {
		return t.fail(ctx, err)
	}
	return cli.ExitOK
}

// fail prints the error for the person who reads it and returns the exit code.
func (t terminal) fail(ctx context.Context, err error) int {
	var (
		faults *config.Faults
		admin  *postgres.AdminSQLError
	)
	code := cli.ExitCodeOf(err)
	switch exit, ok := errors.AsType[*cli.Exit](err); {
	case ok && exit.Err == nil:
		return code
	case errors.As(err, &faults):
		code = cli.ExitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return cli.ExitInterrupted
	}
	_, _ = fmt.Fprintln(t.err, "testflow:", err)
	if errors.As(err, &admin) {
		_, _ = fmt.Fprintf(t.err, "Have an administrator of that server run this, then try again:\n\n%s\n", admin.Script())
	}
	return code
}

// logger writes to standard error: coloured lines on a terminal, JSON elsewhere, unless LOG_FORMAT says otherwise.
func (t terminal) logger(c config.Log) *slog.Logger {
	var h slog.Handler = slog.NewJSONHandler(t.err, &slog.HandlerOptions{Level: c.Level, ReplaceAttr: readable})
	if c.Format == "text" || (c.Format != "json" && t.color) {
		h = tint.NewTextHandler(t.err, &tint.Options{Level: c.Level, TimeFormat: "15:04:05.000", NoColor: !t.color})
	}
	// net/http tells the standard logger of targets that break the protocol, in their own words.
	stdlog.SetFlags(0)
	stdlog.SetOutput(slog.NewLogLogger(h, slog.LevelDebug).Writer())
	return slog.New(h)
}

// readable writes durations with their unit; JSON would have them as nanoseconds that don't say so.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
}

func (t terminal) printf(format string, args ...any) { _, _ = fmt.Fprintf(t.out, format, args...) }

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

type versionCommand struct{}

func (versionCommand) Run(t terminal) error {
	t.printf("testflow %s\n", version())
	return nil
}

// version is the module's version or the commit that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "0.1.0-dev+" + s.Value[:12]
		}
	}
	return "0.1.0-dev"
}

type configCommand struct{}

func (configCommand) Run(t terminal) error {
	c, err := loadConfig(config.Print, t.environ)
	if err != nil {
		return err
	}
	return config.WriteReference(t.out, c)
}
