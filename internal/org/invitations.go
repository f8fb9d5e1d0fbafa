package org

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/vault"
)

const (
	// invitationLifetime is how long an invitation can be accepted, where nothing else is set.
	invitationLifetime = 7 * 24 * time.Hour
	// maxInvitations bounds the open ones of an organization, and so how many strangers it can have mail sent to.
	maxInvitations = 100
	// resendPause is the least time between two mails to the same person.
	resendPause = time.Minute
	// keptInvitations is how long one that has ended stays, and with it what the log knows of its address.
	keptInvitations = 30 * 24 * time.Hour
	purgeBatch      = 1000
	// purposeInvitation keeps a token for one thing from being one for another.
	purposeInvitation = "invitation"
)

// InvitationStatus says what an open invitation is worth.
type InvitationStatus string

// The states of an open invitation.
const (
	InvitationOpen      InvitationStatus = "open"
	InvitationExpired   InvitationStatus = "expired"   // until it is sent again
	InvitationWithdrawn InvitationStatus = "withdrawn" // who invited may not any more
)

// Invitation is somebody who was asked to become a member and has not answered.
type Invitation struct {
	ID          uuid.UUID
	OrgID       uuid.UUID
	Email       string // normalized
	Role        auth.Role
	InvitedBy   uuid.UUID
	InviterName string
	Status      InvitationStatus
	CreatedAt   time.Time
	SentAt      time.Time // the last time
	ExpiresAt   time.Time
	// Token is what accepts the invitation. It is here once, in the answer to who made or renewed it, and only where no
	// mail is sent; otherwise it goes to the address alone.
	Token    vault.Secret
	Position int64 // of the command's last event
}

// Invite asks somebody to become a member, by mail; where none can be sent, the answer has the token. A person who was
// asked before is asked anew, and the older token is worth nothing. It returns fault.Forbidden for a role above the
// caller's, and fault.Conflict when the person is a member or too many invitations are open. Only people invite.
func (s *Service) Invite(ctx context.Context, id uuid.UUID, email string, role auth.Role) (Invitation, error) {
	who, err := s.requirePerson(ctx, id, auth.MembersManage)
	if err != nil {
		return Invitation{}, err
	}
	normalized, err := account.NormalizeEmail(email)
	if err != nil {
		return Invitation{}, badEmail()
	}
	if err := checkRole(role); err != nil {
		return Invitation{}, err
	}
	var row orgdb.OrgInvitation
	var token string
	done, err := s.change(ctx, id, nil, who, auth.MembersManage, func(ctx context.Context, tx pgx.Tx, o state) (news []eventstore.Data, err error) {
		if err := mayInvite(roleIn(o, who), role); err != nil {
			return nil, err
		}
		if news, err = s.makeRoomTx(ctx, tx, o, who, normalized); err != nil {
			return nil, err
		}
		var hash []byte
		token, hash = auth.MintOneTime(purposeInvitation)
		row, err = orgdb.New(tx).InsertInvitation(ctx, orgdb.InsertInvitationParams{
			InvitationID: s.NewID(), OrgID: id, Email: normalized, Role: string(role), TokenHash: hash,
			Mailed: s.Accounts.Mail.Enabled(), InvitedBy: who.AccountID, LifetimeSeconds: s.lifetime().Seconds(),
		})
		if err != nil {
			return nil, fmt.Errorf("insert invitation: %w", err)
		}
		sealed, err := s.sealInvitedTx(ctx, row)
		if err != nil {
			return nil, err
		}
		return append(news, Invited{
			InvitationID: row.InvitationID, Email: sealed, Role: role, InvitedBy: who.AccountID, ExpiresAt: row.ExpiresAt, Mailed: row.Mailed,
		}), s.sendInvitationTx(ctx, o, row, who, token)
	})
	if err != nil {
		return Invitation{}, err
	}
	return s.invited(ctx, row, who, token, done.Position)
}

func (s *Service) lifetime() time.Duration {
	if s.InvitationLifetime > 0 {
		return s.InvitationLifetime
	}
	return invitationLifetime
}

// requirePerson is require for what only people do.
func (s *Service) requirePerson(ctx context.Context, id uuid.UUID, perm auth.Permission) (auth.Principal, error) {
	if _, err := auth.RequireUser(ctx); err != nil {
		return auth.Principal{}, err
	}
	return s.require(ctx, id, perm)
}

