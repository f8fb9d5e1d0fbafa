package run

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/testspec"
)

// looked is what one transaction has looked up already. The zero value is ready.
type looked struct {
	environments map[uuid.UUID]project.Environment
	projects     map[uuid.UUID]int // versions of their variables
	org          *int              // that of the organization's
}

func (l *looked) environment(ctx context.Context, tx postgres.OrgTx, id uuid.UUID) (project.Environment, error) {
	if e, ok := l.environments[id]; ok {
		return e, nil
	}
	e, err := project.GetEnvironmentTx(ctx, tx, id)
	if err != nil {
		return project.Environment{}, err
	}
	if l.environments == nil {
		l.environments = map[uuid.UUID]project.Environment{}
	}
	l.environments[id] = e
	return e, nil
}

// versions returns which variables of the project and of the organization a run uses that is requested now.
func (l *looked) versions(ctx context.Context, tx postgres.OrgTx, projectID uuid.UUID) (ofProject, ofOrg int, err error) {
	if l.org == nil {
		version, err := org.VariablesVersionTx(ctx, tx, tx.OrgID())
		if err != nil {
			return 0, 0, err
		}
		l.org, l.projects = &version, map[uuid.UUID]int{}
	}
	version, known := l.projects[projectID]
	if !known {
		p, err := project.GetTx(ctx, tx, projectID)
		if err != nil {
			return 0, 0, err
		}
		version = p.VariablesVersion
		l.projects[projectID] = version
	}
	return version, *l.org, nil
}

// grantSecrets gives the regions of the runs what the runs need.
func (s *Service) grantSecrets(ctx context.Context, tx postgres.OrgTx, requests []request) error {
	var runs []secret.Run
	for _, r := range requests {
		if len(r.Secrets) > 0 {
			runs = append(runs, secret.Run{ID: r.id, TestID: r.TestID, Revision: r.Revision, Region: r.Region, By: r.who, Secrets: r.Secrets})
		}
	}
	if len(runs) == 0 || s.Secrets == nil {
		return nil
	}
	return s.Secrets.GrantTx(ctx, tx, runs)
}

// usedSecrets returns the secrets that a revision and the fragments in it use, as they are now.
func (s *Service) usedSecrets(ctx context.Context, tx postgres.OrgTx, r revision, refs map[string]apitest.FragmentRef, projectID, environmentID uuid.UUID) ([]secret.Used, error) {
	names := r.secrets
	if len(refs) > 0 {
		fragments, err := s.Plans.pinned(ctx, tx, tx.OrgID(), refs)
		if err != nil {
			return nil, err
		}
		names = slices.Clone(names)
		for _, f := range fragments {
			names = append(names, testspec.SecretNames(f)...)
		}
	}
	if len(names) == 0 || s.Secrets == nil {
		return nil, nil
	}
	return s.Secrets.ResolveTx(ctx, tx, projectID, environmentID, names)
}
