package httpapi

import (
	"context"
	"encoding/json"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/vault"
)

// clientOf is where a request comes from.
func clientOf(ctx context.Context) account.Client { return account.ClientOf(auth.From(ctx)) }

// registrationFaults returns what org finds wrong with a registration whose shape has faults already, so that one answer
// names them all. A field of another type has its fault and counts as empty.
func (s *Server) registrationFaults(body []byte) []fault.Field {
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil // that it is no object has been said
	}
	of := func(name string) string { v, _ := fields[name].(string); return v }
	return s.deps.Orgs.CheckSignUp(org.SignUpInput{
		Registration:     account.Registration{Email: of("email"), Name: of("name"), Password: vault.NewSecret(of("password"))},
		OrganizationName: of("organizationName"),
	})
}

// Register answers POST /api/auth/register.
func (a *api) Register(ctx context.Context, req oapi.RegisterRequestObject) (oapi.RegisterResponseObject, error) {
	in, err := a.deps.Orgs.SignUp(ctx, org.SignUpInput{
		Registration:     account.Registration{Email: req.Body.Email, Name: req.Body.Name, Password: vault.NewSecret(req.Body.Password)},
		OrganizationName: text(req.Body.OrganizationName),
		SetupToken:       vault.NewSecret(text(req.Body.SetupToken)),
		InvitationToken:  vault.NewSecret(text(req.Body.InvitationToken)),
	}, clientOf(ctx))
	if err != nil {
		return nil, err
	}
	if in.Pending {
		return oapi.Register202JSONResponse{Detail: "A mail is on its way to this address. If it has no account yet, the mail holds the code that makes it."}, nil
	}
	return oapi.Register201JSONResponse{Body: signInView(in), Headers: oapi.Register201ResponseHeaders{
		Location: "/api/auth/me", XEventPosition: positionHeader(in.Position),
	}}, nil
}

// Login answers POST /api/auth/login.
func (a *api) Login(ctx context.Context, req oapi.LoginRequestObject) (oapi.LoginResponseObject, error) {
	in, err := a.deps.Orgs.SignIn(ctx, org.SignInInput{Email: req.Body.Email, Password: vault.NewSecret(req.Body.Password)}, clientOf(ctx))
	if err != nil {
		return nil, err
	}
	return oapi.Login200JSONResponse(signInView(in)), nil
}

// Refresh answers POST /api/auth/refresh.
func (a *api) Refresh(ctx context.Context, req oapi.RefreshRequestObject) (oapi.RefreshResponseObject, error) {
	in, err := a.deps.Orgs.Refresh(ctx, vault.NewSecret(req.Body.RefreshToken), clientOf(ctx))
	if err != nil {
		return nil, err
	}
	return oapi.Refresh200JSONResponse{
		AccessToken: in.AccessToken.Reveal(), RefreshToken: in.RefreshToken.Reveal(), TokenType: oapi.TokensTokenTypeBearer,
		ExpiresIn: int(in.ExpiresIn.Seconds()),
	}, nil
}

// Logout answers POST /api/auth/logout.
func (a *api) Logout(ctx context.Context, _ oapi.LogoutRequestObject) (oapi.LogoutResponseObject, error) {
	position, err := a.deps.Orgs.SignOut(ctx)
	if err != nil {
		return nil, err
	}
	return oapi.Logout204Response{Headers: oapi.Logout204ResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// GetMe answers GET /api/auth/me.
func (a *api) GetMe(ctx context.Context, _ oapi.GetMeRequestObject) (oapi.GetMeResponseObject, error) {
	me, err := a.deps.Orgs.Me(ctx)
	if err != nil {
		return nil, err
	}
	view := oapi.GetMe200JSONResponse{
		User: userView(me.User), Organizations: each(me.Organizations, orgView),
		Permissions: each(me.Permissions, func(p auth.Permission) string { return string(p) }),
	}
	if me.Organization != nil {
		view.Organization, view.Role = ptr(orgView(*me.Organization)), ptr(oapi.Role(me.Organization.Role))
	}
	return view, nil
}

func ptr[T any](v T) *T { return &v }

func signInView(in org.SignedIn) oapi.SignIn {
	view := oapi.SignIn{
		User: userView(in.User), AccessToken: in.AccessToken.Reveal(), RefreshToken: in.RefreshToken.Reveal(),
		TokenType: oapi.SignInTokenTypeBearer, ExpiresIn: int(in.ExpiresIn.Seconds()),
	}
	if in.Organization != nil {
		view.Organization = ptr(orgView(*in.Organization))
	}
	return view
}

func userView(u account.Account) oapi.User {
	return oapi.User{Id: u.ID, Email: u.Email, EmailVerified: u.EmailVerified, Name: u.Name, Operator: u.Operator, CreatedAt: oapi.At(u.CreatedAt)}
}
