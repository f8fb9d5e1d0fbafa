package app

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/realtime"
	"github.com/testflow/testflow/internal/vault"
)

// buildDoors makes the live stream and the API.
func (p *platform) buildDoors(ctx context.Context) error {
	liveKey, err := p.derived("live cursors")
	if err != nil {
		return err
	}
	listKey, err := p.derived("list cursors")
	if err != nil {
		return err
	}
	epoch, err := p.epoch(ctx)
	if err != nil {
		return err
	}
	p.idempotency = eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: p.db.main, Now: time.Now, Seal: p.sealForOrg, Open: p.openForOrg})
	cursors := realtime.NewCursors(liveKey, epoch)
	if err := p.buildLimits(); err != nil {
		return err
	}
	if p.live, err = realtime.New(p.liveConfig(cursors)); err != nil { //nolint:contextcheck // the request of a refusal carries it
		return err
	}
	p.measure()
	c, l := p.cfg.Server, p.cfg.Limits
	p.door, err = httpapi.New(httpapi.Deps{
		Orgs: p.orgs, Projects: p.projects, Secrets: p.secrets, Tests: p.tests, Runs: p.runs, Analytics: p.analytics, Audit: p.audit, Refusals: p.refusals,
		UnitOfWork:  unitOfWork{p.idempotency},
		Positions:   positions{p},
		FeedCursors: cursors,
		Live:        p.live,
		Checks:      p.checks(),
		Registry:    p.registry,
		Now:         time.Now, NewID: newID, Logger: p.log, Version: version(),
		CursorKey: listKey, TrustedProxies: c.TrustedProxies, AllowedOrigins: c.AllowedOrigins, MetricsToken: c.MetricsToken,
		HTTPS: strings.HasPrefix(c.PublicURL, "https://"),
		Rates: p.rates,
		Limits: httpapi.Limits{
			RequestBody: int64(l.RequestBody), RequestTimeout: l.RequestTimeout, PageSize: l.PageSize, PositionWait: l.MinPosition, Wait: l.Wait,
		},
	})
	return err
}

func (p *platform) liveConfig(cursors *realtime.Cursors) realtime.Config {
	l := p.cfg.Limits
	limits := realtime.Defaults()
	limits.Sockets, limits.SocketsPerUser, limits.Topics = l.LiveSockets, l.LiveSocketsUser, l.LiveTopics
	limits.Frame, limits.FrameRate, limits.FrameEvents = int64(l.LiveFrame), l.LiveFrameRate, l.LiveFrameEvents
	limits.QueueFrames, limits.QueueBytes = l.LiveQueueFrames, int(l.LiveQueueBytes)
	limits.Coalesce, limits.RecentEvents, limits.AuthTime = l.LiveCoalesce, l.LiveRecentEvents, l.LiveAuthTime
	limits.Recheck, limits.WriteTimeout, limits.CatchUpReaders = l.LiveRecheck, l.LiveWriteTimeout, l.LiveCatchUpReader
	return realtime.Config{
		Feed: p.feed,
		Authenticate: func(ctx context.Context, credential string, org *uuid.UUID) (auth.Principal, time.Time, error) {
			who, until, err := p.orgs.AuthenticateUntil(ctx, credential, org)
			if err != nil {
				return auth.Principal{}, time.Time{}, p.strangerAtTheStream(ctx, err)
			}
			p.orgs.UseKey(who, "GET /api/live", time.Now(), false)
			return who, until, nil
		},
		Recheck:     p.orgs.Check,
		TopicExists: p.topicExists,
		ReadOrg:     p.readOrg,
		Oldest:      p.store.Oldest,
		Visibility: func(name string) eventstore.Visibility {
			t, ok := p.store.TypeOf(name)
			if !ok {
				return eventstore.VisibleNever
			}
			return t.Visibility
		},
		Metrics: p.systemMetrics,
		Cursors: cursors,
		Origins: p.origins(),
		Refuse:  func(w http.ResponseWriter, r *http.Request, err error) { p.door.Refuse(w, r, err) },
		Limits:  limits,
		Now:     time.Now,
		Logger:  p.log,
	}
}

// origins are those whose pages may open the live stream: our own address, as people were told it, and those allowed.
func (p *platform) origins() []string {
	all := append([]string(nil), p.cfg.Server.AllowedOrigins...)
	if u, err := url.Parse(p.cfg.Server.PublicURL); err == nil && u.Host != "" {
		all = append(all, u.Scheme+"://"+u.Host)
	}
	return all
}

