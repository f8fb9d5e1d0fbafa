package org

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/mail"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/vault"
)

// Offer is an invitation as the holder of its token sees it.
type Offer struct {
	OrganizationName string
	InviterName      string // empty when they have gone
	Email            string // the address that it is for
	Role             auth.Role
	ExpiresAt        time.Time
}

// Offer returns what the token of an invitation offers, to whoever holds it. It returns fault.NotFound for a token that is
// worth nothing, and fault.Conflict for one that has expired.
func (s *Service) Offer(ctx context.Context, token vault.Secret) (Offer, error) {
	row, err := s.findInvitation(ctx, s.DB.System, token)
	if err != nil {
		return Offer{}, err
	}
	o := Offer{
		OrganizationName: row.OrgName, Email: row.OrgInvitation.Email, Role: auth.Role(row.OrgInvitation.Role), ExpiresAt: row.OrgInvitation.ExpiresAt,
	}
	if row.InviterName != nil {
		o.InviterName = *row.InviterName
	}
	return o, nil
}

// findInvitation returns the open invitation of a token, as the system role.
func (s *Service) findInvitation(ctx context.Context, db orgdb.DBTX, token vault.Secret) (orgdb.FindInvitationRow, error) {
	hash, ok := auth.HashOneTime(purposeInvitation, token.Reveal())
	if !ok {
		return orgdb.FindInvitationRow{}, invitationNotFound()
	}
	row, err := orgdb.New(db).FindInvitation(ctx, hash)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return orgdb.FindInvitationRow{}, invitationNotFound()
	case err != nil:
		return orgdb.FindInvitationRow{}, fmt.Errorf("find invitation: %w", err)
	case row.Expired:
		return orgdb.FindInvitationRow{}, invitationExpired()
	}
	return row, nil
}

// AcceptInvitation makes the caller a member of the organization that the token is of. Their address must be the one that
// was invited. A token is good once.
func (s *Service) AcceptInvitation(ctx context.Context, token vault.Secret) (Org, error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return Org{}, err
	}
	var o Org
	_, err = s.again(nil, func() (done eventstore.Appended, err error) {
		// As the system: the caller is no member yet.
		err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			a, err := s.Accounts.GetTx(ctx, tx, who.AccountID)
			if err != nil {
				return err
			}
			o, err = s.acceptTx(ctx, tx, token, a, account.ClientOf(who))
			return err
		})
		return eventstore.Appended{}, err
	})
	return o, err
}

// acceptTx makes an account a member by a token, as the system role.
func (s *Service) acceptTx(ctx context.Context, tx pgx.Tx, token vault.Secret, a account.Account, from account.Client) (Org, error) {
	found, err := s.findInvitation(ctx, tx, token)
	if err != nil {
		return Org{}, err
	}
	id := found.OrgInvitation.OrgID
	if found.OrgInvitation.Email != a.Email {
		return Org{}, otherAddress()
	}
	done, err := s.decideTx(ctx, tx, id, nil, from.Actor(a.ID), "", active("", func(ctx context.Context, tx pgx.Tx, o state) ([]eventstore.Data, error) {
		// The row's lock makes one of several who hold the token the first. It is read again under it: it may have been
		// ended, or sent to somebody else's word, since.
		row, err := orgdb.New(tx).LockInvitation(ctx, orgdb.LockInvitationParams{OrgID: id, InvitationID: found.OrgInvitation.InvitationID})
		if errors.Is(err, pgx.ErrNoRows) || err == nil && string(row.OrgInvitation.TokenHash) != string(found.OrgInvitation.TokenHash) {
			return nil, invitationNotFound()
		}
		if err != nil {
			return nil, fmt.Errorf("lock invitation: %w", err)
		}
		reason := endAccepted
		if err := orgdb.New(tx).EndInvitation(ctx, orgdb.EndInvitationParams{OrgID: id, InvitationID: row.OrgInvitation.InvitationID, Reason: &reason}); err != nil {
			return nil, fmt.Errorf("end invitation: %w", err)
		}
		return o.accept(row.OrgInvitation.InvitationID, a.ID)
	}))
	if err != nil {
		return Org{}, err
	}
	if found.OrgInvitation.Mailed { // to that address: who has the token reads its mail
		if _, err := s.Accounts.MarkEmailVerifiedTx(ctx, tx, a.ID, a.Email, from); err != nil {
			return Org{}, err
		}
	}
	row, err := orgdb.New(tx).GetOrg(ctx, id)
	if err != nil {
		return Org{}, fmt.Errorf("read organization: %w", err)
	}
	return orgOf(row, auth.Role(found.OrgInvitation.Role), done.Position), nil
}

// invitedTo checks a registration by invitation before anything costly is done for it, and returns what doesn't fit it.
func (s *Service) invitedTo(ctx context.Context, in SignUpInput) (faults []fault.Field, err error) {
	offer, err := s.Offer(ctx, in.InvitationToken)
	if err != nil {
		return nil, err
	}
	if email, err := account.NormalizeEmail(in.Email); err != nil || email != offer.Email {
		faults = append(faults, fault.Field{Pointer: "/email", Detail: "This isn't the address that was invited."})
	}
	if in.OrganizationName != "" {
		faults = append(faults, fault.Field{Pointer: "/organizationName", Detail: "You join the organization that invites you; one of your own can be made afterwards."})
	}
	return faults, nil
}

// invitationMail is what an invited person reads. Names were written by others, and stand in a sentence of ours.
func invitationMail(orgName, inviter, publicURL string, row orgdb.OrgInvitation, token string) mail.Message {
	var b strings.Builder
	fmt.Fprintf(&b, "%s invites you to the organization “%s” on TestFlow, as %s.\n\n", inviter, orgName, row.Role)
	fmt.Fprintf(&b, "The token is good once, for this address, until %s:\n\n    %s\n\n", row.ExpiresAt.UTC().Format("2 January 2006 15:04 MST"), token)
	fmt.Fprintf(&b, "With an account of this address, sign in and accept it:\n\n    curl %s/api/invitations/accept -H \"Authorization: Bearer $TOKEN\" \\\n      -H 'Content-Type: application/json' -d '{\"token\": \"%s\"}'\n\n", publicURL, token)
	fmt.Fprintf(&b, "Without one, register with it:\n\n    curl %s/api/auth/register -H 'Content-Type: application/json' \\\n      -d '{\"email\": \"…\", \"name\": \"…\", \"password\": \"…\", \"invitationToken\": \"%s\"}'\n\n", publicURL, token)
	b.WriteString("If you don't know who this is, there is nothing to do: without the token nothing happens.\n")
	return mail.Message{
		Kind: "org.invited", To: row.Email, Subject: "Invitation to " + orgName + " on TestFlow", Text: b.String(), KeepFor: row.ExpiresAt.Sub(row.SentAt),
	}
}