// makeRoomTx refuses an address that is a member's or one too many, and ends the invitation that the address has.
func (s *Service) makeRoomTx(ctx context.Context, tx pgx.Tx, o state, who auth.Principal, email string) ([]eventstore.Data, error) {
	orgID := who.OrgID
	err := s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := orgdb.New(tx).MemberByEmail(ctx, orgdb.MemberByEmailParams{OrgID: orgID, Email: email})
		switch {
		case err == nil:
			return fault.New(fault.Conflict, "org.already_member", "This person is a member already.")
		case errors.Is(err, pgx.ErrNoRows):
			return nil
		}
		return fmt.Errorf("look for a member: %w", err)
	})
	if err != nil {
		return nil, err
	}
	q := orgdb.New(tx)
	old, err := q.LockOpenInvitation(ctx, orgdb.LockOpenInvitationParams{OrgID: orgID, Email: email})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		open, err := q.CountOpenInvitations(ctx, orgID)
		if err != nil {
			return nil, fmt.Errorf("count invitations: %w", err)
		}
		if open >= maxInvitations {
			return nil, fault.New(fault.Conflict, "org.too_many_invitations", "%d invitations are open, which is the most: revoke some that nobody will accept.", open)
		}
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read invitation: %w", err)
	}
	if err := o.manageInvitation(roleIn(o, who), old.OrgInvitation.InvitationID); err != nil {
		return nil, err
	}
	if err := mailedLately(old.OrgInvitation, old.AskedAt); err != nil {
		return nil, err
	}
	return s.endInvitationTx(ctx, tx, old.OrgInvitation, endReplaced)
}

func (s *Service) endInvitationTx(ctx context.Context, tx pgx.Tx, row orgdb.OrgInvitation, reason string) ([]eventstore.Data, error) {
	err := orgdb.New(tx).EndInvitation(ctx, orgdb.EndInvitationParams{OrgID: row.OrgID, InvitationID: row.InvitationID, Reason: &reason})
	if err != nil {
		return nil, fmt.Errorf("end invitation: %w", err)
	}
	return []eventstore.Data{InvitationRevoked{InvitationID: row.InvitationID, Role: auth.Role(row.Role), Reason: reason}}, nil
}

// mailedLately keeps members from flooding a stranger: one mail a minute for an address.
func mailedLately(row orgdb.OrgInvitation, now time.Time) error {
	if !row.Mailed || now.Sub(row.SentAt) >= resendPause {
		return nil
	}
	f := fault.New(fault.RateLimited, "invitation.sent_lately", "The invitation was sent less than a minute ago: give the mail time to arrive.")
	f.RetryAfter = resendPause - now.Sub(row.SentAt)
	return f
}

// sealInvitedTx returns the address as the log keeps it: sealed with a key of the invitation's own.
func (s *Service) sealInvitedTx(ctx context.Context, row orgdb.OrgInvitation) (sealed string, err error) {
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := s.Accounts.Persons.AddTx(ctx, tx, row.InvitationID); err != nil {
			return err
		}
		sealed, err = s.Accounts.Persons.Seal(ctx, tx, row.InvitationID, row.Email)
		return err
	})
	return sealed, err
}

// sendInvitationTx sends the token to the address, where there is mail.
func (s *Service) sendInvitationTx(ctx context.Context, o state, row orgdb.OrgInvitation, who auth.Principal, token string) error {
	if !row.Mailed {
		return nil
	}
	return s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		inviter, err := s.Accounts.GetTx(ctx, tx, who.AccountID)
		if err != nil {
			return err
		}
		return s.Accounts.Mail.SendTx(ctx, tx, invitationMail(o.name, inviter.Name, s.Accounts.Mail.PublicURL(), row, token))
	})
}

// invited is an invitation as the answer to who made or renewed it shows it.
func (s *Service) invited(ctx context.Context, row orgdb.OrgInvitation, who auth.Principal, token string, position int64) (Invitation, error) {
	inviter, err := s.Accounts.Get(ctx, who.AccountID)
	if err != nil {
		return Invitation{}, err
	}
	i := invitationOf(row)
	i.InviterName, i.Status, i.Position = inviter.Name, InvitationOpen, position
	if !row.Mailed {
		i.Token = vault.NewSecret(token)
	}
	return i, nil
}

func invitationOf(row orgdb.OrgInvitation) Invitation {
	return Invitation{
		ID: row.InvitationID, OrgID: row.OrgID, Email: row.Email, Role: auth.Role(row.Role), InvitedBy: row.InvitedBy,
		CreatedAt: row.CreatedAt, SentAt: row.SentAt, ExpiresAt: row.ExpiresAt,
	}
}

