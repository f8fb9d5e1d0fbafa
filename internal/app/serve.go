package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/testflow/testflow/internal/config"
)

type serveCommand struct {
	Migrate bool `help:"Bring the database to this version's schema first." negatable:"" default:"true"`
}

// Run starts the doors, the pulse and the projections; workers are processes of their own.
func (s *serveCommand) Run(ctx context.Context, t terminal) error {
	c, err := loadConfig(config.Serve, t.environ)
	if err != nil {
		return err
	}
	log := t.logger(c.Log)
	warn(log, c)
	listener, err := listen(ctx, c.ListenAddress(config.Serve), c.Server.Port)
	if err != nil {
		return err
	}
	dbs, err := openDatabases(ctx, c, s.Migrate, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer dbs.close()
	p, err := newPlatform(ctx, c, config.Serve, dbs, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := p.announceSetup(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	p.announceMail(ctx)
	proc := newProcess(log, c.Server.ShutdownTimeout+stopSlack)
	p.startDoors(ctx, proc, listener)
	if err := p.startLeader(ctx, proc); err != nil {
		return errors.Join(err, proc.stopAll(ctx))
	}
	log.InfoContext(ctx, "serving", slog.String("url", p.url(listener)), slog.String("address", listener.Addr().String()), slog.String("version", version()))
	return proc.wait(ctx)
}

type workerCommand struct {
	Region      string `help:"Region whose runs are executed; TESTFLOW_REGION when it isn't given." placeholder:"NAME"`
	Concurrency int    `help:"Runs at the same time; TESTFLOW_WORKER_CONCURRENCY when it isn't given." placeholder:"N"`
}

// Run executes the runs of one region. The schema must be there: `serve` or `migrate up` makes it.
func (w *workerCommand) Run(ctx context.Context, t terminal) error {
	environ := t.environ
	if w.Region != "" {
		environ = append(environ, "TESTFLOW_REGION="+w.Region)
	}
	if w.Concurrency != 0 {
		environ = append(environ, "TESTFLOW_WORKER_CONCURRENCY="+strconv.Itoa(w.Concurrency))
	}
	c, err := loadConfig(config.Work, environ)
	if err != nil {
		return err
	}
	log := t.logger(c.Log)
	warn(log, c)
	dbs, err := openDatabases(ctx, c, false, log)
	if err != nil {
		return err
	}
	defer dbs.close()
	p, err := newPlatform(ctx, c, config.Work, dbs, log)
	if err != nil {
		return err
	}
	proc := newProcess(log, c.Server.ShutdownTimeout+stopSlack)
	if err := p.startWorker(ctx, proc); err != nil {
		return errors.Join(err, proc.stopAll(ctx))
	}
	log.InfoContext(ctx, "working", slog.String("region", c.Worker.Region), slog.Int("concurrency", c.Worker.Concurrency), slog.String("version", version()))
	return proc.wait(ctx)
}

// stopSlack is what a stop may take beyond the time that runs get to end: closing sockets, the last appends, the database.
const stopSlack = 15 * time.Second

// listen takes the port, with an error that says what to do when it is taken.
func listen(ctx context.Context, address string, port int) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d is taken by another program; stop that one, or choose another port: PORT=%d", port, port+1)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("this user may not listen on port %d; choose one above 1023: PORT=3000", port)
	}
	return nil, fmt.Errorf("listen on %s: %w", address, err)
}

// url is where people reach the server that listens there.
func (p *platform) url(l net.Listener) string {
	if p.cfg.Server.PublicURL != "" {
		return p.cfg.Server.PublicURL
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return l.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() || ip.IsLoopback() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// serveHTTP is the part that answers requests, given the means to serve, to refuse new work and to end what is under way.
func serveHTTP(l net.Listener, serve func(net.Listener) error, stop func(context.Context) error) part {
	return part{
		name: "http",
		run: func(context.Context) error {
			if err := serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
		stop: stop,
	}
}

// warn logs what was found in the environment and doesn't stop a start.
func warn(log *slog.Logger, c *config.Config) {
	for _, w := range c.Warnings {
		log.Warn("setting", slog.String("problem", w))
	}
}
