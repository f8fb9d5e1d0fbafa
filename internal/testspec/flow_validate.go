package testspec

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// WithFragments makes Validate look into the fragments, by name, that steps use. Without it any name is accepted.
func WithFragments(fragments map[string]Fragment) Option {
	return func(v *validator) { v.fragments, v.knowsFragments = fragments, true }
}

// loopNames are the names that a loop brings.
type loopNames struct {
	as     string // "" within repeat
	fields map[string]bool
	any    bool // the rows are not known yet
	scalar bool // some row is no object
}

// phases checks setup, steps and teardown, in the order in which names become known.
func (v *validator) phases(s Spec) {
	n := len(s.Setup) + len(s.Steps) + len(s.Teardown)
	switch {
	case len(s.Steps) == 0:
		v.refuse("/steps", "A test has at least one step.")
	case n > limits.MaxSteps:
		v.refuse("/steps", "A test has at most %d steps.", limits.MaxSteps)
		return
	}
	for _, phase := range []struct {
		at    string
		steps []Step
	}{{"/setup", s.Setup}, {"/steps", s.Steps}, {"/teardown", s.Teardown}} {
		for i, step := range phase.steps {
			v.step(step, phase.at+"/"+strconv.Itoa(i))
		}
	}
	fragments := v.fragments
	if !v.knowsFragments {
		fragments = unknownFragments(s)
	}
	_, faults := s.Plan(fragments)
	for _, f := range faults {
		if v.knowsFragments || !strings.Contains(f.Pointer, "/with") {
			v.faults = append(v.faults, f)
		}
	}
}

// unknownFragments stands for fragments of which nothing is known.
func unknownFragments(s Spec) map[string]Fragment {
	names := s.Uses()
	if names == nil {
		return nil
	}
	m := make(map[string]Fragment, len(names))
	for _, name := range names {
		m[name] = Fragment{}
	}
	return m
}

// flow checks the fields of a step's flow that come before its request, and lets the names that it brings be known until
// leave is called.
func (v *validator) flow(s Step, at string) (leave func()) {
	if s.If != "" {
		if err := CheckExpression(s.If); err != nil {
			v.refuse(at+"/if", "%s.", sentence(err.Error()))
		}
	}
	if utf8.RuneCountInString(s.Skip.Reason) > limits.MaxSkipReason {
		v.refuse(at+"/skip", "A reason has at most %d characters.", limits.MaxSkipReason)
	}
	if time.Duration(s.Delay) > limits.MaxTimeout {
		v.refuse(at+"/delay", "A step waits at most %s.", Duration(limits.MaxTimeout))
	}
	looped := v.loop(s, at)
	v.values(s.Variables, at+"/variables")
	var news []string
	for name := range s.Variables {
		if !v.known[name] {
			v.known[name] = true
			news = append(news, name)
		}
	}
	return func() {
		if looped {
			v.loops = v.loops[:len(v.loops)-1]
		}
		for _, name := range news {
			delete(v.known, name)
		}
	}
}

// loop checks repeat and forEach and returns whether there is a loop, whose names are then known.
func (v *validator) loop(s Step, at string) bool {
	if s.Repeat != nil && (*s.Repeat < 1 || *s.Repeat > limits.MaxIterations) {
		v.refuse(at+"/repeat", "This is a number from 1 to %d.", limits.MaxIterations)
	}
	if s.ForEach == nil {
		if s.Repeat != nil {
			v.loops = append(v.loops, loopNames{})
		}
		return s.Repeat != nil
	}
	at += "/forEach"
	if s.Repeat != nil {
		v.refuse(at, "A step has repeat or forEach, not both.")
	}
	f, names := s.ForEach, loopNames{as: s.ForEach.Row(), fields: map[string]bool{}}
	if !IsVariableName(names.as) || names.as == "secrets" {
		v.refuse(at+"/as", "A row's name is that of a variable: a letter or _, then letters, digits, _ and -, at most %d characters.", limits.MaxVariableName)
	}
	switch {
	case f.Variable != "" && f.Rows != nil:
		v.refuse(at, "forEach has rows or a variable, not both.")
	case f.Variable != "":
		names.any = true
		if !IsVariableName(f.Variable) {
			v.refuse(at+"/variable", "This is the name of a variable that holds a JSON list.")
		} else {
			v.template("{{"+f.Variable+"}}", at+"/variable")
		}
	case len(f.Rows) == 0:
		v.refuse(at+"/rows", "forEach needs rows, or a variable that holds them.")
	case len(f.Rows) > limits.MaxIterations:
		v.refuse(at+"/rows", "There are at most %d rows.", limits.MaxIterations)
	default:
		v.rows(f.Rows, &names, at+"/rows")
	}
	v.loops = append(v.loops, names)
	return true
}

