package run

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/testspec"
	"github.com/testflow/testflow/internal/vault"
)

// plansKept bounds each of the caches; what they hold never changes, so nothing has to be thrown out of them.
const plansKept = 512

// Plans keeps what runs are made from: revisions, and versions of environments and fragments. Safe for concurrent use.
type Plans struct {
	db        *postgres.DB
	store     *eventstore.Store
	secrets   *secret.Opener // nil where nothing is executed
	revisions *lru.Cache[revisionKey, revision]
	variables *lru.Cache[environmentKey, map[string]string]
	fragments *lru.Cache[fragmentKey, testspec.Fragment]
}

// revision is what a test was made of, and the names of the secrets that it refers to.
type revision struct {
	apitest.Definition
	secrets []string
}

// The keys name the organization, so that what one has looked up is there for no other.
type revisionKey struct {
	org      uuid.UUID
	test     uuid.UUID
	revision int
}

type environmentKey struct {
	org         uuid.UUID
	environment uuid.UUID // or the project, or the organization itself
	version     int
}

type fragmentKey struct {
	org uuid.UUID
	apitest.FragmentRef
}

// NewPlans returns empty caches, to be shared by a process's Service and Worker. secrets opens what the region of the
// process was granted; nil = the process executes nothing.
func NewPlans(db *postgres.DB, store *eventstore.Store, secrets *secret.Opener) (*Plans, error) {
	revisions, err := lru.New[revisionKey, revision](plansKept)
	if err != nil {
		return nil, fmt.Errorf("make the cache of revisions: %w", err)
	}
	variables, err := lru.New[environmentKey, map[string]string](plansKept)
	if err != nil {
		return nil, fmt.Errorf("make the cache of environments: %w", err)
	}
	fragments, err := lru.New[fragmentKey, testspec.Fragment](plansKept)
	if err != nil {
		return nil, fmt.Errorf("make the cache of fragments: %w", err)
	}
	return &Plans{db: db, store: store, secrets: secrets, revisions: revisions, variables: variables, fragments: fragments}, nil
}

// revision returns a revision's definition, which nobody may change.
func (p *Plans) revision(ctx context.Context, tx pgx.Tx, orgID, testID uuid.UUID, n int) (revision, error) {
	key := revisionKey{orgID, testID, n}
	if d, ok := p.revisions.Get(key); ok {
		return d, nil
	}
	d, err := apitest.DefinitionTx(ctx, tx, orgID, testID, n)
	if err != nil {
		return revision{}, err
	}
	r := revision{d, testspec.SecretNames(d.Spec)}
	p.revisions.Add(key, r)
	return r, nil
}

// environment returns the variables of an environment at a version, which nobody may change; none for uuid.Nil.
func (p *Plans) environment(ctx context.Context, tx pgx.Tx, orgID, id uuid.UUID, version int) (map[string]string, error) {
	if id == uuid.Nil {
		return nil, nil
	}
	key := environmentKey{orgID, id, version}
	if v, ok := p.variables.Get(key); ok {
		return v, nil
	}
	e, err := project.EnvironmentAt(ctx, tx, p.store, orgID, id, version)
	if err != nil {
		return nil, err
	}
	p.variables.Add(key, e.Variables)
	return e.Variables, nil
}

// pinned returns the fragments of a run by name, which nobody may change; nil for none.
func (p *Plans) pinned(ctx context.Context, tx pgx.Tx, orgID uuid.UUID, refs map[string]apitest.FragmentRef) (map[string]testspec.Fragment, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	out := make(map[string]testspec.Fragment, len(refs))
	for name, ref := range refs {
		key := fragmentKey{orgID, ref}
		f, ok := p.fragments.Get(key)
		if !ok {
			var err error
			if f, err = apitest.FragmentAt(ctx, tx, p.store, orgID, ref); err != nil {
				return nil, err
			}
			p.fragments.Add(key, f)
		}
		out[name] = f
	}
	return out, nil
}

