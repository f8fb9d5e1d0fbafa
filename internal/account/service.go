package account

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/mail"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/ratelimit"
	"github.com/testflow/testflow/internal/vault"
)

const (
	// failureWindow and failuresRecorded bound how much a guesser can make us write: each of the first failures in a
	// window is an event, then those whose number is a power of two.
	failureWindow    = 15 * time.Minute
	failuresRecorded = 5
	// failureFloor is the least time that a refused sign-in takes, so that what is done for a known account and not for an
	// unknown one doesn't show. A hash and a commit stay below it.
	failureFloor = 250 * time.Millisecond
)

// Service keeps accounts and sessions. Its methods with the suffix Tx work in the caller's transaction, which must be of
// the system role: people belong to no tenant.
type Service struct {
	DB        *postgres.DB
	Store     *eventstore.Store
	Persons   *Persons
	Passwords *auth.Passwords
	Tokens    *auth.Tokens
	Refresh   *auth.RefreshTokens
	Mail      *mail.Service // nil = no mail is sent
	Policy    PasswordPolicy
	LeastTime time.Duration // of answers that must not tell who has an account; 0 = 250 ms
	NewID     func() uuid.UUID
	Log       *slog.Logger
}

// Client is where a request comes from.
type Client struct {
	Address string // IP address without port; may be empty
	Agent   string // User-Agent; may be empty
	Request string // request id; may be empty
}

// Actor returns the person as the actor of an event, coming from the client.
func (c Client) Actor(accountID uuid.UUID) auth.Principal {
	return auth.Principal{Kind: auth.User, AccountID: accountID, Address: c.Address, Agent: c.Agent, Request: c.Request}
}

// ClientOf returns the client that a principal came from.
func ClientOf(p auth.Principal) Client {
	return Client{Address: p.Address, Agent: p.Agent, Request: p.Request}
}

// network is what stays the same while somebody moves a little.
func (c Client) network() string { return ratelimit.Network(c.Address) }

// Candidate is a checked registration with its password hashed, ready for RegisterTx.
type Candidate struct {
	reg      Registration
	hash     string
	verified bool   // the address is proved to be theirs
	code     []byte // hash of the code that it was confirmed with
}

// AsVerified returns the candidate as one who has proved that the address is theirs, by a code that was mailed there.
func (c Candidate) AsVerified() Candidate {
	c.verified = true
	return c
}

// Email is the candidate's address, normalized.
func (c Candidate) Email() string { return c.reg.Email }

// Check returns a registration's faults, with pointers into the API's body; none = it is good.
func (s *Service) Check(r Registration) []fault.Field {
	_, faults := r.normalized(s.Policy)
	return faults
}

// Prepare hashes the password of a registration that Check found good, unless it stands in the list of leaked ones. It takes
// tens of milliseconds, so it comes before the transaction.
func (s *Service) Prepare(ctx context.Context, r Registration) (Candidate, error) {
	clean, faults := r.normalized(s.Policy)
	if len(faults) > 0 {
		return Candidate{}, Invalid(faults)
	}
	problems, err := s.Policy.leaked(clean.Password.Reveal())
	if err != nil {
		return Candidate{}, err
	}
	if len(problems) > 0 {
		return Candidate{}, Invalid(at("/password", problems))
	}
	hash, err := s.Passwords.Hash(ctx, passwordForHash(clean.Password))
	if err != nil {
		return Candidate{}, err
	}
	return Candidate{reg: clean, hash: hash}, nil
}

func at(pointer string, problems []string) (fields []fault.Field) {
	for _, p := range problems {
		fields = append(fields, fault.Field{Pointer: pointer, Detail: p})
	}
	return fields
}

// Invalid returns the fault for bad input at the places.
func Invalid(fields []fault.Field) *fault.Error {
	f := fault.New(fault.Invalid, "request.invalid", "Some of the input is not right.")
	f.Fields = fields
	return f
}

// HasOperator reports whether the installation has its first account.
func (s *Service) HasOperator(ctx context.Context) (has bool, err error) {
	if has, err = accountdb.New(s.DB.System).HasOperator(ctx); err != nil {
		return false, fmt.Errorf("read the installation: %w", err)
	}
	return has, nil
}

// RegisterTx makes the account, its key and its first event, and mails a code that verifies the address. The first account of an installation becomes its operator;
// of several that try at once, the others wait for that one. The fault account.email_taken means what it says.
func (s *Service) RegisterTx(ctx context.Context, tx pgx.Tx, c Candidate, from Client) (Account, eventstore.Appended, error) {
	q, id := accountdb.New(tx), s.NewID()
	claimed, err := q.ClaimInstallation(ctx, &id)
	if err != nil {
		return Account{}, eventstore.Appended{}, fmt.Errorf("claim the installation: %w", err)
	}
	row, err := q.InsertAccount(ctx, accountdb.InsertAccountParams{
		AccountID: id, Email: c.reg.Email, Name: c.reg.Name, PasswordHash: c.hash, Operator: claimed == 1, Verified: c.verified,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		taken := fault.New(fault.Conflict, "account.email_taken", "There is an account with this e-mail address: sign in.")
		return Account{}, eventstore.Appended{}, taken.At("/email", "This address has an account.")
	}
	if err != nil {
		return Account{}, eventstore.Appended{}, fmt.Errorf("insert account: %w", err)
	}
	key, err := s.Persons.createTx(ctx, tx, id)
	if err != nil {
		return Account{}, eventstore.Appended{}, err
	}
	a := accountOf(row)
	done, err := s.Store.Append(ctx, tx, stream(id), 0, from.Actor(id),
		Registered{Email: seal(key, id, a.Email), Name: seal(key, id, a.Name), Operator: a.Operator})
	if err != nil || c.verified {
		return a, done, err
	}
	_, err = s.sendVerificationTx(ctx, tx, a, from)
	return a, done, err
}

// Get returns an account, or fault.NotFound.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (Account, error) {
	return found(accountdb.New(s.DB.System).GetAccount(ctx, id))
}

