package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/vault"
)

// newPassword checks a password for an account and returns its hash. What is wrong with it is fault.Invalid at
// /newPassword.
func (s *Service) newPassword(ctx context.Context, password vault.Secret, a Account) (hash string, err error) {
	problems := s.Policy.problems(password.Reveal(), about{email: a.Email, name: a.Name})
	if len(problems) == 0 {
		if problems, err = s.Policy.leaked(password.Reveal()); err != nil {
			return "", err
		}
	}
	if len(problems) > 0 {
		return "", Invalid(at("/newPassword", problems))
	}
	return s.Passwords.Hash(ctx, passwordForHash(password))
}

// Change is a new password for an account whose old one was given, ready for ChangePasswordTx.
type Change struct {
	account       Account
	oldHash, hash string
}

// PrepareChange checks the current password and the new one, and hashes it. right is false when the current one is wrong;
// what is wrong with the new one is fault.Invalid.
func (s *Service) PrepareChange(ctx context.Context, accountID uuid.UUID, current, next vault.Secret) (c Change, right bool, err error) {
	row, err := accountdb.New(s.DB.System).GetAccount(ctx, accountID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Change{}, false, notFound()
	}
	if err != nil {
		return Change{}, false, fmt.Errorf("read account: %w", err)
	}
	right, _, err = s.Passwords.Verify(ctx, passwordForHash(current), row.PasswordHash)
	if err != nil || !right {
		return Change{}, false, err
	}
	if passwordForHash(next) == passwordForHash(current) {
		return Change{}, true, Invalid([]fault.Field{{Pointer: "/newPassword", Detail: "This is the password that you have."}})
	}
	hash, err := s.newPassword(ctx, next, accountOf(row))
	return Change{account: accountOf(row), oldHash: row.PasswordHash, hash: hash}, true, err
}

// ChangePasswordTx sets the new password, ends all sessions but the spared one and tells the person. Somebody who changed
// it meanwhile makes it fault.Conflict.
func (s *Service) ChangePasswordTx(ctx context.Context, tx pgx.Tx, c Change, spared uuid.UUID, from Client) (PasswordChanged, eventstore.Appended, error) {
	n, err := accountdb.New(tx).ChangePassword(ctx, accountdb.ChangePasswordParams{PasswordHash: c.hash, AccountID: c.account.ID, OldHash: c.oldHash})
	if err != nil {
		return PasswordChanged{}, eventstore.Appended{}, fmt.Errorf("change password: %w", err)
	}
	if n == 0 {
		return PasswordChanged{}, eventstore.Appended{}, fault.New(fault.Conflict, "account.password_changed", "The password was changed meanwhile.")
	}
	return s.passwordChangedTx(ctx, tx, c.account, ByPerson, spared, from)
}

// passwordChangedTx does what belongs to a new password: sessions and codes of the old one end, and the person hears of it.
func (s *Service) passwordChangedTx(ctx context.Context, tx pgx.Tx, a Account, by string, spared uuid.UUID, from Client) (PasswordChanged, eventstore.Appended, error) {
	fail := func(doing string, err error) (PasswordChanged, eventstore.Appended, error) {
		return PasswordChanged{}, eventstore.Appended{}, fmt.Errorf("%s: %w", doing, err)
	}
	ended, err := s.endAllTx(ctx, tx, a.ID, spared, endPasswordChanged)
	if err != nil {
		return fail("end sessions", err)
	}
	if err := accountdb.New(tx).EndCodes(ctx, accountdb.EndCodesParams{AccountID: a.ID, Purpose: purposeReset}); err != nil {
		return fail("end codes", err)
	}
	if s.Mail.Enabled() {
		if err := s.Mail.SendTx(ctx, tx, s.passwordChangedMail(a, from)); err != nil {
			return fail("tell of the new password", err)
		}
	}
	event := PasswordChanged{By: by, Sessions: ended}
	done, err := s.Store.Append(ctx, tx, stream(a.ID), eventstore.AnyVersion, from.Actor(a.ID), event)
	return event, done, err
}
