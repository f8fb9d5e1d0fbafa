package app

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/analytics"
	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/httpapi"
	"github.com/testflow/testflow/internal/mail"
	"github.com/testflow/testflow/internal/netguard"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/projection"
	"github.com/testflow/testflow/internal/realtime"
	"github.com/testflow/testflow/internal/run"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/vault"
)

// platform is every room of one process, wired. What a command doesn't need is nil.
type platform struct {
	cfg      *config.Config
	command  config.Command
	log      *slog.Logger
	db       *databases
	registry *prometheus.Registry
	started  time.Time

	store       *eventstore.Store
	feed        *eventstore.Feed
	projections *projection.Runner
	ends        *run.Ends
	idempotency *eventstore.Idempotency
	guard       *netguard.Guard
	egress      egress

	mail      *mail.Service
	accounts  *account.Service
	persons   *account.Persons
	master    *vault.Master
	orgKeys   *org.Keys
	orgs      *org.Service
	projects  *project.Service
	secrets   *secret.Service
	tests     *apitest.Service
	runs      *run.Service
	plans     *run.Plans
	analytics *analytics.Service
	audit     *audit.Service
	sealer    *audit.Sealer
	runSealer *audit.RunSealer
	refusals  *audit.Refusals

	live  *realtime.Server
	rates httpapi.RateLimits
	door  *httpapi.Server
}

