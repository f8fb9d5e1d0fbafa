package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/vault"
)

const (
	verifyLifetime  = 48 * time.Hour
	resetLifetime   = time.Hour
	confirmLifetime = 24 * time.Hour
	// codesAnHour bounds what somebody can have mailed to another person, for each purpose.
	codesAnHour = 5
)

// What a code is for, as stored.
const (
	purposeVerify  = "verify_email"
	purposeReset   = "reset_password"
	purposeTried   = "registration_tried" // counts mails; the code itself is for nobody
	purposeConfirm = "confirm_registration"
)

// codeTx makes a code of an account; ok is false when there were enough of them.
func (s *Service) codeTx(ctx context.Context, tx pgx.Tx, a Account, purpose string, lifetime time.Duration) (code string, ok bool, err error) {
	q := accountdb.New(tx)
	if err := q.LockAccount(ctx, a.ID); err != nil {
		return "", false, fmt.Errorf("lock account: %w", err)
	}
	code, hash := auth.MintOneTime(purpose)
	n, err := q.InsertCode(ctx, accountdb.InsertCodeParams{
		CodeHash: hash, AccountID: a.ID, Purpose: purpose, Email: a.Email, LifetimeSeconds: lifetime.Seconds(), MostAnHour: codesAnHour,
	})
	if err != nil {
		return "", false, fmt.Errorf("store a code: %w", err)
	}
	return code, n == 1, nil
}

// sendVerificationTx mails a code that verifies the account's address; nothing is done where no mail is sent, or when
// enough were. sent is false then.
func (s *Service) sendVerificationTx(ctx context.Context, tx pgx.Tx, a Account, from Client) (sent bool, err error) {
	if !s.Mail.Enabled() {
		return false, nil
	}
	code, ok, err := s.codeTx(ctx, tx, a, purposeVerify, verifyLifetime)
	if err != nil || !ok {
		return false, err
	}
	if err := s.Mail.SendTx(ctx, tx, s.verifyMail(a, code)); err != nil {
		return false, err
	}
	_, err = s.Store.Append(ctx, tx, stream(a.ID), eventstore.AnyVersion, from.Actor(a.ID), VerificationSent{})
	return err == nil, err
}

// ResendVerificationTx mails another code to an account whose address isn't verified yet. Where no mail is sent it returns
// mail.Off.
func (s *Service) ResendVerificationTx(ctx context.Context, tx pgx.Tx, a Account, from Client) (sent bool, err error) {
	if a.EmailVerified {
		return false, nil
	}
	return s.sendVerificationTx(ctx, tx, a, from)
}

// VerifyEmailTx takes a code that was mailed to an account's address. It returns fault.Invalid for one that isn't good.
// done is false when the address was verified before.
func (s *Service) VerifyEmailTx(ctx context.Context, tx pgx.Tx, code string, from Client) (a Account, done bool, err error) {
	a, err = s.useCodeTx(ctx, tx, purposeVerify, code)
	if err != nil {
		return Account{}, false, err
	}
	done, err = s.MarkEmailVerifiedTx(ctx, tx, a.ID, a.Email, from)
	return a, done, err
}

// MarkEmailVerifiedTx records that the person reads the mail of an address, which they showed by something that was
// mailed there. done is false when that is known, or when the account has another address.
func (s *Service) MarkEmailVerifiedTx(ctx context.Context, tx pgx.Tx, accountID uuid.UUID, email string, from Client) (done bool, err error) {
	q := accountdb.New(tx)
	n, err := q.VerifyEmail(ctx, accountdb.VerifyEmailParams{AccountID: accountID, Email: email})
	if err != nil {
		return false, fmt.Errorf("verify an address: %w", err)
	}
	if n == 0 {
		return false, nil
	}
	if err := q.EndCodes(ctx, accountdb.EndCodesParams{AccountID: accountID, Purpose: purposeVerify}); err != nil {
		return false, fmt.Errorf("end codes: %w", err)
	}
	sealed, err := s.Persons.Seal(ctx, tx, accountID, email)
	if err != nil {
		return false, err
	}
	_, err = s.Store.Append(ctx, tx, stream(accountID), eventstore.AnyVersion, from.Actor(accountID), EmailVerified{Email: sealed})
	return err == nil, err
}

func (*Service) useCodeTx(ctx context.Context, tx pgx.Tx, purpose, code string) (Account, error) {
	hash, ok := auth.HashOneTime(purpose, code)
	if !ok {
		return Account{}, CodeInvalid()
	}
	q := accountdb.New(tx)
	id, err := q.UseCode(ctx, accountdb.UseCodeParams{CodeHash: hash, Purpose: purpose})
	if errors.Is(err, pgx.ErrNoRows) {
		return Account{}, CodeInvalid()
	}
	if err != nil {
		return Account{}, fmt.Errorf("use a code: %w", err)
	}
	return found(q.GetAccount(ctx, id))
}

