package org

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/vault"
)

// keyLifetime is how long a key lives when neither its maker nor the installation says.
const keyLifetime = 90 * 24 * time.Hour

// KeyCursor is the place in a list of keys after which the next page begins.
type KeyCursor struct {
	ID uuid.UUID `json:"id"`
}

// KeyFilter says which page of keys to list.
type KeyFilter struct {
	Limit int // 1 to 200; 0 = 50
	After *KeyCursor

	// Status is active, expired, suspended or revoked, "all", or "" for all that weren't revoked.
	Status string
}

// CreateKey makes an API key and returns it with its secret, which nobody can read again. A key that would reach further
// than its maker is fault.Forbidden, one too many fault.Conflict.
func (s *Service) CreateKey(ctx context.Context, orgID uuid.UUID, d KeyDraft) (k APIKey, secret vault.Secret, err error) {
	err = s.manageKeys(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx, m keyManager) error {
		rules := m.rules
		if left := m.timeLeft(); !d.Expiry.Said && left < rules.lifetime { // a key that makes one without a word of its end
			rules.lifetime = left
		}
		settings, err := d.settings(rules)
		if err != nil {
			return err
		}
		// All that was asked for counts, not just what the role lets through: nobody is handed less than they were told.
		asked := reachOf(settings, auth.Admin)
		if more := m.reach.beyond(asked); more != "" {
			return keyAboveYours(more)
		}
		q := orgdb.New(tx)
		if n, err := q.CountAPIKeys(ctx, orgID); err != nil {
			return fmt.Errorf("count keys: %w", err)
		} else if n >= limits.MaxKeys {
			return fault.New(fault.Conflict, "api_key.too_many", "An organization has at most %d API keys: revoke one that nobody uses.", limits.MaxKeys)
		}
		id := s.NewID()
		key, hash := auth.MintKey(id)
		// Where it is used from is personal of its holder: it is sealed with a key of its own and goes with them.
		if err := s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error { return s.Accounts.Persons.AddTx(ctx, tx, id) }); err != nil {
			return err
		}
		done, err := s.Store.Append(ctx, tx, apiKeyStream(orgID, id), 0, m.who, APIKeyCreated{KeySettings: settings, Role: m.role, HolderID: m.holder})
		if err != nil {
			return err
		}
		if err := q.InsertAPIKeySecret(ctx, orgdb.InsertAPIKeySecretParams{KeyID: id, OrgID: orgID, Hash: hash}); err != nil {
			return fmt.Errorf("store the hash of a key: %w", err)
		}
		secret = vault.NewSecret(key)
		k, err = getKey(ctx, tx, id, done.Position)
		return err
	})
	if err != nil {
		return APIKey{}, vault.Secret{}, err
	}
	return k, secret, nil
}

// GetKey returns one key, also one that was revoked.
func (s *Service) GetKey(ctx context.Context, orgID, id uuid.UUID) (k APIKey, err error) {
	if _, err := auth.Require(ctx, orgID, auth.KeyRead); err != nil {
		return APIKey{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		k, err = getKey(ctx, tx, id, 0)
		return err
	})
	return k, err
}

// ListKeys returns a page of keys, newest first, and where the next one begins, nil when there is none.
func (s *Service) ListKeys(ctx context.Context, orgID uuid.UUID, f KeyFilter) (items []APIKey, next *KeyCursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.KeyRead); err != nil {
		return nil, nil, err
	}
	limit := Filter{Limit: f.Limit}.limit()
	params := orgdb.ListAPIKeysParams{OrgID: orgID, Status: f.Status, RowLimit: int32(limit + 1)} //nolint:gosec // a page's limit is bounded
	if f.After != nil {
		params.After = &f.After.ID
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		rows, err := orgdb.New(tx).ListAPIKeys(ctx, params)
		if err != nil {
			return fmt.Errorf("list keys: %w", err)
		}
		for _, row := range rows {
			items = append(items, keyOf(orgdb.GetAPIKeyRow(row)))
		}
		return nil
	})
	if err == nil && len(items) > limit {
		items = items[:limit]
		next = &KeyCursor{ID: items[limit-1].ID}
	}
	return items, next, err
}

