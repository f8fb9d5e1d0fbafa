package org

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

// Subject is of whom it is asked what they may: a person, or an API key. The zero Subject is the caller.
type Subject struct {
	AccountID uuid.UUID
	KeyID     uuid.UUID
}

// Explanation says why somebody may, or may not, do something in an organization.
type Explanation struct {
	Allowed    bool
	Permission auth.Permission // of the table, ForAnybody or ForSignedIn
	Grant      *auth.Grant     // the line of the table; nil = the permission stands in none
	Organization
	Who    Explained
	Checks []auth.Check // all of them; the first that doesn't hold decides
	// Conditions are what is asked beyond the table, of what the command is about, as far as it is known for the subject.
	Conditions []string
	// LastAdmin says that the subject is a person, and the only admin of the organization.
	LastAdmin bool
}

// Organization is where it is asked.
type Organization struct {
	ID     uuid.UUID
	Name   string
	Frozen bool
}

// Explained is of whom it is asked, as far as the caller may know.
type Explained struct {
	Kind   auth.Kind
	ID     uuid.UUID
	Name   string    // empty for who is no member
	Role   auth.Role // empty for who is no member
	Scopes []auth.Permission
}

// What some operations take instead of a permission of the table.
const (
	ForAnybody  auth.Permission = "public"
	ForSignedIn auth.Permission = "self"
)

// Explain says why the subject may, or may not, do something in an organization. Everybody may ask of themselves; of other
// people it takes auth.MembersRead, of API keys auth.KeyRead. Of a person who is no member it says no more than that.
// withdraws says that it is asked for something that only takes access away, which a frozen organization lets through.
func (s *Service) Explain(ctx context.Context, id uuid.UUID, of Subject, perm auth.Permission, withdraws bool) (Explanation, error) {
	who, err := s.require(ctx, id, auth.OrgRead)
	if err != nil {
		return Explanation{}, err
	}
	if of == (Subject{}) {
		of.AccountID = who.AccountID
		if who.Kind == auth.APIKey {
			of = Subject{KeyID: who.AccountID}
		}
	}
	o, err := s.get(ctx, id, "", 0)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Permission: perm, Organization: Organization{ID: id, Name: o.Name, Frozen: o.EraseAt != nil}}
	if i := slices.IndexFunc(auth.Grants(), func(g auth.Grant) bool { return g.Permission == perm }); i >= 0 {
		e.Grant = &auth.Grants()[i]
	}
	if of.KeyID != uuid.Nil {
		err = s.explainKey(ctx, who, of.KeyID, &e)
	} else {
		err = s.explainPerson(ctx, who, of.AccountID, &e)
	}
	if err != nil {
		return Explanation{}, err
	}
	switch perm {
	case ForAnybody:
		e.Checks, e.Conditions = []auth.Check{{Rule: auth.RuleKnown, Holds: true, Detail: "Everybody may do this, without a credential."}}, nil
	case ForSignedIn:
		if e.Who.Kind == auth.User && e.Who.Role == "" {
			break // of who is no member nothing else is said
		}
		e.Checks, e.Conditions = []auth.Check{{Rule: auth.RuleKnown, Holds: e.Who.Kind == auth.User, Detail: "Whoever is signed in may do this for themselves; an API key is nobody."}}, nil
	default:
	}
	for i, c := range e.Checks {
		if withdraws && c.Rule == auth.RuleActive && e.Frozen {
			e.Checks[i] = auth.Check{Rule: c.Rule, Holds: true, Detail: "The organization is going to be deleted; what only takes access to it away stays allowed."}
		}
	}
	e.Allowed = !slices.ContainsFunc(e.Checks, func(c auth.Check) bool { return !c.Holds })
	return e, nil
}

