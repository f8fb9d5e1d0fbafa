package httpapi

import (
	"context"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/org"
)

// ListOrganizations answers GET /api/organizations.
func (a *api) ListOrganizations(ctx context.Context, req oapi.ListOrganizationsRequestObject) (oapi.ListOrganizationsResponseObject, error) {
	cursor, err := after[org.Cursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Orgs.List(ctx, org.Filter{Limit: a.pageLimit(req.Params.Limit), After: cursor})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListOrganizations200JSONResponse{Body: oapi.OrganizationList{Items: each(items, orgView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// CreateOrganization answers POST /api/organizations.
func (a *api) CreateOrganization(ctx context.Context, req oapi.CreateOrganizationRequestObject) (oapi.CreateOrganizationResponseObject, error) {
	o, err := a.deps.Orgs.Create(ctx, req.Body.Name)
	if err != nil {
		return nil, err
	}
	return oapi.CreateOrganization201JSONResponse{Body: orgView(o), Headers: oapi.CreateOrganization201ResponseHeaders{
		Location: "/api/organizations/" + o.ID.String(), ETag: etag(o.Version), XEventPosition: positionHeader(o.Position),
	}}, nil
}

// GetOrganization answers GET /api/organizations/{id}.
func (a *api) GetOrganization(ctx context.Context, req oapi.GetOrganizationRequestObject) (oapi.GetOrganizationResponseObject, error) {
	o, err := a.organization(ctx, req.Id, req.Params.AsOf)
	if err != nil {
		return nil, err
	}
	return oapi.GetOrganization200JSONResponse{Body: orgView(o), Headers: oapi.GetOrganization200ResponseHeaders{ETag: etag(o.Version)}}, nil
}

// UpdateOrganization answers PATCH /api/organizations/{id}.
func (a *api) UpdateOrganization(ctx context.Context, req oapi.UpdateOrganizationRequestObject) (oapi.UpdateOrganizationResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	patch := org.Patch{Name: req.Body.Name}
	if req.Body.Variables != nil {
		patch.Variables = *req.Body.Variables
	}
	o, err := a.deps.Orgs.Update(ctx, req.Id, patch, version)
	if err != nil {
		return nil, err
	}
	return oapi.UpdateOrganization200JSONResponse{Body: orgView(o), Headers: oapi.UpdateOrganization200ResponseHeaders{
		ETag: etag(o.Version), XEventPosition: positionHeader(o.Position),
	}}, nil
}

// ListMembers answers GET /api/organizations/{id}/members.
func (a *api) ListMembers(ctx context.Context, req oapi.ListMembersRequestObject) (oapi.ListMembersResponseObject, error) {
	cursor, err := after[org.Cursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.members(ctx, req.Id, req.Params.AsOf, org.Filter{Limit: a.pageLimit(req.Params.Limit), After: cursor})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListMembers200JSONResponse{Body: oapi.MemberList{Items: each(items, memberView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// UpdateMember answers PATCH /api/organizations/{id}/members/{userId}.
func (a *api) UpdateMember(ctx context.Context, req oapi.UpdateMemberRequestObject) (oapi.UpdateMemberResponseObject, error) {
	m, err := a.deps.Orgs.SetRole(ctx, req.Id, req.UserId, auth.Role(req.Body.Role))
	if err != nil {
		return nil, err
	}
	return oapi.UpdateMember200JSONResponse{Body: memberView(m), Headers: oapi.UpdateMember200ResponseHeaders{
		XEventPosition: positionHeader(m.Position),
	}}, nil
}

// RemoveMember answers DELETE /api/organizations/{id}/members/{userId}.
func (a *api) RemoveMember(ctx context.Context, req oapi.RemoveMemberRequestObject) (oapi.RemoveMemberResponseObject, error) {
	position, err := a.deps.Orgs.RemoveMember(ctx, req.Id, req.UserId)
	if err != nil {
		return nil, err
	}
	return oapi.RemoveMember204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

func orgView(o org.Org) oapi.Organization {
	view := oapi.Organization{
		Id: o.ID, Name: o.Name, Role: some(oapi.Role(o.Role)), Version: o.Version,
		CreatedAt: oapi.At(o.CreatedAt), UpdatedAt: oapi.At(o.UpdatedAt),
	}
	if o.Variables != nil {
		variables := oapi.Variables(o.Variables)
		view.Variables = &variables
	}
	if o.EraseAt != nil {
		view.EraseAt = some(oapi.At(*o.EraseAt))
	}
	return view
}

func memberView(m org.Member) oapi.Member {
	return oapi.Member{UserId: m.AccountID, Name: m.Name, Email: m.Email, Role: oapi.Role(m.Role), JoinedAt: oapi.At(m.JoinedAt)}
}
