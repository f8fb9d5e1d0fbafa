package org

import (
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/vault"
)

// SignUpInput is what a person says when they register.
type SignUpInput struct {
	account.Registration
	OrganizationName string // empty = a name of ours
	SetupToken       vault.Secret
	InvitationToken  vault.Secret // empty = nobody invited them
}

// SignedIn is what a client holds after it signed up, signed in or refreshed.
type SignedIn struct {
	User         account.Account
	Organization *Org // that the access token names; nil = none
	SessionID    uuid.UUID
	AccessToken  vault.Secret
	RefreshToken vault.Secret
	ExpiresIn    time.Duration // of the access token, which is a Bearer token
	Position     int64         // of the last event
	// Pending says that nothing of this was made yet: a code was mailed that makes it. All other fields are empty.
	Pending bool
}

// SignUp makes an account and an organization of its own, in one transaction, and signs the person in. All that is wrong
// with the input is in one fault. With the code of an invitation the person joins that organization instead. Where
// registration is by invitation, nobody else but the first account of the installation may do this: fault.Forbidden. Where
// it is confirmed by mail, the answer is Pending, whether the address is free or not.
func (s *Service) SignUp(ctx context.Context, in SignUpInput, from account.Client) (SignedIn, error) {
	invited := in.InvitationToken.Reveal() != ""
	misfits, err := s.mayRegister(ctx, in)
	if err != nil {
		return SignedIn{}, err
	}
	if faults := append(s.CheckSignUp(in), misfits...); len(faults) > 0 {
		return SignedIn{}, account.Invalid(faults)
	}
	in.Organization = in.OrganizationName
	name := defaultName
	if in.OrganizationName != "" {
		name, _ = account.CleanName(in.OrganizationName) // found good
	}
	wait := s.Accounts.Floor()
	candidate, err := s.Accounts.Prepare(ctx, in.Registration)
	if err != nil {
		return SignedIn{}, err
	}
	if later, err := s.confirms(ctx); (later && !invited) || err != nil {
		if err == nil {
			err = s.signUpLater(ctx, candidate, name, from)
		}
		wait(ctx)
		return SignedIn{Pending: err == nil}, err
	}
	var out SignedIn
	_, err = s.again(nil, func() (done eventstore.Appended, err error) {
		err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			who := candidate
			if invited {
				found, err := s.findInvitation(ctx, tx, in.InvitationToken)
				if err != nil {
					return err
				}
				if found.OrgInvitation.Mailed { // they read the mail of the address
					who = candidate.AsVerified()
				}
			}
			a, _, err := s.Accounts.RegisterTx(ctx, tx, who, from)
			if err != nil {
				return err
			}
			if !a.Operator && s.Policy != Open && !invited { // somebody else was first meanwhile
				return registrationClosed()
			}
			var o Org
			if invited {
				o, err = s.acceptTx(ctx, tx, in.InvitationToken, a, from)
			} else {
				o, err = s.createTx(ctx, tx, name, from.Actor(a.ID))
			}
			if err != nil {
				return err
			}
			out, err = s.openTx(ctx, tx, a, &o, []uuid.UUID{o.ID}, from)
			return err
		})
		return done, err
	})
	if emailTaken(err) { // and rolled back
		if told := s.tellOwner(ctx, candidate.Email(), from); told != nil {
			return SignedIn{}, told
		}
	}
	if err != nil {
		return SignedIn{}, err
	}
	return out, nil
}

// CheckSignUp returns all that is wrong with the input, with pointers into the API's body; none = it is good.
func (s *Service) CheckSignUp(in SignUpInput) []fault.Field {
	in.Organization = in.OrganizationName
	faults := s.Accounts.Check(in.Registration)
	if in.OrganizationName != "" {
		if _, problem := account.CleanName(in.OrganizationName); problem != "" {
			faults = append(faults, fault.Field{Pointer: "/organizationName", Detail: problem})
		}
	}
	return faults
}

// mayRegister says whether somebody may register at all, before anything costly is done for them, and what of the input
// doesn't fit the invitation that they come by.
func (s *Service) mayRegister(ctx context.Context, in SignUpInput) (misfits []fault.Field, err error) {
	if in.InvitationToken.Reveal() != "" {
		return s.invitedTo(ctx, in)
	}
	taken, err := s.Accounts.HasOperator(ctx)
	switch {
	case err != nil:
		return nil, err
	case taken && s.Policy == ByInvitation:
		return nil, registrationClosed()
	case !taken && s.SetupToken != "" && subtle.ConstantTimeCompare([]byte(in.SetupToken.Reveal()), []byte(s.SetupToken)) != 1:
		return nil, fault.New(fault.Forbidden, "account.setup_token_required", "This installation has no account yet. Its first one needs the setup token from the server's log.")
	}
	return nil, nil
}

