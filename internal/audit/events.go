package audit

import (
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// Kind is the kind of the stream in which an organization's security events stand that belong to no thing of it. A person
// who acts in no organization has one too, in their own log.
const Kind = "audit"

// The names below are stored for ever: add, never rename.
const (
	TypeRefused         = "audit.refused"
	TypeExportStarted   = "audit.export_started"
	TypeExportEnded     = "audit.export_ended"
	TypeSettingsChanged = "installation.settings_changed"
)

// Refused says that somebody who is known was not allowed to do something. The first time is recorded at once; what the
// same principal tries again in the window that follows is one event with the count.
type Refused struct {
	Operation  string    `json:"operation"`            // operationId of the API
	Permission string    `json:"permission,omitempty"` // that was missing
	Code       string    `json:"code"`                 // of the answer
	Role       string    `json:"role,omitempty"`       // of the caller, in the organization
	Requested  uuid.UUID `json:"requested,omitzero"`   // an organization that they named and aren't in
	Count      int       `json:"count"`                // how often since `since`; 1 for the first
	Since      time.Time `json:"since,omitzero"`       // only with a count of what came after the first
}

// ExportStarted says that somebody began to take a copy of the audit log. It is written before the first byte leaves.
type ExportStarted struct {
	ExportID uuid.UUID  `json:"exportId"`
	Format   Format     `json:"format"`
	Filter   *Selection `json:"filter,omitempty"` // absent: the whole log
	After    int64      `json:"after,omitempty"`  // position where it goes on
}

// ExportEnded says how much of a copy left. Complete is false when the client went away or something failed.
type ExportEnded struct {
	ExportID uuid.UUID `json:"exportId"`
	Events   int       `json:"events"`
	UpTo     int64     `json:"upTo"` // position of the last event that was written
	Complete bool      `json:"complete"`
}

// Selection is a filter as it is stored and as the header of an export shows it.
type Selection struct {
	Actors     []uuid.UUID `json:"actor,omitempty"`
	Types      []string    `json:"type,omitempty"`
	Subjects   []uuid.UUID `json:"subject,omitempty"`
	RequestIDs []string    `json:"requestId,omitempty"`
	From       time.Time   `json:"from,omitzero"`
	To         time.Time   `json:"to,omitzero"`
}

func (f Filter) selection() *Selection {
	if !f.selects() {
		return nil
	}
	return &Selection{Actors: f.Actors, Types: f.Types, Subjects: f.Subjects, RequestIDs: f.RequestIDs, From: f.From, To: f.To}
}

// SettingsChanged says that a process of the installation started with other settings than the one before. Secrets are
// shown as fingerprints.
type SettingsChanged struct {
	Command string          `json:"command"` // up, serve
	Version string          `json:"version"` // of the program
	Changes []SettingChange `json:"changes"` // by name
}

// SettingChange is one setting; a value that is absent is that of a setting that wasn't there.
type SettingChange struct {
	Name string  `json:"name"`
	From *string `json:"from,omitempty"`
	To   *string `json:"to,omitempty"`
}

// EventType returns the stored name.
func (Refused) EventType() string { return TypeRefused }

// EventType returns the stored name.
func (ExportStarted) EventType() string { return TypeExportStarted }

// EventType returns the stored name.
func (ExportEnded) EventType() string { return TypeExportEnded }

// EventType returns the stored name.
func (SettingsChanged) EventType() string { return TypeSettingsChanged }

// Types returns the events of this room. Who may read the audit log sees them live.
func Types() []eventstore.Type {
	event := func(name string, payload func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Ledger, Schema: 1, New: payload, Visibility: eventstore.VisibleAudit}
	}
	return []eventstore.Type{
		event(TypeRefused, func() eventstore.Data { return new(Refused) }),
		event(TypeExportStarted, func() eventstore.Data { return new(ExportStarted) }),
		event(TypeExportEnded, func() eventstore.Data { return new(ExportEnded) }),
		event(TypeSettingsChanged, func() eventstore.Data { return new(SettingsChanged) }),
		event(TypeRunsSealed, func() eventstore.Data { return new(RunsSealed) }),
	}
}

// stream is where the security events of an organization stand, or those of a person who is in none. Its id is made from
// the owner's, so nobody need look it up.
func stream(owner uuid.UUID) eventstore.Stream {
	return eventstore.Stream{OrgID: owner, ID: uuid.NewSHA1(owner, []byte(Kind)), Kind: Kind}
}