func (v *validator) rows(rows []json.RawMessage, names *loopNames, at string) {
	for i, raw := range rows {
		here := at + "/" + strconv.Itoa(i)
		tree, faults, err := readTree(raw, limits.MaxSpecBytes)
		if err != nil {
			v.refuse(here, "This is not JSON.")
			continue
		}
		for _, f := range faults {
			f.Pointer = here + f.Pointer
			v.faults = append(v.faults, f)
		}
		if len(raw) > limits.MaxVariableValue {
			v.refuse(here, "A row has at most %d bytes.", limits.MaxVariableValue)
		}
		if mayHoldReference(raw) && strings.Contains(string(raw), "{{") {
			v.refuse(here, "A row is taken as it is; {{…}} in it is not replaced. Put both references where they are used.")
		}
		if tree.kind != '{' {
			names.scalar = true
			continue
		}
		for _, key := range tree.keys {
			names.fields[key] = true
		}
	}
}

// loopName says whether ref is the count or a part of the row of a loop that one is in; why is a sentence that says what
// is wrong when it looks like one and isn't.
func (v *validator) loopName(ref string) (known bool, why string) {
	if ref == indexReference {
		if len(v.loops) == 0 {
			return false, "{{$index}} has a value only within repeat and forEach."
		}
		return true, ""
	}
	scope, field, dotted := strings.Cut(ref, ".")
	for _, l := range slices.Backward(v.loops) {
		if l.as == "" || l.as != scope {
			continue
		}
		switch {
		case !dotted, l.any, l.fields[field]:
			return true, ""
		case len(l.fields) == 0:
			return false, "{{" + ref + "}}: the rows are no objects; write {{" + scope + "}}."
		}
		return false, "{{" + ref + "}}: no row has a field of this name."
	}
	return false, ""
}

// values checks the names of variables and the templates that are their values.
func (v *validator) values(m map[string]string, at string) {
	if len(m) > limits.MaxVariables {
		v.refuse(at, "There are at most %d variables.", limits.MaxVariables)
		return
	}
	for _, name := range sorted(m) {
		here := at + "/" + escapePointer(name)
		if !IsVariableName(name) {
			v.refuse(here, "A variable's name is a letter or _, then letters, digits, _ and -, at most %d characters.", limits.MaxVariableName)
		}
		if len(m[name]) > limits.MaxVariableValue {
			v.refuse(here, "A variable has at most %d bytes.", limits.MaxVariableValue)
			continue
		}
		v.template(m[name], here)
	}
}

// use checks a step that uses a fragment.
func (v *validator) use(s Step, at string) {
	if !IsVariableName(s.Use) {
		v.refuse(at+"/use", "A fragment's name is a letter or _, then letters, digits, _ and -, at most %d characters.", limits.MaxVariableName)
	}
	if !reflect.ValueOf(s.Request).IsZero() {
		v.refuse(at+"/request", "A step has a request or uses a fragment, not both.")
	}
	if len(s.Assertions) > 0 {
		v.refuse(at+"/assertions", "A step that uses a fragment has no assertions of its own.")
	}
	if len(s.Captures) > 0 {
		v.refuse(at+"/captures", "A step that uses a fragment has no captures of its own; those of the fragment are known after it.")
	}
	v.values(s.With, at+"/with")
	v.fragmentCaptures(s.Use, 0)
}

// fragmentCaptures makes known what the steps of a fragment capture.
func (v *validator) fragmentCaptures(name string, depth int) {
	if depth > limits.MaxFragmentDepth {
		return // told by Plan
	}
	for _, s := range v.fragments[name].Steps {
		for _, c := range s.Captures {
			v.known[c.Name] = true
		}
		if s.Use != "" {
			v.fragmentCaptures(s.Use, depth+1)
		}
	}
}