func registrationClosed() *fault.Error {
	return fault.New(fault.Forbidden, "account.registration_closed", "Registration is by invitation: ask a member of an organization for one.")
}

// SignInInput is an address and a password.
type SignInInput struct {
	Email    string
	Password vault.Secret
}

// SignIn begins a session. Whatever is wrong, the answer is the same fault, account.credentials_wrong, and takes the same
// time.
func (s *Service) SignIn(ctx context.Context, in SignInInput, from account.Client) (SignedIn, error) {
	wait := s.Accounts.Floor()
	a, failure, ok, err := s.Accounts.Authenticate(ctx, in.Email, in.Password)
	if err != nil {
		return SignedIn{}, err
	}
	if !ok {
		if failure.Known {
			err = s.recordFailure(ctx, failure, from)
		}
		wait(ctx)
		if err != nil {
			return SignedIn{}, err
		}
		return SignedIn{}, fault.New(fault.Unauthenticated, "account.credentials_wrong", "E-mail address and password don't fit.")
	}
	var out SignedIn
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		first, all, err := s.orgsTx(ctx, tx, a.ID)
		if err != nil {
			return err
		}
		out, err = s.openTx(ctx, tx, a, first, all, from)
		return err
	})
	if err != nil {
		return SignedIn{}, err
	}
	return out, nil
}

func (s *Service) recordFailure(ctx context.Context, f account.Failure, from account.Client) error {
	return s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		failures, err := s.Accounts.RecordFailureTx(ctx, tx, f, from)
		if err != nil || failures == 0 {
			return err
		}
		_, all, err := s.orgsTx(ctx, tx, f.AccountID)
		if err != nil {
			return err
		}
		_, err = s.copyTx(ctx, tx, all, f.AccountID, from, MemberSignInFailed{AccountID: f.AccountID, Failures: failures})
		return err
	})
}

// orgsTx returns the organization that an account joined first, nil when it is in none, and the ids of all, sorted.
func (s *Service) orgsTx(ctx context.Context, tx pgx.Tx, accountID uuid.UUID) (first *Org, all []uuid.UUID, err error) {
	q := orgdb.New(tx)
	list, _, err := s.listOf(ctx, q, accountID, Filter{Limit: limits.MaxPage})
	if err != nil {
		return nil, nil, err
	}
	for i := range list {
		all = append(all, list[i].ID)
	}
	if len(list) > 0 {
		first = &list[0]
	}
	// Everybody appends to the organizations' logs in the same order, so that two sign-ins can't wait for each other.
	slices.SortFunc(all, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	return first, all, nil
}

// openTx begins a session and records it in the logs of all the account's organizations.
func (s *Service) openTx(ctx context.Context, tx pgx.Tx, a account.Account, chosen *Org, all []uuid.UUID, from account.Client) (SignedIn, error) {
	orgID := uuid.Nil
	if chosen != nil {
		orgID = chosen.ID
	}
	session, refresh, done, err := s.Accounts.OpenSessionTx(ctx, tx, a.ID, orgID, from)
	if err != nil {
		return SignedIn{}, err
	}
	position, err := s.copyTx(ctx, tx, all, a.ID, from, MemberSignedIn{AccountID: a.ID, SessionID: session.ID})
	if err != nil {
		return SignedIn{}, err
	}
	out, err := s.signedIn(a, chosen, session, refresh)
	out.Position = max(done.Position, position)
	return out, err
}

func (s *Service) signedIn(a account.Account, chosen *Org, session account.Session, refresh vault.Secret) (SignedIn, error) {
	tokens, err := s.Accounts.Issue(session, refresh)
	if err != nil {
		return SignedIn{}, err
	}
	return SignedIn{
		User: a, Organization: chosen, SessionID: session.ID,
		AccessToken: tokens.Access, RefreshToken: tokens.Refresh, ExpiresIn: tokens.ExpiresIn,
	}, nil
}

// copyTx writes what a member did to sign in into the logs of the organizations, and returns the last position.
func (s *Service) copyTx(ctx context.Context, tx pgx.Tx, orgs []uuid.UUID, accountID uuid.UUID, from account.Client, event eventstore.Data) (position int64, err error) {
	for _, id := range orgs {
		st := eventstore.Stream{OrgID: id, ID: accountID, Kind: KindMember}
		done, err := s.Store.Append(ctx, tx, st, eventstore.AnyVersion, from.Actor(accountID), event)
		if err != nil {
			return 0, err
		}
		position = done.Position
	}
	return position, nil
}

// Refresh exchanges a refresh token for new tokens. A token is good once: when it is used again, the session ends, which
// is recorded, and the fault is auth.refresh_reused. Every fault of it is fault.Unauthenticated.
func (s *Service) Refresh(ctx context.Context, token vault.Secret, from account.Client) (SignedIn, error) {
	var out SignedIn
	var refused *fault.Error
	err := s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		r, err := s.Accounts.RotateTx(ctx, tx, token.Reveal(), from)
		if err != nil {
			return err
		}
		if r.Refused != nil {
			refused = r.Refused // and commit: the session's end stays
			return s.recordReuseTx(ctx, tx, r, from)
		}
		out, err = s.renewTx(ctx, tx, r)
		return err
	})
	if err != nil {
		return SignedIn{}, err
	}
	if refused != nil {
		return SignedIn{}, refused
	}
	return out, nil
}

