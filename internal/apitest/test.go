// Package apitest holds tests: what is sent and what must hold, as a row of revisions.
//
// A test belongs to a project; each save that changes something is a revision, and revisions never change. The package
// reads and checks definitions (their specs with testspec), decides, and keeps the tables that others read at once. It
// executes nothing.
package apitest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/testspec"
)

// DefaultRegion is where a test runs that names no region.
const DefaultRegion = "default"

// Definition is the whole content of a test, as a user writes it. Every revision holds one.
type Definition struct {
	Name          string    `json:"name"`
	Description   string    `json:"description,omitempty"`
	EnvironmentID uuid.UUID `json:"environmentId,omitzero"` // used unless an execution names another
	Regions       []string  `json:"regions"`                // at least one
	Tags          []string  `json:"tags"`
	testspec.Spec
}

// Test is a test at its last revision.
type Test struct {
	ID, OrgID, ProjectID uuid.UUID
	EnvironmentID        uuid.UUID // uuid.Nil = none
	Name                 string
	Regions, Tags        []string
	Revision             int
	Version              int             // the same number as Revision: each save is one event
	Definition           json.RawMessage // as the API shows it, projectId included; empty in a Head
	CreatedAt, UpdatedAt time.Time
	Position             int64 // of the last event of the command that returned it; 0 = nothing changed

	hash string
}

// Revision is one save of a test.
type Revision struct {
	TestID       uuid.UUID
	Number       int
	Definition   json.RawMessage // as it was saved
	RestoredFrom int             // the revision that was taken over; 0 = none
	CreatedAt    time.Time
	CreatedKind  string // the actor's: user, apiKey, system
	CreatedBy    uuid.UUID
}

// ContentHash names the content: equal definitions have equal hashes.
func (d Definition) ContentHash() (string, error) {
	spec, err := d.Canonical()
	if err != nil {
		return "", err
	}
	own := d
	own.Spec = testspec.Spec{}
	head, err := json.Marshal(own)
	if err != nil {
		return "", fmt.Errorf("write definition: %w", err)
	}
	sum := sha256.New()
	sum.Write(head)
	sum.Write([]byte{0})
	sum.Write(spec)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// revise decides on a save over the test's last revision; the same content again is no event (nil).
func (t Test) revise(d Definition, restoredFrom int) (*Revised, error) {
	hash, err := d.ContentHash()
	if err != nil || hash == t.hash {
		return nil, err
	}
	return &Revised{Revision: t.Revision + 1, Definition: d, ContentHash: hash, RestoredFrom: restoredFrom}, nil
}

// shown is a definition as the API shows it.
type shown struct {
	ProjectID uuid.UUID `json:"projectId"`
	Definition
}

// show returns the stored definition in the API's order of fields, with the project that the test is in.
func show(projectID uuid.UUID, stored []byte) (json.RawMessage, error) {
	s := shown{ProjectID: projectID}
	if err := json.Unmarshal(stored, &s.Definition); err != nil {
		return nil, fmt.Errorf("read definition: %w", err)
	}
	out, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write definition: %w", err)
	}
	return out, nil
}

func checkVersion(actual int, expected *int) error {
	if expected != nil && *expected != actual {
		return fault.New(fault.Precondition, "precondition.failed", "The test is at version %d by now: read it again.", actual)
	}
	return nil
}
