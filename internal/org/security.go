package org

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/mail"
	"github.com/testflow/testflow/internal/vault"
)

// tellTx writes what happened to an account into the logs of its organizations, and returns the last position.
func (s *Service) tellTx(ctx context.Context, tx pgx.Tx, accountID uuid.UUID, from account.Client, done eventstore.Appended, event eventstore.Data) (int64, error) {
	_, all, err := s.orgsTx(ctx, tx, accountID)
	if err != nil {
		return 0, err
	}
	position, err := s.copyTx(ctx, tx, all, accountID, from, event)
	return max(position, done.Position), err
}

// Sessions returns the caller's sessions that live, the last used first, and which of them is asking.
func (s *Service) Sessions(ctx context.Context) (list []account.LiveSession, current uuid.UUID, err error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return nil, uuid.Nil, err
	}
	list, err = s.Accounts.Sessions(ctx, who.AccountID)
	return list, who.SessionID, err
}

// EndSession ends one of the caller's sessions, theirs of now as well. Another's, or one that has ended, is
// fault.NotFound.
func (s *Service) EndSession(ctx context.Context, id uuid.UUID) (position int64, err error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return 0, err
	}
	from := account.ClientOf(who)
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		event, done, err := s.Accounts.RevokeTx(ctx, tx, account.Session{ID: id, AccountID: who.AccountID}, from)
		if err != nil {
			return err
		}
		position, err = s.tellTx(ctx, tx, who.AccountID, from, done, MemberSessionsEnded{AccountID: who.AccountID, Sessions: event.Sessions})
		return err
	})
	return position, err
}

// EndSessions ends all sessions of the caller; with keepCurrent all but the one that asks. position is 0 when there was
// nothing to end.
func (s *Service) EndSessions(ctx context.Context, keepCurrent bool) (position int64, err error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return 0, err
	}
	from, spared := account.ClientOf(who), uuid.Nil
	if keepCurrent {
		spared = who.SessionID
	}
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		event, done, err := s.Accounts.RevokeAllTx(ctx, tx, who.AccountID, spared, from)
		if err != nil || len(event.Sessions) == 0 {
			return err
		}
		position, err = s.tellTx(ctx, tx, who.AccountID, from, done, MemberSessionsEnded{AccountID: who.AccountID, Sessions: event.Sessions})
		return err
	})
	return position, err
}

// ChangePassword gives the caller a new password and ends their other sessions. A wrong current one counts like a failed
// sign-in, and is the fault account.password_wrong.
func (s *Service) ChangePassword(ctx context.Context, current, next vault.Secret) (position int64, err error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return 0, err
	}
	from, wait := account.ClientOf(who), s.Accounts.Floor()
	change, right, err := s.Accounts.PrepareChange(ctx, who.AccountID, current, next)
	if err != nil {
		return 0, err
	}
	if !right {
		err := s.recordFailure(ctx, account.Failure{Known: true, AccountID: who.AccountID}, from)
		wait(ctx)
		if err != nil {
			return 0, err
		}
		return 0, account.WrongPassword("/currentPassword")
	}
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		event, done, err := s.Accounts.ChangePasswordTx(ctx, tx, change, who.SessionID, from)
		if err != nil {
			return err
		}
		position, err = s.tellTx(ctx, tx, who.AccountID, from, done, MemberPasswordChanged{AccountID: who.AccountID, By: event.By, Sessions: event.Sessions})
		return err
	})
	return position, err
}

// ForgotPassword mails a code for a new password to whoever has the address. Whether somebody has shows neither in the
// answer nor in its time. Where no mail is sent it is mail.Off for everybody.
func (s *Service) ForgotPassword(ctx context.Context, email string, from account.Client) error {
	if !s.Accounts.Mail.Enabled() {
		return mail.Off()
	}
	wait := s.Accounts.Floor()
	err := s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		a, sent, err := s.Accounts.ForgotTx(ctx, tx, email, from)
		if err != nil || !sent {
			return err
		}
		_, err = s.tellTx(ctx, tx, a.ID, from, eventstore.Appended{}, MemberPasswordResetRequested{AccountID: a.ID})
		return err
	})
	wait(ctx)
	return err
}

// ResetPassword sets a new password with a code that was mailed, and ends every session of the account.
func (s *Service) ResetPassword(ctx context.Context, code string, password vault.Secret, from account.Client) (position int64, err error) {
	reset, err := s.Accounts.PrepareReset(ctx, code, password)
	if err != nil {
		return 0, err
	}
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		a, event, done, err := s.Accounts.ResetTx(ctx, tx, reset, from)
		if err != nil {
			return err
		}
		position, err = s.tellTx(ctx, tx, a.ID, from, done, MemberPasswordChanged{AccountID: a.ID, By: event.By, Sessions: event.Sessions})
		return err
	})
	return position, err
}

// VerifyEmail takes the code that was mailed to an account's address. A code is good once.
func (s *Service) VerifyEmail(ctx context.Context, code string, from account.Client) (position int64, err error) {
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		a, news, err := s.Accounts.VerifyEmailTx(ctx, tx, code, from)
		if err != nil || !news {
			return err
		}
		position, err = s.tellTx(ctx, tx, a.ID, from, eventstore.Appended{}, MemberEmailVerified{AccountID: a.ID})
		return err
	})
	return position, err
}

// ResendVerification mails the caller another code, unless their address is verified or enough were sent in the last hour.
func (s *Service) ResendVerification(ctx context.Context) error {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return err
	}
	if !s.Accounts.Mail.Enabled() {
		return mail.Off()
	}
	return s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		a, err := s.Accounts.GetTx(ctx, tx, who.AccountID)
		if err != nil {
			return err
		}
		_, err = s.Accounts.ResendVerificationTx(ctx, tx, a, account.ClientOf(who))
		return err
	})
}
