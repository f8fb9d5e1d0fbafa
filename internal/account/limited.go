package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/ratelimit"
)

// TypeSignInLimited is stored for ever.
const TypeSignInLimited = "account.sign_in_limited"

// SignInLimited says that attempts were refused without a look at what they proved: there had been too many. It is
// recorded once a window, whatever comes after it.
type SignInLimited struct {
	Operation  string `json:"operation"`  // what was attempted, as openapi.yaml calls it
	Everywhere bool   `json:"everywhere"` // they came from many addresses; otherwise from the event's own
}

// EventType returns the stored name.
func (SignInLimited) EventType() string { return TypeSignInLimited }

// Claim is who somebody says they are, before they have proved it. Not more than one field is set.
type Claim struct {
	Email     string    // in any spelling, of an account or of none
	AccountID uuid.UUID // of somebody who has signed in and proves it once more
}

// Name returns the claim in its one spelling, by which attempts are counted: empty when nothing is claimed. Addresses that
// have no account have names like all others.
func (c Claim) Name() string {
	switch {
	case c.AccountID != uuid.Nil:
		return "account:" + c.AccountID.String()
	case c.Email == "":
		return ""
	}
	if email, err := NormalizeEmail(c.Email); err == nil {
		return "email:" + email
	}
	return "text:" + strings.ToLower(strings.TrimSpace(c.Email))
}

// email returns the claimed address as it is stored.
func (c Claim) email() string {
	email, err := NormalizeEmail(c.Email)
	if err != nil {
		return ""
	}
	return email
}

// KnownFrom reports whether the claimed account was used from the network of the address before, and not by a thief.
func (s *Service) KnownFrom(ctx context.Context, c Claim, address string) (bool, error) {
	used, err := accountdb.New(s.DB.System).AddressesOf(ctx, accountdb.AddressesOfParams{Email: c.email(), AccountID: c.AccountID})
	if err != nil {
		return false, fmt.Errorf("read where an account was used from: %w", err)
	}
	network := ratelimit.Network(address)
	return address != "" && slices.ContainsFunc(used, func(a string) bool { return ratelimit.Network(a) == network }), nil
}

// RecordLimitedTx records that attempts for the claimed account were refused; known is false when there is no such account,
// and then nothing is recorded.
func (s *Service) RecordLimitedTx(ctx context.Context, tx pgx.Tx, c Claim, event SignInLimited, from Client) (id uuid.UUID, known bool, err error) {
	if id = c.AccountID; id == uuid.Nil {
		row, err := accountdb.New(tx).GetAccountByEmail(ctx, c.email())
		if errors.Is(err, pgx.ErrNoRows) {
			return uuid.Nil, false, nil
		}
		if err != nil {
			return uuid.Nil, false, fmt.Errorf("read the claimed account: %w", err)
		}
		id = row.AccountID
	}
	_, err = s.Store.Append(ctx, tx, stream(id), eventstore.AnyVersion, from.Actor(id), event)
	return id, true, err
}
