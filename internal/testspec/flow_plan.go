package testspec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// Phase says which of a spec's lists a step stands in.
type Phase string

// The phases, in the order in which they are executed.
const (
	PhaseSetup    Phase = "setup"
	PhaseSteps    Phase = "steps"
	PhaseTeardown Phase = "teardown"
)

// Phases lists every Phase, for documents.
func Phases() []string {
	return []string{string(PhaseSetup), string(PhaseSteps), string(PhaseTeardown)}
}

// Fragment is a row of steps that the tests of a project share.
type Fragment struct {
	// Parameters are what a step that uses the fragment may, or must, give with it.
	Parameters map[string]Parameter `json:"parameters,omitempty"`
	Steps      []Step               `json:"steps"`
}

// Parameter is a value that a fragment asks for.
type Parameter struct {
	Description string `json:"description,omitempty"`
	// Default is taken when nothing is given, as it is; without one something must be given.
	Default *string `json:"default,omitempty"`
}

// Plan is a spec with its fragments put in: what is executed. It shares the spec's and the fragments' memory and is not
// changed.
type Plan struct {
	Setup, Steps, Teardown []Unit
	// Size is how many steps there are in the three phases, those of fragments counted and the ones that use them not. A
	// step's index is its place among them, from 0.
	Size int
	// Events is how many steps and assertions an attempt comes to at most, each list of a variable counted as one row;
	// TeardownEvents are those of Teardown among them.
	Events, TeardownEvents int
	// Decides says that there is a step with if, so that the last response has to be kept for it.
	Decides bool
}

// Unit is a step of a plan: a request, or the steps of a fragment.
type Unit struct {
	Step  *Step
	Index int // of the request, or of the fragment's first one
	Phase Phase
	// Fragment is the name of the fragment that the step is written in; "" when it is the spec's own.
	Fragment string
	// Always says that it is executed after a failure too: it or what it stands in says so, or it is teardown.
	Always bool
	// Inner are the fragment's steps, nil for a request; Parameters are the fragment's.
	Inner      []Unit
	Parameters map[string]Parameter
	// Size is how many requests it stands for, Events how many steps and assertions one iteration comes to.
	Size, Events int
}

// Plan puts fragments, by name, into s. The faults say what cannot be: an unknown fragment, a parameter that is missing
// or isn't asked for, a circle, too many steps, more events than an attempt may have; their pointers are relative to the
// spec.
func (s Spec) Plan(fragments map[string]Fragment) (Plan, []fault.Field) {
	b := planner{fragments: fragments}
	var p Plan
	phase := func(phase Phase, steps []Step) []Unit {
		return b.units(steps, Unit{Phase: phase, Always: phase == PhaseTeardown}, "/"+string(phase))
	}
	p.Setup, p.Steps, p.Teardown = phase(PhaseSetup, s.Setup), phase(PhaseSteps, s.Steps), phase(PhaseTeardown, s.Teardown)
	p.Size, p.Decides, p.TeardownEvents = b.size, b.decides, events(p.Teardown)
	p.Events = events(p.Setup) + events(p.Steps) + p.TeardownEvents
	switch {
	case len(b.faults) > 0:
	case p.Size > limits.MaxSteps:
		b.refuse("/steps", "A test has at most %d steps, setup, teardown and those of fragments included.", limits.MaxSteps)
	case p.Events > p.MostEvents():
		b.refuse("/steps", "With all repetitions and rows the test comes to %d steps and assertions; there may be %d.", p.Events, p.MostEvents())
	}
	return p, b.faults
}

// MostEvents is what Events may come to: the attempt's, less the place for telling of each step twice that it was skipped.
func (p Plan) MostEvents() int { return limits.MaxRunEvents - 2*p.Size }

type planner struct {
	fragments map[string]Fragment
	within    []string // the fragments that one is in, the outermost first
	size      int
	decides   bool
	faults    []fault.Field
}

func (b *planner) refuse(at, format string, args ...any) {
	b.faults = append(b.faults, fault.Field{Pointer: at, Detail: fmt.Sprintf(format, args...)})
}

// units lays steps out. like holds what they take over from what they stand in.
func (b *planner) units(steps []Step, like Unit, at string) []Unit {
	if len(steps) == 0 {
		return nil
	}
	list := make([]Unit, 0, len(steps))
	for i := range steps {
		if b.size > limits.MaxSteps || len(b.faults) > 0 && len(b.within) > 0 {
			break // enough to refuse it; a fragment of fragments could be very large
		}
		u := like
		u.Step, u.Index = &steps[i], b.size
		u.Always = u.Always || u.Step.Always
		b.decides = b.decides || u.Step.If != ""
		if u.Step.Use == "" {
			b.size++
			u.Size, u.Events = 1, 1+len(u.Step.Assertions)
		} else {
			b.use(&u, at+"/"+strconv.Itoa(i))
		}
		list = append(list, u)
	}
	return list
}

