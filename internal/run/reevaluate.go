package run

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/testspec"
)

// Undecided is what a run or a step comes to when what was kept of it does not suffice to judge it again.
const Undecided Status = "undecided"

// Reevaluation is a run judged again by other assertions, over what was stored of it.
type Reevaluation struct {
	RunID          uuid.UUID
	TestID         uuid.UUID
	RequestedAt    time.Time
	RecordedStatus Status
	Status         Status // passed, failed, errored, undecided
	Steps          []StepReevaluation
	// First is the first step that makes the run what it came to, nil when it passed.
	First *StepReevaluation
}

// Flipped says that both ends are decided and differ.
func (r Reevaluation) Flipped() bool {
	decided := func(s Status) bool { return s == Passed || s == Failed || s == Errored }
	return decided(r.RecordedStatus) && decided(r.Status) && r.RecordedStatus != r.Status
}

// StepReevaluation is one result of a step judged again.
type StepReevaluation struct {
	Step, Iteration int
	Name            string
	RecordedStatus  StepStatus
	Status          StepStatus // passed, failed, errored, skipped, undecided
	Reason          string     // one sentence, when it isn't passed
	Assertions      []Rejudged
}

// Rejudged is the verdict on one assertion; when it is Undecided, Message says why and Pass nothing.
type Rejudged struct {
	AssertionEvaluated
	Undecided bool
}

// ReevaluationFilter chooses the runs of a test that are judged again.
type ReevaluationFilter struct {
	Last     int // at most so many, the newest
	Statuses []Status
	From, To time.Time
	After    *ReevaluationCursor
}

// ReevaluationCursor is where a re-evaluation goes on that its time did not suffice for.
type ReevaluationCursor struct {
	ID   uuid.UUID `json:"id"`
	Left int       `json:"left"` // of Last
}

// wantedAssertions is the body of a re-evaluation.
type wantedAssertions struct {
	Steps    []stepAssertions `json:"steps"`
	Revision *int             `json:"revision"`
}

type stepAssertions struct {
	Step       *int                 `json:"step"`
	Assertions []testspec.Assertion `json:"assertions"`
}

// wantedOfTest is wantedAssertions with the choice of runs.
type wantedOfTest struct {
	Steps    []stepAssertions `json:"steps"`
	Revision *int             `json:"revision"`
	Last     *int             `json:"last"`
	Status   []string         `json:"status"`
	From     string           `json:"from"`
	To       string           `json:"to"`
}

// measure is what is judged by.
type measure struct {
	whole   bool                         // of a revision: a step that it doesn't have, has no assertions
	size    int                          // steps of the revision
	byStep  map[int][]testspec.Assertion // by index
	schemas map[string]json.RawMessage   // nil = the run's own
}

// judges bounds how many re-evaluations are under way at once. The zero value is ready.
type judges struct {
	once   sync.Once
	places chan struct{}
}

func (j *judges) enter(ctx context.Context) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, limits.ReevaluateTime)
	defer cancel()
	j.once.Do(func() { j.places = make(chan struct{}, max(2, runtime.GOMAXPROCS(0))) })
	select {
	case j.places <- struct{}{}:
		return func() { <-j.places }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.Unavailable, "run.reevaluate_busy", "Too many runs are being judged again; try again in a moment.")
	}
}

// Reevaluate judges what was stored of an ended run by other assertions. No request is sent and nothing is written. body
// says by which: {"steps": [{"step": 0, "assertions": […]}]}, the steps that it doesn't name keeping what was recorded;
// {"revision": n}, that revision's, step by step; or nothing, the test's current revision. What is wrong in it is
// fault.Invalid with a pointer for each.
func (s *Service) Reevaluate(ctx context.Context, orgID, runID uuid.UUID, body json.RawMessage) (out Reevaluation, err error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return Reevaluation{}, err
	}
	r, err := s.Summary(ctx, orgID, runID)
	if err != nil {
		return Reevaluation{}, err
	}
	var wanted wantedAssertions
	faults, err := readWanted(body, &wanted)
	if err != nil {
		return Reevaluation{}, err
	}
	m, err := s.measure(ctx, orgID, r.TestID, wanted.Steps, wanted.Revision, faults, &r)
	if err != nil {
		return Reevaluation{}, err
	}
	if !r.Status.Ended() {
		return Reevaluation{}, fault.New(fault.Conflict, "run.not_ended", "The run has not ended; what it comes to can be judged again then.")
	}
	leave, err := s.judges.enter(ctx)
	if err != nil {
		return Reevaluation{}, err
	}
	defer leave()
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(s.ReevaluateTime, limits.ReevaluateTime), errOverdue)
	defer cancel()
	if out, err = s.rejudge(ctx, orgID, r, m); err != nil && overdue(ctx) {
		return Reevaluation{}, tooLong().Because(err)
	}
	return out, err
}

// overdue says that the time of a re-evaluation is over, and not that nobody waits for it any more.
func overdue(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errOverdue) }

var errOverdue = errors.New("the time for judging again is over")

