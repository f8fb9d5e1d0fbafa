package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
)

// ListFragments answers GET /api/projects/{id}/fragments.
func (a *api) ListFragments(ctx context.Context, req oapi.ListFragmentsRequestObject) (oapi.ListFragmentsResponseObject, error) {
	cursor, err := after[apitest.Cursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Tests.ListFragments(ctx, orgOf(ctx), req.Id, apitest.FragmentFilter{Limit: a.pageLimit(req.Params.Limit), After: cursor})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListFragments200JSONResponse{Body: oapi.FragmentList{Items: each(items, fragmentSummary)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// CreateFragment answers POST /api/projects/{id}/fragments.
func (a *api) CreateFragment(ctx context.Context, req oapi.CreateFragmentRequestObject) (oapi.CreateFragmentResponseObject, error) {
	f, err := a.deps.Tests.CreateFragment(ctx, orgOf(ctx), req.Id, *req.Body)
	if err != nil {
		return nil, err
	}
	view, err := fragmentView(f)
	if err != nil {
		return nil, err
	}
	return oapi.CreateFragment201JSONResponse{Body: view, Headers: oapi.CreateFragment201ResponseHeaders{
		Location: "/api/projects/" + f.ProjectID.String() + "/fragments/" + f.ID.String(),
		ETag:     etag(f.Version), XEventPosition: positionHeader(f.Position),
	}}, nil
}

// GetFragment answers GET /api/projects/{id}/fragments/{fragmentId}.
func (a *api) GetFragment(ctx context.Context, req oapi.GetFragmentRequestObject) (oapi.GetFragmentResponseObject, error) {
	f, err := a.deps.Tests.GetFragment(ctx, orgOf(ctx), req.Id, req.FragmentId)
	if err != nil {
		return nil, err
	}
	view, err := fragmentView(f)
	if err != nil {
		return nil, err
	}
	return oapi.GetFragment200JSONResponse{Body: view, Headers: oapi.GetFragment200ResponseHeaders{ETag: etag(f.Version)}}, nil
}

// ReplaceFragment answers PUT /api/projects/{id}/fragments/{fragmentId}.
func (a *api) ReplaceFragment(ctx context.Context, req oapi.ReplaceFragmentRequestObject) (oapi.ReplaceFragmentResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	f, err := a.deps.Tests.ReplaceFragment(ctx, orgOf(ctx), req.Id, req.FragmentId, *req.Body, version)
	if err != nil {
		return nil, err
	}
	view, err := fragmentView(f)
	if err != nil {
		return nil, err
	}
	return oapi.ReplaceFragment200JSONResponse{Body: view, Headers: oapi.ReplaceFragment200ResponseHeaders{ETag: etag(f.Version), XEventPosition: positionHeader(f.Position)}}, nil
}

// UpdateFragment answers PATCH /api/projects/{id}/fragments/{fragmentId}.
func (a *api) UpdateFragment(ctx context.Context, req oapi.UpdateFragmentRequestObject) (oapi.UpdateFragmentResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	f, err := a.deps.Tests.PatchFragment(ctx, orgOf(ctx), req.Id, req.FragmentId, *req.Body, version)
	if err != nil {
		return nil, err
	}
	view, err := fragmentView(f)
	if err != nil {
		return nil, err
	}
	return oapi.UpdateFragment200JSONResponse{Body: view, Headers: oapi.UpdateFragment200ResponseHeaders{ETag: etag(f.Version), XEventPosition: positionHeader(f.Position)}}, nil
}

// DeleteFragment answers DELETE /api/projects/{id}/fragments/{fragmentId}.
func (a *api) DeleteFragment(ctx context.Context, req oapi.DeleteFragmentRequestObject) (oapi.DeleteFragmentResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	position, err := a.deps.Tests.DeleteFragment(ctx, orgOf(ctx), req.Id, req.FragmentId, version)
	if err != nil {
		return nil, err
	}
	return oapi.DeleteFragment204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

func fragmentSummary(f apitest.Fragment) oapi.FragmentSummary {
	return oapi.FragmentSummary{
		Id: f.ID, ProjectId: f.ProjectID, Name: f.Name, Description: some(f.Description), Version: f.Version,
		CreatedAt: oapi.At(f.CreatedAt), UpdatedAt: oapi.At(f.UpdatedAt),
	}
}

// fragmentView is a fragment with its steps, which testspec writes.
func fragmentView(f apitest.Fragment) (json.RawMessage, error) {
	head, err := json.Marshal(struct {
		ID        uuid.UUID    `json:"id"`
		ProjectID uuid.UUID    `json:"projectId"`
		Version   int          `json:"version"`
		CreatedAt oapi.Instant `json:"createdAt"`
		UpdatedAt oapi.Instant `json:"updatedAt"`
	}{f.ID, f.ProjectID, f.Version, oapi.At(f.CreatedAt), oapi.At(f.UpdatedAt)})
	if err != nil {
		return nil, fmt.Errorf("write fragment: %w", err)
	}
	definition, err := json.Marshal(f.FragmentDefinition) // it always has a name
	if err != nil {
		return nil, fmt.Errorf("write fragment: %w", err)
	}
	return slices.Concat(head[:len(head)-1], []byte{','}, definition[1:]), nil
}
