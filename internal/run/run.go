// Package run executes revisions of tests and keeps what came of it.
//
// A run is one execution of one revision in one region. It is requested in one transaction with its job, executed by a
// worker of the region with no transaction open, and ends exactly once: correctness rests on the primary key of its
// stream, never on the queue. The package decides when a run starts, ends, is repeated or given up; what is sent and
// what must hold is testspec's, how it is sent is executor's.
package run

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// Status is where a run is.
type Status string

// The statuses of a run.
const (
	Queued       Status = "queued"
	Running      Status = "running"
	Passed       Status = "passed"
	Failed       Status = "failed"       // an assertion is false
	Errored      Status = "errored"      // the target could not be talked to
	Inconclusive Status = "inconclusive" // our fault; never counts against the target
	Canceled     Status = "canceled"
)

// Ended reports whether s is an end.
func (s Status) Ended() bool { return s != Queued && s != Running && s != "" }

// Reason says why a run is inconclusive or canceled.
type Reason string

// The reasons.
const (
	WorkerLost        Reason = "worker_lost"        // the worker that had the attempt is gone
	Shutdown          Reason = "shutdown"           // the worker stopped before the run could end
	RegionUnavailable Reason = "region_unavailable" // nobody takes the region's jobs
	Internal          Reason = "internal"           // a fault of ours; the log has it
	Blocked           Reason = "blocked"            // policy refuses the address
	OnRequest         Reason = "on_request"         // somebody canceled it
)

// Trigger says what made a run.
type Trigger string

// The triggers.
const (
	TriggerManual   Trigger = "manual" // a person
	TriggerAPI      Trigger = "api"    // an API key
	TriggerSchedule Trigger = "schedule"
	TriggerSuite    Trigger = "suite" // the execution of a project's tests
	TriggerRerun    Trigger = "rerun"
	TriggerDemo     Trigger = "demo"
)

// StepStatus is the outcome of a step.
type StepStatus string

// The outcomes of a step.
const (
	StepPassed       StepStatus = "passed"
	StepFailed       StepStatus = "failed"
	StepErrored      StepStatus = "errored"
	StepInconclusive StepStatus = "inconclusive"
	StepSkipped      StepStatus = "skipped"
)

// Run is one execution as lists show it.
type Run struct {
	ID              uuid.UUID  `json:"id"`
	OrgID           uuid.UUID  `json:"-"`
	TestID          uuid.UUID  `json:"testId"`
	TestName        string     `json:"testName"` // when it was requested
	Revision        int        `json:"revision"`
	ProjectID       uuid.UUID  `json:"projectId"`
	EnvironmentID   uuid.UUID  `json:"environmentId,omitzero"`
	EnvironmentName string     `json:"environmentName,omitempty"`
	SuiteID         uuid.UUID  `json:"suiteId,omitzero"`
	RerunOf         uuid.UUID  `json:"rerunOf,omitzero"`
	Region          string     `json:"region"`
	Trigger         Trigger    `json:"trigger"`
	Status          Status     `json:"status"`
	Reason          Reason     `json:"reason,omitempty"`
	Error           *Problem   `json:"error,omitempty"`
	Attempts        int        `json:"attempts"` // that were started
	RequestedAt     time.Time  `json:"requestedAt"`
	RequestedBy     By         `json:"requestedBy"`
	StartedAt       *time.Time `json:"startedAt,omitempty"`
	FinishedAt      *time.Time `json:"finishedAt,omitempty"`
	DurationMs      float64    `json:"durationMs,omitempty"`
	QueuedMs        float64    `json:"queuedMs,omitempty"`
	Counts          Counts     `json:"counts"`
	Position        int64      `json:"-"` // of the last event of the command that returned it; 0 = nothing changed
}

// Suite is the execution of several tests together.
type Suite struct {
	ID       uuid.UUID `json:"suiteId"`
	Verdict  Status    `json:"verdict"`
	Runs     []Run     `json:"runs"`
	Position int64     `json:"-"`
}

// verdicts is from the worst end to the best: a suite's verdict is the worst of its runs.
var verdicts = []Status{Failed, Errored, Inconclusive, Canceled, Passed}

// Verdict is what a suite of these runs came to: running until the last has ended (queued when none has begun), then the
// worst end of all. A suite without runs has passed.
func Verdict(runs []Run) Status {
	worst, open, begun := len(verdicts)-1, false, false
	for _, r := range runs {
		begun = begun || r.Status != Queued
		if !r.Status.Ended() {
			open = true
			continue
		}
		worst = min(worst, slices.Index(verdicts, r.Status))
	}
	switch {
	case open && !begun:
		return Queued
	case open:
		return Running
	}
	return verdicts[worst]
}

// columns are the fields of the run that every event of it carries.
func (d Requested) columns() eventstore.RunColumns {
	return eventstore.RunColumns{ProjectID: d.ProjectID, TestID: d.TestID, EnvironmentID: d.EnvironmentID, Region: d.Region}
}

// event makes one event of a run.
func event(orgID, runID uuid.UUID, version int, columns eventstore.RunColumns, data eventstore.Data) eventstore.RunEvent {
	return eventstore.RunEvent{OrgID: orgID, RunID: runID, Version: version, Data: data, RunColumns: columns}
}

// firstVersion is the version of an attempt's first event, which is also the claim to it: who stores that event has it.
func firstVersion(attempt int) int { return attempt*eventstore.AttemptSpan + 1 }

// ended returns the end of an attempt and of its run: the two last events, to be appended together. version is where the
// attempt's last event stands.
func ended(orgID, runID uuid.UUID, version int, columns eventstore.RunColumns, a AttemptFinished, f Finished, took time.Duration) []eventstore.RunEvent {
	columns.Status, columns.Duration, columns.OK = string(f.Status), took, okOf(f.Status)
	return []eventstore.RunEvent{
		event(orgID, runID, version, columns, a),
		event(orgID, runID, eventstore.VersionFinished, columns, f),
	}
}

// okOf is what analytics counts: true for passed, false for what speaks against the target, nothing for what is our
// fault or somebody's wish.
func okOf(s Status) *bool {
	switch s {
	case Passed, Failed, Errored:
		ok := s == Passed
		return &ok
	default:
		return nil
	}
}
