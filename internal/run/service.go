package run

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/testspec"
)

// Jobs puts jobs into the queue in the caller's transaction. River's clients do.
type Jobs interface {
	InsertManyTx(ctx context.Context, tx pgx.Tx, params []river.InsertManyParams) ([]*rivertype.JobInsertResult, error)
}

// Service starts, cancels, repeats and reads runs. Every method checks the caller's permission in the organization; what
// belongs to another organization is not found.
type Service struct {
	DB      *postgres.DB
	Store   *eventstore.Store
	Jobs    Jobs
	Plans   *Plans
	Ends    *Ends           // nil = WaitFinished looks once and doesn't wait
	Secrets *secret.Service // nil = runs have none
	NewID   func() uuid.UUID
	Regions []string // that exist; nil = all names are taken
	Log     *slog.Logger
	// ReevaluateTime bounds what one request may judge again; 0 = limits.ReevaluateTime.
	ReevaluateTime time.Duration

	starts starts
	judges judges
}

// StartInput is what an execution may set. What it leaves out is the test's own.
type StartInput struct {
	EnvironmentID *uuid.UUID        // uuid.Nil = none; nil = the test's own
	Variables     map[string]string // laid over the environment's and the test's
	Regions       []string
	Trigger       Trigger // only the system's is heeded; a person's is manual, a key's api
}

// SuiteInput is what the execution of a project's tests may set.
type SuiteInput struct {
	Tags          []string // tests with one of them; none = all tests
	EnvironmentID *uuid.UUID
	Variables     map[string]string
	Regions       []string
}

// StartSuite executes the tests of a project that have one of the tags, each in its regions, as one suite.
func (s *Service) StartSuite(ctx context.Context, orgID, projectID uuid.UUID, in SuiteInput) (suite Suite, err error) {
	who, err := auth.Require(ctx, orgID, auth.RunExecute)
	if err != nil {
		return Suite{}, err
	}
	if err := s.check(in.Variables, in.Regions); err != nil {
		return Suite{}, err
	}
	suite.ID = s.NewID()
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if _, err := project.GetTx(ctx, tx, projectID); err != nil {
			return err
		}
		heads, err := apitest.HeadsTx(ctx, tx, projectID, in.Tags, limits.MaxSuiteRuns+1)
		if err != nil {
			return err
		}
		if len(heads) == 0 {
			return fault.New(fault.Conflict, "suite.no_tests", "The project has no tests, or none with one of the tags.")
		}
		var requests []request
		known := &looked{}
		for _, head := range heads {
			more, err := s.requests(ctx, tx, head, StartInput{EnvironmentID: in.EnvironmentID, Variables: in.Variables, Regions: in.Regions},
				who, Requested{Trigger: TriggerSuite, SuiteID: suite.ID, RequestedBy: byOf(who)}, known)
			if err != nil {
				return err
			}
			if requests = append(requests, more...); len(requests) > limits.MaxSuiteRuns {
				return fault.New(fault.Conflict, "suite.too_large", "A suite has at most %d runs: choose tests by their tags.", limits.MaxSuiteRuns)
			}
		}
		suite.Runs, err = s.begin(ctx, tx, requests)
		return err
	})
	if err != nil {
		return Suite{}, err
	}
	suite.Verdict, suite.Position = Verdict(suite.Runs), suite.Runs[len(suite.Runs)-1].Position
	return suite, nil
}