func (s *Service) explainPerson(ctx context.Context, who auth.Principal, accountID uuid.UUID, e *Explanation) error {
	if who.Kind != auth.User || who.AccountID != accountID {
		if _, err := s.require(ctx, e.ID, auth.MembersRead); err != nil {
			return err
		}
	}
	e.Who = Explained{Kind: auth.User, ID: accountID}
	subject := auth.Principal{Kind: auth.User, AccountID: accountID}
	row, err := orgdb.New(s.DB.System).GetMember(ctx, orgdb.GetMemberParams{OrgID: e.ID, AccountID: accountID})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		// Whether there is such a person isn't told.
		e.Checks = []auth.Check{{Rule: auth.RuleMembership, Detail: "This person is no member of the organization."}}
		return nil
	case err != nil:
		return fmt.Errorf("read member: %w", err)
	}
	subject.OrgID, subject.Role, subject.Frozen = e.ID, auth.Role(row.Role), e.Frozen
	e.Who.Name, e.Who.Role = row.Name, subject.Role
	e.Checks = auth.Explain(subject, row.Name, e.ID, e.Permission)
	last, err := s.isLastAdmin(ctx, e.ID, accountID)
	if err != nil {
		return err
	}
	e.Conditions, e.LastAdmin = conditions(e.Permission, subject, last), last
	return nil
}

func (s *Service) explainKey(ctx context.Context, who auth.Principal, keyID uuid.UUID, e *Explanation) error {
	if who.Kind != auth.APIKey || who.AccountID != keyID {
		if _, err := s.require(ctx, e.ID, auth.KeyRead); err != nil {
			return err
		}
	}
	k, err := s.seekKey(ctx, keyID, netip.Addr{})
	if fault.KindOf(err) == fault.Unauthenticated || err == nil && k.OrgID != e.ID {
		return keyNotFound()
	}
	if err != nil {
		return err
	}
	name := "The key " + auth.KeyLabel(keyID)
	e.Who = Explained{Kind: auth.APIKey, ID: keyID, Name: auth.KeyLabel(keyID)}
	subject, bad := k.principal(keyID, int(k.Generation))
	if f, ok := errors.AsType[*fault.Error](bad); ok {
		e.Checks = []auth.Check{{Rule: auth.RuleKnown, Detail: f.Message}}
		return nil
	}
	if bad != nil {
		return bad
	}
	e.Who.Role, e.Who.Scopes = subject.Role, subject.Scopes.List()
	e.Checks = auth.Explain(subject, name, e.ID, e.Permission)
	e.Conditions = conditions(e.Permission, subject, false)
	if len(k.AllowedAddresses) > 0 {
		e.Conditions = append(e.Conditions, fmt.Sprintf("It may be used from %v alone.", k.AllowedAddresses))
	}
	return nil
}

func (s *Service) isLastAdmin(ctx context.Context, orgID, accountID uuid.UUID) (bool, error) {
	last, err := orgdb.New(s.DB.System).IsLastAdmin(ctx, orgdb.IsLastAdminParams{OrgID: orgID, AccountID: accountID})
	if err != nil {
		return false, fmt.Errorf("look for other admins: %w", err)
	}
	return last, nil
}

// conditions are the rules beyond the table that stand in the way of a permission's commands.
func conditions(perm auth.Permission, p auth.Principal, lastAdmin bool) (list []string) {
	if lastAdmin {
		list = append(list, "As the last admin of the organization they can't leave, be removed or take another role: somebody else has to become an admin first.")
	}
	switch perm {
	case auth.MembersManage:
		list = append(list, fmt.Sprintf("Nobody gives a role above their own (%s), or changes, removes or invites somebody to one.", p.Role))
		if p.Kind == auth.APIKey {
			list = append(list, "Invitations stand on a person's word: a key makes none.")
		}
	case auth.OrgRead:
		list = append(list, "To leave takes no more than to be a member; to remove somebody else takes members.manage and a role not below theirs.")
	case auth.KeyManage:
		list = append(list, "No key can do more than who makes or changes it.")
	default:
	}
	return list
}
