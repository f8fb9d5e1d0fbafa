package httpapi

import (
	"context"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/vault"
)

// ConfirmRegistration answers POST /api/auth/register/confirm.
func (a *api) ConfirmRegistration(ctx context.Context, req oapi.ConfirmRegistrationRequestObject) (oapi.ConfirmRegistrationResponseObject, error) {
	in, err := a.deps.Orgs.ConfirmSignUp(ctx, req.Body.Token, vault.NewSecret(req.Body.Password), clientOf(ctx))
	if err != nil {
		return nil, err
	}
	return oapi.ConfirmRegistration201JSONResponse{Body: signInView(in), Headers: oapi.ConfirmRegistration201ResponseHeaders{
		Location: "/api/auth/me", XEventPosition: positionHeader(in.Position),
	}}, nil
}

// VerifyEmail answers POST /api/auth/email/verify.
func (a *api) VerifyEmail(ctx context.Context, req oapi.VerifyEmailRequestObject) (oapi.VerifyEmailResponseObject, error) {
	position, err := a.deps.Orgs.VerifyEmail(ctx, req.Body.Token, clientOf(ctx))
	if err != nil {
		return nil, err
	}
	return oapi.VerifyEmail204Response{Headers: oapi.VerifyEmail204ResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// ResendVerification answers POST /api/auth/email/resend.
func (a *api) ResendVerification(ctx context.Context, _ oapi.ResendVerificationRequestObject) (oapi.ResendVerificationResponseObject, error) {
	if err := a.deps.Orgs.ResendVerification(ctx); err != nil {
		return nil, err
	}
	return oapi.ResendVerification202JSONResponse{Detail: "If your address isn't verified yet, a code is on its way to it."}, nil
}

// ChangePassword answers POST /api/auth/password/change.
func (a *api) ChangePassword(ctx context.Context, req oapi.ChangePasswordRequestObject) (oapi.ChangePasswordResponseObject, error) {
	position, err := a.deps.Orgs.ChangePassword(ctx, vault.NewSecret(req.Body.CurrentPassword), vault.NewSecret(req.Body.NewPassword))
	if err != nil {
		return nil, err
	}
	return oapi.ChangePassword204Response{Headers: oapi.ChangePassword204ResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// ForgotPassword answers POST /api/auth/password/forgot.
func (a *api) ForgotPassword(ctx context.Context, req oapi.ForgotPasswordRequestObject) (oapi.ForgotPasswordResponseObject, error) {
	if err := a.deps.Orgs.ForgotPassword(ctx, req.Body.Email, clientOf(ctx)); err != nil {
		return nil, err
	}
	return oapi.ForgotPassword202JSONResponse{Detail: "If this address has an account, a code for a new password is on its way to it. It is good for an hour."}, nil
}

// ResetPassword answers POST /api/auth/password/reset.
func (a *api) ResetPassword(ctx context.Context, req oapi.ResetPasswordRequestObject) (oapi.ResetPasswordResponseObject, error) {
	position, err := a.deps.Orgs.ResetPassword(ctx, req.Body.Token, vault.NewSecret(req.Body.NewPassword), clientOf(ctx))
	if err != nil {
		return nil, err
	}
	return oapi.ResetPassword204Response{Headers: oapi.ResetPassword204ResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// ListSessions answers GET /api/auth/sessions.
func (a *api) ListSessions(ctx context.Context, _ oapi.ListSessionsRequestObject) (oapi.ListSessionsResponseObject, error) {
	list, current, err := a.deps.Orgs.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	return oapi.ListSessions200JSONResponse{Items: each(list, func(s account.LiveSession) oapi.Session { return sessionView(s, current) })}, nil
}

// EndSession answers DELETE /api/auth/sessions/{id}.
func (a *api) EndSession(ctx context.Context, req oapi.EndSessionRequestObject) (oapi.EndSessionResponseObject, error) {
	position, err := a.deps.Orgs.EndSession(ctx, req.Id)
	if err != nil {
		return nil, err
	}
	return oapi.EndSession204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// EndSessions answers DELETE /api/auth/sessions.
func (a *api) EndSessions(ctx context.Context, req oapi.EndSessionsRequestObject) (oapi.EndSessionsResponseObject, error) {
	position, err := a.deps.Orgs.EndSessions(ctx, req.Params.KeepCurrent != nil && *req.Params.KeepCurrent)
	if err != nil {
		return nil, err
	}
	return oapi.EndSessions204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

func sessionView(s account.LiveSession, current uuid.UUID) oapi.Session {
	return oapi.Session{
		Id: s.ID, Current: s.ID == current, CreatedAt: oapi.At(s.CreatedAt), LastSeenAt: oapi.At(s.LastSeenAt), ExpiresAt: oapi.At(s.ExpiresAt),
		Address: s.Address, Device: account.Device(s.Agent), UserAgent: s.Agent,
	}
}
