package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/run"
)

// ListTests answers GET /api/tests.
func (a *api) ListTests(ctx context.Context, req oapi.ListTestsRequestObject) (oapi.ListTestsResponseObject, error) {
	cursor, err := after[apitest.Cursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Tests.List(ctx, orgOf(ctx), apitest.Filter{
		ProjectIDs: list(req.Params.ProjectId), Tags: list(req.Params.Tag), Query: text(req.Params.Q),
		Limit: a.pageLimit(req.Params.Limit), After: cursor,
	})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListTests200JSONResponse{Body: oapi.TestList{Items: each(items, testSummary)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// CreateTest answers POST /api/tests.
func (a *api) CreateTest(ctx context.Context, req oapi.CreateTestRequestObject) (oapi.CreateTestResponseObject, error) {
	t, err := a.deps.Tests.Create(ctx, orgOf(ctx), *req.Body)
	if err != nil {
		return nil, err
	}
	view, err := testView(t)
	if err != nil {
		return nil, err
	}
	return oapi.CreateTest201JSONResponse{Body: view, Headers: oapi.CreateTest201ResponseHeaders{
		Location: "/api/tests/" + t.ID.String(), ETag: etag(t.Version), XEventPosition: positionHeader(t.Position),
	}}, nil
}

// ValidateTest answers POST /api/tests/validate.
func (a *api) ValidateTest(ctx context.Context, req oapi.ValidateTestRequestObject) (oapi.ValidateTestResponseObject, error) {
	faults, err := a.definitionFaults(ctx, *req.Body)
	if err != nil {
		return nil, err
	}
	faults = sortFields(append(faults, requestOf(ctx).bodyFaults...))
	return oapi.ValidateTest200JSONResponse{Valid: len(faults) == 0, Errors: each(faults, fieldError)}, nil
}

// definitionFaults returns what apitest finds wrong with a definition.
func (s *Server) definitionFaults(ctx context.Context, body []byte) ([]fault.Field, error) {
	return fieldsOf(s.deps.Tests.Validate(ctx, orgOf(ctx), body))
}

// fragmentFaults returns what apitest finds wrong with a fragment by itself.
func (s *Server) fragmentFaults(_ context.Context, body []byte) ([]fault.Field, error) {
	return fieldsOf(s.deps.Tests.FragmentFaults(body))
}

// fieldsOf takes the places out of a fault.Invalid.
func fieldsOf(err error) ([]fault.Field, error) {
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.Invalid {
		return f.Fields, nil
	}
	return nil, err
}

// GetTest answers GET /api/tests/{id}.
func (a *api) GetTest(ctx context.Context, req oapi.GetTestRequestObject) (oapi.GetTestResponseObject, error) {
	t, err := a.deps.Tests.Get(ctx, orgOf(ctx), req.Id)
	if err != nil {
		return nil, err
	}
	view, err := testView(t)
	if err != nil {
		return nil, err
	}
	return oapi.GetTest200JSONResponse{Body: view, Headers: oapi.GetTest200ResponseHeaders{ETag: etag(t.Version)}}, nil
}

// ReplaceTest answers PUT /api/tests/{id}.
func (a *api) ReplaceTest(ctx context.Context, req oapi.ReplaceTestRequestObject) (oapi.ReplaceTestResponseObject, error) {
	view, tag, position, err := a.save(req.Params.IfMatch, func(version *int) (apitest.Test, error) {
		return a.deps.Tests.Replace(ctx, orgOf(ctx), req.Id, *req.Body, version)
	})
	if err != nil {
		return nil, err
	}
	return oapi.ReplaceTest200JSONResponse{Body: view, Headers: oapi.ReplaceTest200ResponseHeaders{ETag: tag, XEventPosition: position}}, nil
}

// UpdateTest answers PATCH /api/tests/{id}.
func (a *api) UpdateTest(ctx context.Context, req oapi.UpdateTestRequestObject) (oapi.UpdateTestResponseObject, error) {
	view, tag, position, err := a.save(req.Params.IfMatch, func(version *int) (apitest.Test, error) {
		return a.deps.Tests.Patch(ctx, orgOf(ctx), req.Id, *req.Body, version)
	})
	if err != nil {
		return nil, err
	}
	return oapi.UpdateTest200JSONResponse{Body: view, Headers: oapi.UpdateTest200ResponseHeaders{ETag: tag, XEventPosition: position}}, nil
}

// RestoreRevision answers POST /api/tests/{id}/revisions/{n}/restore.
func (a *api) RestoreRevision(ctx context.Context, req oapi.RestoreRevisionRequestObject) (oapi.RestoreRevisionResponseObject, error) {
	view, tag, position, err := a.save(req.Params.IfMatch, func(version *int) (apitest.Test, error) {
		return a.deps.Tests.Restore(ctx, orgOf(ctx), req.Id, int(req.N), version)
	})
	if err != nil {
		return nil, err
	}
	return oapi.RestoreRevision200JSONResponse{Body: view, Headers: oapi.RestoreRevision200ResponseHeaders{ETag: tag, XEventPosition: position}}, nil
}

// save is what every way to make a revision has in common.
func (a *api) save(ifMatch *string, do func(version *int) (apitest.Test, error)) (view json.RawMessage, tag string, position *int64, err error) {
	version, err := expected(ifMatch)
	if err != nil {
		return nil, "", nil, err
	}
	t, err := do(version)
	if err != nil {
		return nil, "", nil, err
	}
	view, err = testView(t)
	return view, etag(t.Version), positionHeader(t.Position), err
}

// DeleteTest answers DELETE /api/tests/{id}.
func (a *api) DeleteTest(ctx context.Context, req oapi.DeleteTestRequestObject) (oapi.DeleteTestResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	position, err := a.deps.Tests.Delete(ctx, orgOf(ctx), req.Id, version)
	if err != nil {
		return nil, err
	}
	return oapi.DeleteTest204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// ListRevisions answers GET /api/tests/{id}/revisions.
func (a *api) ListRevisions(ctx context.Context, req oapi.ListRevisionsRequestObject) (oapi.ListRevisionsResponseObject, error) {
	cursor, err := after[apitest.RevisionCursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Tests.Revisions(ctx, orgOf(ctx), req.Id, apitest.RevisionFilter{Limit: a.pageLimit(req.Params.Limit), After: cursor})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListRevisions200JSONResponse{Body: oapi.RevisionList{Items: each(items, func(r apitest.Revision) oapi.RevisionSummary {
		return oapi.RevisionSummary{Number: r.Number, CreatedAt: oapi.At(r.CreatedAt), CreatedBy: createdBy(r), RestoredFrom: some(r.RestoredFrom)}
	})}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// GetRevision answers GET /api/tests/{id}/revisions/{n}.
func (a *api) GetRevision(ctx context.Context, req oapi.GetRevisionRequestObject) (oapi.GetRevisionResponseObject, error) {
	r, err := a.deps.Tests.Revision(ctx, orgOf(ctx), req.Id, int(req.N))
	if err != nil {
		return nil, err
	}
	return oapi.GetRevision200JSONResponse{
		Number: r.Number, CreatedAt: oapi.At(r.CreatedAt), CreatedBy: createdBy(r), RestoredFrom: some(r.RestoredFrom), Definition: r.Definition,
	}, nil
}

// ExecuteTest answers POST /api/tests/{id}/execute.
func (a *api) ExecuteTest(ctx context.Context, req oapi.ExecuteTestRequestObject) (oapi.ExecuteTestResponseObject, error) {
	in := run.StartInput{}
	if req.Body != nil {
		in.EnvironmentID, in.Variables, in.Regions = req.Body.EnvironmentId, values(req.Body.Variables), list(req.Body.Regions)
	}
	runs, err := a.deps.Runs.Start(ctx, orgOf(ctx), req.Id, in)
	if err != nil {
		return nil, err
	}
	return oapi.ExecuteTest202JSONResponse{Body: oapi.Runs{Runs: each(runs, runView)}, Headers: oapi.ExecuteTest202ResponseHeaders{
		Location: "/api/runs/" + runs[0].ID.String(), XEventPosition: positionHeader(lastPosition(runs)),
	}}, nil
}

// ExecuteProject answers POST /api/projects/{id}/execute.
func (a *api) ExecuteProject(ctx context.Context, req oapi.ExecuteProjectRequestObject) (oapi.ExecuteProjectResponseObject, error) {
	in := run.SuiteInput{}
	if req.Body != nil {
		in = run.SuiteInput{
			Tags: list(req.Body.Tags), EnvironmentID: req.Body.EnvironmentId, Variables: values(req.Body.Variables), Regions: list(req.Body.Regions),
		}
	}
	suite, err := a.deps.Runs.StartSuite(ctx, orgOf(ctx), req.Id, in)
	if err != nil {
		return nil, err
	}
	return oapi.ExecuteProject202JSONResponse{
		Body: oapi.Suite{SuiteId: suite.ID, Verdict: oapi.RunStatus(suite.Verdict), Runs: each(suite.Runs, runView)},
		Headers: oapi.ExecuteProject202ResponseHeaders{
			Location: "/api/runs?suiteId=" + suite.ID.String(), XEventPosition: positionHeader(suite.Position),
		},
	}, nil
}

// lastPosition is that of the last of several runs' events.
func lastPosition(runs []run.Run) (position int64) {
	for _, r := range runs {
		position = max(position, r.Position)
	}
	return position
}

// list returns an optional list.
func list[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}

// values returns an optional map of variables.
func values(p *oapi.Variables) map[string]string {
	if p == nil {
		return nil
	}
	return *p
}

// some returns nil for the zero value, which an answer leaves out.
func some[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func createdBy(r apitest.Revision) oapi.RunActor {
	return oapi.RunActor{Kind: oapi.RunActorKind(r.CreatedKind), Id: some(r.CreatedBy)}
}

func fieldError(f fault.Field) oapi.FieldError {
	if f.Parameter != "" {
		return oapi.FieldError{Parameter: &f.Parameter, Detail: f.Detail}
	}
	return oapi.FieldError{Pointer: &f.Pointer, Detail: f.Detail}
}

func testSummary(t apitest.Test) oapi.TestSummary {
	return oapi.TestSummary{
		Id: t.ID, ProjectId: t.ProjectID, EnvironmentId: some(t.EnvironmentID), Name: t.Name, Tags: slices.Concat([]string{}, t.Tags),
		Regions: slices.Concat([]string{}, t.Regions), Revision: t.Revision, Version: t.Version,
		CreatedAt: oapi.At(t.CreatedAt), UpdatedAt: oapi.At(t.UpdatedAt),
	}
}

// testView is the test's own fields followed by those of its definition, as one object.
func testView(t apitest.Test) (json.RawMessage, error) {
	head, err := json.Marshal(struct {
		ID        uuid.UUID    `json:"id"`
		Revision  int          `json:"revision"`
		Version   int          `json:"version"`
		CreatedAt oapi.Instant `json:"createdAt"`
		UpdatedAt oapi.Instant `json:"updatedAt"`
	}{t.ID, t.Revision, t.Version, oapi.At(t.CreatedAt), oapi.At(t.UpdatedAt)})
	if err != nil {
		return nil, fmt.Errorf("write test: %w", err)
	}
	if len(t.Definition) < 3 || t.Definition[0] != '{' { // it always has a name
		return nil, fmt.Errorf("test %s has no definition", t.ID)
	}
	return slices.Concat(head[:len(head)-1], []byte{','}, t.Definition[1:]), nil
}
