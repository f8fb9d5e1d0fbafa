package run

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/testspec"
)

// plansKept bounds each of the caches; what they hold never changes, so nothing has to be thrown out of them.
const plansKept = 512

// Plans keeps what runs are made from: revisions, and versions of environments and fragments. Safe for concurrent use.
type Plans struct {
	db        *postgres.DB
	store     *eventstore.Store
	revisions *lru.Cache[revisionKey, apitest.Definition]
	variables *lru.Cache[environmentKey, map[string]string]
	fragments *lru.Cache[fragmentKey, testspec.Fragment]
}

// The keys name the organization, so that what one has looked up is there for no other.
type revisionKey struct {
	org      uuid.UUID
	test     uuid.UUID
	revision int
}

type environmentKey struct {
	org         uuid.UUID
	environment uuid.UUID
	version     int
}

type fragmentKey struct {
	org uuid.UUID
	apitest.FragmentRef
}

// NewPlans returns empty caches, to be shared by a process's Service and Worker.
func NewPlans(db *postgres.DB, store *eventstore.Store) (*Plans, error) {
	revisions, err := lru.New[revisionKey, apitest.Definition](plansKept)
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
	return &Plans{db: db, store: store, revisions: revisions, variables: variables, fragments: fragments}, nil
}

// revision returns a revision's definition, which nobody may change.
func (p *Plans) revision(ctx context.Context, tx pgx.Tx, orgID, testID uuid.UUID, n int) (apitest.Definition, error) {
	key := revisionKey{orgID, testID, n}
	if d, ok := p.revisions.Get(key); ok {
		return d, nil
	}
	d, err := apitest.DefinitionTx(ctx, tx, orgID, testID, n)
	if err != nil {
		return apitest.Definition{}, err
	}
	p.revisions.Add(key, d)
	return d, nil
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

// plan is what a worker executes.
type plan struct {
	definition  apitest.Definition
	environment map[string]string
	variables   map[string]string // given with the execution
	fragments   map[string]testspec.Fragment
}

// load returns what a job executes; it asks the database only for what isn't kept.
func (p *Plans) load(ctx context.Context, a ExecuteArgs) (out plan, err error) {
	d, known := p.revisions.Get(revisionKey{a.OrgID, a.TestID, a.Revision})
	v, same := p.variables.Get(environmentKey{a.OrgID, a.EnvironmentID, a.EnvironmentVersion})
	if known && (same || a.EnvironmentID == uuid.Nil) && !a.HasVariables && !a.HasFragments {
		return plan{definition: d, environment: v}, nil
	}
	err = p.db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if out.definition, err = p.revision(ctx, tx, a.OrgID, a.TestID, a.Revision); err != nil {
			return err
		}
		if out.environment, err = p.environment(ctx, tx, a.OrgID, a.EnvironmentID, a.EnvironmentVersion); err != nil {
			return err
		}
		if !a.HasVariables && !a.HasFragments {
			return nil
		}
		requested, err := requestOf(ctx, tx, p.store, a.OrgID, a.RunID)
		if err != nil {
			return err
		}
		out.variables = requested.Variables
		out.fragments, err = p.pinned(ctx, tx, a.OrgID, requested.Fragments)
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
