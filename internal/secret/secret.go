// Package secret holds secrets: named values that are set, used by runs and shown to nobody.
//
// A secret belongs to an environment, a project or the organization; of one name the nearest wins. Its values lie sealed
// with the organization's key, and once a run of a region needs one, sealed with the region's key as well, which is all
// that a worker can open. Events hold ids, names and versions. Hiding values in what targets send back is vault's.
package secret

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/secret/internal/secretdb"
	"github.com/testflow/testflow/internal/vault"
)

// validName is what may stand behind `secrets.` in a reference.
var validName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`)

// Scope is where a secret is. Both uuid.Nil: in the organization; EnvironmentID uuid.Nil: in the project.
type Scope struct{ ProjectID, EnvironmentID uuid.UUID }

// The kinds of scopes.
const (
	InEnvironment  = "environment"
	InProject      = "project"
	InOrganization = "organization"
)

// Kind names the sort of scope.
func (s Scope) Kind() string {
	switch {
	case s.EnvironmentID != uuid.Nil:
		return InEnvironment
	case s.ProjectID != uuid.Nil:
		return InProject
	default:
		return InOrganization
	}
}

// id is what tells the scope from all others.
func (s Scope) id(orgID uuid.UUID) uuid.UUID {
	switch s.Kind() {
	case InEnvironment:
		return s.EnvironmentID
	case InProject:
		return s.ProjectID
	default:
		return orgID
	}
}

// Secret is what everybody may know of one.
type Secret struct {
	ID, OrgID uuid.UUID
	Scope
	Name, Description    string
	Version              int // of the value, from 1
	CreatedAt, UpdatedAt time.Time
	UpdatedKind          string    // user, apiKey, system
	UpdatedBy            uuid.UUID // uuid.Nil for the system
	Position             int64     // of the event of the command that returned it
}

// Used is a version of a secret that a run uses, as its request records it.
type Used struct {
	Scope   string    `json:"scope"`
	ID      uuid.UUID `json:"id"`
	Name    string    `json:"name"`
	Version int       `json:"version"`
}

// Draft is what a secret is set to.
type Draft struct {
	Value vault.Secret
	// Description says what it is for; nil leaves it.
	Description *string
}

// check names everything that is wrong. It repeats no value.
func (d Draft) check(name string) error {
	var faults fault.Error
	if !validName.MatchString(name) {
		faults.Fields = append(faults.Fields, fault.Field{Parameter: "name", Detail: "A secret's name has letters, digits, _ and -, starts with a letter or _ and has at most 64 characters."})
	}
	switch value := d.Value.Reveal(); {
	case len(value) < vault.MinSecret:
		faults.At("/value", "A secret has at least %d bytes: a shorter one could not be hidden in what targets answer without hiding half of it.", vault.MinSecret)
	case len(value) > limits.MaxSecretValue:
		faults.At("/value", "A secret has at most %d bytes.", limits.MaxSecretValue)
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		faults.At("/value", "A secret is text without NUL; write other bytes in base64.")
	}
	if d.Description != nil {
		switch {
		case utf8.RuneCountInString(*d.Description) > limits.MaxSecretText:
			faults.At("/description", "A secret's description has at most %d characters.", limits.MaxSecretText)
		case !utf8.ValidString(*d.Description) || strings.ContainsRune(*d.Description, 0):
			faults.At("/description", "A description is text without NUL.")
		}
	}
	if len(faults.Fields) == 0 {
		return nil
	}
	faults.Kind, faults.Code, faults.Message = fault.Invalid, "secret.invalid", "Some fields are not valid."
	return &faults
}

func secretOf(r secretdb.Secret, position int64) Secret {
	return Secret{
		ID: r.SecretID, OrgID: r.OrgID, Scope: Scope{ProjectID: orNil(r.ProjectID), EnvironmentID: orNil(r.EnvironmentID)},
		Name: r.Name, Description: r.Description, Version: int(r.Version), CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
		UpdatedKind: r.UpdatedKind, UpdatedBy: orNil(r.UpdatedBy), Position: position,
	}
}

func orNil(id *uuid.UUID) uuid.UUID {
	if id == nil {
		return uuid.Nil
	}
	return *id
}

// some is orNil's other way.
func some(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}
