package org

import (
	"context"
	"fmt"
	"slices"
	"strings"
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

// EraseMe forgets the caller, who proves once more who they are: see ErasePerson. A wrong password is the fault
// account.password_wrong, takes as long as a refused sign-in and counts like one.
func (s *Service) EraseMe(ctx context.Context, password vault.Secret) (position int64, err error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return 0, err
	}
	wait := s.Accounts.Floor()
	right, err := s.Accounts.CheckPassword(ctx, who.AccountID, password)
	if err != nil {
		return 0, err
	}
	if !right {
		err := s.recordFailure(ctx, account.Failure{Known: true, AccountID: who.AccountID}, account.ClientOf(who))
		wait(ctx)
		if err != nil {
			return 0, err
		}
		return 0, account.WrongPassword("/password")
	}
	return s.erasePerson(ctx, who.AccountID, "self", who)
}

// ErasePerson forgets a person for the operator of the installation, and returns the last event's position. They leave
// every organization; one that nobody else is in is going to be deleted, and one that would be left without an admin is
// fault.Conflict. Then their account goes, with sessions, mails, invitations, and with the key that seals what is personal
// of them in all events. Events, hashes and proofs stay as they are: who it was can be read by nobody any more.
func (s *Service) ErasePerson(ctx context.Context, accountID uuid.UUID) (position int64, err error) {
	return s.erasePerson(ctx, accountID, "operator", auth.Principal{Kind: auth.System})
}

func (s *Service) erasePerson(ctx context.Context, accountID uuid.UUID, by string, who auth.Principal) (position int64, err error) {
	done, err := s.again(nil, func() (done eventstore.Appended, err error) {
		err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			a, err := s.Accounts.LockTx(ctx, tx, accountID)
			if err != nil {
				return err
			}
			if err := s.leaveAllTx(ctx, tx, accountID, account.Nameless(who)); err != nil {
				return err
			}
			if err := s.ForgetInvitationsTx(ctx, tx, a.Email); err != nil {
				return err
			}
			keys, err := orgdb.New(tx).ForgetKeyAddresses(ctx, accountID)
			if err != nil {
				return fmt.Errorf("forget where keys were used: %w", err)
			}
			if err := s.Accounts.Persons.ForgetTx(ctx, tx, keys); err != nil {
				return err
			}
			done, err = s.Accounts.EraseTx(ctx, tx, a, by, who)
			return err
		})
		return done, err
	})
	if err != nil {
		return 0, err
	}
	return done.Position, nil
}

// GoneWith returns the names of the organizations that would be deleted if a person were erased, since nobody else is in
// them. Those that are going to be deleted already aren't among them.
func (s *Service) GoneWith(ctx context.Context, accountID uuid.UUID) (names []string, err error) {
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		ids, err := orgdb.New(tx).OrgIDsOfAccount(ctx, accountID)
		if err != nil {
			return fmt.Errorf("list organizations: %w", err)
		}
		for _, id := range ids {
			past, err := s.Store.Read(ctx, tx, id, id)
			if err != nil {
				return err
			}
			o, err := fold(past)
			if err != nil {
				return err
			}
			if o.isLastAdmin(accountID) && len(o.members) == 1 && o.eraseAt.IsZero() {
				names = append(names, o.name)
			}
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// leaveAllTx takes a person out of all organizations, or names those that keep them.
func (s *Service) leaveAllTx(ctx context.Context, tx pgx.Tx, person uuid.UUID, who auth.Principal) error {
	ids, err := orgdb.New(tx).OrgIDsOfAccount(ctx, person)
	if err != nil {
		return fmt.Errorf("list organizations: %w", err)
	}
	// In the order in which sign-ins append to them.
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	eraseAt, err := orgdb.New(tx).EraseTime(ctx, s.DeletionGrace.Seconds())
	if err != nil {
		return fmt.Errorf("read the time of erasure: %w", err)
	}
	var kept []string
	for _, id := range ids {
		past, err := s.Store.Read(ctx, tx, id, id)
		if err != nil {
			return err
		}
		o, err := fold(past)
		if err != nil {
			return err
		}
		news, ok := o.forget(person, eraseAt.UTC().Truncate(time.Microsecond))
		if !ok {
			kept = append(kept, o.name)
			continue
		}
		if _, err := s.Store.Append(ctx, tx, stream(id), o.version, who, news...); err != nil {
			return err
		}
	}
	if len(kept) > 0 {
		slices.Sort(kept)
		return fault.New(fault.Conflict, "account.last_admin",
			"You are the only admin of %s: make somebody else an admin, or delete it, first.", strings.Join(kept, ", "))
	}
	return nil
}

// forget decides that a person who is being erased leaves. ok is false when others would be left without an admin in an
// organization that goes on.
func (o state) forget(person uuid.UUID, eraseAt time.Time) (news []eventstore.Data, ok bool) {
	role, in := o.members[person]
	if !in {
		return nil, true
	}
	if o.isLastAdmin(person) && o.eraseAt.IsZero() {
		if len(o.members) > 1 {
			return nil, false
		}
		news = o.scheduleDeletion(eraseAt)
	}
	return append(news, MemberRemoved{AccountID: person, Role: role}), true
}