// UpdateKey changes what the patch sets. Neither the key as it is nor as it would be may reach further than the caller:
// fault.Forbidden. A stale expected version is fault.Precondition.
func (s *Service) UpdateKey(ctx context.Context, orgID, id uuid.UUID, patch KeyPatch, expected *int) (k APIKey, err error) {
	err = s.manageKeys(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx, m keyManager) error {
		row, err := lockKey(ctx, tx, id, expected)
		if err != nil {
			return err
		}
		was := settingsOf(row)
		is := was
		if faults := patch.apply(&is, m.rules); len(faults) > 0 {
			return account.Invalid(faults)
		}
		if is.equal(was) {
			k, err = getKey(ctx, tx, id, 0)
			return err
		}
		most := auth.Role(row.Role)
		if over := auth.NewScopes(is.Scopes...).Without(auth.ScopesOf(most)); !over.Empty() {
			return account.Invalid([]fault.Field{{Pointer: "/scopes", Detail: fmt.Sprintf("This key was made with the role %s, which lacks %s: make another one.", most, over.List()[0])}})
		}
		for _, settings := range []KeySettings{was, is} {
			if more := m.reach.beyond(reachOf(settings, most)); more != "" {
				return keyAboveYours(more)
			}
		}
		done, err := s.Store.Append(ctx, tx, apiKeyStream(orgID, id), eventstore.AnyVersion, m.who, APIKeyChanged{From: was, To: is})
		if err != nil {
			return err
		}
		k, err = getKey(ctx, tx, id, done.Position)
		return err
	})
	if err != nil {
		return APIKey{}, err
	}
	return k, nil
}

// RotateKey gives a key a new secret, which is returned and nobody can read again. The one before holds for the overlap, 0
// = it ends at once; one before that ends in any case. Whoever rotates becomes the key's holder, so the key must not reach
// further than they: fault.Forbidden.
func (s *Service) RotateKey(ctx context.Context, orgID, id uuid.UUID, overlap time.Duration, expected *int) (k APIKey, secret vault.Secret, err error) {
	if overlap < 0 || overlap > limits.MaxKeyOverlap {
		return APIKey{}, vault.Secret{}, account.Invalid([]fault.Field{{Pointer: "/overlap", Detail: fmt.Sprintf("must lie between 0s and %dh", int(limits.MaxKeyOverlap.Hours()))}})
	}
	err = s.manageKeys(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx, m keyManager) error {
		row, err := lockKey(ctx, tx, id, expected)
		if err != nil {
			return err
		}
		if more := m.reach.beyond(reachOf(settingsOf(row), auth.Role(row.Role))); more != "" {
			return keyAboveYours(more)
		}
		rotated := APIKeyRotated{Generation: int(row.Generation) + 1, HolderID: m.holder, PreviousHolderID: row.HolderID}
		if overlap > 0 {
			until := m.rules.now.Add(overlap)
			rotated.PreviousUntil = instant(&until)
		}
		key, hash := auth.MintKey(id)
		done, err := s.Store.Append(ctx, tx, apiKeyStream(orgID, id), eventstore.AnyVersion, m.who, rotated)
		if err != nil {
			return err
		}
		if err := orgdb.New(tx).RotateAPIKeySecret(ctx, orgdb.RotateAPIKeySecretParams{OrgID: orgID, KeyID: id, Hash: hash}); err != nil {
			return fmt.Errorf("store the hash of a key: %w", err)
		}
		secret = vault.NewSecret(key)
		k, err = getKey(ctx, tx, id, done.Position)
		return err
	})
	if err != nil {
		return APIKey{}, vault.Secret{}, err
	}
	return k, secret, nil
}

// RevokeKey ends a key for ever, at once and on every node; its sockets are closed. Whoever manages keys may end every one,
// also one that reaches further than they: a leak can't wait for an admin, nor until a frozen organization is erased. It
// returns the position of the event.
func (s *Service) RevokeKey(ctx context.Context, orgID, id uuid.UUID, expected *int) (position int64, err error) {
	who, err := auth.RequireToWithdraw(ctx, orgID, auth.KeyManage)
	if err != nil {
		return 0, err
	}
	err = s.asKeyManager(ctx, who, orgID, func(ctx context.Context, tx postgres.OrgTx, m keyManager) error {
		row, err := lockKey(ctx, tx, id, expected)
		if err != nil {
			return err
		}
		done, err := s.Store.Append(ctx, tx, apiKeyStream(orgID, id), eventstore.AnyVersion, m.who, APIKeyRevoked{Name: row.Name})
		position = done.Position
		return err
	})
	return position, err
}

// keyManager is whoever manages keys, as of the transaction.
type keyManager struct {
	who    auth.Principal
	role   auth.Role
	holder uuid.UUID // of what they make or rotate: the person behind it
	reach  reach
	rules  keyRules
}

// timeLeft is how long what they reach lasts.
func (m keyManager) timeLeft() time.Duration {
	if m.reach.until == nil {
		return 1<<63 - 1
	}
	return m.reach.until.Sub(m.rules.now)
}

// manageKeys runs fn in a transaction of the organization for somebody who manages keys: a person, or a key with that scope.
func (s *Service) manageKeys(ctx context.Context, orgID uuid.UUID, fn func(ctx context.Context, tx postgres.OrgTx, m keyManager) error) error {
	who, err := auth.Require(ctx, orgID, auth.KeyManage)
	if err != nil {
		return err
	}
	return s.asKeyManager(ctx, who, orgID, fn)
}