// use fills in the steps of the fragment that u uses.
func (b *planner) use(u *Unit, at string) {
	name := u.Step.Use
	if len(b.within) > 0 {
		at, _, _ = strings.Cut(at, "/inner") // what is wrong in a fragment is told where the test uses it
	}
	f, ok := b.fragments[name]
	switch {
	case !ok && len(b.within) == 0:
		b.refuse(at+"/use", "The project has no fragment %s.", shorten(name, 64))
		return
	case !ok:
		b.refuse(at+"/use", "The fragment %s uses the fragment %s, which the project does not have.", b.within[len(b.within)-1], shorten(name, 64))
		return
	case slices.Contains(b.within, name):
		b.refuse(at+"/use", "Fragments use each other in a circle: %s.", strings.Join(append(slices.Clone(b.within), name), ", "))
		return
	case len(b.within) == limits.MaxFragmentDepth:
		b.refuse(at+"/use", "Fragments use each other more than %d deep: %s.", limits.MaxFragmentDepth, strings.Join(append(slices.Clone(b.within), name), ", "))
		return
	}
	b.parameters(u.Step.With, f.Parameters, name, at)
	b.within = append(b.within, name)
	inner := Unit{Phase: u.Phase, Fragment: name, Always: u.Always}
	u.Inner, u.Parameters = b.units(f.Steps, inner, at+"/inner"), f.Parameters
	if u.Inner == nil {
		u.Inner = []Unit{}
	}
	b.within = b.within[:len(b.within)-1]
	u.Size, u.Events = b.size-u.Index, events(u.Inner)
}

// parameters compares what a step gives with what the fragment asks for.
func (b *planner) parameters(with map[string]string, asked map[string]Parameter, name, at string) {
	for _, p := range sorted(with) {
		if _, ok := asked[p]; !ok {
			b.refuse(at+"/with/"+escapePointer(p), "The fragment %s has no parameter of this name%s.", name, among(sorted(asked)))
		}
	}
	for _, p := range sorted(asked) {
		if _, given := with[p]; !given && asked[p].Default == nil {
			b.refuse(at+"/with", "The fragment %s needs the parameter %s.", name, p)
		}
	}
}

func among(names []string) string {
	if len(names) == 0 {
		return ": it has none"
	}
	return "; it has " + strings.Join(names, ", ")
}

// events is what units come to with all their iterations, at most a little more than is allowed.
func events(units []Unit) int {
	sum := 0
	for i := range units {
		sum += units[i].Events * units[i].Step.iterations()
		if sum > 100*limits.MaxRunEvents {
			return sum // it must not overflow
		}
	}
	return sum
}

// iterations is how often a step is executed, one for a list that is not known yet.
func (s *Step) iterations() int {
	switch {
	case s.Repeat != nil:
		return *s.Repeat
	case s.ForEach != nil && s.ForEach.Variable == "":
		return len(s.ForEach.Rows)
	}
	return 1
}

// Uses returns the names of the fragments that steps use, each once, in order.
func Uses(steps ...[]Step) (names []string) {
	for _, list := range steps {
		for _, s := range list {
			if s.Use != "" && !slices.Contains(names, s.Use) {
				names = append(names, s.Use)
			}
		}
	}
	slices.Sort(names)
	return names
}

// Uses returns the names of the fragments that the spec itself uses, each once, in order.
func (s Spec) Uses() []string { return Uses(s.Setup, s.Steps, s.Teardown) }

// SafeToRepeat returns whether a run may be sent twice: every request of it, in setup, teardown and fragments too, is
// GET, HEAD or OPTIONS, or the spec says so. What a retry repeats while the attempt lives is no matter of this.
func (s Spec) SafeToRepeat(fragments map[string]Fragment) bool {
	if s.RerunOnWorkerLoss {
		return true
	}
	p, faults := s.Plan(fragments)
	return len(faults) == 0 && safe(p.Setup) && safe(p.Steps) && safe(p.Teardown)
}

func safe(units []Unit) bool {
	for i := range units {
		u := &units[i]
		if u.Inner != nil {
			if !safe(u.Inner) {
				return false
			}
			continue
		}
		switch u.Step.Request.Method {
		case "GET", "HEAD", "OPTIONS":
		default:
			return false
		}
	}
	return true
}
