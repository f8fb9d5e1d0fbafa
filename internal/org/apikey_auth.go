package org

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/postgres"
)

// authenticateKey returns the principal of an API key and until when its secret is good. All that decides is asked of the
// database on each call, in one query by primary key, so that nothing that was revoked lives on in a cache. A secret that
// isn't right is told apart from nothing: whether a key is revoked, expired or bound to addresses hears only who has it.
func (s *Service) authenticateKey(ctx context.Context, credential string, requested *uuid.UUID) (auth.Principal, time.Time, error) {
	id, hash, err := auth.ParseKey(credential)
	if err != nil {
		return auth.Principal{}, time.Time{}, err
	}
	from := auth.From(ctx)
	k, err := s.seekKey(ctx, id, clientAddress(from.Address))
	if err != nil {
		return auth.Principal{}, time.Time{}, err
	}
	current, previous := auth.SameKeyHash(k.Hash, hash), auth.SameKeyHash(k.PreviousHash, hash)
	generation := int(k.Generation)
	switch {
	case previous:
		generation--
	case !current:
		return auth.Principal{}, time.Time{}, unknownKey()
	}
	p, err := k.principal(id, generation)
	if err != nil {
		s.noteRefusal(ctx, id, generation, k)
		return auth.Principal{}, time.Time{}, err
	}
	if requested != nil && *requested != k.OrgID {
		return auth.Principal{}, time.Time{}, notFound()
	}
	p.Address, p.Agent, p.Request = from.Address, from.Agent, from.Request
	allowed := addressAllowed(k.AllowedAddresses, k.address)
	if err := s.noteNetwork(ctx, p, k, allowed); err != nil {
		return auth.Principal{}, time.Time{}, err
	}
	if !allowed {
		return auth.Principal{}, time.Time{}, addressRefused()
	}
	return p, k.until(generation), nil
}

// checkKey returns the key's principal as it is now.
func (s *Service) checkKey(ctx context.Context, p auth.Principal) (auth.Principal, error) {
	k, err := s.seekKey(ctx, p.AccountID, clientAddress(p.Address))
	if err != nil {
		return auth.Principal{}, err
	}
	now, err := k.principal(p.AccountID, p.KeyGeneration)
	switch {
	case err != nil:
		return auth.Principal{}, err
	case now.OrgID != p.OrgID:
		return auth.Principal{}, notFound()
	case !addressAllowed(k.AllowedAddresses, k.address):
		return auth.Principal{}, addressRefused()
	}
	now.Address, now.Agent, now.Request = p.Address, p.Agent, p.Request
	return now, nil
}

// soughtKey is what the database knows of a key that was shown, and whence it was.
type soughtKey struct {
	orgdb.AuthenticateAPIKeyRow

	address netip.Addr
	network string // empty when nobody knows the address
}

func (s *Service) seekKey(ctx context.Context, id uuid.UUID, address netip.Addr) (soughtKey, error) {
	network := networkOf(address)
	row, err := orgdb.New(s.DB.System).AuthenticateAPIKey(ctx, orgdb.AuthenticateAPIKeyParams{KeyID: id, Network: network})
	if errors.Is(err, pgx.ErrNoRows) {
		return soughtKey{}, unknownKey()
	}
	if err != nil {
		return soughtKey{}, fmt.Errorf("look up API key: %w", err)
	}
	return soughtKey{AuthenticateAPIKeyRow: row, address: address, network: network}, nil
}

// principal says who shows this generation of the secret, or why the key is no good.
func (k soughtKey) principal(id uuid.UUID, generation int) (auth.Principal, error) {
	last := int(k.Generation)
	switch {
	case k.Revoked:
		return auth.Principal{}, keyRevoked()
	case generation != last && (generation != last-1 || !k.PreviousHolds):
		return auth.Principal{}, fault.New(fault.Unauthenticated, "auth.api_key_revoked", "This API key has a new secret, and this one has ended.")
	case k.Expired:
		return auth.Principal{}, fault.New(fault.Unauthenticated, "auth.api_key_expired", "This API key has expired.")
	case k.HolderRole == nil:
		return auth.Principal{}, fault.New(fault.Unauthenticated, "auth.api_key_suspended", "The member who held this API key has left the organization. Whoever manages its keys can rotate it, and then holds it.")
	}
	p := auth.Principal{
		Kind: auth.APIKey, AccountID: id, OrgID: k.OrgID, Role: lower(auth.Role(k.Role), auth.Role(*k.HolderRole)), Frozen: k.Frozen,
		KeyGeneration: generation,
	}
	var scopes []auth.Permission
	for _, name := range k.Scopes {
		scopes = append(scopes, auth.Permission(name))
	}
	p.Scopes = auth.NewScopes(scopes...)
	if k.RateLimit != nil {
		p.KeyLimit = int(*k.RateLimit)
	}
	return p, nil
}