// Rerun executes the same revision again, with the same version of the environment and the same variables, in the same
// region. The test must still be there.
func (s *Service) Rerun(ctx context.Context, orgID, runID uuid.UUID) (r Run, err error) {
	who, err := auth.Require(ctx, orgID, auth.RunExecute)
	if err != nil {
		return Run{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		row, err := getRow(ctx, tx, runID)
		if err != nil {
			return err
		}
		if _, err := apitest.HeadTx(ctx, tx, row.TestID); fault.KindOf(err) == fault.NotFound {
			return fault.New(fault.Conflict, "run.test_gone", "The run's test was deleted.")
		} else if err != nil {
			return err
		}
		d, err := requestOf(ctx, tx, s.Store, orgID, runID)
		if err != nil {
			return err
		}
		d.Trigger, d.RerunOf, d.SuiteID, d.RequestedBy = TriggerRerun, runID, uuid.Nil, byOf(who)
		runs, err := s.begin(ctx, tx, []request{{id: s.NewID(), who: who, Requested: d}})
		if err != nil {
			return err
		}
		r = runs[0]
		return nil
	})
	return r, err
}

// request is a run that is about to be requested.
type request struct {
	id  uuid.UUID
	who auth.Principal
	Requested
}

// requests makes the runs of one test from a template that says who wants them and why.
// known holds what was looked up already.
func (s *Service) requests(ctx context.Context, tx postgres.OrgTx, head apitest.Test, in StartInput, who auth.Principal, d Requested, known *looked) ([]request, error) {
	environmentID := head.EnvironmentID
	if in.EnvironmentID != nil {
		environmentID = *in.EnvironmentID
	}
	if environmentID != uuid.Nil {
		env, err := known.environment(ctx, tx, environmentID)
		switch {
		case fault.KindOf(err) == fault.NotFound || err == nil && env.ProjectID != head.ProjectID:
			if in.EnvironmentID == nil {
				return nil, fault.New(fault.Conflict, "test.environment_gone", "The environment of the test %s was deleted: give it another.", head.ID)
			}
			return nil, fault.New(fault.Invalid, "run.invalid", "Some fields are not valid.").At("/environmentId", "The project has no such environment.")
		case err != nil:
			return nil, err
		}
		d.EnvironmentID, d.EnvironmentName, d.EnvironmentVersion = env.ID, env.Name, env.Version
	}
	definition, err := s.Plans.revision(ctx, tx, tx.OrgID(), head.ID, head.Revision)
	if err != nil {
		return nil, err
	}
	if d.Fragments, err = apitest.PinTx(ctx, tx, head.ProjectID, definition.Definition); err != nil {
		return nil, err
	}
	if d.ProjectVersion, d.OrganizationVersion, err = known.versions(ctx, tx, head.ProjectID); err != nil {
		return nil, err
	}
	if d.Secrets, err = s.usedSecrets(ctx, tx, definition, d.Fragments, head.ProjectID, environmentID); err != nil {
		return nil, err
	}
	d.TestID, d.TestName, d.Revision, d.ProjectID = head.ID, head.Name, head.Revision, head.ProjectID
	d.Variables, d.MaxAttempts, d.TimeoutMs = in.Variables, 1, millis(definition.LongestRun())
	regions := in.Regions
	if len(regions) == 0 {
		regions = head.Regions
	}
	out := make([]request, len(regions))
	for i, region := range regions {
		d.Region = region
		out[i] = request{id: s.NewID(), who: who, Requested: d}
	}
	return out, nil
}

// begin appends the requests and inserts their jobs, in one transaction, and returns the runs in the requests' order.
func (s *Service) begin(ctx context.Context, tx postgres.OrgTx, requests []request) ([]Run, error) {
	// The one place that every execution comes through, whoever asks: schedules and the demo ask as the system, which no
	// permission stops.
	if err := org.RequireActiveTx(ctx, tx, tx.OrgID()); err != nil {
		return nil, err
	}
	if err := s.grantSecrets(ctx, tx, requests); err != nil {
		return nil, err
	}
	events := make([]eventstore.RunEvent, len(requests))
	jobs := make([]river.InsertManyParams, len(requests))
	for i, r := range requests {
		events[i] = event(tx.OrgID(), r.id, eventstore.VersionRequested, r.columns(), r.Requested)
		events[i].Status = string(Queued)
		jobs[i] = r.args(tx.OrgID()).insert()
	}
	stored, err := s.Store.AppendRuns(ctx, tx, events)
	if err != nil {
		return nil, err
	}
	if len(stored) != len(events) {
		return nil, fmt.Errorf("request %d runs: %d of their ids were taken", len(events), len(events)-len(stored))
	}
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error { // the api role has no rights in the queue
		_, err := s.Jobs.InsertManyTx(ctx, tx, jobs)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("insert the jobs of %d runs: %w", len(jobs), err)
	}
	fault.Hit(fault.PointCommandInTx)
	places := make(map[uuid.UUID]int, len(requests))
	for i, r := range requests {
		places[r.id] = i
	}
	runs := make([]Run, len(requests))
	for _, in := range stored {
		i := places[in.RunID]
		runs[i] = requests[i].run(tx.OrgID(), in)
	}
	return runs, nil
}