// newPlatform builds the rooms that the command needs and registers the log's event types. It starts nothing.
func newPlatform(ctx context.Context, c *config.Config, command config.Command, dbs *databases, log *slog.Logger) (*platform, error) {
	collectLess()
	p := &platform{cfg: c, command: command, log: log, db: dbs, registry: prometheus.NewRegistry(), started: time.Now()}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	steps := []func(context.Context) error{p.buildGuard, p.buildLog, p.buildSlices}
	if command != config.Work {
		steps = append(steps, p.buildProjections, p.buildDoors, p.recordSettings)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// collectLess lets the heap grow to three times what lives, unless the operator set GOGC: what lives is a few tens of
// megabytes, and collecting it at every doubling was a tenth of the process's time.
func collectLess() {
	const usual, rarer = 100, 200
	if was := debug.SetGCPercent(rarer); was != usual {
		debug.SetGCPercent(was)
	}
}

// eventTypes are the types of every slice, in one list.
func eventTypes() []eventstore.Type {
	var all []eventstore.Type
	for _, types := range [][]eventstore.Type{account.Types(), org.Types(), project.Types(), secret.Types(), apitest.Types(), run.Types(), audit.Types()} {
		all = append(all, types...)
	}
	return all
}

// inlineModels are the read models that are written in the append's own transaction.
func inlineModels() []eventstore.ReadModel {
	return []eventstore.ReadModel{org.ReadModel(), project.ReadModel(), secret.ReadModel(), apitest.ReadModel(), run.ReadModel()}
}

// buildLog makes the store and the feed. A worker has no master key and appends nothing of people.
func (p *platform) buildLog(ctx context.Context) error {
	cfg := eventstore.Config{DB: p.db.main, Types: eventTypes(), Inline: inlineModels(), Now: time.Now, NewID: newID, Logger: p.room("eventstore")}
	if p.command != config.Work {
		master, err := vault.NewMaster(p.cfg.Secrets.MasterKey)
		if err != nil {
			return fmt.Errorf("TESTFLOW_MASTER_KEY: %w", err)
		}
		p.master = master
		if p.persons, err = account.NewPersons(p.db.main, master, time.Now); err != nil {
			return err
		}
		if p.orgKeys, err = org.NewKeys(p.db.main, master, time.Now); err != nil {
			return err
		}
		cfg.Seal = p.persons.Seal
	}
	p.store = eventstore.New(cfg)
	if err := p.store.Sync(ctx); err != nil {
		return err
	}
	if _, err := p.store.EnsurePartitions(ctx); err != nil {
		return err
	}
	if err := p.ensureBodies(ctx); err != nil {
		return err
	}
	p.feed = eventstore.NewFeed(eventstore.FeedConfig{Store: p.store, DB: p.db.main, Logger: p.room("feed")})
	return nil
}

// buildSlices makes the use cases.
func (p *platform) buildSlices(context.Context) (err error) {
	if p.plans, err = run.NewPlans(p.db.main, p.store, secret.NewOpener(p.regionKeys)); err != nil {
		return err
	}
	if p.command == config.Work {
		return nil
	}
	jobs, err := run.NewInsertClient(p.db.main, p.room("queue"))
	if err != nil {
		return err
	}
	if err := p.buildMail(jobs); err != nil {
		return err
	}
	if err := p.buildPeople(); err != nil {
		return err
	}
	p.projects = &project.Service{DB: p.db.main, Store: p.store, NewID: newID, Log: p.room("project")}
	p.secrets = &secret.Service{
		DB: p.db.main, Store: p.store, Key: p.orgKeys.Key, Region: p.master.Region, Require: p.orgs.Require, NewID: newID, Log: p.room("secret"),
	}
	p.tests = &apitest.Service{DB: p.db.main, Store: p.store, NewID: newID, CheckURL: p.egress.checkURL(p.guard), Limits: testLimits(p.cfg.Limits), Log: p.room("apitest")}
	p.ends, _ = run.NewEnds(p.feed)
	p.runs = &run.Service{DB: p.db.main, Store: p.store, Jobs: jobs, Plans: p.plans, Ends: p.ends, Secrets: p.secrets, NewID: newID, Log: p.room("run")}
	p.analytics = &analytics.Service{DB: p.db.analytics, Now: time.Now, Follow: p.follow}
	p.audit = &audit.Service{DB: p.db.main, Store: p.store, Open: p.openPerson, Check: p.orgs.Check, Now: time.Now, NewID: newID, Log: p.room("audit")}
	p.audit.Evidence = audit.Seals
	p.refusals = audit.NewRefusals(p.audit)
	return p.buildSealer()
}

// regionKeys returns the keys of a region: derived where the master key is, else those that the operator gave the worker.
func (p *platform) regionKeys(region string) (*vault.Ring, error) {
	switch {
	case p.master != nil:
		return p.master.Region(region)
	case p.cfg.Worker.RegionKey != "" && region == p.cfg.Worker.Region:
		return vault.NewRing(p.cfg.Worker.RegionKey)
	case p.cfg.Secrets.MasterKey == "":
		return nil, secret.ErrRegionKey
	}
	master, err := vault.NewMaster(p.cfg.Secrets.MasterKey)
	if err != nil {
		return nil, fmt.Errorf("TESTFLOW_MASTER_KEY: %w", err)
	}
	return master.Region(region)
}

func (p *platform) buildPeople() error {
	tokens, err := auth.NewTokens(p.cfg.Secrets.JWT, time.Now, newID)
	if err != nil {
		return fmt.Errorf("JWT_SECRET: %w", err)
	}
	refresh, err := auth.NewRefreshTokens(p.cfg.Secrets.Refresh)
	if err != nil {
		return fmt.Errorf("JWT_REFRESH_SECRET: %w", err)
	}
	passwords, err := auth.NewPasswords(runtime.NumCPU())
	if err != nil {
		return err
	}
	p.accounts = &account.Service{
		DB: p.db.main, Store: p.store, Persons: p.persons, Passwords: passwords, Tokens: tokens, Refresh: refresh,
		Mail: p.mail, NewID: newID, Log: p.room("account"),
	}
	if file := p.cfg.Server.LeakedPasswords; file != "" { // open for as long as the process lives
		if p.accounts.Policy.Leaked, err = account.OpenLeakedPasswords(file); err != nil {
			return fmt.Errorf("TESTFLOW_LEAKED_PASSWORDS_FILE: %w", err)
		}
	}
	policy := org.Policy(p.cfg.RegistrationPolicy(p.command))
	p.orgs = &org.Service{
		DB: p.db.main, Store: p.store, Accounts: p.accounts, Policy: policy, NewID: newID, Log: p.room("org"),
		KeyLifetime: p.cfg.Limits.KeyLifetime, KeyMaxLifetime: p.cfg.Limits.KeyMaxLifetime,
		InvitationLifetime: p.cfg.Server.Invitation, DeletionGrace: p.cfg.Server.DeletionGrace,
	}
	if p.command == config.Serve { // `up` listens to this machine alone
		if p.orgs.SetupToken, err = auth.SetupToken(p.cfg.Secrets.JWT); err != nil {
			return fmt.Errorf("JWT_SECRET: %w", err)
		}
	}
	return nil
}

// announceSetup says how the first account is made, as long as there is none: whoever reads the log may.
func (p *platform) announceSetup(ctx context.Context) error {
	taken, err := p.accounts.HasOperator(ctx)
	if err != nil || taken {
		return err
	}
	p.log.WarnContext(ctx, "no account yet: register the first one with this setupToken; it will be the operator", slog.String("setup_token", p.orgs.SetupToken))
	return nil
}

// buildGuard makes the one dialler, by the rules of the region whose runs this process executes.
func (p *platform) buildGuard(context.Context) error {
	faults := &config.Faults{}
	p.egress = readEgress(p.cfg, faults)
	if len(faults.List) > 0 {
		return faults
	}
	p.guard = p.egress.guard(p.cfg.Worker.Region)
	return nil
}

// follow waits for projections; they are built after the slices that read them.
func (p *platform) follow(ctx context.Context, position int64, names ...string) error {
	return p.projections.Wait(ctx, position, names...)
}

// ensureBodies makes the daily tables of stored responses that are missing.
func (p *platform) ensureBodies(ctx context.Context) error {
	return p.db.main.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := run.EnsureBodyPartitions(ctx, tx)
		return err
	})
}

