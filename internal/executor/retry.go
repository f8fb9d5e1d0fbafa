package executor

import (
	"context"
	"fmt"

	"github.com/testflow/testflow/internal/testspec"
)

// until says what a retry is still waiting for, nil when the answer is what it waits for or there is no retry. The second
// error is of what cannot be asked at all.
func (r *runner) until(ctx context.Context, subject *testspec.Subject, retry *testspec.Retry) (waiting, failed *Error) {
	if retry == nil {
		return nil, nil
	}
	wait := func(why string) *Error {
		return &Error{Code: CodeUntil, again: true, Message: fmt.Sprintf("What the retry waits for did not come in %d tries: %s", retry.Tries(), why)}
	}
	if src := retry.Until.Expression; src != "" {
		yes, err := testspec.EvalBool(ctx, src, r.scope, subject)
		switch {
		case err != nil:
			// An answer on the way may have another form, so that is no end; if it is the last one, it is told.
			return &Error{Code: CodeExpression, again: true, Message: "What the retry waits for has no value: " + err.Error() + "."}, nil
		case !yes:
			return wait("the expression is false."), nil
		}
		return nil, nil
	}
	assertions, failed := r.expandAssertions(retry.Until.Assertions)
	if failed != nil {
		return nil, failed
	}
	for _, a := range assertions {
		if v := subject.Judge(ctx, a); !v.Pass {
			return wait(v.Message), nil
		}
	}
	return nil, nil
}