// args is what the run's job carries.
func (r request) args(orgID uuid.UUID) ExecuteArgs {
	return ExecuteArgs{
		RunID: r.id, OrgID: orgID, ProjectID: r.ProjectID, TestID: r.TestID, Revision: r.Revision,
		EnvironmentID: r.EnvironmentID, EnvironmentVersion: r.EnvironmentVersion, Region: r.Region,
		TimeoutMs: int64(r.TimeoutMs), HasVariables: len(r.Variables) > 0, HasFragments: len(r.Fragments) > 0,
		HasSecrets: len(r.Secrets) > 0, ProjectVersion: r.ProjectVersion, OrganizationVersion: r.OrganizationVersion,
	}
}

// run is the run as its row now shows it.
func (r request) run(orgID uuid.UUID, in eventstore.Inserted) Run {
	return Run{
		ID: r.id, OrgID: orgID, TestID: r.TestID, TestName: r.TestName, Revision: r.Revision, ProjectID: r.ProjectID,
		EnvironmentID: r.EnvironmentID, EnvironmentName: r.EnvironmentName, SuiteID: r.SuiteID, RerunOf: r.RerunOf, Region: r.Region,
		Trigger: r.Trigger, Status: Queued, RequestedAt: in.RecordedAt, RequestedBy: By{Kind: r.RequestedBy.Kind, ID: r.RequestedBy.ID}, Position: in.Position,
	}
}

// check names everything that is wrong with what an execution sets.
func (s *Service) check(variables map[string]string, regions []string) error {
	faults := fault.New(fault.Invalid, "run.invalid", "Some fields are not valid.")
	if len(variables) > limits.MaxVariables {
		faults.At("/variables", "An execution sets at most %d variables.", limits.MaxVariables)
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		at := "/variables/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		switch value := variables[name]; {
		case !testspec.IsVariableName(name):
			faults.At(at, "A variable's name has letters, digits, _ and -, starts with a letter or _ and has at most %d characters.", limits.MaxVariableName)
		case len(value) > limits.MaxVariableValue:
			faults.At(at, "A variable's value has at most %d bytes.", limits.MaxVariableValue)
		case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
			faults.At(at, "A variable's value is text without NUL.")
		}
	}
	if len(regions) > limits.MaxRegions {
		faults.At("/regions", "An execution has at most %d regions.", limits.MaxRegions)
	} else {
		faults.Fields = append(faults.Fields, apitest.CheckRegions("/regions", regions, s.Regions)...)
	}
	if len(faults.Fields) > 0 {
		return faults
	}
	return nil
}

func triggerOf(who auth.Principal, wanted Trigger) Trigger {
	switch who.Kind {
	case auth.User:
		return TriggerManual
	case auth.APIKey:
		return TriggerAPI
	case auth.System, auth.Worker:
		if wanted != "" {
			return wanted
		}
	}
	return TriggerSchedule
}

func byOf(who auth.Principal) By {
	return By{Kind: string(who.Kind), ID: who.AccountID, RequestID: who.Request}
}