// retry checks a request's retry.
func (v *validator) retry(r *Retry, at string) {
	if r == nil {
		return
	}
	switch u := r.Until; {
	case u.Expression != "":
		if err := CheckExpression(u.Expression); err != nil {
			v.refuse(at+"/until", "%s.", sentence(err.Error()))
		}
	case len(u.Assertions) == 0:
		v.refuse(at+"/until", "A retry says until when: an expression, or a list of assertions.")
	case len(u.Assertions) > limits.MaxAssertions:
		v.refuse(at+"/until", "There are at most %d assertions.", limits.MaxAssertions)
	default:
		for i, a := range u.Assertions {
			v.assertion(a, at+"/until/"+strconv.Itoa(i))
		}
	}
	if n := r.Tries(); n < 1 || n > limits.MaxTries {
		v.refuse(at+"/attempts", "This is a number from 1 to %d.", limits.MaxTries)
	}
	if time.Duration(r.Delay) > limits.MaxTimeout {
		v.refuse(at+"/delay", "A pause is at most %s.", Duration(limits.MaxTimeout))
	}
	if r.Backoff != "" && !slices.Contains(Backoffs(), string(r.Backoff)) {
		v.refuse(at+"/backoff", "This is one of %s.", strings.Join(Backoffs(), ", "))
	}
	switch {
	case r.MaxDelay != 0 && r.Backoff != BackoffExponential:
		v.refuse(at+"/maxDelay", "Only the pauses of the backoff exponential grow.")
	case time.Duration(r.MaxDelay) > limits.MaxTimeout:
		v.refuse(at+"/maxDelay", "A pause is at most %s.", Duration(limits.MaxTimeout))
	case r.MaxDelay != 0 && r.MaxDelay < r.Delay:
		v.refuse(at+"/maxDelay", "The longest pause is not shorter than the first.")
	}
}

// ReadFragment parses and validates a fragment as Read does a spec; pointers are relative to it. What it uses is checked
// with WithFragments.
func ReadFragment(data []byte, opts ...Option) (Fragment, error) {
	tree, faults, err := readSource(data)
	if err != nil {
		return Fragment{}, err
	}
	var f Fragment
	d := decoder{faults: faults}
	d.decode(tree, reflect.ValueOf(&f).Elem(), "")
	faults = d.faults
	for _, found := range ValidateFragment(f, opts...) {
		if !related(faults, found.Pointer) {
			faults = append(faults, found)
		}
	}
	if faults != nil {
		return f, invalid(faults)
	}
	return f, nil
}

// ValidateFragment returns everything that is wrong with f; nil when nothing is. References to variables that are neither
// parameters nor captured in it are the test's, so any name is accepted.
func ValidateFragment(f Fragment, opts ...Option) []fault.Field {
	v := &validator{known: map[string]bool{}}
	for _, o := range append(opts, WithAnyName()) {
		o(v)
	}
	if len(f.Parameters) > limits.MaxVariables {
		v.refuse("/parameters", "A fragment has at most %d parameters.", limits.MaxVariables)
	}
	for _, name := range sorted(f.Parameters) {
		at, p := "/parameters/"+escapePointer(name), f.Parameters[name]
		if !IsVariableName(name) {
			v.refuse(at, "A parameter's name is a letter or _, then letters, digits, _ and -, at most %d characters.", limits.MaxVariableName)
		}
		if utf8.RuneCountInString(p.Description) > limits.MaxDescription {
			v.refuse(at+"/description", "A description has at most %d characters.", limits.MaxDescription)
		}
		if p.Default != nil && len(*p.Default) > limits.MaxVariableValue {
			v.refuse(at+"/default", "A variable has at most %d bytes.", limits.MaxVariableValue)
		}
		if p.Default != nil && strings.Contains(*p.Default, "{{") {
			v.refuse(at+"/default", "A default is taken as it is; {{…}} in it is not replaced.")
		}
		v.known[name] = true
	}
	switch {
	case len(f.Steps) == 0:
		v.refuse("/steps", "A fragment has at least one step.")
	case len(f.Steps) > limits.MaxSteps:
		v.refuse("/steps", "A fragment has at most %d steps.", limits.MaxSteps)
		return v.faults
	}
	for i, step := range f.Steps {
		v.step(step, "/steps/"+strconv.Itoa(i))
	}
	return v.faults
}
