package auth

import (
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// Rule names one of the questions that Require asks. The values stand in answers of the API.
type Rule string

// The rules, in the order in which they are asked.
const (
	RuleKnown      Rule = "credential" // somebody is signed in, or shows a key that is good
	RuleMembership Rule = "membership" // of the organization
	RuleRole       Rule = "role"       // is high enough by the table of permissions
	RuleScope      Rule = "scope"      // of an API key
	RuleActive     Rule = "active"     // the organization isn't going to be erased
)

// Check is what one rule says of somebody.
type Check struct {
	Rule   Rule
	Holds  bool
	Detail string // one sentence for people
}

// Explain says what every rule of Require says of the principal: it may when all hold, and Require refuses by the first
// that doesn't. name is how the sentences call it. The system, which no rule stops, isn't explained.
func Explain(p Principal, name string, orgID uuid.UUID, perm Permission) []Check {
	checks := []Check{
		{RuleKnown, p.Kind != "", fmt.Sprintf("%s is signed in, or shows a credential that is good.", name)},
		{RuleMembership, orgID != uuid.Nil && p.OrgID == orgID, fmt.Sprintf("%s belongs to the organization.", name)},
	}
	if p.Kind == APIKey {
		checks[0].Detail = fmt.Sprintf("%s is good.", name)
	}
	if p.Kind == "" {
		checks[0].Detail = fmt.Sprintf("%s shows no credential that is good.", name)
	}
	if !checks[1].Holds {
		checks[1].Detail = fmt.Sprintf("%s doesn't belong to the organization, which then doesn't exist for them.", name)
	}
	checks = append(checks, explainRole(p, name, perm))
	if p.Kind == APIKey {
		c := Check{RuleScope, !p.lacksScope(perm), fmt.Sprintf("Its scopes have %s.", perm)}
		if !c.Holds {
			c.Detail = fmt.Sprintf("Its scopes lack %s: they are %v.", perm, p.Scopes.List())
		}
		checks = append(checks, c)
	}
	active := Check{RuleActive, !p.Frozen || perm.WhileFrozen(), "The organization is not going to be deleted."}
	switch {
	case !active.Holds:
		active.Detail = "The organization is going to be deleted, and until then it can be read and restored, access to it can be taken away, and nothing else."
	case p.Frozen:
		active.Detail = fmt.Sprintf("The organization is going to be deleted; %s holds until then.", perm)
	}
	return append(checks, active)
}

func explainRole(p Principal, name string, perm Permission) Check {
	c := Check{Rule: RuleRole, Holds: p.Role.May(perm)}
	i := slices.IndexFunc(table, func(g Grant) bool { return g.Permission == perm })
	switch {
	case i < 0:
		c.Detail = fmt.Sprintf("There is no permission %s.", perm)
	case p.Role == "":
		c.Detail = fmt.Sprintf("%s has no role in the organization; %s takes %s.", name, perm, table[i].From)
	case c.Holds:
		c.Detail = fmt.Sprintf("%s has the role %s, and %s takes %s.", name, p.Role, perm, table[i].From)
	default:
		c.Detail = fmt.Sprintf("%s has the role %s, but %s takes at least %s.", name, p.Role, perm, table[i].From)
	}
	return c
}