func (p *platform) buildProjections(ctx context.Context) error {
	p.projections = projection.NewRunner(projection.Config{
		Store: p.store, DB: p.db.analytics, Projections: analytics.Projections(), Now: time.Now,
		Logger: p.room("projection"), Metrics: p.registry,
	})
	return p.projections.Setup(ctx)
}

// derived returns a key of 32 bytes for one use, from the secret that all nodes share.
func (p *platform) derived(use string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, []byte(p.cfg.Secrets.Refresh), nil, "testflow "+use, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of %s: %w", use, err)
	}
	return key, nil
}

// epoch tells one history of the database from another: a restored backup or a failover begins a new one, in which old
// cursors must not be believed.
func (p *platform) epoch(ctx context.Context) (epoch uint64, err error) {
	err = p.db.main.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var system, timeline int64
		if err := tx.QueryRow(ctx, `SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint())`).Scan(&system, &timeline); err != nil {
			return fmt.Errorf("read the identity of the database: %w", err)
		}
		epoch = uint64(system) + uint64(timeline)*0x9e3779b97f4a7c15 //nolint:gosec // an identity, not a number
		return nil
	})
	return epoch, err
}

func (p *platform) room(name string) *slog.Logger { return p.log.With(slog.String("room", name)) }

// newID returns a UUIDv7.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// startDoors starts what `serve` is: pulse, feed, projections, live stream, housekeeping and the API.
func (p *platform) startDoors(ctx context.Context, proc *process, l net.Listener) {
	p.guard.ShutListener(l.Addr())
	p.mail.URL = p.url(l)
	pulse := eventstore.NewPulse(eventstore.PulseConfig{DB: p.db.main, Logger: p.room("pulse")})
	proc.start(ctx, part{name: "pulse", run: pulse.Run})
	proc.start(ctx, part{name: "feed", run: p.feed.Run})
	cancel := p.feed.Subscribe(func(eventstore.Batch) { p.projections.Look() })
	proc.start(ctx, part{name: "projections", run: p.projections.Run, stop: func(context.Context) error { cancel(); return nil }})
	proc.start(ctx, part{name: "housekeeping", run: p.keepHouse})
	proc.start(ctx, part{name: "usage of keys", run: p.orgs.RunKeyUses}) // stops after the doors that count
	proc.start(ctx, part{name: "sealer", run: p.sealer.Run, stop: p.sealer.Pass})
	proc.start(ctx, part{name: "refusals", run: p.refusals.Run})
	proc.start(ctx, part{name: "live", run: p.live.Run})
	proc.start(ctx, serveHTTP(l, p.door.Serve, func(ctx context.Context) error {
		p.door.Drain()
		p.delay(ctx, p.cfg.Server.DrainDelay)
		p.live.Drain(ctx)
		return p.door.Shutdown(ctx)
	}))
}

// delay waits, or until ctx ends.
func (p *platform) delay(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
