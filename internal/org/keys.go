package org

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/vault"
)

const (
	cachedKeys  = 10_000 // bounds the memory of the cache: about 1 KiB each
	keyCacheFor = 5 * time.Minute
)

// Keys gives each organization the key that seals its secrets, making it when it is first asked for. Keys lie wrapped in a
// table and for a while unwrapped in memory. It is safe for concurrent use.
type Keys struct {
	db     *postgres.DB
	master *vault.Master
	now    func() time.Time
	cache  *lru.Cache[uuid.UUID, cachedKey]
}

type cachedKey struct {
	key   vault.Key
	until time.Time
}

// NewKeys returns the Keys of a database.
func NewKeys(db *postgres.DB, master *vault.Master, now func() time.Time) (*Keys, error) {
	cache, err := lru.New[uuid.UUID, cachedKey](cachedKeys)
	if err != nil {
		return nil, fmt.Errorf("make cache of keys: %w", err)
	}
	return &Keys{db: db, master: master, now: now, cache: cache}, nil
}

// Key returns an organization's key, in the caller's transaction if there is one. The organization must exist.
func (k *Keys) Key(ctx context.Context, orgID uuid.UUID) (vault.Key, error) {
	if c, ok := k.cache.Get(orgID); ok && k.now().Before(c.until) {
		return c.key, nil
	}
	var wrapped []byte
	err := k.db.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) (err error) {
		q := orgdb.New(tx)
		wrapped, err = q.GetOrgKey(ctx, orgID)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		_, fresh, err := k.master.NewDataKey("org", orgID.String())
		if err != nil {
			return err
		}
		if err := q.InsertOrgKey(ctx, orgdb.InsertOrgKeyParams{OrgID: orgID, WrappedKey: fresh}); err != nil {
			return err
		}
		wrapped, err = q.GetOrgKey(ctx, orgID) // ours, or that of somebody who was faster
		return err
	})
	if err != nil {
		return vault.Key{}, fmt.Errorf("read the key of organization %s: %w", orgID, err)
	}
	key, err := k.master.Unwrap(wrapped, "org", orgID.String())
	if err != nil {
		return vault.Key{}, fmt.Errorf("unwrap the key of organization %s: %w", orgID, err)
	}
	// Not before the commit: a key that was rolled back must seal nothing.
	postgres.AfterCommit(ctx, func() { k.cache.Add(orgID, cachedKey{key, k.now().Add(keyCacheFor)}) })
	return key, nil
}

// Seal seals a value of an organization, such as an answer that holds a secret; it fits eventstore.IdempotencyConfig.
func (k *Keys) Seal(ctx context.Context, orgID uuid.UUID, plain []byte) ([]byte, error) {
	key, err := k.Key(ctx, orgID)
	if err != nil {
		return nil, err
	}
	return key.Seal(plain, orgID.String(), "answer"), nil
}

// Open opens what Seal sealed for the organization.
func (k *Keys) Open(ctx context.Context, orgID uuid.UUID, sealed []byte) ([]byte, error) {
	key, err := k.Key(ctx, orgID)
	if err != nil {
		return nil, err
	}
	return key.Open(sealed, orgID.String(), "answer")
}