// until is when a secret of the generation ends by itself, zero = never.
func (k soughtKey) until(generation int) time.Time {
	end := k.ExpiresAt
	if generation != int(k.Generation) {
		end = earlier(end, k.PreviousUntil)
	}
	if end == nil {
		return time.Time{}
	}
	return *end
}

// noteNetwork writes an event when a key is shown from a network that isn't remembered. It is bounded twice: as many
// networks are remembered as limits say, the last ones, and no more are told in an hour than it says.
func (s *Service) noteNetwork(ctx context.Context, p auth.Principal, k soughtKey, allowed bool) error {
	if k.network == "" || (allowed && k.Known) || (!allowed && k.KnownRefused) {
		return nil
	}
	err := s.DB.InOrg(ctx, p.OrgID, func(ctx context.Context, tx postgres.OrgTx) error {
		q := orgdb.New(tx)
		noted, err := q.NoteAPIKeyNetwork(ctx, orgdb.NoteAPIKeyNetworkParams{
			KeyID: p.AccountID, OrgID: p.OrgID, Network: k.network, Allowed: allowed, AnHour: limits.MaxNewKeyNetworks,
		})
		if err != nil || noted == 0 {
			return err
		}
		event := APIKeyUsedFromNewAddress{KeyID: p.AccountID, Network: k.network, Allowed: allowed}
		if _, err := s.Store.Append(ctx, tx, apiKeyStream(p.OrgID, p.AccountID), eventstore.AnyVersion, p, event); err != nil {
			return err
		}
		return q.ForgetAPIKeyNetworks(ctx, orgdb.ForgetAPIKeyNetworksParams{OrgID: p.OrgID, KeyID: p.AccountID, Kept: limits.MaxKeyNetworks})
	})
	if err != nil {
		return fmt.Errorf("note where an API key is used: %w", err)
	}
	return nil
}

// noteRefusal writes an event when the right secret of a key that has ended is shown, at most one an hour for a key. The
// key is refused all the same where it can't be written.
func (s *Service) noteRefusal(ctx context.Context, id uuid.UUID, generation int, k soughtKey) {
	event := APIKeyRefused{KeyID: id, Network: k.network}
	switch {
	case k.RefusalTold:
		return
	case k.Revoked:
		event.Reason = RefusedRevoked
	case generation != int(k.Generation) && !k.PreviousHolds:
		event.Reason = RefusedRotated
	case k.Expired:
		event.Reason = RefusedExpired
	default: // it rests, and its members know
		return
	}
	from := auth.From(ctx)
	who := auth.Principal{Kind: auth.APIKey, AccountID: id, OrgID: k.OrgID, Address: from.Address, Agent: from.Agent, Request: from.Request}
	err := s.DB.InOrg(ctx, k.OrgID, func(ctx context.Context, tx postgres.OrgTx) error {
		noted, err := orgdb.New(tx).NoteAPIKeyRefusal(ctx, orgdb.NoteAPIKeyRefusalParams{OrgID: k.OrgID, KeyID: id})
		if err != nil || noted == 0 {
			return err
		}
		_, err = s.Store.Append(ctx, tx, apiKeyStream(k.OrgID, id), eventstore.AnyVersion, who, event)
		return err
	})
	if err != nil {
		s.Log.WarnContext(ctx, "that an ended API key was shown could not be written", slog.String("key_id", id.String()), slog.Any("err", err))
	}
}

// unknownKey is the answer to every secret that isn't right, whether or not there is such a key.
func unknownKey() *fault.Error {
	return fault.New(fault.Unauthenticated, "auth.api_key_unknown", "This API key is not known.")
}

func keyRevoked() *fault.Error {
	return fault.New(fault.Unauthenticated, "auth.api_key_revoked", "This API key was revoked.")
}

func addressRefused() *fault.Error {
	return fault.New(fault.Forbidden, "auth.address_not_allowed", "This API key may not be used from your address.")
}
