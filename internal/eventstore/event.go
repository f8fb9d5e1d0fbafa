// Package eventstore appends facts to the log and reads them back, in order.
//
// The log has two lanes on one sequence of positions: the ledger (organizations, configuration, security; permanent,
// optimistic concurrency) and runs (high volume, daily partitions, idempotent by run and version). The package knows
// no event by name: slices register their types. It broadcasts nothing; it offers a Feed that others follow.
package eventstore

import (
	"context"
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Lane is one of the two tables of the log.
type Lane byte

// The lanes.
const (
	Ledger Lane = 'L' // permanent, versioned stream by stream
	Runs   Lane = 'R' // droppable by day, idempotent by (run, version)
)

// Versions in a run's stream. What attempt a (from 1) says has a·AttemptSpan + n, 1 ≤ n ≤ MaxAttemptEvents.
const (
	VersionRequested = 1
	AttemptSpan      = 100_000
	MaxAttemptEvents = 90_000
	VersionFinished  = math.MaxInt32 // a run ends once: the primary key refuses a second end
)

// AnyVersion as the expected version makes an append unconditional; 0 means that the stream must not exist yet.
const AnyVersion = -1

// Data is the payload of an event; it is stored as JSON. Its names and keys are for ever.
type Data interface{ EventType() string }

// Type registers an event by name.
type Type struct {
	Name   string // "org.renamed"
	Lane   Lane
	Schema int // current shape of Data, from 1
	// Upcast lifts the data of shape n to n+1, by n; reading lifts up to Schema.
	Upcast map[int]func(json.RawMessage) (json.RawMessage, error)
	// New returns a pointer to an empty payload of the current shape, for decoding samples.
	New func() Data
	// Topics says how far the event travels on the live stream and who may see it there.
	Visibility Visibility
}

// Visibility says who hears of an event on the live stream.
type Visibility string

// Visibilities.
const (
	VisibleOrganization Visibility = "organization" // topic organization, and project/test/run topics that fit
	VisibleDetail       Visibility = "detail"       // only project:, test: and run: topics (steps, assertions)
	VisibleAudit        Visibility = "audit"        // topic organization, only for those who may read the audit log
	VisibleNever        Visibility = "never"        // not live (account streams)
)

// Stream names one thing's history.
type Stream struct {
	OrgID, ID uuid.UUID
	Kind      string // "org", "project", … ; stored with the stream
}

// Actor is who did it. auth.Principal is one.
type Actor interface {
	ActorKind() string // user, apiKey, system, worker
	ActorID() uuid.UUID
	RemoteAddress() string // may be empty
	UserAgent() string     // may be empty
	RequestID() string     // may be empty
}

// Meta is what stands beside an event's data: who, from where, by which request. Address and Agent are sealed with the
// actor's own key ("sealed:…") when it is a user or an API key, so that erasing that erases them and hashes still hold.
type Meta struct {
	ActorKind string    `json:"actorKind,omitempty"`
	ActorID   uuid.UUID `json:"actorId,omitzero"`
	Address   string    `json:"address,omitempty"`
	Agent     string    `json:"agent,omitempty"`
	RequestID string    `json:"requestId,omitempty"`
}

// RunColumns are the fields of a run's event that the feed routes by and that analytics filters on.
type RunColumns struct {
	ProjectID, TestID uuid.UUID
	EnvironmentID     uuid.UUID // uuid.Nil = none
	Region            string
	Status            string        // only where the type has one
	Duration          time.Duration // microseconds on disk; 0 = none
	OK                *bool
}

// RunEvent is one fact of a run, to be appended.
type RunEvent struct {
	OrgID, RunID uuid.UUID
	Version      int
	Data         Data
	RunColumns
}

// Event is one fact as it was stored, its data lifted to the current shape of its type.
type Event struct {
	Position    int64
	RecordedAt  time.Time
	Lane        Lane
	Type        string
	Schema      int
	Version     int
	OrgID       uuid.UUID
	StreamID    uuid.UUID // the run's id in the lane of runs
	Kind        string    // the stream's kind; "run" in the lane of runs
	Meta        Meta      // ledger only
	ContentHash []byte    // ledger only: SHA-256 over RFC 8785 JSON of what was appended
	Data        json.RawMessage
	Stored      Stored // ledger only
	RunColumns         // runs only

	payload Data // what Data was encoded from, where this process appended it; nil when it was read
}

// Stored is an event's content as it lies in the log, neither lifted nor opened: what the content hash covers.
type Stored struct {
	Schema     int
	Meta, Data json.RawMessage
}

// ID is the event's name outside: unique and the same on every read.
func (e Event) ID() string { return e.StreamID.String() + "." + strconv.Itoa(e.Version) }

// Decode unmarshals the data into v, a pointer. In the append's own transaction it hands over what was appended, without
// the way through JSON; v must not be written through then.
func (e Event) Decode(v any) error {
	if e.payload != nil {
		if to := reflect.ValueOf(v).Elem(); to.Type() == reflect.TypeOf(e.payload) {
			to.Set(reflect.ValueOf(e.payload))
			return nil
		}
	}
	return json.Unmarshal(e.Data, v)
}

// Appended says what an append to the ledger did.
type Appended struct {
	Version  int   // of the stream, after it
	Position int64 // of the last event; 0 when nothing was appended
}

// Inserted names an event of a run that this append stored; those that were there already are absent.
type Inserted struct {
	RunID      uuid.UUID
	Version    int
	Position   int64
	RecordedAt time.Time
}

// ReadModel is a table that is written in the append's own transaction. Apply gets the events that were really stored,
// in order, of every type; it picks its own, and is called with the role of the append (api with its tenant, or system).
type ReadModel interface {
	Apply(ctx context.Context, tx pgx.Tx, events []Event) error
}

// Batch is a stretch of the log: every event with From < position ≤ To, in order, of all organizations.
type Batch struct {
	From, To int64
	Events   []Event
	Bare     bool // the events of runs are without their data, since nobody wanted it
}