// asKeyManager is manageKeys for somebody who was let in.
func (s *Service) asKeyManager(ctx context.Context, who auth.Principal, orgID uuid.UUID, fn func(ctx context.Context, tx postgres.OrgTx, m keyManager) error) error {
	return s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		m := keyManager{who: who, role: who.Role, rules: keyRules{lifetime: s.KeyLifetime, most: s.KeyMaxLifetime}}
		if m.rules.lifetime <= 0 {
			m.rules.lifetime = keyLifetime
		}
		if m.rules.most > 0 {
			m.rules.lifetime = min(m.rules.lifetime, m.rules.most)
		}
		q := orgdb.New(tx)
		var err error
		if m.rules.now, err = q.Now(ctx); err != nil {
			return fmt.Errorf("read the database's clock: %w", err)
		}
		switch who.Kind {
		case auth.User:
			m.holder, m.reach.scopes = who.AccountID, auth.ScopesOf(who.Role)
		case auth.APIKey:
			// Not locked: two keys that change each other at once must not wait for each other.
			own, err := q.GetAPIKey(ctx, orgdb.GetAPIKeyParams{OrgID: orgID, KeyID: who.AccountID})
			if errors.Is(err, pgx.ErrNoRows) {
				return keyRevoked()
			}
			if err != nil {
				return fmt.Errorf("read the caller's key: %w", err)
			}
			row := own.OrgApiKey
			if row.RevokedAt != nil {
				return keyRevoked()
			}
			m.holder, m.reach = row.HolderID, reachOf(settingsOf(row), who.Role)
			m.reach.scopes = m.reach.scopes.Intersect(who.Scopes)
			if who.KeyGeneration != int(row.Generation) { // on a secret that is going to end
				m.reach.until = earlier(m.reach.until, row.PreviousUntil)
			}
		default:
			return fault.New(fault.Forbidden, "auth.person_required", "An API key has a holder: only a person or a key of theirs can do this.")
		}
		return fn(ctx, tx, m)
	})
}

// earlier is the first of two ends, of which nil is never.
func earlier(a, b *time.Time) *time.Time {
	if a == nil || (b != nil && b.Before(*a)) {
		return b
	}
	return a
}

func lockKey(ctx context.Context, tx postgres.OrgTx, id uuid.UUID, expected *int) (orgdb.OrgApiKey, error) {
	row, err := orgdb.New(tx).LockAPIKey(ctx, orgdb.LockAPIKeyParams{OrgID: tx.OrgID(), KeyID: id})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return row, keyNotFound()
	case err != nil:
		return row, fmt.Errorf("lock key: %w", err)
	case expected != nil && *expected != int(row.Version):
		return row, fault.New(fault.Precondition, "precondition.failed", "The API key is at version %d by now: read it again.", row.Version)
	}
	return row, nil
}

func getKey(ctx context.Context, tx postgres.OrgTx, id uuid.UUID, position int64) (APIKey, error) {
	row, err := orgdb.New(tx).GetAPIKey(ctx, orgdb.GetAPIKeyParams{OrgID: tx.OrgID(), KeyID: id})
	if errors.Is(err, pgx.ErrNoRows) {
		return APIKey{}, keyNotFound()
	}
	if err != nil {
		return APIKey{}, fmt.Errorf("read key: %w", err)
	}
	k := keyOf(row)
	k.Position = position
	return k, nil
}

func settingsOf(row orgdb.OrgApiKey) KeySettings {
	s := KeySettings{Name: row.Name, ExpiresAt: instant(row.ExpiresAt), AllowedAddresses: row.AllowedAddresses}
	for _, name := range row.Scopes {
		s.Scopes = append(s.Scopes, auth.Permission(name))
	}
	if row.RateLimit != nil {
		s.RateLimit = int(*row.RateLimit)
	}
	return s
}

func keyOf(row orgdb.GetAPIKeyRow) APIKey {
	k := row.OrgApiKey
	out := APIKey{
		ID: k.KeyID, KeySettings: settingsOf(k), Label: auth.KeyLabel(k.KeyID), Role: auth.Role(k.Role), HolderID: k.HolderID,
		Suspended: row.HolderRole == nil, Expired: row.Expired, CreatedKind: auth.Kind(k.CreatedKind), CreatedBy: k.CreatedBy,
		LastUsedAt: row.LastUsedAt, Version: int(k.Version), CreatedAt: k.CreatedAt, UpdatedAt: k.UpdatedAt, RevokedAt: k.RevokedAt,
	}
	if row.LastAddress != nil {
		out.LastAddress = *row.LastAddress
	}
	if k.RevokedBy != nil && k.RevokedKind != nil {
		out.RevokedKind, out.RevokedBy = auth.Kind(*k.RevokedKind), *k.RevokedBy
	}
	if row.PreviousHolds && k.RevokedAt == nil {
		out.PreviousUntil = k.PreviousUntil
	}
	return out
}