func tooLong() *fault.Error {
	return fault.New(fault.Unavailable, "run.reevaluate_time", "The run is too large to be judged again within %s.", limits.ReevaluateTime)
}

// ReevaluateTest judges the last ended runs of a test again, newest first, as Reevaluate does one. body has besides what
// Reevaluate takes `last` (50 unless set, at most limits.MaxReevaluated), `status` (a list), `from` and `to`. It stops
// when limits.ReevaluateTime is over; next is then where to go on.
func (s *Service) ReevaluateTest(ctx context.Context, orgID, testID uuid.UUID, body json.RawMessage, after *ReevaluationCursor) (items []Reevaluation, next *ReevaluationCursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return nil, nil, err
	}
	var head apitest.Test
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		head, err = apitest.HeadTx(ctx, tx, testID)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	var wanted wantedOfTest
	faults, err := readWanted(body, &wanted)
	if err != nil {
		return nil, nil, err
	}
	f, more := wanted.filter()
	m, err := s.measure(ctx, orgID, head.ID, wanted.Steps, wanted.Revision, append(faults, more...), nil)
	if err != nil {
		return nil, nil, err
	}
	if after != nil {
		f.After = &Cursor{ID: after.ID}
		f.Limit = min(f.Limit, after.Left)
	}
	f.TestIDs = []uuid.UUID{testID}
	runs, _, err := s.List(ctx, orgID, f)
	if err != nil {
		return nil, nil, err
	}
	leave, err := s.judges.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(s.ReevaluateTime, limits.ReevaluateTime), errOverdue)
	defer cancel()
	for i, r := range runs {
		one, err := s.rejudge(ctx, orgID, r, m)
		switch {
		case err == nil:
		case overdue(ctx) && i > 0:
			return items, &ReevaluationCursor{ID: runs[i-1].ID, Left: len(runs) - i}, nil
		case overdue(ctx): // alone it takes too long; whoever goes on must get past it
			one = Reevaluation{RunID: r.ID, TestID: r.TestID, RequestedAt: r.RequestedAt, RecordedStatus: r.Status, Status: Undecided}
			one.First = &StepReevaluation{Status: stepUndecided, Reason: tooLong().Message}
			if items = append(items, one); len(runs) > 1 {
				return items, &ReevaluationCursor{ID: r.ID, Left: len(runs) - 1}, nil
			}
			return items, nil, nil
		default:
			return nil, nil, err
		}
		one.Steps = nil // of many runs they would weigh much
		items = append(items, one)
	}
	return items, nil, nil
}

func readWanted(body json.RawMessage, into any) ([]fault.Field, error) {
	if len(body) == 0 {
		return nil, nil
	}
	faults, err := testspec.Decode(body, into)
	if err != nil {
		return nil, err
	}
	return faults, nil
}

// ends are the statuses of a run that has ended.
var ends = []Status{Passed, Failed, Errored, Inconclusive, Canceled}

// filter is the choice of runs, and what is wrong with it.
func (w wantedOfTest) filter() (f Filter, faults []fault.Field) {
	refuse := func(at, detail string) { faults = append(faults, fault.Field{Pointer: at, Detail: detail}) }
	f.Limit, f.Statuses = limits.DefaultPage, ends
	if w.Last != nil {
		f.Limit = *w.Last
		if f.Limit < 1 || f.Limit > limits.MaxReevaluated {
			refuse("/last", fmt.Sprintf("This is a number from 1 to %d.", limits.MaxReevaluated))
		}
	}
	if len(w.Status) > 0 {
		f.Statuses = nil
		for i, name := range w.Status {
			if !slices.Contains(ends, Status(name)) {
				refuse("/status/"+strconv.Itoa(i), "This is one of passed, failed, errored, inconclusive, canceled.")
			}
			f.Statuses = append(f.Statuses, Status(name))
		}
	}
	for at, text := range map[string]string{"/from": w.From, "/to": w.To} {
		if text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			refuse(at, "An instant is written as in 2026-11-22T09:30:00Z.")
		} else if at == "/from" {
			f.From = t
		} else {
			f.To = t
		}
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		refuse("/from", "It must be before to.")
	}
	return f, faults
}

