package secret

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/secret/internal/secretdb"
	"github.com/testflow/testflow/internal/vault"
)

const (
	// grantsKept bounds what a process remembers of grants that are there, and for how long: one may be deleted.
	grantsKept = 50_000
	grantsFor  = 10 * time.Minute
	// openKept bounds the opened values that a worker has in memory, and for how long.
	openKept = 1_000
	openFor  = time.Minute
)

// Run is a run that is being requested, with the secrets that it uses.
type Run struct {
	ID, TestID uuid.UUID
	Revision   int
	Region     string
	By         eventstore.Actor // who wants it
	Secrets    []Used
}

// granted is what this process knows to be done. The zero value is ready.
type granted struct {
	once   sync.Once
	grants *lru.LRU[grantKey, struct{}]
	uses   *lru.LRU[useKey, struct{}]
}

type grantKey struct {
	org     uuid.UUID
	secret  uuid.UUID
	version int
	region  string
}

type useKey struct {
	org      uuid.UUID
	secret   uuid.UUID
	version  int
	test     uuid.UUID
	revision int
	by       uuid.UUID
}

func (g *granted) init() {
	g.once.Do(func() {
		g.grants = lru.NewLRU[grantKey, struct{}](grantsKept, nil, grantsFor)
		g.uses = lru.NewLRU[useKey, struct{}](grantsKept, nil, grantsFor)
	})
}

// ResolveTx returns which secrets the names mean in an environment of a project, or without one; a name that means none is
// left out.
func (s *Service) ResolveTx(ctx context.Context, tx postgres.OrgTx, projectID, environmentID uuid.UUID, names []string) ([]Used, error) {
	rows, err := secretdb.New(tx).ResolveSecrets(ctx, secretdb.ResolveSecretsParams{
		OrgID: tx.OrgID(), Names: names, ProjectID: some(projectID), EnvironmentID: some(environmentID),
	})
	if err != nil {
		return nil, fmt.Errorf("resolve secrets: %w", err)
	}
	out := make([]Used, 0, len(rows))
	for _, row := range rows {
		sec := secretOf(row, 0)
		out = append(out, Used{Scope: sec.Kind(), ID: sec.ID, Name: sec.Name, Version: sec.Version})
	}
	return out, nil
}

// GrantTx sees to it that the regions of runs have the values that the runs use, sealed with their keys, and records which
// revision of a test uses which version of a secret for the first time on whose behalf. What this process has seen before costs
// nothing. A version that is no longer kept is granted to nobody: the run will say so.
func (s *Service) GrantTx(ctx context.Context, tx postgres.OrgTx, runs []Run) error {
	s.granted.init()
	var missing secretdb.MissingGrantsParams
	missing.OrgID = tx.OrgID()
	seen := map[grantKey]bool{}
	for _, r := range runs {
		for _, u := range r.Secrets {
			key := grantKey{tx.OrgID(), u.ID, u.Version, r.Region}
			if _, known := s.granted.grants.Get(key); known || seen[key] {
				continue
			}
			seen[key] = true
			missing.SecretIds = append(missing.SecretIds, u.ID)
			missing.Versions = append(missing.Versions, int32(u.Version)) //nolint:gosec // versions are int on disk
			missing.Regions = append(missing.Regions, r.Region)
		}
	}
	if len(seen) > 0 {
		if err := s.grant(ctx, tx, missing); err != nil {
			return err
		}
	}
	if err := s.recordUses(ctx, tx, runs); err != nil {
		return err
	}
	postgres.AfterCommit(ctx, func() {
		for key := range seen {
			s.granted.grants.Add(key, struct{}{})
		}
	})
	return nil
}

func (s *Service) grant(ctx context.Context, tx postgres.OrgTx, missing secretdb.MissingGrantsParams) error {
	q, orgID := secretdb.New(tx), tx.OrgID()
	rows, err := q.MissingGrants(ctx, missing)
	if err != nil || len(rows) == 0 {
		return wrap("look for grants", err)
	}
	key, err := s.Key(ctx, orgID)
	if err != nil {
		return err
	}
	for _, row := range rows {
		seal := sealContext(orgID, row.SecretID, int(row.Version))
		value, err := key.Open(row.Sealed, seal...)
		if err != nil {
			return fmt.Errorf("open version %d of secret %s: %w", row.Version, row.SecretID, err)
		}
		region, err := s.Region(row.Region)
		if err != nil {
			return err
		}
		err = q.InsertGrant(ctx, secretdb.InsertGrantParams{
			OrgID: orgID, SecretID: row.SecretID, Version: row.Version, Region: row.Region, Sealed: region.Seal(value, append(seal, row.Region)...),
		})
		if err != nil {
			return fmt.Errorf("grant secret %s to region %s: %w", row.SecretID, row.Region, err)
		}
	}
	return nil
}

