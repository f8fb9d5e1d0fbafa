package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/vault"
)

// TypeErased is stored for ever.
const TypeErased = "account.erased"

// Erased is the last event of an account: its person asked to be forgotten, and the key that sealed what was personal of
// them in all events was destroyed with it. It names nobody.
type Erased struct {
	By string `json:"by"` // self, operator
}

// EventType returns the stored name.
func (Erased) EventType() string { return TypeErased }

// Nameless returns who does something as an event may keep it of somebody who is being erased: no address, no agent.
func Nameless(who auth.Principal) auth.Principal {
	who.Address, who.Agent = "", ""
	return who
}

// CheckPassword reports whether the password is the account's; an account that isn't there is fault.NotFound.
func (s *Service) CheckPassword(ctx context.Context, accountID uuid.UUID, password vault.Secret) (right bool, err error) {
	row, err := accountdb.New(s.DB.System).GetAccount(ctx, accountID)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, notFound()
	}
	if err != nil {
		return false, fmt.Errorf("read account: %w", err)
	}
	right, _, err = s.Passwords.Verify(ctx, passwordForHash(password), row.PasswordHash)
	return right, err
}

// LockTx returns an account that nobody else changes until the transaction ends, or fault.NotFound.
func (s *Service) LockTx(ctx context.Context, tx pgx.Tx, accountID uuid.UUID) (Account, error) {
	return found(accountdb.New(tx).HoldAccount(ctx, accountID))
}

// EraseTx forgets a person: it destroys the key that their data in events is sealed with, removes the account with its
// sessions and answers that were kept for it, and records that, in this order, so that the last event seals nothing. What
// other processes have of the key in memory is gone after personCacheFor. Organizations are left by the caller, before.
// The installation's operator cannot be erased: fault.Conflict.
func (s *Service) EraseTx(ctx context.Context, tx pgx.Tx, a Account, by string, who auth.Principal) (eventstore.Appended, error) {
	if a.Operator {
		return eventstore.Appended{}, fault.New(fault.Conflict, "account.is_operator", "The operator of this installation cannot be erased while the installation is theirs.")
	}
	if err := s.ForgetTx(ctx, tx, a); err != nil {
		return eventstore.Appended{}, err
	}
	if err := eventstore.ForgetAnswersTx(ctx, tx, string(auth.User)+":"+a.ID.String(), a.Email); err != nil {
		return eventstore.Appended{}, err
	}
	if err := s.Persons.ForgetTx(ctx, tx, []uuid.UUID{a.ID}); err != nil {
		return eventstore.Appended{}, err
	}
	if err := accountdb.New(tx).EraseAccount(ctx, a.ID); err != nil {
		return eventstore.Appended{}, fmt.Errorf("remove account: %w", err)
	}
	// Again: somebody may have read the key between.
	postgres.AfterCommit(ctx, func() { s.Persons.cache.Remove(a.ID) })
	return s.Store.Append(ctx, tx, stream(a.ID), eventstore.AnyVersion, Nameless(who), Erased{By: by})
}
