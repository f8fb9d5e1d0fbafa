package auth

import (
	"fmt"
	"slices"
	"strings"
)

// Role is what a member is in an organization. The values are stored and shown as they are.
type Role string

// The roles, from most to least. Each has all permissions of those after it.
const (
	Admin     Role = "admin"
	Manager   Role = "manager"
	Developer Role = "developer"
	Viewer    Role = "viewer"
)

// Roles returns every role, from most to least.
func Roles() []Role { return []Role{Admin, Manager, Developer, Viewer} }

// ParseRole returns the role of that name; ok is false for every other text.
func ParseRole(name string) (role Role, ok bool) {
	return Role(name), slices.Contains(Roles(), Role(name))
}

// AtLeast reports whether r is other or above it. An unknown role is below every other.
func (r Role) AtLeast(other Role) bool {
	mine, theirs := slices.Index(Roles(), r), slices.Index(Roles(), other)
	return mine >= 0 && theirs >= 0 && mine <= theirs
}

// May reports whether the role has the permission. Unknown roles and permissions have and give nothing.
func (r Role) May(perm Permission) bool {
	for _, g := range table {
		if g.Permission == perm {
			return r.AtLeast(g.From)
		}
	}
	return false
}

// Permission names something that a member may do in an organization. It stands in openapi.yaml as x-permission.
type Permission string

// The permissions. Each has exactly one line in the table below.
const (
	OrgRead          Permission = "org.read"
	OrgManage        Permission = "org.manage"
	OrgDelete        Permission = "org.delete"
	MembersRead      Permission = "members.read"
	MembersManage    Permission = "members.manage"
	KeyRead          Permission = "key.read"
	KeyManage        Permission = "key.manage"
	ProjectRead      Permission = "project.read"
	ProjectWrite     Permission = "project.write"
	EnvironmentRead  Permission = "environment.read"
	EnvironmentWrite Permission = "environment.write"
	VariableWrite    Permission = "variable.write"
	SecretRead       Permission = "secret.read"
	SecretWrite      Permission = "secret.write"
	SharedWrite      Permission = "shared.write"
	TestRead         Permission = "test.read"
	TestWrite        Permission = "test.write"
	RunRead          Permission = "run.read"
	RunExecute       Permission = "run.execute"
	ScheduleRead     Permission = "schedule.read"
	ScheduleWrite    Permission = "schedule.write"
	AlertRead        Permission = "alert.read"
	AlertWrite       Permission = "alert.write"
	ChannelRead      Permission = "channel.read"
	ChannelWrite     Permission = "channel.write"
	IncidentRead     Permission = "incident.read"
	IncidentWrite    Permission = "incident.write"
	AnalyticsRead    Permission = "analytics.read"
	EventsRead       Permission = "events.read"
	AuditRead        Permission = "audit.read"
)

// WhileFrozen reports whether the permission holds in an organization that is going to be erased: it can be read, and be
// restored, and nothing else in it changes. What only takes access away asks RequireToWithdraw.
func (p Permission) WhileFrozen() bool {
	return strings.HasSuffix(string(p), ".read") || p == OrgDelete
}

// Grant is one line of the permission table: the lowest role that has the permission, and what it allows.
type Grant struct {
	Permission Permission
	From       Role   // this role and every one above it
	Allows     string // for people, in docs
}

// table is the permission table, the only one. openapi.yaml and docs are held to it by a test.
var table = []Grant{
	{OrgRead, Viewer, "see the organization"},
	{OrgManage, Admin, "rename the organization and hand it over to another admin"},
	{OrgDelete, Admin, "delete the organization, and restore it until it is erased"},
	{MembersRead, Viewer, "see who is a member"},
	{MembersManage, Manager, "invite members, change roles and remove members; a manager only those below admin"},
	{KeyRead, Manager, "see API keys and their usage"},
	{KeyManage, Manager, "make, change, rotate and revoke API keys"},
	{ProjectRead, Viewer, "see projects"},
	{ProjectWrite, Manager, "make, change and delete projects"},
	{EnvironmentRead, Viewer, "see environments and their variables"},
	{EnvironmentWrite, Manager, "make, rename and delete environments"},
	{VariableWrite, Developer, "set and remove variables of an environment and of a project"},
	{SecretRead, Viewer, "see which secrets there are, and who changed them when; a value is shown to nobody"},
	{SecretWrite, Developer, "set and remove secrets of an environment and of a project"},
	{SharedWrite, Manager, "set and remove variables and secrets of the organization"},
	{TestRead, Viewer, "see tests and their revisions"},
	{TestWrite, Developer, "make, change, restore, import and delete tests"},
	{RunRead, Viewer, "see runs, their steps, assertion results and responses"},
	{RunExecute, Developer, "execute tests, cancel runs and run them again"},
	{ScheduleRead, Viewer, "see schedules and their slots"},
	{ScheduleWrite, Developer, "make, change, pause and delete schedules and maintenance windows"},
	{AlertRead, Viewer, "see alert rules"},
	{AlertWrite, Manager, "make, change and delete alert rules"},
	{ChannelRead, Viewer, "see channels, without their secrets, and deliveries"},
	{ChannelWrite, Manager, "make, change, test and delete channels"},
	{IncidentRead, Viewer, "see incidents"},
	{IncidentWrite, Developer, "acknowledge, resolve and comment on incidents"},
	{AnalyticsRead, Viewer, "see metrics, summaries and uptime; ask questions in SQL"},
	{EventsRead, Viewer, "follow the organization's events, live and by cursor"},
	{AuditRead, Manager, "read, export and verify the audit log; see security events live"},
}

// Grants returns a copy of the permission table, in the order in which it is documented.
func Grants() []Grant { return slices.Clone(table) }

// Markdown returns the permission table as a Markdown table, one column a role, as docs hold it.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| permission | allows to |")
	for _, r := range Roles() {
		fmt.Fprintf(&b, " %s |", r)
	}
	b.WriteString("\n|---|---|" + strings.Repeat(":-:|", len(Roles())) + "\n")
	for _, g := range table {
		fmt.Fprintf(&b, "| `%s` | %s |", g.Permission, g.Allows)
		for _, r := range Roles() {
			if r.May(g.Permission) {
				b.WriteString(" ✓ |")
			} else {
				b.WriteString("  |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