// recordUses appends an event for each use that is new.
func (s *Service) recordUses(ctx context.Context, tx postgres.OrgTx, runs []Run) error {
	q, orgID := secretdb.New(tx), tx.OrgID()
	seen := map[useKey]bool{}
	for _, r := range runs {
		who := r.By
		for _, u := range r.Secrets {
			key := useKey{orgID, u.ID, u.Version, r.TestID, r.Revision, who.ActorID()}
			if _, known := s.granted.uses.Get(key); known || seen[key] {
				continue
			}
			seen[key] = true
			news, err := q.InsertUse(ctx, secretdb.InsertUseParams{
				OrgID: orgID, SecretID: u.ID, Version: int32(u.Version), TestID: r.TestID, Revision: int32(r.Revision), UsedBy: who.ActorID(), //nolint:gosec // versions and revisions are int on disk
			})
			if err != nil {
				return fmt.Errorf("record the use of secret %s: %w", u.ID, err)
			}
			if len(news) == 0 {
				continue
			}
			place := Place{Scope: u.Scope, Name: u.Name}
			used := FirstUsed{Place: place, Version: u.Version, TestID: r.TestID, Revision: r.Revision, RunID: r.ID}
			if _, err := s.Store.Append(ctx, tx, stream(orgID, u.ID), eventstore.AnyVersion, who, used); err != nil {
				return err
			}
		}
	}
	postgres.AfterCommit(ctx, func() {
		for key := range seen {
			s.granted.uses.Add(key, struct{}{})
		}
	})
	return nil
}

// ErrRegionKey says that a worker hasn't the key by which its region's secrets were sealed.
var ErrRegionKey = errors.New("this worker has no key that opens the secrets of its region")

// Opener opens what a region was granted. It is safe for concurrent use.
type Opener struct {
	keys func(region string) (*vault.Ring, error)
	open *lru.LRU[openKey, vault.Secret]
}

type openKey struct {
	org     uuid.UUID
	secret  uuid.UUID
	version int
	region  string
}

// NewOpener returns an Opener; keys gives the keys of a region, or ErrRegionKey.
func NewOpener(keys func(region string) (*vault.Ring, error)) *Opener {
	return &Opener{keys: keys, open: lru.NewLRU[openKey, vault.Secret](openKept, nil, openFor)}
}

// Values returns the values of the secrets that a run uses, by name. One that is no longer there is left out. The error is
// ErrRegionKey when a value is there and can't be opened.
func (o *Opener) Values(ctx context.Context, tx pgx.Tx, orgID uuid.UUID, region string, list []Used) (map[string]vault.Secret, error) {
	out := make(map[string]vault.Secret, len(list))
	names := map[openKey]string{}
	params := secretdb.GrantsParams{OrgID: orgID, Region: region}
	for _, u := range list {
		key := openKey{orgID, u.ID, u.Version, region}
		if value, ok := o.open.Get(key); ok {
			out[u.Name] = value
			continue
		}
		names[key] = u.Name
		params.SecretIds = append(params.SecretIds, u.ID)
		params.Versions = append(params.Versions, int32(u.Version)) //nolint:gosec // versions are int on disk
	}
	if len(names) == 0 {
		return out, nil
	}
	rows, err := secretdb.New(tx).Grants(ctx, params)
	if err != nil {
		return nil, fmt.Errorf("read the grants of region %s: %w", region, err)
	}
	if len(rows) == 0 {
		return out, nil
	}
	ring, err := o.keys(region)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		value, err := ring.Open(row.Sealed, append(sealContext(orgID, row.SecretID, int(row.Version)), region)...)
		if errors.Is(err, vault.ErrUnknownKey) {
			return nil, ErrRegionKey
		}
		if err != nil {
			return nil, fmt.Errorf("open version %d of secret %s: %w", row.Version, row.SecretID, err)
		}
		key := openKey{orgID, row.SecretID, int(row.Version), region}
		out[names[key]] = vault.NewSecret(string(value))
		o.open.Add(key, out[names[key]])
	}
	return out, nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
