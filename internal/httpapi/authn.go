package httpapi

import (
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// authenticate puts the principal into the context. Every operation needs one but those that the document opens.
func (s *Server) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		r := requestOf(ctx)
		if r.op == nil {
			return next(c)
		}
		// Where a request comes from is known before who sends it, and may decide whether a credential is taken.
		from := auth.Principal{Address: c.RealIP(), Request: r.id, Agent: strings.ToValidUTF8(cut(c.Request().UserAgent(), limits.MaxUserAgent), "")}
		ctx = auth.With(ctx, from)
		who := auth.Principal{}
		if !r.op.public {
			token, err := credential(c.Request())
			if err != nil {
				return err
			}
			requested, err := requestedOrganization(c, r.op)
			if err != nil {
				return err
			}
			if who, err = s.deps.Orgs.Authenticate(ctx, token, requested); err != nil {
				return err
			}
		}
		who.Address, who.Request, who.Agent = from.Address, from.Request, from.Agent
		c.SetRequest(c.Request().WithContext(auth.With(ctx, who)))
		return next(c)
	}
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// credential returns the access token of a request.
func credential(r *http.Request) (string, error) {
	bearer, key := r.Header.Values("Authorization"), r.Header.Get("X-API-Key")
	switch {
	case len(bearer) > 1 || (len(bearer) == 1 && key != ""):
		return "", fault.New(fault.Unauthenticated, "auth.token_invalid", "Send one credential.")
	case key != "":
		return "", unknownKey()
	case len(bearer) == 0:
		return "", auth.Unauthenticated()
	}
	scheme, token, _ := strings.Cut(bearer[0], " ")
	token = strings.TrimSpace(token)
	switch {
	case !strings.EqualFold(scheme, "Bearer") || token == "":
		return "", fault.New(fault.Unauthenticated, "auth.token_invalid", "Send Authorization: Bearer and an access token.")
	case strings.HasPrefix(token, "tf_"):
		return "", unknownKey()
	}
	return token, nil
}

func unknownKey() *fault.Error {
	return fault.New(fault.Unauthenticated, "auth.api_key_unknown", "This API key is not known; sign in and send the access token.")
}

// requestedOrganization is the one that the request names: in its path, or in the header where the operation takes it.
// It only selects; whether the caller is a member is found out by Authenticate.
func requestedOrganization(c echo.Context, op *operation) (*uuid.UUID, error) {
	if strings.HasPrefix(op.route, "/api/organizations/:id") {
		id, err := uuid.Parse(c.Param("id"))
		if err != nil {
			return nil, fault.New(fault.NotFound, "org.not_found", "There is no such organization.")
		}
		return &id, nil
	}
	values := c.Request().Header.Values(headerOrganization)
	if len(values) == 0 {
		return nil, nil //nolint:nilnil // none was named, and that is no error
	}
	id, err := uuid.Parse(values[0])
	if err != nil || len(values) > 1 {
		return nil, invalid([]fault.Field{{Parameter: headerOrganization, Detail: "must be one UUID"}})
	}
	return &id, nil
}

// refusals records that somebody who is known was not allowed to do something, wherever behind it that was decided.
func (s *Server) refusals(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		err := next(c)
		if r := requestOf(ctx); err != nil && r.op != nil {
			s.deps.Refusals.Refused(ctx, auth.From(ctx), audit.Attempt{Operation: r.op.id, Permission: r.op.permission}, err)
		}
		return err
	}
}

// authorize refuses early, before anything of the request is looked at, who lacks the operation's permission. Slices ask
// again with what they know; the table of permissions is auth's.
func (s *Server) authorize(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		r := requestOf(ctx)
		if r.op == nil || r.op.permission == permissionPublic || r.op.permission == permissionSelf {
			return next(c)
		}
		who := auth.From(ctx)
		if who.OrgID == uuid.Nil {
			return fault.New(fault.NotFound, "org.not_found", "You are in no organization; make one first.")
		}
		if _, err := auth.Require(ctx, who.OrgID, auth.Permission(r.op.permission)); err != nil {
			return err
		}
		return next(c)
	}
}