// shared returns the variables of the project and of the organization, which nobody may change; none for version 0.
func (p *Plans) shared(ctx context.Context, tx pgx.Tx, a ExecuteArgs) (ofProject, ofOrg map[string]string, err error) {
	read := func(id uuid.UUID, version int, at func() (map[string]string, error)) (map[string]string, error) {
		if version == 0 {
			return nil, nil
		}
		key := environmentKey{a.OrgID, id, version}
		if v, ok := p.variables.Get(key); ok {
			return v, nil
		}
		v, err := at()
		if err == nil {
			p.variables.Add(key, v)
		}
		return v, err
	}
	ofProject, err = read(a.ProjectID, a.ProjectVersion, func() (map[string]string, error) {
		return project.VariablesAt(ctx, tx, p.store, a.OrgID, a.ProjectID, a.ProjectVersion)
	})
	if err != nil {
		return nil, nil, err
	}
	ofOrg, err = read(a.OrgID, a.OrganizationVersion, func() (map[string]string, error) {
		return org.VariablesAt(ctx, tx, p.store, a.OrgID, a.OrganizationVersion)
	})
	return ofProject, ofOrg, err
}

// plan is what a worker executes.
type plan struct {
	definition   apitest.Definition
	environment  map[string]string
	project      map[string]string
	organization map[string]string
	variables    map[string]string // given with the execution
	secrets      map[string]vault.Secret
	fragments    map[string]testspec.Fragment
}

// layers are the variables of a run without its captures, from those that win to those that lose; own are the test's own,
// generated values made. It is the order that executor has.
func (p plan) layers(own map[string]string) []map[string]string {
	return []map[string]string{p.variables, own, p.environment, p.project, p.organization}
}

// load returns what a job executes; it asks the database only for what isn't kept.
func (p *Plans) load(ctx context.Context, a ExecuteArgs) (out plan, err error) {
	d, known := p.revisions.Get(revisionKey{a.OrgID, a.TestID, a.Revision})
	v, same := p.variables.Get(environmentKey{a.OrgID, a.EnvironmentID, a.EnvironmentVersion})
	if known && (same || a.EnvironmentID == uuid.Nil) && !a.HasVariables && !a.HasFragments && !a.HasSecrets && a.ProjectVersion == 0 && a.OrganizationVersion == 0 {
		return plan{definition: d.Definition, environment: v}, nil
	}
	err = p.db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		r, err := p.revision(ctx, tx, a.OrgID, a.TestID, a.Revision)
		if err != nil {
			return err
		}
		out.definition = r.Definition
		if out.environment, err = p.environment(ctx, tx, a.OrgID, a.EnvironmentID, a.EnvironmentVersion); err != nil {
			return err
		}
		if out.project, out.organization, err = p.shared(ctx, tx, a); err != nil {
			return err
		}
		if !a.HasVariables && !a.HasSecrets && !a.HasFragments {
			return nil
		}
		requested, err := requestOf(ctx, tx, p.store, a.OrgID, a.RunID)
		if err != nil {
			return err
		}
		out.variables = requested.Variables
		out.fragments, err = p.pinned(ctx, tx, a.OrgID, requested.Fragments)
		if err != nil {
			return err
		}
		if a.HasSecrets && len(requested.Secrets) > 0 && p.secrets != nil {
			out.secrets, err = p.secrets.Values(ctx, tx, a.OrgID, a.Region, requested.Secrets)
		}
		return err
	})
	return out, err
}

// requestOf returns a run's first event.
func requestOf(ctx context.Context, tx pgx.Tx, store *eventstore.Store, orgID, runID uuid.UUID) (d Requested, err error) {
	events, err := store.ReadRun(ctx, tx, orgID, runID)
	if err != nil {
		return Requested{}, err
	}
	if len(events) == 0 || events[0].Type != TypeRequested {
		return Requested{}, fmt.Errorf("run %s has no request in the log", runID)
	}
	if err := events[0].Decode(&d); err != nil {
		return Requested{}, fmt.Errorf("read the request of run %s: %w", runID, err)
	}
	return d, nil
}
