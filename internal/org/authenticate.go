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
	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

// Authenticate returns the principal of an access token or an API key (see authenticateKey). It checks the token and then,
// in one query, that its session lives and what its person is in the organization: requested, when the caller chose one by
// a header, else the token's own. One that they aren't in is fault.NotFound when it was requested, and then the principal,
// of no organization, comes beside it, for the record; when it was the token's own, the principal is of no organization, and can still look for others. Every other fault is fault.Unauthenticated, but
// for a key that is shown from an address that it isn't for: fault.Forbidden. The caller's address is read from the
// principal that ctx carries, whoever that is; the door adds address, agent and request id.
func (s *Service) Authenticate(ctx context.Context, credential string, requested *uuid.UUID) (auth.Principal, error) {
	p, _, err := s.AuthenticateUntil(ctx, credential, requested)
	return p, err
}

// AuthenticateUntil is Authenticate, and says until when the credential is good if nothing happens; the zero time is for
// ever. It is for what stays open longer than a request.
func (s *Service) AuthenticateUntil(ctx context.Context, credential string, requested *uuid.UUID) (auth.Principal, time.Time, error) {
	if auth.LooksLikeKey(credential) {
		return s.authenticateKey(ctx, credential, requested)
	}
	claims, err := s.Accounts.Tokens.Verify(credential)
	if err != nil {
		return auth.Principal{}, time.Time{}, err
	}
	p := auth.Principal{Kind: auth.User, AccountID: claims.AccountID, SessionID: claims.SessionID, OrgID: claims.OrgID}
	if requested != nil {
		p.OrgID = *requested
	}
	p, err = s.look(ctx, p)
	if err != nil {
		return auth.Principal{}, time.Time{}, err
	}
	if requested != nil && p.OrgID == uuid.Nil {
		return p, time.Time{}, notFound()
	}
	return p, claims.ExpiresAt, nil
}

// Check returns the principal as it is now: with the role of today, fault.Unauthenticated when the session has ended or the
// API key is good no more, or fault.NotFound when the person has left the organization. It is for what stays open longer than a request.
func (s *Service) Check(ctx context.Context, p auth.Principal) (auth.Principal, error) {
	switch p.Kind {
	case auth.User:
	case auth.APIKey:
		return s.checkKey(ctx, p)
	default:
		return p, nil
	}
	now, err := s.look(ctx, p)
	if err != nil {
		return auth.Principal{}, err
	}
	if now.OrgID != p.OrgID {
		return auth.Principal{}, notFound()
	}
	return now, nil
}

// look fills in what the database knows of a session and a membership; without a membership, OrgID becomes uuid.Nil.
func (s *Service) look(ctx context.Context, p auth.Principal) (auth.Principal, error) {
	row, err := orgdb.New(s.DB.System).Authenticate(ctx, orgdb.AuthenticateParams{OrgID: p.OrgID, SessionID: p.SessionID, AccountID: p.AccountID})
	if errors.Is(err, pgx.ErrNoRows) {
		return auth.Principal{}, account.SessionEnded()
	}
	if err != nil {
		return auth.Principal{}, fmt.Errorf("look up session: %w", err)
	}
	p.Operator, p.Role, p.Frozen = row.Operator, "", false
	if row.Role == nil {
		p.OrgID = uuid.Nil
		return p, nil
	}
	p.Role, p.Frozen = auth.Role(*row.Role), row.Frozen
	return p, nil
}
