package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/postgres"
)

type upCommand struct {
	Demo bool `help:"Make a demo organization with tests against a sample API on this machine, and keep one of them running."`
	Port *int `help:"Port to listen on; PORT when it isn't given." placeholder:"N"`
}

// Run starts everything in one process and tells where it is. It ends with the first interrupt, in order; a second one
// ends it at once.
func (u *upCommand) Run(ctx context.Context, t terminal) (err error) {
	environ := t.environ
	if u.Port != nil {
		environ = append(environ, "PORT="+strconv.Itoa(*u.Port))
	}
	c, err := loadConfig(config.Up, environ)
	if err != nil {
		return err
	}
	log := t.logger(c.Log)
	warn(log, c)
	// The port first: it is what fails most often, and nothing has been touched yet.
	listener, err := listen(ctx, c.ListenAddress(config.Up), c.Server.Port)
	if err != nil {
		return err
	}
	defer func() { // closed by then, unless the start failed
		if cerr := listener.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}()
	dir, err := openDataDir(c)
	if err != nil {
		return err
	}
	secrets, made, err := dir.secrets()
	if err != nil {
		return err
	}
	secrets.fill(c)

	proc := newProcess(log, c.Server.ShutdownTimeout+stopSlack)
	defer func() { // on a failed start; after wait there is nothing left
		if serr := proc.stopAll(ctx); serr != nil {
			err = errors.Join(err, serr)
		}
	}()
	var server *postgres.Server
	if c.Database.URL == "" {
		if server, err = ownPostgres(ctx, c, dir, log); err != nil {
			return err
		}
		proc.start(ctx, watchPostgres(server))
	}
	dbs, err := openDatabases(ctx, c, true, log)
	if err != nil {
		return err
	}
	proc.start(ctx, part{name: "pools", run: untilDone, stop: func(context.Context) error { dbs.close(); return nil }})

	var sample *sampleAPI
	if u.Demo {
		sample = &sampleAPI{}
		if err := sample.listen(ctx, c.Server.Port+1); err != nil {
			return err
		}
		proc.start(ctx, part{name: "sample API", run: sample.serve})
		c.Server.EgressAllow = append(c.Server.EgressAllow, sample.Address)
	}
	p, err := newPlatform(ctx, c, config.Up, dbs, log)
	if err != nil {
		return err
	}
	p.startDoors(ctx, proc, listener)
	if err := p.startWorker(ctx, proc); err != nil {
		return err
	}
	b := banner{url: p.url(listener), dataDir: dir.path, keysMade: made, server: server, egress: c.Server.EgressAllow, requests: c.Limits.RateRequests, window: c.Limits.RateWindow}
	if u.Demo {
		d := &demo{platform: p, password: secrets.DemoPassword, base: "http://" + sample.Address, log: log.With(slog.String("room", "demo"))}
		if err := d.seed(ctx); err != nil {
			return err
		}
		proc.start(ctx, part{name: "demo", run: d.run})
		b.demo = d
	}
	b.print(t)
	err = proc.wait(ctx)
	log.InfoContext(ctx, "stopped", slog.String("uptime", time.Since(p.started).Round(time.Second).String()))
	return err
}

// untilDone is the run of a part that only needs stopping.
func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