// Invitations returns an organization's open invitations, expired and withdrawn ones too, oldest first, and where the
// next page begins.
func (s *Service) Invitations(ctx context.Context, id uuid.UUID, f Filter) ([]Invitation, *Cursor, error) {
	if _, err := s.requireToWithdraw(ctx, id, auth.MembersManage); err != nil {
		return nil, nil, err
	}
	rows, err := orgdb.New(s.DB.System).ListInvitations(ctx, orgdb.ListInvitationsParams{
		OrgID: id, AfterAt: f.after().JoinedAt, AfterID: f.after().ID, RowLimit: int32(f.limit() + 1), //nolint:gosec // at most maxLimit
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list invitations: %w", err)
	}
	var next *Cursor
	if len(rows) > f.limit() {
		rows = rows[:f.limit()]
		last := rows[len(rows)-1].OrgInvitation
		next = &Cursor{JoinedAt: last.CreatedAt, ID: last.InvitationID}
	}
	list := make([]Invitation, 0, len(rows))
	for _, r := range rows {
		i := invitationOf(r.OrgInvitation)
		i.Status = InvitationOpen
		if r.InviterName != nil {
			i.InviterName = *r.InviterName
		}
		switch {
		case r.InviterRole == nil || mayInvite(auth.Role(*r.InviterRole), i.Role) != nil:
			i.Status = InvitationWithdrawn
		case r.Expired:
			i.Status = InvitationExpired
		}
		list = append(list, i)
	}
	return list, next, nil
}

// ResendInvitation gives an open invitation a new token, which is sent or answered as Invite does it, and its whole time
// anew. It stands on the caller's word from then on.
func (s *Service) ResendInvitation(ctx context.Context, id, invitationID uuid.UUID) (Invitation, error) {
	who, err := s.requirePerson(ctx, id, auth.MembersManage)
	if err != nil {
		return Invitation{}, err
	}
	var row orgdb.OrgInvitation
	var token string
	done, err := s.change(ctx, id, nil, who, auth.MembersManage, func(ctx context.Context, tx pgx.Tx, o state) ([]eventstore.Data, error) {
		was, err := s.lockInvitationTx(ctx, tx, o, who, invitationID)
		if err != nil {
			return nil, err
		}
		if err := mailedLately(was.OrgInvitation, was.AskedAt); err != nil {
			return nil, err
		}
		var hash []byte
		token, hash = auth.MintOneTime(purposeInvitation)
		row, err = orgdb.New(tx).RenewInvitation(ctx, orgdb.RenewInvitationParams{
			TokenHash: hash, Mailed: s.Accounts.Mail.Enabled(), InvitedBy: who.AccountID, LifetimeSeconds: s.lifetime().Seconds(),
			OrgID: id, InvitationID: invitationID,
		})
		if err != nil {
			return nil, fmt.Errorf("renew invitation: %w", err)
		}
		return []eventstore.Data{InvitationResent{
			InvitationID: invitationID, Mailed: row.Mailed,
			From: Validity{InvitedBy: was.OrgInvitation.InvitedBy, ExpiresAt: was.OrgInvitation.ExpiresAt},
			To:   Validity{InvitedBy: row.InvitedBy, ExpiresAt: row.ExpiresAt},
		}}, s.sendInvitationTx(ctx, o, row, who, token)
	})
	if err != nil {
		return Invitation{}, err
	}
	return s.invited(ctx, row, who, token, done.Position)
}

// lockInvitationTx returns an open invitation that the caller may touch.
func (s *Service) lockInvitationTx(ctx context.Context, tx pgx.Tx, o state, who auth.Principal, invitationID uuid.UUID) (orgdb.LockInvitationRow, error) {
	if err := o.manageInvitation(roleIn(o, who), invitationID); err != nil {
		return orgdb.LockInvitationRow{}, err
	}
	row, err := orgdb.New(tx).LockInvitation(ctx, orgdb.LockInvitationParams{OrgID: who.OrgID, InvitationID: invitationID})
	if errors.Is(err, pgx.ErrNoRows) { // long expired, and purged
		return orgdb.LockInvitationRow{}, invitationNotFound()
	}
	if err != nil {
		return orgdb.LockInvitationRow{}, fmt.Errorf("read invitation: %w", err)
	}
	return row, nil
}

// RevokeInvitation makes an open invitation worth nothing. It returns the position of the event.
func (s *Service) RevokeInvitation(ctx context.Context, id, invitationID uuid.UUID) (position int64, err error) {
	if _, err := auth.RequireUser(ctx); err != nil {
		return 0, err
	}
	who, err := s.requireToWithdraw(ctx, id, auth.MembersManage)
	if err != nil {
		return 0, err
	}
	done, err := s.withdraw(ctx, id, who, auth.MembersManage, func(ctx context.Context, tx pgx.Tx, o state) ([]eventstore.Data, error) {
		row, err := s.lockInvitationTx(ctx, tx, o, who, invitationID)
		if err != nil {
			return nil, err
		}
		return s.endInvitationTx(ctx, tx, row.OrgInvitation, endRevoked)
	})
	return done.Position, err
}

// PurgeInvitations removes those that ended or expired long ago, with the keys that seal their addresses in the log, and
// returns how many.
func (s *Service) PurgeInvitations(ctx context.Context) (removed int, err error) {
	for {
		var ids []uuid.UUID
		err := s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
			ids, err = orgdb.New(tx).PurgeInvitations(ctx, orgdb.PurgeInvitationsParams{KeptSeconds: keptInvitations.Seconds(), Batch: purgeBatch})
			if err != nil {
				return err
			}
			return s.Accounts.Persons.ForgetTx(ctx, tx, ids)
		})
		if err != nil {
			return removed, fmt.Errorf("purge invitations: %w", err)
		}
		removed += len(ids)
		if len(ids) < purgeBatch {
			return removed, nil
		}
	}
}

// ForgetInvitationsTx removes every invitation of an address, in all organizations, and what the logs know of it. It
// works as the system role.
func (s *Service) ForgetInvitationsTx(ctx context.Context, tx pgx.Tx, email string) error {
	ids, err := orgdb.New(tx).ForgetInvitations(ctx, email)
	if err != nil {
		return fmt.Errorf("forget invitations: %w", err)
	}
	return s.Accounts.Persons.ForgetTx(ctx, tx, ids)
}
