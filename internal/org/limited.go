package org

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
)

// TypeSignInLimited is stored for ever.
const TypeSignInLimited = "org.sign_in_limited"

// MemberSignInLimited is the organization's copy of the news that attempts to sign in as a member were refused, since there
// had been too many.
type MemberSignInLimited struct {
	AccountID  uuid.UUID `json:"accountId"`
	Operation  string    `json:"operation"`
	Everywhere bool      `json:"everywhere"` // they came from many addresses
}

// EventType returns the stored name.
func (MemberSignInLimited) EventType() string { return TypeSignInLimited }

// RecordSignInLimited records that attempts for the claimed account are refused from now until their window ends, in the
// account's history and in those of its organizations. Where there is no such account it does nothing. The caller bounds
// how often it is called.
func (s *Service) RecordSignInLimited(ctx context.Context, claim account.Claim, event account.SignInLimited, from account.Client) error {
	return s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		id, known, err := s.Accounts.RecordLimitedTx(ctx, tx, claim, event, from)
		if err != nil || !known {
			return err
		}
		_, all, err := s.orgsTx(ctx, tx, id)
		if err != nil {
			return err
		}
		_, err = s.copyTx(ctx, tx, all, id, from, MemberSignInLimited{AccountID: id, Operation: event.Operation, Everywhere: event.Everywhere})
		return err
	})
}
