package account

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/vault"
)

const (
	// sessionLifetime ends a session whatever is done with it, idleLifetime when nobody refreshed it for so long.
	sessionLifetime = 30 * 24 * time.Hour
	idleLifetime    = 14 * 24 * time.Hour
	// reuseGrace is how long a used refresh token may be used again by the client that used it: two tabs that refresh at
	// once, or an answer that was lost. maxChildren bounds what can be had from one token so.
	reuseGrace  = 10 * time.Second
	maxChildren = 20
	// keptSessions is how long an ended session stays for its person to look at, purgeBatch how many go in a statement.
	keptSessions = 30 * 24 * time.Hour
	purgeBatch   = 1000
)

// Why a session ended, as stored.
const (
	endSignedOut       = "signed_out"
	endRefreshReused   = "refresh_reused"
	endRevoked         = "revoked"
	endPasswordChanged = "password_changed"
)

// Session is a sign-in that lives.
type Session struct {
	ID        uuid.UUID
	AccountID uuid.UUID
	OrgID     uuid.UUID // the organization that its access tokens name; uuid.Nil = none
}

// Tokens are what a client holds of a session.
type Tokens struct {
	Access    vault.Secret
	Refresh   vault.Secret
	ExpiresIn time.Duration // of the access token
}

// OpenSessionTx begins a session of an account that has proved who it is, records it, and returns its first refresh token.
// orgID is the organization that its access tokens shall name, uuid.Nil for none.
func (s *Service) OpenSessionTx(ctx context.Context, tx pgx.Tx, accountID, orgID uuid.UUID, from Client) (Session, vault.Secret, eventstore.Appended, error) {
	fail := func(doing string, err error) (Session, vault.Secret, eventstore.Appended, error) {
		return Session{}, vault.Secret{}, eventstore.Appended{}, fmt.Errorf("%s: %w", doing, err)
	}
	q := accountdb.New(tx)
	session := Session{ID: s.NewID(), AccountID: accountID, OrgID: orgID}
	err := q.InsertSession(ctx, accountdb.InsertSessionParams{
		SessionID: session.ID, AccountID: accountID, ChosenOrg: orNull(orgID), LifetimeSeconds: sessionLifetime.Seconds(),
		Address: from.Address, Agent: cutAgent(from.Agent),
	})
	if err != nil {
		return fail("insert session", err)
	}
	if err := q.ForgetFailures(ctx, accountID); err != nil {
		return fail("forget failed sign-ins", err)
	}
	refresh, hash := s.Refresh.Mint()
	err = q.InsertRefreshToken(ctx, accountdb.InsertRefreshTokenParams{TokenHash: hash, SessionID: session.ID, IdleSeconds: idleLifetime.Seconds()})
	if err != nil {
		return fail("insert refresh token", err)
	}
	done, err := s.Store.Append(ctx, tx, stream(accountID), eventstore.AnyVersion, from.Actor(accountID), SignedIn{SessionID: session.ID})
	return session, vault.NewSecret(refresh), done, err
}

// ChooseOrgTx changes the organization that a session's access tokens name, and returns the session so.
func (s *Service) ChooseOrgTx(ctx context.Context, tx pgx.Tx, session Session, orgID uuid.UUID) (Session, error) {
	err := accountdb.New(tx).ChooseOrg(ctx, accountdb.ChooseOrgParams{SessionID: session.ID, ChosenOrg: orNull(orgID)})
	if err != nil {
		return Session{}, fmt.Errorf("choose organization: %w", err)
	}
	session.OrgID = orgID
	return session, nil
}

// Issue returns what a client gets of a session: a new access token beside the refresh token.
func (s *Service) Issue(session Session, refresh vault.Secret) (Tokens, error) {
	access, _, err := s.Tokens.Issue(auth.Claims{AccountID: session.AccountID, SessionID: session.ID, OrgID: session.OrgID})
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{Access: vault.NewSecret(access), Refresh: refresh, ExpiresIn: auth.AccessLifetime}, nil
}

