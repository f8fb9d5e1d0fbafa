package run

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// enter brings into the scope what a step had: the loops, variables and fragments that it stands in, and its own. gap
// says why its rows are not known. leave takes it out again.
func (j *rejudging) enter(l leaf, res StepResult) (gap string) {
	many := l.loops() > 1
	if many {
		gap = whyLoops
	}
	for _, u := range append(slices.Clip(l.parents), l.unit) {
		e := j.entered[u]
		// A fragment begins anew with its first request, unless that is repeated by itself.
		again := u != l.unit && u.Index == res.Step && (j.last != res.Step || !l.unit.Step.Looped())
		first := e == nil || again
		if first {
			fresh := &entry{}
			if e != nil {
				fresh.rows, fresh.gap = e.rows, e.gap
			}
			e = fresh
			j.entered[u] = e
		}
		if u.Step.Looped() && !many {
			if why := j.iterate(u, e, res.Iteration); why != "" {
				gap = why
			}
		}
		if u == l.unit || first {
			e.variables = j.values(u.Step.Variables, gap)
		}
		j.scope.EnterStep(e.variables)
		if u.Inner != nil {
			if first {
				e.parameters = j.values(u.Step.With, gap)
				for name, p := range u.Parameters {
					if _, given := e.parameters[name]; !given && p.Default != nil {
						e.parameters[name] = *p.Default
					}
				}
			}
			j.scope.EnterFragment(e.parameters)
		}
	}
	return gap
}

// iterate enters an iteration.
func (j *rejudging) iterate(u *testspec.Unit, e *entry, index int) (gap string) {
	var row json.RawMessage
	as := testspec.DefaultRow
	if each := u.Step.ForEach; each != nil {
		as = each.Row()
		if index == 0 || e.rows == nil {
			if e.rows, e.gap = j.scope.Rows(each); e.gap != "" {
				e.gap = "The rows of the loop are not kept."
			}
		}
		switch {
		case e.gap != "":
			gap = e.gap
		case index >= len(e.rows):
			gap = "The row of the loop is not kept."
		default:
			row = e.rows[index]
		}
	}
	if j.scope.IterateAs(index, as, row) != nil {
		gap = "The row of the loop cannot be read."
		_ = j.scope.IterateAs(index, as, nil) // cannot fail without a row
	}
	return gap
}

func (j *rejudging) leave(l leaf) {
	many := l.loops() > 1
	for _, u := range slices.Backward(append(slices.Clip(l.parents), l.unit)) {
		if u.Inner != nil {
			j.scope.LeaveFragment()
		}
		j.scope.LeaveStep()
		if u.Step.Looped() && !many {
			j.scope.EndIteration()
		}
	}
}

// values puts variables into texts; what cannot be known is marked.
func (j *rejudging) values(templates map[string]string, gap string) map[string]string {
	out := make(map[string]string, len(templates))
	for _, name := range slices.Sorted(maps.Keys(templates)) {
		out[name] = j.value(templates[name], gap)
	}
	return out
}

func (j *rejudging) value(template, gap string) string {
	for _, ref := range testspec.References(template) {
		switch {
		case strings.HasPrefix(ref, testspec.SecretScope):
			return j.mark(whySecret)
		case strings.HasPrefix(ref, "$") && ref != "$index":
			return j.mark(whyGenerated)
		case gap != "" && !testspec.IsVariableName(ref):
			return j.mark(gap)
		}
	}
	text, err := j.scope.Expand(template, limits.MaxVariableValue)
	var undefined *testspec.UndefinedError
	switch {
	case errors.As(err, &undefined) && gap != "":
		return j.mark(gap)
	case err != nil:
		return j.mark("A variable of the step has no value: " + err.Error() + ".")
	}
	return text
}

// unknownVariables are the names that a step sees and whose values are not known, with why.
func (j *rejudging) unknownVariables(l leaf) map[string]string {
	out := maps.Clone(j.own)
	maps.Copy(out, j.captured)
	for _, u := range append(slices.Clip(l.parents), l.unit) {
		for _, layer := range []map[string]string{j.entered[u].variables, j.entered[u].parameters} {
			for name, text := range layer {
				for marker, why := range j.unknown {
					if strings.Contains(text, marker) {
						out[name] = why
					}
				}
			}
		}
	}
	return out
}

// duration reads milliseconds as events hold them.
func duration(ms *float64) time.Duration {
	if ms == nil {
		return 0
	}
	return time.Duration(math.Round(*ms*1000)) * time.Microsecond
}
