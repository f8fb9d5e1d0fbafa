package auth

import (
	"slices"
)

// ScopeRead is the shorthand for all that a viewer may do. The names of roles are shorthands as well.
const ScopeRead = "read"

// Scopes is the set of permissions that an API key was given. It is a value that can be compared; the zero Scopes is
// empty. What is stored are the names, never these bits: their order is the table's of this program.
type Scopes struct{ bits uint64 }

// NewScopes returns the set of the permissions. Those that the table doesn't have are left out: a permission that a later
// program dropped gives nothing.
func NewScopes(list ...Permission) (s Scopes) {
	for _, perm := range list {
		if i := scopeIndex(perm); i >= 0 {
			s.bits |= 1 << i
		}
	}
	return s
}

// ParseScopes returns the set that the names stand for: permissions, `read` for all that a viewer may, or a role's name
// for all that the role may. Names that are none of these come back in unknown, by their place in the list.
func ParseScopes(names []string) (s Scopes, unknown []int) {
	for i, name := range names {
		role, isRole := ParseRole(name)
		switch {
		case name == ScopeRead:
			s = s.Union(ScopesOf(Viewer))
		case isRole:
			s = s.Union(ScopesOf(role))
		case scopeIndex(Permission(name)) >= 0:
			s = s.Union(NewScopes(Permission(name)))
		default:
			unknown = append(unknown, i)
		}
	}
	return s, unknown
}

// ScopesOf returns all that a role may.
func ScopesOf(r Role) (s Scopes) {
	for _, g := range table {
		if r.May(g.Permission) {
			s = s.Union(NewScopes(g.Permission))
		}
	}
	return s
}

// Has reports whether the permission is in the set.
func (s Scopes) Has(perm Permission) bool {
	i := scopeIndex(perm)
	return i >= 0 && s.bits&(1<<i) != 0
}

// Empty reports whether nothing is in the set.
func (s Scopes) Empty() bool { return s.bits == 0 }

// Union returns what is in one of the sets.
func (s Scopes) Union(o Scopes) Scopes { return Scopes{s.bits | o.bits} }

// Intersect returns what is in both sets.
func (s Scopes) Intersect(o Scopes) Scopes { return Scopes{s.bits & o.bits} }

// Without returns what is in s and not in o.
func (s Scopes) Without(o Scopes) Scopes { return Scopes{s.bits &^ o.bits} }

// List returns the permissions in the set, in the order of the table.
func (s Scopes) List() []Permission {
	list := []Permission{}
	for _, g := range table {
		if s.Has(g.Permission) {
			list = append(list, g.Permission)
		}
	}
	return list
}

// scopeIndex is the permission's place in the table, -1 for none. The table is shorter than 64 lines, which a test holds.
func scopeIndex(perm Permission) int {
	return slices.IndexFunc(table, func(g Grant) bool { return g.Permission == perm })
}