// CodeInvalid returns the fault for a code that is none, was used, has expired or was sent to another address: nobody is
// told which.
func CodeInvalid() *fault.Error {
	return fault.New(fault.Invalid, "account.code_invalid", "This code isn't good, or not any more: ask for another one.").At("/token", "is not good, or not any more")
}

// ForgotTx mails the account of an address a code with which its password can be set anew. known is false when there is no
// such account, sent also when enough codes were sent; neither may show in an answer.
func (s *Service) ForgotTx(ctx context.Context, tx pgx.Tx, email string, from Client) (a Account, sent bool, err error) {
	a, known, err := s.byEmailTx(ctx, tx, email)
	if err != nil || !known {
		return Account{}, false, err
	}
	code, ok, err := s.codeTx(ctx, tx, a, purposeReset, resetLifetime)
	if err != nil || !ok {
		return a, false, err
	}
	if err := s.Mail.SendTx(ctx, tx, s.resetMail(a, code, from)); err != nil {
		return a, false, err
	}
	_, err = s.Store.Append(ctx, tx, stream(a.ID), eventstore.AnyVersion, from.Actor(a.ID), ResetRequested{})
	return a, err == nil, err
}

// ResetCodeTx makes a code like that of ForgotTx for the operator to hand over, where no mail is sent.
func (s *Service) ResetCodeTx(ctx context.Context, tx pgx.Tx, email string) (code string, err error) {
	a, known, err := s.byEmailTx(ctx, tx, email)
	switch {
	case err != nil:
		return "", err
	case !known:
		return "", notFound()
	}
	code, ok, err := s.codeTx(ctx, tx, a, purposeReset, resetLifetime)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", fault.New(fault.RateLimited, "account.too_many_codes", "There were %d codes for this account in the last hour already: use the last one, or wait.", codesAnHour)
	}
	_, err = s.Store.Append(ctx, tx, stream(a.ID), eventstore.AnyVersion, auth.Principal{Kind: auth.System}, ResetRequested{})
	return code, err
}

func (*Service) byEmailTx(ctx context.Context, tx pgx.Tx, email string) (a Account, known bool, err error) {
	normalized, badAddress := NormalizeEmail(email)
	if badAddress != nil {
		return Account{}, false, nil //nolint:nilerr // what is no address has no account
	}
	row, err := accountdb.New(tx).GetAccountByEmail(ctx, normalized)
	if errors.Is(err, pgx.ErrNoRows) {
		return Account{}, false, nil
	}
	if err != nil {
		return Account{}, false, fmt.Errorf("read account: %w", err)
	}
	return accountOf(row), true, nil
}

// Reset is a new password for the account of a code, ready for ResetTx.
type Reset struct {
	code, hash string
}

// PrepareReset checks a code and the new password, and hashes it. It takes tens of milliseconds, so it comes before the
// transaction.
func (s *Service) PrepareReset(ctx context.Context, code string, password vault.Secret) (Reset, error) {
	codeHash, ok := auth.HashOneTime(purposeReset, code)
	if !ok {
		return Reset{}, CodeInvalid()
	}
	row, err := accountdb.New(s.DB.System).GetCode(ctx, accountdb.GetCodeParams{CodeHash: codeHash, Purpose: purposeReset})
	if errors.Is(err, pgx.ErrNoRows) {
		return Reset{}, CodeInvalid()
	}
	if err != nil {
		return Reset{}, fmt.Errorf("read a code: %w", err)
	}
	hash, err := s.newPassword(ctx, password, accountOf(row.Account))
	return Reset{code: code, hash: hash}, err
}

// ResetTx uses the code up, sets the password, which also verifies the address, ends every session and tells the person.
func (s *Service) ResetTx(ctx context.Context, tx pgx.Tx, r Reset, from Client) (Account, PasswordChanged, eventstore.Appended, error) {
	fail := func(err error) (Account, PasswordChanged, eventstore.Appended, error) {
		return Account{}, PasswordChanged{}, eventstore.Appended{}, err
	}
	a, err := s.useCodeTx(ctx, tx, purposeReset, r.code)
	if err != nil {
		return fail(err)
	}
	if _, err := s.MarkEmailVerifiedTx(ctx, tx, a.ID, a.Email, from); err != nil {
		return fail(err)
	}
	if err := accountdb.New(tx).ResetPassword(ctx, accountdb.ResetPasswordParams{PasswordHash: r.hash, AccountID: a.ID}); err != nil {
		return fail(fmt.Errorf("reset password: %w", err))
	}
	event, done, err := s.passwordChangedTx(ctx, tx, a, ByCode, uuid.Nil, from)
	return a, event, done, err
}

// ForgetTx removes what lies about of a person beside the account itself.
func (s *Service) ForgetTx(ctx context.Context, tx pgx.Tx, a Account) error {
	q := accountdb.New(tx)
	if err := errors.Join(q.ForgetCodes(ctx, a.ID), q.ForgetPending(ctx, a.Email)); err != nil {
		return fmt.Errorf("forget codes: %w", err)
	}
	return s.Mail.ForgetTx(ctx, tx, a.ID, a.Email)
}
