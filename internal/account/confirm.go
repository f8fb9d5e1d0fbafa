package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/vault"
)

// RegisterLaterTx keeps a registration until its code comes back, and mails the code. Nothing else exists of it: an address
// can't be taken by somebody who doesn't read its mail. Where the address has an account, its person is told instead, and
// taken is that account. None of this may show in an answer.
func (s *Service) RegisterLaterTx(ctx context.Context, tx pgx.Tx, c Candidate, organization string, from Client) (taken *Account, err error) {
	a, known, err := s.byEmailTx(ctx, tx, c.reg.Email)
	if err != nil {
		return nil, err
	}
	if known {
		return &a, s.RegistrationTriedTx(ctx, tx, a, from)
	}
	q := accountdb.New(tx)
	if err := q.LockAddress(ctx, c.reg.Email); err != nil {
		return nil, fmt.Errorf("lock an address: %w", err)
	}
	code, hash := auth.MintOneTime(purposeConfirm)
	n, err := q.InsertPending(ctx, accountdb.InsertPendingParams{
		CodeHash: hash, Email: c.reg.Email, Name: c.reg.Name, PasswordHash: c.hash, OrganizationName: organization,
		LifetimeSeconds: confirmLifetime.Seconds(), MostAnHour: codesAnHour,
	})
	if err != nil {
		return nil, fmt.Errorf("keep a registration: %w", err)
	}
	if n == 0 { // enough mail for an hour
		return nil, nil //nolint:nilnil // the address is free
	}
	return nil, s.Mail.SendTx(ctx, tx, s.confirmMail(c, code))
}

// RegistrationTriedTx tells a person that somebody tried to register with their address, and records it, a few times an
// hour at most.
func (s *Service) RegistrationTriedTx(ctx context.Context, tx pgx.Tx, a Account, from Client) error {
	if !s.Mail.Enabled() {
		return nil
	}
	_, ok, err := s.codeTx(ctx, tx, a, purposeTried, confirmLifetime) // counts; nobody gets this code
	if err != nil || !ok {
		return err
	}
	if err := s.Mail.SendTx(ctx, tx, s.registrationTriedMail(a, from)); err != nil {
		return err
	}
	// By somebody who is not known to be the person.
	_, err = s.Store.Append(ctx, tx, stream(a.ID), eventstore.AnyVersion, from.Actor(a.ID), RegistrationTried{})
	return err
}

// Confirmed returns the registration of a code, if the password is the one that was chosen then. It takes tens of
// milliseconds, so it comes before the transaction that makes the account; TakeTx belongs into that.
func (s *Service) Confirmed(ctx context.Context, code string, password vault.Secret) (c Candidate, organization string, err error) {
	hash, ok := auth.HashOneTime(purposeConfirm, code)
	if !ok {
		return Candidate{}, "", CodeInvalid()
	}
	row, err := accountdb.New(s.DB.System).GetPending(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return Candidate{}, "", CodeInvalid()
	}
	if err != nil {
		return Candidate{}, "", fmt.Errorf("read a registration: %w", err)
	}
	right, _, err := s.Passwords.Verify(ctx, passwordForHash(password), row.PasswordHash)
	if err != nil {
		return Candidate{}, "", err
	}
	if !right {
		return Candidate{}, "", passwordWrong("/password", "This isn't the password that was chosen with this registration.")
	}
	c = Candidate{reg: Registration{Email: row.Email, Name: row.Name, Password: password}, hash: row.PasswordHash, code: hash}
	return c.AsVerified(), row.OrganizationName, nil
}

// TakeTx uses up the code of a registration that Confirmed returned, and forgets others with the same address.
func (*Service) TakeTx(ctx context.Context, tx pgx.Tx, c Candidate) error {
	q := accountdb.New(tx)
	n, err := q.TakePending(ctx, c.code)
	if err != nil {
		return fmt.Errorf("take a registration: %w", err)
	}
	if n == 0 {
		return CodeInvalid()
	}
	if err := q.ForgetPending(ctx, c.reg.Email); err != nil {
		return fmt.Errorf("forget registrations: %w", err)
	}
	return nil
}

// passwordWrong returns the fault for a wrong password beside something else that proves who asks.
func passwordWrong(pointer, detail string) *fault.Error {
	return fault.New(fault.Invalid, "account.password_wrong", "The password is not right.").At(pointer, "%s", detail)
}

// WrongPassword returns the fault for a person who is signed in and gives another password than theirs.
func WrongPassword(pointer string) *fault.Error {
	return passwordWrong(pointer, "This isn't your password.")
}