func orNull(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// Rotation is what came of using a refresh token.
type Rotation struct {
	Session Session
	Refresh vault.Secret // the child
	// Reused says that the token had been used before and that the session was ended for it, just now. Refused is then
	// set too, and the caller commits: the end must be stored.
	Reused  bool
	Refused *fault.Error // nil = the child is good
}

// RotateTx exchanges a refresh token for its child. A token is good once; the client that used it may do so again within
// reuseGrace. A token that is used again otherwise was stolen, or its child was: the session ends and is recorded.
func (s *Service) RotateTx(ctx context.Context, tx pgx.Tx, token string, from Client) (Rotation, error) {
	hashes, ok := s.Refresh.Hashes(token)
	if !ok {
		return Rotation{Refused: refreshInvalid()}, nil
	}
	q := accountdb.New(tx)
	child, hash := s.Refresh.Mint()
	row, err := q.RotateRefreshToken(ctx, accountdb.RotateRefreshTokenParams{
		Client: from.fingerprint(), Hashes: hashes, GraceSeconds: reuseGrace.Seconds(), MaxChildren: maxChildren,
		ChildHash: hash, IdleSeconds: idleLifetime.Seconds(), Address: from.Address, Agent: cutAgent(from.Agent),
	})
	if err == nil {
		session := Session{ID: row.SessionID, AccountID: row.AccountID}
		if row.ChosenOrg != nil {
			session.OrgID = *row.ChosenOrg
		}
		return Rotation{Session: session, Refresh: vault.NewSecret(child)}, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return Rotation{}, fmt.Errorf("rotate refresh token: %w", err)
	}
	return s.refuseTx(ctx, tx, hashes, from)
}

// refuseTx finds out why a refresh token was no good, and ends the family of one that was used twice.
func (s *Service) refuseTx(ctx context.Context, tx pgx.Tx, hashes [][]byte, from Client) (Rotation, error) {
	found, err := accountdb.New(tx).FindRefreshToken(ctx, hashes)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Rotation{Refused: refreshInvalid()}, nil
	case err != nil:
		return Rotation{}, fmt.Errorf("read refresh token: %w", err)
	case found.Over || !found.Used:
		return Rotation{Refused: SessionEnded()}, nil
	}
	r := Rotation{
		Session: Session{ID: found.SessionID, AccountID: found.AccountID},
		Refused: fault.New(fault.Unauthenticated, "auth.refresh_reused", "This refresh token was used before. The session was ended, in case somebody else has it: sign in again."),
	}
	r.Reused, err = s.endTx(ctx, tx, r.Session, endRefreshReused)
	if err != nil || !r.Reused {
		return r, err
	}
	_, err = s.Store.Append(ctx, tx, stream(found.AccountID), eventstore.AnyVersion, from.Actor(found.AccountID), RefreshReused{SessionID: found.SessionID})
	if err != nil || !s.Mail.Enabled() {
		return r, err
	}
	a, err := s.GetTx(ctx, tx, found.AccountID)
	if err != nil {
		return r, err
	}
	return r, s.Mail.SendTx(ctx, tx, s.refreshReusedMail(a, from))
}

// SignOutTx ends a session and records it; ended is false when it had ended before.
func (s *Service) SignOutTx(ctx context.Context, tx pgx.Tx, session Session, from Client) (ended bool, done eventstore.Appended, err error) {
	ended, err = s.endTx(ctx, tx, session, endSignedOut)
	if err != nil || !ended {
		return ended, eventstore.Appended{}, err
	}
	done, err = s.Store.Append(ctx, tx, stream(session.AccountID), eventstore.AnyVersion, from.Actor(session.AccountID), SignedOut{SessionID: session.ID})
	return ended, done, err
}

func (s *Service) endTx(ctx context.Context, tx pgx.Tx, session Session, reason string) (bool, error) {
	n, err := accountdb.New(tx).EndSession(ctx, accountdb.EndSessionParams{Reason: &reason, SessionID: session.ID, AccountID: session.AccountID})
	if err != nil {
		return false, fmt.Errorf("end session: %w", err)
	}
	return n == 1, nil
}

// Purge removes sessions that ended or expired keptSessions ago, with their tokens, and returns how many. Codes and
// registrations that nobody can use any more go too.
func (s *Service) Purge(ctx context.Context) (removed int, err error) {
	q := accountdb.New(s.DB.System)
	if _, err := q.PurgeCodes(ctx); err != nil {
		return 0, fmt.Errorf("purge codes: %w", err)
	}
	if _, err := q.PurgePending(ctx); err != nil {
		return 0, fmt.Errorf("purge registrations: %w", err)
	}
	for {
		n, err := accountdb.New(s.DB.System).PurgeSessions(ctx, accountdb.PurgeSessionsParams{KeptSeconds: keptSessions.Seconds(), Batch: purgeBatch})
		removed += int(n)
		if err != nil {
			return removed, fmt.Errorf("purge sessions: %w", err)
		}
		if n < purgeBatch {
			return removed, nil
		}
	}
}

// fingerprint tells clients apart: the same program from the same network.
func (c Client) fingerprint() []byte {
	sum := sha256.Sum256([]byte(c.network() + "\x00" + c.Agent))
	return sum[:]
}

func cutAgent(agent string) string {
	if len(agent) > limits.MaxUserAgent {
		agent = agent[:limits.MaxUserAgent]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(agent, "\uFFFD"), "\x00", "")
}

// SessionEnded returns the fault for a session that was signed out, revoked or has expired.
func SessionEnded() *fault.Error {
	return fault.New(fault.Unauthenticated, "auth.session_ended", "This session has ended: sign in again.")
}

func refreshInvalid() *fault.Error {
	return fault.New(fault.Unauthenticated, "auth.refresh_invalid", "This refresh token is not valid: sign in again.")
}
