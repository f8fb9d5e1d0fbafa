package org

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/vault"
)

// confirms reports whether a registration has to be confirmed by mail: the first account of an installation hasn't.
func (s *Service) confirms(ctx context.Context) (bool, error) {
	if s.Policy != Confirmed {
		return false, nil
	}
	return s.Accounts.HasOperator(ctx)
}

// signUpLater keeps a registration until it is confirmed, or tells whoever has the address already.
func (s *Service) signUpLater(ctx context.Context, c account.Candidate, organization string, from account.Client) error {
	return s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := s.Accounts.RegisterLaterTx(ctx, tx, c, organization, from)
		return err
	})
}

// ConfirmSignUp makes the account and the organization of a registration with the code that was mailed and the password
// that was chosen, and signs the person in. A code that isn't good, also since the address has an account by now, is
// account.CodeInvalid.
func (s *Service) ConfirmSignUp(ctx context.Context, code string, password vault.Secret, from account.Client) (SignedIn, error) {
	if s.Policy == ByInvitation {
		return SignedIn{}, registrationClosed()
	}
	candidate, organization, err := s.Accounts.Confirmed(ctx, code, password)
	if err != nil {
		return SignedIn{}, err
	}
	var out SignedIn
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := s.Accounts.TakeTx(ctx, tx, candidate); err != nil {
			return err
		}
		a, _, err := s.Accounts.RegisterTx(ctx, tx, candidate, from)
		if err != nil {
			return err
		}
		o, err := s.createTx(ctx, tx, organization, from.Actor(a.ID))
		if err != nil {
			return err
		}
		out, err = s.openTx(ctx, tx, a, &o, []uuid.UUID{o.ID}, from)
		return err
	})
	if emailTaken(err) {
		err = account.CodeInvalid()
	}
	if err != nil {
		return SignedIn{}, err
	}
	return out, nil
}

// tellOwner tells whoever has an address that somebody tried to register with it.
func (s *Service) tellOwner(ctx context.Context, email string, from account.Client) error {
	return s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		a, err := s.Accounts.ByEmail(ctx, email)
		if err != nil {
			return err
		}
		return s.Accounts.RegistrationTriedTx(ctx, tx, a, from)
	})
}

func emailTaken(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Code == "account.email_taken"
}