func (s *Service) recordReuseTx(ctx context.Context, tx pgx.Tx, r account.Rotation, from account.Client) error {
	if !r.Reused {
		return nil
	}
	_, all, err := s.orgsTx(ctx, tx, r.Session.AccountID)
	if err != nil {
		return err
	}
	_, err = s.copyTx(ctx, tx, all, r.Session.AccountID, from, MemberRefreshReused{AccountID: r.Session.AccountID, SessionID: r.Session.ID})
	return err
}

// renewTx makes what a client gets for a good refresh token. A session whose organization the person has left goes on in
// the first one that they are in.
func (s *Service) renewTx(ctx context.Context, tx pgx.Tx, r account.Rotation) (SignedIn, error) {
	a, err := s.Accounts.GetTx(ctx, tx, r.Session.AccountID)
	if err != nil {
		return SignedIn{}, err
	}
	list, _, err := s.listOf(ctx, orgdb.New(tx), a.ID, Filter{Limit: limits.MaxPage})
	if err != nil {
		return SignedIn{}, err
	}
	var chosen *Org
	if i := slices.IndexFunc(list, func(o Org) bool { return o.ID == r.Session.OrgID }); i >= 0 {
		chosen = &list[i]
	} else {
		chosenID := uuid.Nil
		if len(list) > 0 {
			chosen, chosenID = &list[0], list[0].ID
		}
		if r.Session, err = s.Accounts.ChooseOrgTx(ctx, tx, r.Session, chosenID); err != nil {
			return SignedIn{}, err
		}
	}
	return s.signedIn(a, chosen, r.Session, r.Refresh)
}

// SignOut ends the caller's session. A second call changes nothing and returns position 0.
func (s *Service) SignOut(ctx context.Context) (position int64, err error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return 0, err
	}
	from := account.ClientOf(who)
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		session := account.Session{ID: who.SessionID, AccountID: who.AccountID}
		ended, done, err := s.Accounts.SignOutTx(ctx, tx, session, from)
		if err != nil || !ended {
			return err
		}
		_, all, err := s.orgsTx(ctx, tx, who.AccountID)
		if err != nil {
			return err
		}
		position, err = s.copyTx(ctx, tx, all, who.AccountID, from, MemberSignedOut{AccountID: who.AccountID, SessionID: who.SessionID})
		position = max(position, done.Position)
		return err
	})
	if err != nil {
		return 0, err
	}
	return position, nil
}

// Me is who the caller is.
type Me struct {
	User          account.Account
	Organization  *Org // that they act in; nil = none
	Permissions   []auth.Permission
	Organizations []Org // all of theirs, at most 200, first joined first
	SessionID     uuid.UUID
}

// Me returns the caller, the organization that they act in and what they may do there, and their others.
func (s *Service) Me(ctx context.Context) (Me, error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return Me{}, err
	}
	a, err := s.Accounts.Get(ctx, who.AccountID)
	if err != nil {
		return Me{}, err
	}
	list, _, err := s.List(ctx, Filter{Limit: limits.MaxPage})
	if err != nil {
		return Me{}, fmt.Errorf("who am I: %w", err)
	}
	me := Me{User: a, Organizations: list, SessionID: who.SessionID, Permissions: []auth.Permission{}}
	if i := slices.IndexFunc(list, func(o Org) bool { return o.ID == who.OrgID }); i >= 0 {
		me.Organization = &list[i]
		for _, g := range auth.Grants() {
			if list[i].Role.May(g.Permission) {
				me.Permissions = append(me.Permissions, g.Permission)
			}
		}
	}
	return me, nil
}
