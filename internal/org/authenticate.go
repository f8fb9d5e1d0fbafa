package org

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

// Authenticate returns the principal of an access token: it checks the token and then, in one query, that its session
// lives and what its person is in the organization: requested, when the caller chose one by a header, else the token's own.
// One that they aren't in is fault.NotFound when it was requested; when it was the token's own, the principal is of no
// organization, and can still look for others. Every other fault is fault.Unauthenticated. The door adds address, agent
// and request id.
func (s *Service) Authenticate(ctx context.Context, accessToken string, requested *uuid.UUID) (auth.Principal, error) {
	claims, err := s.Accounts.Tokens.Verify(accessToken)
	if err != nil {
		return auth.Principal{}, err
	}
	p := auth.Principal{Kind: auth.User, AccountID: claims.AccountID, SessionID: claims.SessionID, OrgID: claims.OrgID}
	if requested != nil {
		p.OrgID = *requested
	}
	p, err = s.look(ctx, p)
	if err != nil {
		return auth.Principal{}, err
	}
	if requested != nil && p.OrgID == uuid.Nil {
		return auth.Principal{}, notFound()
	}
	return p, nil
}

// Check returns the principal as it is now: with the role of today, fault.Unauthenticated when the session has ended, or
// fault.NotFound when the person has left the organization. It is for what stays open longer than a request.
func (s *Service) Check(ctx context.Context, p auth.Principal) (auth.Principal, error) {
	if p.Kind != auth.User {
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
