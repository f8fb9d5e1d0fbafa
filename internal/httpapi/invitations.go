package httpapi

import (
	"context"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/vault"
)

// ListInvitations answers GET /api/organizations/{id}/invitations.
func (a *api) ListInvitations(ctx context.Context, req oapi.ListInvitationsRequestObject) (oapi.ListInvitationsResponseObject, error) {
	cursor, err := after[org.Cursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Orgs.Invitations(ctx, req.Id, org.Filter{Limit: a.pageLimit(req.Params.Limit), After: cursor})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListInvitations200JSONResponse{Body: oapi.InvitationList{Items: each(items, invitationView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// CreateInvitation answers POST /api/organizations/{id}/invitations.
func (a *api) CreateInvitation(ctx context.Context, req oapi.CreateInvitationRequestObject) (oapi.CreateInvitationResponseObject, error) {
	i, err := a.deps.Orgs.Invite(ctx, req.Id, req.Body.Email, auth.Role(req.Body.Role))
	if err != nil {
		return nil, err
	}
	return oapi.CreateInvitation201JSONResponse{Body: invitationView(i), Headers: oapi.CreateInvitation201ResponseHeaders{
		Location: "/api/organizations/" + req.Id.String() + "/invitations", XEventPosition: positionHeader(i.Position),
	}}, nil
}

// ResendInvitation answers POST /api/organizations/{id}/invitations/{invitationId}/resend.
func (a *api) ResendInvitation(ctx context.Context, req oapi.ResendInvitationRequestObject) (oapi.ResendInvitationResponseObject, error) {
	i, err := a.deps.Orgs.ResendInvitation(ctx, req.Id, req.InvitationId)
	if err != nil {
		return nil, err
	}
	return oapi.ResendInvitation200JSONResponse{Body: invitationView(i), Headers: oapi.ResendInvitation200ResponseHeaders{
		XEventPosition: positionHeader(i.Position),
	}}, nil
}

// RevokeInvitation answers DELETE /api/organizations/{id}/invitations/{invitationId}.
func (a *api) RevokeInvitation(ctx context.Context, req oapi.RevokeInvitationRequestObject) (oapi.RevokeInvitationResponseObject, error) {
	position, err := a.deps.Orgs.RevokeInvitation(ctx, req.Id, req.InvitationId)
	if err != nil {
		return nil, err
	}
	return oapi.RevokeInvitation204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// LookUpInvitation answers POST /api/invitations/look-up.
func (a *api) LookUpInvitation(ctx context.Context, req oapi.LookUpInvitationRequestObject) (oapi.LookUpInvitationResponseObject, error) {
	o, err := a.deps.Orgs.Offer(ctx, vault.NewSecret(req.Body.Token))
	if err != nil {
		return nil, err
	}
	view := oapi.LookUpInvitation200JSONResponse{
		OrganizationName: o.OrganizationName, Email: o.Email, Role: oapi.Role(o.Role), ExpiresAt: oapi.At(o.ExpiresAt),
	}
	if o.InviterName != "" {
		view.InviterName = some(o.InviterName)
	}
	return view, nil
}

// AcceptInvitation answers POST /api/invitations/accept.
func (a *api) AcceptInvitation(ctx context.Context, req oapi.AcceptInvitationRequestObject) (oapi.AcceptInvitationResponseObject, error) {
	o, err := a.deps.Orgs.AcceptInvitation(ctx, vault.NewSecret(req.Body.Token))
	if err != nil {
		return nil, err
	}
	return oapi.AcceptInvitation200JSONResponse{Body: orgView(o), Headers: oapi.AcceptInvitation200ResponseHeaders{
		XEventPosition: positionHeader(o.Position),
	}}, nil
}

// TransferOrganization answers POST /api/organizations/{id}/transfer.
func (a *api) TransferOrganization(ctx context.Context, req oapi.TransferOrganizationRequestObject) (oapi.TransferOrganizationResponseObject, error) {
	o, err := a.deps.Orgs.Transfer(ctx, req.Id, req.Body.UserId, auth.Role(req.Body.Role))
	if err != nil {
		return nil, err
	}
	return oapi.TransferOrganization200JSONResponse{Body: orgView(o), Headers: oapi.TransferOrganization200ResponseHeaders{
		ETag: etag(o.Version), XEventPosition: positionHeader(o.Position),
	}}, nil
}

// DeleteOrganization answers DELETE /api/organizations/{id}.
func (a *api) DeleteOrganization(ctx context.Context, req oapi.DeleteOrganizationRequestObject) (oapi.DeleteOrganizationResponseObject, error) {
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	o, err := a.deps.Orgs.Delete(ctx, req.Id, version)
	if err != nil {
		return nil, err
	}
	return oapi.DeleteOrganization202JSONResponse{Body: orgView(o), Headers: oapi.DeleteOrganization202ResponseHeaders{
		Location: "/api/organizations/" + o.ID.String(), ETag: etag(o.Version), XEventPosition: positionHeader(o.Position),
	}}, nil
}

// RestoreOrganization answers POST /api/organizations/{id}/restore.
func (a *api) RestoreOrganization(ctx context.Context, req oapi.RestoreOrganizationRequestObject) (oapi.RestoreOrganizationResponseObject, error) {
	o, err := a.deps.Orgs.Restore(ctx, req.Id)
	if err != nil {
		return nil, err
	}
	return oapi.RestoreOrganization200JSONResponse{Body: orgView(o), Headers: oapi.RestoreOrganization200ResponseHeaders{
		ETag: etag(o.Version), XEventPosition: positionHeader(o.Position),
	}}, nil
}

func invitationView(i org.Invitation) oapi.Invitation {
	view := oapi.Invitation{
		Id: i.ID, Email: i.Email, Role: oapi.Role(i.Role), Status: oapi.InvitationStatus(i.Status), InvitedBy: oapi.Inviter{UserId: i.InvitedBy},
		CreatedAt: oapi.At(i.CreatedAt), SentAt: oapi.At(i.SentAt), ExpiresAt: oapi.At(i.ExpiresAt),
	}
	if i.InviterName != "" {
		view.InvitedBy.Name = some(i.InviterName)
	}
	if token := i.Token.Reveal(); token != "" {
		view.Token = some(token)
	}
	return view
}
