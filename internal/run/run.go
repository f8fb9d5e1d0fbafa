// Package run executes revisions of tests and keeps what came of it.
//
// A run is one execution of one revision in one region. It is requested in one transaction with its job, executed by a
// worker of the region with no transaction open, and ends exactly once: correctness rests on the primary key of its
// stream, never on the queue. The package decides when a run starts, ends, is repeated or given up; what is sent and
// what must hold is testspec's, how it is sent is executor's.
package run

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