// GetTx is Get in the caller's transaction.
func (s *Service) GetTx(ctx context.Context, tx pgx.Tx, id uuid.UUID) (Account, error) {
	return found(accountdb.New(tx).GetAccount(ctx, id))
}

// ByEmail returns the account of an address in any spelling, or fault.NotFound. It is for the operator's side of the
// house; no door may answer with it.
func (s *Service) ByEmail(ctx context.Context, email string) (Account, error) {
	normalized, err := NormalizeEmail(email)
	if err != nil {
		return Account{}, notFound()
	}
	return found(accountdb.New(s.DB.System).GetAccountByEmail(ctx, normalized))
}

func found(row accountdb.Account, err error) (Account, error) {
	if errors.Is(err, pgx.ErrNoRows) {
		return Account{}, notFound()
	}
	if err != nil {
		return Account{}, fmt.Errorf("read account: %w", err)
	}
	return accountOf(row), nil
}

func notFound() *fault.Error {
	return fault.New(fault.NotFound, "account.not_found", "There is no such account.")
}

func accountOf(row accountdb.Account) Account {
	return Account{ID: row.AccountID, Email: row.Email, Name: row.Name, Operator: row.Operator, EmailVerified: row.EmailVerifiedAt != nil, CreatedAt: row.CreatedAt}
}

// Failure is a sign-in that was refused. What is known of the account is for the log alone.
type Failure struct {
	Known     bool // the address has an account
	AccountID uuid.UUID
}

// Floor returns a function that waits until a refused sign-in has taken its least time, counted from the call of Floor,
// or until ctx ends.
func (s *Service) Floor() (wait func(ctx context.Context)) {
	least := s.LeastTime
	if least == 0 {
		least = failureFloor
	}
	timer := time.NewTimer(least)
	return func(ctx context.Context) {
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// Authenticate checks an address and a password; ok is false when they don't fit, and then failure says what may be
// recorded. Whether the address has an account shows neither in the answer nor in the time of the hash.
func (s *Service) Authenticate(ctx context.Context, email string, password vault.Secret) (a Account, failure Failure, ok bool, err error) {
	var row accountdb.Account
	if normalized, badAddress := NormalizeEmail(email); badAddress == nil {
		row, err = accountdb.New(s.DB.System).GetAccountByEmail(ctx, normalized)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return Account{}, Failure{}, false, fmt.Errorf("read credentials: %w", err)
		}
	}
	secret := passwordForHash(password)
	right, outdated, err := s.Passwords.Verify(ctx, secret, row.PasswordHash)
	if err != nil {
		return Account{}, Failure{}, false, err
	}
	if !right {
		return Account{}, Failure{Known: row.AccountID != uuid.Nil, AccountID: row.AccountID}, false, nil
	}
	if outdated {
		s.rehash(ctx, row, secret)
	}
	return accountOf(row), Failure{}, true, nil
}

// rehash stores the password under today's parameters. A sign-in doesn't fail for it.
func (s *Service) rehash(ctx context.Context, row accountdb.Account, password string) {
	hash, err := s.Passwords.Hash(ctx, password)
	if err == nil {
		err = accountdb.New(s.DB.System).SetPasswordHash(ctx, accountdb.SetPasswordHashParams{
			PasswordHash: hash, AccountID: row.AccountID, OldHash: row.PasswordHash,
		})
	}
	if err != nil {
		s.Log.WarnContext(ctx, "password hash not renewed", slog.String("account_id", row.AccountID.String()), slog.Any("err", err))
	}
}

// RecordFailureTx counts a failed sign-in of a known account and records it, unless there were so many that one more tells
// nothing; failures is then 0.
func (s *Service) RecordFailureTx(ctx context.Context, tx pgx.Tx, f Failure, from Client) (failures int, err error) {
	n, err := accountdb.New(tx).CountFailure(ctx, accountdb.CountFailureParams{AccountID: f.AccountID, WindowSeconds: failureWindow.Seconds()})
	if err != nil {
		return 0, fmt.Errorf("count failed sign-in: %w", err)
	}
	if !failureWorthAnEvent(int(n)) {
		return 0, nil
	}
	_, err = s.Store.Append(ctx, tx, stream(f.AccountID), eventstore.AnyVersion, from.Actor(f.AccountID), SignInFailed{Failures: int(n)})
	return int(n), err
}

// failureWorthAnEvent bounds the log: the first ones of a window, then 8, 16, 32, …
func failureWorthAnEvent(n int) bool {
	return n > 0 && (n <= failuresRecorded || bits.OnesCount(uint(n)) == 1)
}