// measure makes what is judged by of what was asked for. of is the run, nil when several runs are judged.
func (s *Service) measure(ctx context.Context, orgID, testID uuid.UUID, steps []stepAssertions, revision *int, faults []fault.Field, of *Run) (m measure, err error) {
	if steps != nil && revision != nil {
		faults = append(faults, fault.Field{Pointer: "/revision", Detail: "Give steps or a revision, not both."})
	}
	if revision != nil && *revision < 1 {
		faults = append(faults, fault.Field{Pointer: "/revision", Detail: "Revisions are counted from 1."})
	}
	if len(faults) > 0 && (steps == nil || revision != nil) {
		return m, invalidWanted(faults)
	}
	n := 0
	switch {
	case of != nil && steps != nil:
		n = of.Revision
	case revision != nil:
		n = *revision
	}
	definition, fragments, err := s.basis(ctx, orgID, testID, n, of)
	switch {
	case fault.KindOf(err) == fault.NotFound && revision != nil:
		return m, invalidWanted([]fault.Field{{Pointer: "/revision", Detail: "The test has no such revision."}})
	case fault.KindOf(err) == fault.NotFound:
		return m, fault.New(fault.Conflict, "run.test_gone", "The run's test was deleted: say by which assertions, or by which revision.")
	case err != nil:
		return m, err
	}
	planned, bad := definition.Plan(fragments)
	if len(bad) > 0 {
		return m, fault.New(fault.Conflict, "test.fragment_gone", "The revision cannot be read with the fragments of its project: %s", bad[0].Detail)
	}
	leaves := leavesOf(planned)
	m = measure{size: len(leaves), byStep: map[int][]testspec.Assertion{}, schemas: definition.Schemas}
	if steps == nil {
		m.whole = true
		for i, leaf := range leaves {
			m.byStep[i] = leaf.unit.Step.Assertions
		}
		return m, nil
	}
	if len(steps) == 0 {
		faults = append(faults, fault.Field{Pointer: "/steps", Detail: "Name at least one step."})
	}
	for i, wanted := range steps {
		at := "/steps/" + strconv.Itoa(i)
		switch {
		case wanted.Step == nil:
			faults = append(faults, fault.Field{Pointer: at + "/step", Detail: "The index of a step is needed, from 0."})
		case *wanted.Step < 0 || *wanted.Step >= len(leaves):
			faults = append(faults, fault.Field{Pointer: at + "/step", Detail: fmt.Sprintf("Revision %d has the steps 0 to %d.", n, len(leaves)-1)})
		case m.byStep[*wanted.Step] != nil:
			faults = append(faults, fault.Field{Pointer: at + "/step", Detail: "This step stands here twice."})
		default:
			leaf := leaves[*wanted.Step]
			for _, f := range definition.CheckAssertions(leaf.steps(), wanted.Assertions, at+"/assertions", testspec.WithAnyName(), testspec.WithAnySecret()) {
				if !testspec.Related(faults, f.Pointer) {
					faults = append(faults, f)
				}
			}
			m.byStep[*wanted.Step] = append([]testspec.Assertion{}, wanted.Assertions...)
		}
	}
	if len(faults) > 0 {
		return m, invalidWanted(faults)
	}
	return m, nil
}

func invalidWanted(fields []fault.Field) error {
	e := fault.New(fault.Invalid, "run.invalid", "Some fields are not valid.")
	e.Fields = fields[:min(len(fields), limits.MaxFaults)]
	return e
}

// basis returns a revision of a test, 0 = the current one, with its fragments: the run's where it is the run's revision,
// else those of today.
func (s *Service) basis(ctx context.Context, orgID, testID uuid.UUID, revision int, of *Run) (d apitest.Definition, fragments map[string]testspec.Fragment, err error) {
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if revision == 0 {
			head, err := apitest.HeadTx(ctx, tx, testID)
			if err != nil {
				return err
			}
			revision = head.Revision
		}
		var pins map[string]apitest.FragmentRef
		var projectID uuid.UUID
		switch {
		case of != nil && of.Revision == revision:
			requested, err := requestOf(ctx, tx, s.Store, orgID, of.ID)
			if err != nil {
				return err
			}
			pins = requested.Fragments
		case of != nil:
			projectID = of.ProjectID
		default:
			head, err := apitest.HeadTx(ctx, tx, testID)
			if err != nil {
				return err
			}
			projectID = head.ProjectID
		}
		def, err := s.Plans.revision(ctx, tx, orgID, testID, revision)
		if err != nil {
			return err
		}
		if projectID != uuid.Nil {
			if pins, err = apitest.PinTx(ctx, tx, projectID, def.Definition); err != nil {
				return err
			}
		}
		d = def.Definition
		fragments, err = s.Plans.pinned(ctx, tx, orgID, pins)
		return err
	})
	return d, fragments, err
}

// leaf is a request of a plan with what it stands in.
type leaf struct {
	unit    *testspec.Unit
	parents []*testspec.Unit // those that use a fragment, the outermost first
}

func (l leaf) steps() (list []*testspec.Step) {
	for _, p := range l.parents {
		list = append(list, p.Step)
	}
	return append(list, l.unit.Step)
}

// loops are the units that it is repeated by.
func (l leaf) loops() (n int) {
	for _, s := range l.steps() {
		if s.Looped() {
			n++
		}
	}
	return n
}

// leavesOf lists the requests of a plan by their index.
func leavesOf(p testspec.Plan) (list []leaf) {
	var add func(units []testspec.Unit, parents []*testspec.Unit)
	add = func(units []testspec.Unit, parents []*testspec.Unit) {
		for i := range units {
			u := &units[i]
			if u.Inner == nil {
				list = append(list, leaf{u, parents})
				continue
			}
			add(u.Inner, append(slices.Clip(parents), u))
		}
	}
	add(p.Setup, nil)
	add(p.Steps, nil)
	add(p.Teardown, nil)
	return list
}
