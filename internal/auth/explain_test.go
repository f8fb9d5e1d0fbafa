package auth

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
)

// What is explained is what is done: for everybody who could ask for anything, the rules say what Require says, and the
// first that doesn't hold is why.
func TestExplain_saysWhatRequireDoes(t *testing.T) {
	t.Parallel()
	org := uuid.New()
	why := map[Rule]string{
		RuleKnown: "auth.required", RuleMembership: "org.not_found", RuleRole: "auth.forbidden", RuleScope: "auth.scope_missing", RuleActive: "org.frozen",
	}
	perms := []Permission{"no.such"}
	for _, g := range Grants() {
		perms = append(perms, g.Permission)
	}
	seen := map[Rule]int{}
	for _, kind := range []Kind{"", User, APIKey, Worker} {
		for _, role := range append(Roles(), "", "owner") {
			for _, of := range []uuid.UUID{org, uuid.New(), uuid.Nil} {
				for _, frozen := range []bool{false, true} {
					for _, scopes := range []Scopes{{}, NewScopes(TestRead, TestWrite), ScopesOf(Admin)} {
						p := Principal{Kind: kind, AccountID: uuid.New(), OrgID: of, Role: role, Frozen: frozen, Scopes: scopes}
						for _, perm := range perms {
							_, err := Require(With(t.Context(), p), org, perm)
							refused := ""
							for _, c := range Explain(p, "Ada", org, perm) {
								require.NotEmpty(t, c.Detail)
								if !c.Holds && refused == "" {
									refused = why[c.Rule]
									seen[c.Rule]++
								}
							}
							var f *fault.Error
							if errors.As(err, &f) {
								require.Equal(t, f.Code, refused, "%+v %s", p, perm)
							} else {
								require.Empty(t, refused, "%+v %s", p, perm)
								require.True(t, p.May(perm))
							}
						}
					}
				}
			}
		}
	}
	require.Len(t, seen, len(why), "each rule was the reason at least once: %v", seen)
}
