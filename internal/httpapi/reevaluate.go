package httpapi

import (
	"context"
	"encoding/json"

	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/run"
)

// ReevaluateRun answers POST /api/runs/{id}/reevaluate.
func (a *api) ReevaluateRun(ctx context.Context, req oapi.ReevaluateRunRequestObject) (oapi.ReevaluateRunResponseObject, error) {
	r, err := a.deps.Runs.Reevaluate(ctx, orgOf(ctx), req.Id, optionalBody(req.Body))
	if err != nil {
		return nil, err
	}
	return oapi.ReevaluateRun200JSONResponse{
		RunId: r.RunID, TestId: r.TestID, RecordedStatus: oapi.RunStatus(r.RecordedStatus), Status: oapi.ReevaluatedStatus(r.Status), Flipped: r.Flipped(),
		Steps: each(r.Steps, stepReevaluationView),
	}, nil
}

// ReevaluateTest answers POST /api/tests/{id}/reevaluate.
func (a *api) ReevaluateTest(ctx context.Context, req oapi.ReevaluateTestRequestObject) (oapi.ReevaluateTestResponseObject, error) {
	cursor, err := after[run.ReevaluationCursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Runs.ReevaluateTest(ctx, orgOf(ctx), req.Id, optionalBody(req.Body), cursor)
	if err != nil {
		return nil, err
	}
	answer := oapi.ReevaluateTest200JSONResponse{Judged: len(items), Partial: next != nil, Items: each(items, reevaluatedRun)}
	for _, r := range items {
		if r.Flipped() {
			answer.Flipped++
		}
		if r.Status == run.Undecided {
			answer.Undecided++
		}
	}
	answer.NextCursor, _, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// optionalBody is a body that may be left out.
func optionalBody(body *json.RawMessage) json.RawMessage {
	if body == nil {
		return nil
	}
	return *body
}

func reevaluatedRun(r run.Reevaluation) oapi.ReevaluatedRun {
	view := oapi.ReevaluatedRun{
		RunId: r.RunID, RequestedAt: oapi.At(r.RequestedAt), RecordedStatus: oapi.RunStatus(r.RecordedStatus), Status: oapi.ReevaluatedStatus(r.Status), Flipped: r.Flipped(),
	}
	if f := r.First; f != nil {
		view.FirstFailure = &oapi.ReevaluatedFailure{
			Step: f.Step, Iteration: f.Iteration, Name: f.Name, Status: oapi.ReevaluatedFailureStatus(f.Status), Message: f.Reason,
		}
	}
	return view
}

func stepReevaluationView(s run.StepReevaluation) oapi.StepReevaluation {
	return oapi.StepReevaluation{
		Step: s.Step, Iteration: s.Iteration, Name: s.Name, RecordedStatus: oapi.StepReevaluationRecordedStatus(s.RecordedStatus),
		Status: oapi.StepReevaluationStatus(s.Status), Reason: some(s.Reason), Assertions: each(s.Assertions, rejudgedView),
	}
}

func rejudgedView(r run.Rejudged) oapi.ReevaluatedAssertion {
	a := assertionView(r.AssertionEvaluated)
	return oapi.ReevaluatedAssertion{
		Index: a.Index, Source: a.Source, Property: a.Property, Filters: a.Filters, Quantifier: a.Quantifier, Operator: a.Operator, Not: a.Not,
		Expected: a.Expected, Actual: a.Actual, ExpectedTruncated: a.ExpectedTruncated, ActualTruncated: a.ActualTruncated, ActualSize: a.ActualSize,
		Pass: a.Pass, Severity: oapi.ReevaluatedAssertionSeverity(a.Severity), Message: a.Message, Undecided: some(r.Undecided),
	}
}
