package httpapi

import (
	"context"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/project"
)

// orgOf is the organization that the request acts in.
func orgOf(ctx context.Context) uuid.UUID { return auth.From(ctx).OrgID }

// positionHeader is nil when nothing changed.
func positionHeader(position int64) *int64 {
	if position == 0 {
		return nil
	}
	return &position
}

// text returns what an optional field holds, "" when it is absent.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ListProjects answers GET /api/projects.
func (a *api) ListProjects(ctx context.Context, req oapi.ListProjectsRequestObject) (oapi.ListProjectsResponseObject, error) {
	cursor, err := after[project.Cursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Projects.List(ctx, orgOf(ctx), project.Filter{
		Query: text(req.Params.Q), Limit: a.pageLimit(req.Params.Limit), After: cursor,
	})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListProjects200JSONResponse{Body: oapi.ProjectList{Items: each(items, projectView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// CreateProject answers POST /api/projects.
func (a *api) CreateProject(ctx context.Context, req oapi.CreateProjectRequestObject) (oapi.CreateProjectResponseObject, error) {
	p, err := a.deps.Projects.Create(ctx, orgOf(ctx), project.Draft{Name: req.Body.Name, Description: text(req.Body.Description)})
	if err != nil {
		return nil, err
	}
	return oapi.CreateProject201JSONResponse{Body: projectView(p), Headers: oapi.CreateProject201ResponseHeaders{
		Location: "/api/projects/" + p.ID.String(), ETag: etag(p.Version), XEventPosition: positionHeader(p.Position),
	}}, nil
}

// GetProject answers GET /api/projects/{id}.
func (a *api) GetProject(ctx context.Context, req oapi.GetProjectRequestObject) (oapi.GetProjectResponseObject, error) {
	p, err := a.deps.Projects.Get(ctx, orgOf(ctx), req.Id)
	if err != nil {
		return nil, err
	}
	return oapi.GetProject200JSONResponse{Body: projectView(p), Headers: oapi.GetProject200ResponseHeaders{ETag: etag(p.Version)}}, nil
}

// UpdateProject answers PATCH /api/projects/{id}.
func (a *api) UpdateProject(ctx context.Context, req oapi.UpdateProjectRequestObject) (oapi.UpdateProjectResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	patch := project.Patch{Name: req.Body.Name, Description: req.Body.Description}
	if req.Body.Variables != nil {
		patch.Variables = *req.Body.Variables
	}
	p, err := a.deps.Projects.Update(ctx, orgOf(ctx), req.Id, patch, version)
	if err != nil {
		return nil, err
	}
	return oapi.UpdateProject200JSONResponse{Body: projectView(p), Headers: oapi.UpdateProject200ResponseHeaders{
		ETag: etag(p.Version), XEventPosition: positionHeader(p.Position),
	}}, nil
}

// DeleteProject answers DELETE /api/projects/{id}.
func (a *api) DeleteProject(ctx context.Context, req oapi.DeleteProjectRequestObject) (oapi.DeleteProjectResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	position, err := a.deps.Projects.Delete(ctx, orgOf(ctx), req.Id, version)
	if err != nil {
		return nil, err
	}
	return oapi.DeleteProject204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// ListEnvironments answers GET /api/projects/{id}/environments.
func (a *api) ListEnvironments(ctx context.Context, req oapi.ListEnvironmentsRequestObject) (oapi.ListEnvironmentsResponseObject, error) {
	cursor, err := after[project.EnvironmentCursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Projects.ListEnvironments(ctx, orgOf(ctx), req.Id, project.EnvironmentFilter{
		Limit: a.pageLimit(req.Params.Limit), After: cursor,
	})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListEnvironments200JSONResponse{Body: oapi.EnvironmentList{Items: each(items, environmentView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// CreateEnvironment answers POST /api/projects/{id}/environments.
func (a *api) CreateEnvironment(ctx context.Context, req oapi.CreateEnvironmentRequestObject) (oapi.CreateEnvironmentResponseObject, error) {
	draft := project.EnvironmentDraft{Name: req.Body.Name, Description: text(req.Body.Description)}
	if req.Body.Variables != nil {
		draft.Variables = *req.Body.Variables
	}
	e, err := a.deps.Projects.CreateEnvironment(ctx, orgOf(ctx), req.Id, draft)
	if err != nil {
		return nil, err
	}
	return oapi.CreateEnvironment201JSONResponse{Body: environmentView(e), Headers: oapi.CreateEnvironment201ResponseHeaders{
		Location: "/api/projects/" + e.ProjectID.String() + "/environments/" + e.ID.String(),
		ETag:     etag(e.Version), XEventPosition: positionHeader(e.Position),
	}}, nil
}

// GetEnvironment answers GET /api/projects/{id}/environments/{environmentId}.
func (a *api) GetEnvironment(ctx context.Context, req oapi.GetEnvironmentRequestObject) (oapi.GetEnvironmentResponseObject, error) {
	e, err := a.deps.Projects.GetEnvironment(ctx, orgOf(ctx), req.Id, req.EnvironmentId)
	if err != nil {
		return nil, err
	}
	return oapi.GetEnvironment200JSONResponse{Body: environmentView(e), Headers: oapi.GetEnvironment200ResponseHeaders{ETag: etag(e.Version)}}, nil
}

// UpdateEnvironment answers PATCH /api/projects/{id}/environments/{environmentId}.
func (a *api) UpdateEnvironment(ctx context.Context, req oapi.UpdateEnvironmentRequestObject) (oapi.UpdateEnvironmentResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	patch := project.EnvironmentPatch{Name: req.Body.Name, Description: req.Body.Description}
	if req.Body.Variables != nil {
		patch.Variables = *req.Body.Variables
	}
	e, err := a.deps.Projects.UpdateEnvironment(ctx, orgOf(ctx), req.Id, req.EnvironmentId, patch, version)
	if err != nil {
		return nil, err
	}
	return oapi.UpdateEnvironment200JSONResponse{Body: environmentView(e), Headers: oapi.UpdateEnvironment200ResponseHeaders{
		ETag: etag(e.Version), XEventPosition: positionHeader(e.Position),
	}}, nil
}

// DeleteEnvironment answers DELETE /api/projects/{id}/environments/{environmentId}.
func (a *api) DeleteEnvironment(ctx context.Context, req oapi.DeleteEnvironmentRequestObject) (oapi.DeleteEnvironmentResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	position, err := a.deps.Projects.DeleteEnvironment(ctx, orgOf(ctx), req.Id, req.EnvironmentId, version)
	if err != nil {
		return nil, err
	}
	return oapi.DeleteEnvironment204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// each maps items; the result is never nil, so that an empty list is written as one.
func each[A, B any](items []A, view func(A) B) []B {
	out := make([]B, 0, len(items))
	for _, item := range items {
		out = append(out, view(item))
	}
	return out
}

func projectView(p project.Project) oapi.Project {
	return oapi.Project{
		Id: p.ID, Name: p.Name, Description: p.Description, Variables: p.Variables, Version: p.Version,
		CreatedAt: oapi.At(p.CreatedAt), UpdatedAt: oapi.At(p.UpdatedAt),
	}
}

func environmentView(e project.Environment) oapi.Environment {
	return oapi.Environment{
		Id: e.ID, ProjectId: e.ProjectID, Name: e.Name, Description: e.Description, Variables: e.Variables, Version: e.Version,
		CreatedAt: oapi.At(e.CreatedAt), UpdatedAt: oapi.At(e.UpdatedAt),
	}
}
