package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/run"
	"github.com/testflow/testflow/internal/vault"
)

const (
	demoEmail       = "demo@testflow.example"
	demoProject     = "Sample API"
	demoEnvironment = "This machine"
	demoEvery       = 5 * time.Second
)

// demo is an ordinary organization with ordinary tests against the sample API, made through the ordinary services the
// first time and left alone afterwards.
type demo struct {
	*platform
	password string
	base     string // of the sample API
	log      *slog.Logger

	orgID     uuid.UUID
	projectID uuid.UUID
	tickID    uuid.UUID // the test that runs every few seconds
	fresh     bool      // made by this start
}

// seed signs in, or registers at the first start, and makes what is missing in one transaction.
func (d *demo) seed(ctx context.Context) error {
	ctx, err := d.signIn(ctx)
	if err != nil {
		return err
	}
	found, _, err := d.projects.List(ctx, d.orgID, project.Filter{Query: demoProject, Limit: 1})
	if err != nil {
		return fmt.Errorf("look for the demo: %w", err)
	}
	if len(found) > 0 {
		d.projectID = found[0].ID
		return d.refresh(ctx)
	}
	err = d.db.main.InOrg(ctx, d.orgID, func(ctx context.Context, _ postgres.OrgTx) error { return d.create(ctx) })
	if err != nil {
		return fmt.Errorf("make the demo: %w", err)
	}
	d.fresh = true
	return nil
}

// signIn returns a context whose principal is the demo's user.
func (d *demo) signIn(ctx context.Context) (context.Context, error) {
	from := account.Client{Address: "127.0.0.1", Agent: "testflow up --demo"}
	password := vault.NewSecret(d.password)
	in, err := d.orgs.SignIn(ctx, org.SignInInput{Email: demoEmail, Password: password}, from)
	if fault.KindOf(err) == fault.Unauthenticated {
		in, err = d.orgs.SignUp(ctx, org.SignUpInput{
			Registration:     account.Registration{Email: demoEmail, Name: "Demo", Password: password},
			OrganizationName: "Demo",
		}, from)
		if fault.KindOf(err) == fault.Conflict {
			return nil, fmt.Errorf("the demo's account %s has another password than the one in the data directory; start without --demo", demoEmail)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sign in to the demo: %w", err)
	}
	who, err := d.orgs.Authenticate(ctx, in.AccessToken.Reveal(), nil)
	if err != nil {
		return nil, fmt.Errorf("sign in to the demo: %w", err)
	}
	d.orgID = who.OrgID
	return auth.With(ctx, who), nil
}

// create makes the project with its environment and tests.
func (d *demo) create(ctx context.Context) error {
	p, err := d.projects.Create(ctx, d.orgID, project.Draft{Name: demoProject, Description: "Tests against the sample API that testflow serves on this machine."})
	if err != nil {
		return err
	}
	d.projectID = p.ID
	env, err := d.projects.CreateEnvironment(ctx, d.orgID, p.ID, project.EnvironmentDraft{
		Name: demoEnvironment, Variables: map[string]string{"base": d.base},
	})
	if err != nil {
		return err
	}
	for i, body := range demoTests(p.ID, env.ID) {
		t, err := d.tests.Create(ctx, d.orgID, body)
		if err != nil {
			return fmt.Errorf("test %d: %w", i+1, err)
		}
		if i == 0 {
			d.tickID = t.ID
		}
	}
	return nil
}

// refresh finds the test that runs every few seconds and tells the environment where the sample API is now.
func (d *demo) refresh(ctx context.Context) error {
	tests, _, err := d.tests.List(ctx, d.orgID, apitest.Filter{ProjectIDs: []uuid.UUID{d.projectID}, Query: demoTickName, Limit: 1})
	if err != nil {
		return fmt.Errorf("look for the demo's tests: %w", err)
	}
	if len(tests) > 0 {
		d.tickID = tests[0].ID
	}
	envs, _, err := d.projects.ListEnvironments(ctx, d.orgID, d.projectID, project.EnvironmentFilter{Limit: 50})
	if err != nil {
		return fmt.Errorf("look for the demo's environment: %w", err)
	}
	for _, e := range envs {
		if e.Name != demoEnvironment || e.Variables["base"] == d.base {
			continue
		}
		patch := project.EnvironmentPatch{Variables: map[string]*string{"base": &d.base}}
		if _, err := d.projects.UpdateEnvironment(ctx, d.orgID, d.projectID, e.ID, patch, nil); err != nil {
			return fmt.Errorf("tell the demo's environment where the sample API is: %w", err)
		}
	}
	return nil
}

// run starts every test once at the first start, and one of them every few seconds from then on, until it is deleted.
func (d *demo) run(ctx context.Context) error {
	ctx = auth.With(ctx, auth.Principal{Kind: auth.System, OrgID: d.orgID})
	if d.fresh {
		if _, err := d.runs.StartSuite(ctx, d.orgID, d.projectID, run.SuiteInput{}); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "the demo's first runs did not start", slog.Any("err", err))
		}
	}
	tick := time.NewTicker(demoEvery)
	defer tick.Stop()
	for d.tickID != uuid.Nil {
		_, err := d.runs.Start(ctx, d.orgID, d.tickID, run.StartInput{Trigger: run.TriggerDemo})
		var f *fault.Error
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &f) && f.Kind == fault.NotFound:
			d.log.InfoContext(ctx, "the demo's test was deleted; nothing runs by itself any more")
			return untilDone(ctx)
		default:
			d.log.WarnContext(ctx, "the demo's test did not start; it is tried again", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return untilDone(ctx)
}

// describe tells how to use the demo: sign-in, a curl line that works when pasted, the live stream.
func (d *demo) describe(line func(string, ...any), url, program string) {
	line("")
	line("  The demo: organization \"Demo\" with %d tests; \"%s\" runs every %s.", len(demoBodies), demoTickName, demoEvery)
	line("  Sign in with          %s", demoEmail)
	line("  Password              %s", d.password)
	if d.tickID != uuid.Nil {
		line("")
		line("  Execute a test and read its result (paste it):")
		line("")
		line(`    TOKEN=$(curl -s %s/api/auth/login -H 'Content-Type: application/json' -d '{"email":"%s","password":"%s"}' | sed 's/.*"accessToken":"\([^"]*\)".*/\1/'); curl -s -X POST %s/api/tests/%s/execute -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -H 'Prefer: wait=20' -d '{}'`,
			url, demoEmail, d.password, url, d.tickID)
	}
	line("")
	line("  Watch it live in another terminal:")
	line("")
	line("    TESTFLOW_URL=%s TESTFLOW_EMAIL=%s TESTFLOW_PASSWORD=%s %s watch", url, demoEmail, d.password, program)
}
