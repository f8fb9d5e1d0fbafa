package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"sort"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/run"
)

// ListRuns answers GET /api/runs.
func (a *api) ListRuns(ctx context.Context, req oapi.ListRunsRequestObject) (oapi.ListRunsResponseObject, error) {
	cursor, err := after[run.Cursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	p := req.Params
	filter := run.Filter{
		ProjectIDs: list(p.ProjectId), TestIDs: list(p.TestId), Regions: list(p.Region),
		Statuses: each(list(p.Status), func(s oapi.RunStatus) run.Status { return run.Status(s) }),
		Triggers: each(list(p.Trigger), func(t oapi.RunTrigger) run.Trigger { return run.Trigger(t) }),
		From:     instant(p.From), To: instant(p.To), Limit: a.pageLimit(p.Limit), After: cursor,
	}
	if p.SuiteId != nil {
		filter.SuiteID = *p.SuiteId
	}
	items, next, err := a.deps.Runs.List(ctx, orgOf(ctx), filter)
	if err != nil {
		return nil, err
	}
	answer := oapi.ListRuns200JSONResponse{Body: oapi.RunList{Items: each(items, runView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// instant returns an optional time, zero when it is absent.
func instant(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// GetRun answers GET /api/runs/{id}.
func (a *api) GetRun(ctx context.Context, req oapi.GetRunRequestObject) (oapi.GetRunResponseObject, error) {
	d, err := a.deps.Runs.Get(ctx, orgOf(ctx), req.Id)
	if err != nil {
		return nil, err
	}
	return oapi.GetRun200JSONResponse(runDetail(d)), nil
}

// eventCursor is the place in the events of a run after which the next page begins.
type eventCursor struct {
	Position int64 `json:"position"`
}

// ListRunEvents answers GET /api/runs/{id}/events.
func (a *api) ListRunEvents(ctx context.Context, req oapi.ListRunEventsRequestObject) (oapi.ListRunEventsResponseObject, error) {
	cursor, err := after[eventCursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	events, err := a.deps.Runs.Events(ctx, orgOf(ctx), req.Id)
	if err != nil {
		return nil, err
	}
	if cursor != nil {
		events = events[sort.Search(len(events), func(i int) bool { return events[i].Position > cursor.Position }):]
	}
	var next *eventCursor
	if limit := a.pageLimit(req.Params.Limit); len(events) > limit {
		events = events[:limit]
		next = &eventCursor{Position: events[limit-1].Position}
	}
	subject := run.Kind + "/" + req.Id.String()
	answer := oapi.ListRunEvents200JSONResponse{Body: oapi.EventList{Items: each(events, func(e run.EventView) oapi.Event {
		return oapi.Event{
			Id: e.ID, Type: e.Type, Position: e.Position, RecordedAt: oapi.At(e.RecordedAt), Subject: subject, Version: &e.Version, Data: e.Data,
		}
	})}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// GetStepResponse answers GET /api/runs/{id}/steps/{n}/response.
func (a *api) GetStepResponse(ctx context.Context, req oapi.GetStepResponseRequestObject) (oapi.GetStepResponseResponseObject, error) {
	attempt := 0
	if req.Params.Attempt != nil {
		attempt = int(*req.Params.Attempt)
	}
	iteration := 0
	if req.Params.Iteration != nil {
		iteration = int(*req.Params.Iteration)
	}
	b, err := a.deps.Runs.StepResponse(ctx, orgOf(ctx), req.Id, int(req.N), attempt, iteration)
	if err != nil {
		return nil, err
	}
	view := oapi.GetStepResponse200JSONResponse{
		Attempt: b.Attempt, Step: b.Step, Iteration: b.Iteration, Status: b.Status, ContentType: some(b.ContentType), Size: b.Size, Truncated: b.Truncated,
		Headers: each(b.Headers, same[run.Header]), HeadersTruncated: b.HeadersTruncated, RequestHeaders: each(b.RequestHeaders, same[run.Header]),
		Encoding: oapi.Text, Body: string(b.Body),
	}
	if !utf8.Valid(b.Body) {
		view.Encoding, view.Body = oapi.Base64, base64.StdEncoding.EncodeToString(b.Body)
	}
	return view, nil
}

func same[T any](v T) T { return v }

// CancelRun answers POST /api/runs/{id}/cancel.
func (a *api) CancelRun(ctx context.Context, req oapi.CancelRunRequestObject) (oapi.CancelRunResponseObject, error) {
	r, err := a.deps.Runs.Cancel(ctx, orgOf(ctx), req.Id)
	if err != nil {
		return nil, err
	}
	return oapi.CancelRun202JSONResponse{Body: runView(r), Headers: oapi.CancelRun202ResponseHeaders{
		Location: "/api/runs/" + r.ID.String(), XEventPosition: positionHeader(r.Position),
	}}, nil
}

// Rerun answers POST /api/runs/{id}/rerun.
func (a *api) Rerun(ctx context.Context, req oapi.RerunRequestObject) (oapi.RerunResponseObject, error) {
	r, err := a.deps.Runs.Rerun(ctx, orgOf(ctx), req.Id)
	if err != nil {
		return nil, err
	}
	return oapi.Rerun202JSONResponse{Body: oapi.Runs{Runs: []oapi.Run{runView(r)}}, Headers: oapi.Rerun202ResponseHeaders{
		Location: "/api/runs/" + r.ID.String(), XEventPosition: positionHeader(r.Position),
	}}, nil
}

// awaitRuns waits until the runs have ended, at most limit, and returns them as they are then.
func (s *Server) awaitRuns(ctx context.Context, ids []uuid.UUID, limit time.Duration) (runs []run.Run, allEnded bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if runs, err = s.deps.Runs.WaitFinished(ctx, orgOf(ctx), ids); err != nil {
		return nil, false, err
	}
	allEnded = len(runs) == len(ids)
	for _, r := range runs {
		allEnded = allEnded && r.Status.Ended()
	}
	return runs, allEnded, nil
}

func optionalInstant(t *time.Time) *oapi.Instant {
	if t == nil {
		return nil
	}
	return ptr(oapi.At(*t))
}

func runView(r run.Run) oapi.Run {
	view := oapi.Run{
		Id: r.ID, TestId: r.TestID, TestName: r.TestName, Revision: r.Revision, ProjectId: r.ProjectID,
		EnvironmentId: some(r.EnvironmentID), EnvironmentName: some(r.EnvironmentName), SuiteId: some(r.SuiteID), RerunOf: some(r.RerunOf),
		Region: r.Region, Trigger: oapi.RunTrigger(r.Trigger), Status: oapi.RunStatus(r.Status), Reason: some(oapi.RunReason(r.Reason)), Error: r.Error,
		Attempts: r.Attempts, RequestedAt: oapi.At(r.RequestedAt), RequestedBy: oapi.RunActor{Kind: oapi.RunActorKind(r.RequestedBy.Kind), Id: some(r.RequestedBy.ID)},
		StartedAt: optionalInstant(r.StartedAt), FinishedAt: optionalInstant(r.FinishedAt), Counts: r.Counts,
	}
	if r.Status.Ended() {
		view.DurationMs, view.QueuedMs = &r.DurationMs, &r.QueuedMs
	}
	return view
}

func runDetail(d run.Detail) oapi.RunDetail {
	r := runView(d.Run)
	view := oapi.RunDetail{
		Id: r.Id, TestId: r.TestId, TestName: r.TestName, Revision: r.Revision, ProjectId: r.ProjectId, EnvironmentId: r.EnvironmentId,
		EnvironmentName: r.EnvironmentName, SuiteId: r.SuiteId, RerunOf: r.RerunOf, Region: r.Region, Trigger: r.Trigger, Status: r.Status,
		Reason: r.Reason, Error: r.Error, Attempts: r.Attempts, RequestedAt: r.RequestedAt, RequestedBy: r.RequestedBy, StartedAt: r.StartedAt,
		FinishedAt: r.FinishedAt, DurationMs: r.DurationMs, QueuedMs: r.QueuedMs, Counts: r.Counts,
		AttemptResults: each(d.AttemptResults, attemptView), Steps: each(d.Steps, stepView),
	}
	if len(d.Variables) > 0 {
		view.Variables = ptr(oapi.Variables(d.Variables))
	}
	return view
}

func attemptView(a run.Attempt) oapi.AttemptResult {
	view := oapi.AttemptResult{
		Attempt: a.Attempt, Region: a.Region, Worker: some(a.Worker), Status: oapi.RunStatus(a.Status), Reason: some(oapi.RunReason(a.Reason)),
		Error: a.Error, StartedAt: optionalInstant(a.StartedAt), FinishedAt: optionalInstant(a.FinishedAt),
	}
	if a.Status.Ended() {
		view.DurationMs, view.Counts = &a.DurationMs, &a.Counts
	}
	return view
}

func stepView(s run.StepResult) oapi.StepResult {
	view := oapi.StepResult{
		Index: s.Step, Iteration: s.Iteration, Phase: oapi.StepResultPhaseSteps, Fragment: some(s.Fragment), Tries: some(s.Tries), Attempt: s.Attempt, Name: s.Name, Status: oapi.StepResultStatus(s.Status), Request: s.Request, Timings: s.Timings,
		DurationMs: s.DurationMs, Error: s.Error, Captures: each(s.Captures, same[run.Capture]), Assertions: each(s.Assertions, assertionView),
	}
	if s.Phase != "" {
		view.Phase = oapi.StepResultPhase(s.Phase)
	}
	if !s.StartedAt.IsZero() {
		view.StartedAt = ptr(oapi.At(s.StartedAt))
	}
	if a := s.Response; a != nil {
		view.Response = &oapi.StepAnswer{
			Status: a.Status, HttpVersion: some(a.HTTPVersion), RemoteAddress: some(a.RemoteAddress), ContentType: some(a.ContentType),
			Reused: some(a.Reused), Tls: a.TLS, Size: a.Size, WireSize: a.WireSize, Sha256: some(a.SHA256), BodyKept: a.BodyRef != "", Truncated: some(a.Truncated),
		}
		if len(a.Redirects) > 0 {
			view.Response.Redirects = &a.Redirects
		}
	}
	return view
}

func assertionView(a run.AssertionEvaluated) oapi.AssertionResult {
	view := oapi.AssertionResult{
		Index: a.Index, Quantifier: some(a.Quantifier), Source: a.Source, Property: some(a.Property), Operator: a.Operator, Not: some(a.Not), Expected: rawJSON(a.Expected), Actual: rawJSON(a.Actual),
		ExpectedTruncated: some(a.ExpectedTruncated), ActualTruncated: some(a.ActualTruncated), ActualSize: some(a.ActualSize),
		Pass: a.Pass, Severity: oapi.AssertionResultSeverity(a.Severity), Message: some(a.Message),
	}
	if len(a.Filters) > 0 {
		view.Filters = &a.Filters
	}
	return view
}

func rawJSON(raw json.RawMessage) *json.RawMessage {
	if raw == nil {
		return nil
	}
	return &raw
}