// topicExists says whether the organization has what a topic names. Each slice hides what is another's.
func (p *platform) topicExists(ctx context.Context, org uuid.UUID, kind string, id uuid.UUID) (bool, error) {
	var err error
	ctx = auth.With(ctx, auth.Principal{Kind: auth.System, OrgID: org})
	switch kind {
	case "project":
		_, err = p.projects.Get(ctx, org, id)
	case "test":
		_, err = p.tests.Get(ctx, org, id)
	case "run":
		_, err = p.runs.Summary(ctx, org, id)
	default:
		return false, nil
	}
	if fault.KindOf(err) == fault.NotFound {
		return false, nil
	}
	return err == nil, err
}

func (p *platform) readOrg(ctx context.Context, org uuid.UUID, after, upTo int64, limit int) (events []eventstore.Event, err error) {
	err = p.db.main.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error {
		events, _, err = p.store.ReadOrg(ctx, tx, org, eventstore.OrgQuery{After: after, Before: upTo + 1, Limit: limit})
		return err
	})
	return events, err
}

// systemMetrics is what the topic `system` shows once a second.
func (p *platform) systemMetrics() any {
	live := p.live.Stats()
	return map[string]any{
		"position":      p.feed.Position(),
		"uptimeMs":      time.Since(p.started).Milliseconds(),
		"live":          live,
		"databaseConns": map[string]int32{"api": p.db.main.API.Stat().AcquiredConns(), "system": p.db.main.System.Stat().AcquiredConns()},
	}
}

// checks are what /readyz and /health look at.
func (p *platform) checks() []httpapi.Check {
	return []httpapi.Check{
		{Name: "database", Critical: true, Run: p.db.main.Ping},
		{Name: "analytics", Critical: false, Run: p.db.analytics.Ping},
		{Name: "migrations", Critical: true, Run: p.db.checkSchema},
		{Name: "log", Critical: true, Run: func(ctx context.Context) error {
			_, err := p.store.ReadAll(ctx, p.feed.Position(), 1)
			return err
		}},
		{Name: "feed", Critical: true, Run: p.feed.Check},
		{Name: "projections", Critical: false, Run: p.projections.Check},
		{Name: "mail", Critical: false, Run: p.mail.Check},
		{Name: "seals", Critical: false, Run: p.sealer.Check},
	}
}

// sealForOrg and openForOrg keep answers that hold a secret.
func (p *platform) sealForOrg(ctx context.Context, orgID uuid.UUID, plain []byte) ([]byte, error) {
	key, err := p.orgKeys.Key(ctx, orgID)
	if err != nil {
		return nil, err
	}
	return key.Seal(plain, "idempotent answer", orgID.String()), nil
}

func (p *platform) openForOrg(ctx context.Context, orgID uuid.UUID, sealed []byte) ([]byte, error) {
	key, err := p.orgKeys.Key(ctx, orgID)
	if err != nil {
		return nil, err
	}
	return key.Open(sealed, "idempotent answer", orgID.String())
}

// openPerson shows the audit log what was sealed for a person; ok is false once the person has been erased.
func (p *platform) openPerson(ctx context.Context, _ pgx.Tx, person uuid.UUID, sealed string) (plain string, ok bool, err error) {
	plain, err = p.persons.Open(ctx, person, sealed)
	// What somebody changed in the database opens no more than what was erased; to tell is the verifier's.
	if errors.Is(err, account.ErrErased) || errors.Is(err, vault.ErrSealBroken) || errors.Is(err, vault.ErrUnknownKey) {
		return "", false, nil
	}
	return plain, err == nil, err
}

// unitOfWork is eventstore's Idempotency in the words of the door.
type unitOfWork struct{ *eventstore.Idempotency }

func (u unitOfWork) Do(ctx context.Context, k httpapi.Key, fn func(context.Context) (httpapi.Answer, error)) (httpapi.Answer, bool, error) {
	a, replayed, err := u.Idempotency.Do(ctx, eventstore.Key(k), func(ctx context.Context) (eventstore.Answer, error) {
		a, err := fn(ctx)
		return eventstore.Answer(a), err
	})
	return httpapi.Answer(a), replayed, err
}

// positions says when a write can be read: inline read models at once, analytics when its projections are there.
type positions struct{ *platform }

func (p positions) Wait(ctx context.Context, view httpapi.View, position int64) error {
	if view == httpapi.ViewAnalytics {
		return p.analytics.Wait(ctx, position)
	}
	return p.feed.Wait(ctx, position)
}
