package httpapi

import (
	"net/http"
	"regexp"
	"slices"
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
		if err := noCredentialInURL(r.query); err != nil {
			return err
		}
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
			who, err = s.deps.Orgs.Authenticate(ctx, token, requested)
			who.Address, who.Request, who.Agent = from.Address, from.Request, from.Agent
			if err != nil {
				if requested != nil {
					s.deps.Refusals.Refused(ctx, who, audit.Attempt{Operation: r.op.id, Permission: r.op.permission, Requested: *requested}, err)
				}
				return err
			}
		}
		who.Address, who.Request, who.Agent = from.Address, from.Request, from.Agent
		c.SetRequest(c.Request().WithContext(auth.With(ctx, who)))
		return next(c)
	}
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// credential returns the access token or API key of a request.
func credential(r *http.Request) (string, error) {
	bearer, key := r.Header.Values("Authorization"), r.Header.Values("X-API-Key")
	switch {
	case len(bearer)+len(key) > 1:
		return "", fault.New(fault.Unauthenticated, "auth.two_credentials", "Send one credential: Authorization or X-API-Key, once.")
	case len(key) == 1 && !auth.LooksLikeKey(key[0]): // an access token in this place is a mistake, and is not looked at
		return "", fault.New(fault.Unauthenticated, "auth.api_key_malformed", "X-API-Key holds an API key, which begins with %s; send an access token as Authorization: Bearer.", auth.KeyPrefix)
	case len(key) == 1:
		return key[0], nil
	case len(bearer) == 0:
		return "", auth.Unauthenticated()
	}
	scheme, token, _ := strings.Cut(bearer[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", fault.New(fault.Unauthenticated, "auth.token_invalid", "Send Authorization: Bearer and an access token or an API key.")
	}
	return token, nil
}

// credentialNames are what people call a credential in a query, in lower case without - and _.
var credentialNames = []string{"token", "accesstoken", "bearer", "authorization", "apikey", "xapikey", "key", "jwt", "secret", "password"}

// noCredentialInURL refuses a request whose query holds a credential, whether or not it has another one: addresses end up
// in logs, histories and Referer headers. The answer repeats nothing of it.
func noCredentialInURL(query map[string][]string) error {
	plain := strings.NewReplacer("-", "", "_", "")
	for name, values := range query {
		named := slices.Contains(credentialNames, plain.Replace(strings.ToLower(name)))
		if named || slices.ContainsFunc(values, func(v string) bool { return keyPattern.MatchString(v) }) || keyPattern.MatchString(name) {
			return fault.New(fault.Malformed, "auth.credential_in_url", "A credential in the address ends up in logs: send it as a header, and revoke the one that you sent.")
		}
	}
	return nil
}

var keyPattern = regexp.MustCompile(auth.KeyPattern)

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
		require := auth.Require
		if slices.Contains(withdrawing, r.op.id) {
			require = auth.RequireToWithdraw
		}
		if _, err := require(ctx, who.OrgID, auth.Permission(r.op.permission)); err != nil {
			return err
		}
		return next(c)
	}
}
