package testspec

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// WithLimits makes Validate hold a spec to what this installation allows, where that is less than limits.go's constants.
func WithLimits(t limits.Tests) Option {
	return func(v *validator) { v.lower = t.OrMost() }
}

// OverLimits returns what of s is over t, each with its pointer; nil when nothing is.
func OverLimits(s Spec, t limits.Tests) []fault.Field {
	if t = t.OrMost(); t == (limits.Tests{}).OrMost() {
		return nil // Validate holds it to those
	}
	var faults []fault.Field
	refuse := func(at, format string, args ...any) {
		faults = append(faults, fault.Field{Pointer: at, Detail: fmt.Sprintf(format, args...)})
	}
	if n := len(s.Setup) + len(s.Steps) + len(s.Teardown); n > t.Steps {
		refuse("/steps", "A test has at most %d steps here, and this one %d.", t.Steps, n)
	}
	if time.Duration(s.Timeout) > t.RunTime {
		refuse("/timeout", "A run takes at most %s here.", Duration(t.RunTime))
	}
	for _, list := range []struct {
		name  string
		steps []Step
	}{{"setup", s.Setup}, {"steps", s.Steps}, {"teardown", s.Teardown}} {
		for i, step := range list.steps {
			at := "/" + list.name + "/" + strconv.Itoa(i)
			if n := len(step.Assertions); n > t.Assertions {
				refuse(at+"/assertions", "A step has at most %d assertions here, and this one %d.", t.Assertions, n)
			}
			if n := len(step.Captures); n > t.Captures {
				refuse(at+"/captures", "A step has at most %d captures here, and this one %d.", t.Captures, n)
			}
			if n := step.Request.MaxRedirects; n != nil && *n > t.Redirects {
				refuse(at+"/request/maxRedirects", "There are at most %d redirects here.", t.Redirects)
			}
			if time.Duration(step.Request.Timeout) > t.RunTime {
				refuse(at+"/request/timeout", "A request takes at most %s here.", Duration(t.RunTime))
			}
		}
	}
	return faults
}

// selectorTimeKey is where a context has how long one path or selector may take.
type selectorTimeKey struct{}

// WithSelectorTime returns a context in which each path, selector and pattern takes d at most; limits.SelectorTime is the
// most.
func WithSelectorTime(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, selectorTimeKey{}, d)
}

func selectorTime(ctx context.Context) time.Duration {
	if d, ok := ctx.Value(selectorTimeKey{}).(time.Duration); ok && d > 0 {
		return min(d, limits.SelectorTime)
	}
	return limits.SelectorTime
}
