package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/vault"
)

// countKeyUse counts what API keys ask for, by operation and not by URL, so that there are as many counters as operations.
func (s *Server) countKeyUse(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		who, op := auth.From(ctx), requestOf(ctx).op
		if op == nil || who.Kind != auth.APIKey {
			return next(c)
		}
		err := next(c)
		status := c.Response().Status
		if err != nil {
			p, _ := problemOf(err)
			status = p.Status
		}
		s.deps.Orgs.UseKey(who, op.method+" "+op.template, s.deps.Now(), status >= http.StatusBadRequest)
		return err
	}
}

// ListApiKeys answers GET /api/api-keys.
func (a *api) ListApiKeys(ctx context.Context, req oapi.ListApiKeysRequestObject) (oapi.ListApiKeysResponseObject, error) { //nolint:revive // named by the document
	cursor, err := after[org.KeyCursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := a.deps.Orgs.ListKeys(ctx, orgOf(ctx), org.KeyFilter{
		Limit: a.pageLimit(req.Params.Limit), After: cursor, Status: string(deref(req.Params.Status)),
	})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListApiKeys200JSONResponse{Body: oapi.ApiKeyList{Items: each(items, keyView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// CreateApiKey answers POST /api/api-keys.
func (a *api) CreateApiKey(ctx context.Context, req oapi.CreateApiKeyRequestObject) (oapi.CreateApiKeyResponseObject, error) { //nolint:revive // named by the document
	d := org.KeyDraft{Name: req.Body.Name, Scopes: req.Body.Scopes, Expiry: expiry(ctx, req.Body.ExpiresAt)}
	if req.Body.AllowedAddresses != nil {
		d.AllowedAddresses = *req.Body.AllowedAddresses
	}
	if req.Body.RateLimit != nil {
		d.RateLimit = *req.Body.RateLimit
	}
	k, secret, err := a.deps.Orgs.CreateKey(ctx, orgOf(ctx), d)
	if err != nil {
		return nil, err
	}
	return oapi.CreateApiKey201JSONResponse{Body: shownKey(k, secret), Headers: oapi.CreateApiKey201ResponseHeaders{
		Location: "/api/api-keys/" + k.ID.String(), ETag: etag(k.Version), XEventPosition: positionHeader(k.Position),
	}}, nil
}

// GetApiKey answers GET /api/api-keys/{id}.
func (a *api) GetApiKey(ctx context.Context, req oapi.GetApiKeyRequestObject) (oapi.GetApiKeyResponseObject, error) { //nolint:revive // named by the document
	k, err := a.deps.Orgs.GetKey(ctx, orgOf(ctx), req.Id)
	if err != nil {
		return nil, err
	}
	return oapi.GetApiKey200JSONResponse{Body: keyView(k), Headers: oapi.GetApiKey200ResponseHeaders{ETag: etag(k.Version)}}, nil
}

// UpdateApiKey answers PATCH /api/api-keys/{id}.
func (a *api) UpdateApiKey(ctx context.Context, req oapi.UpdateApiKeyRequestObject) (oapi.UpdateApiKeyResponseObject, error) { //nolint:revive // named by the document
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	patch := org.KeyPatch{
		Name: req.Body.Name, Scopes: req.Body.Scopes, Expiry: expiry(ctx, req.Body.ExpiresAt),
		AllowedAddresses: req.Body.AllowedAddresses, RateLimit: req.Body.RateLimit,
	}
	if isNull(ctx, "rateLimit") {
		patch.RateLimit = ptr(0)
	}
	k, err := a.deps.Orgs.UpdateKey(ctx, orgOf(ctx), req.Id, patch, version)
	if err != nil {
		return nil, err
	}
	return oapi.UpdateApiKey200JSONResponse{Body: keyView(k), Headers: oapi.UpdateApiKey200ResponseHeaders{
		ETag: etag(k.Version), XEventPosition: positionHeader(k.Position),
	}}, nil
}

// RevokeApiKey answers DELETE /api/api-keys/{id}.
func (a *api) RevokeApiKey(ctx context.Context, req oapi.RevokeApiKeyRequestObject) (oapi.RevokeApiKeyResponseObject, error) { //nolint:revive // named by the document
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	position, err := a.deps.Orgs.RevokeKey(ctx, orgOf(ctx), req.Id, version)
	if err != nil {
		return nil, err
	}
	return oapi.RevokeApiKey204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// RotateApiKey answers POST /api/api-keys/{id}/rotate.
func (a *api) RotateApiKey(ctx context.Context, req oapi.RotateApiKeyRequestObject) (oapi.RotateApiKeyResponseObject, error) { //nolint:revive // named by the document
	version, err := expected(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	overlap := limits.DefaultKeyOverlap
	if req.Body != nil && req.Body.Overlap != nil {
		if overlap, err = time.ParseDuration(*req.Body.Overlap); err != nil { // the document's pattern lets through what is too long to count
			return nil, invalid([]fault.Field{{Pointer: "/overlap", Detail: "must be a duration such as 24h"}})
		}
	}
	k, secret, err := a.deps.Orgs.RotateKey(ctx, orgOf(ctx), req.Id, overlap, version)
	if err != nil {
		return nil, err
	}
	return oapi.RotateApiKey200JSONResponse{Body: shownKey(k, secret), Headers: oapi.RotateApiKey200ResponseHeaders{
		ETag: etag(k.Version), XEventPosition: positionHeader(k.Position),
	}}, nil
}

// GetApiKeyUsage answers GET /api/api-keys/{id}/usage.
func (a *api) GetApiKeyUsage(ctx context.Context, req oapi.GetApiKeyUsageRequestObject) (oapi.GetApiKeyUsageResponseObject, error) { //nolint:revive // named by the document
	f, err := a.usageDays(req.Params)
	if err != nil {
		return nil, err
	}
	if f.After, err = after[org.KeyUsageCursor](ctx, a.Server, req.Params.Cursor); err != nil {
		return nil, err
	}
	u, next, err := a.deps.Orgs.GetKeyUsage(ctx, orgOf(ctx), req.Id, f)
	if err != nil {
		return nil, err
	}
	answer := oapi.GetApiKeyUsage200JSONResponse{Body: oapi.ApiKeyUsage{
		From: u.From, To: u.To, Requests: u.Requests, Refused: u.Refused,
		Items: each(u.Items, func(i org.KeyUse) oapi.ApiKeyUse {
			return oapi.ApiKeyUse{Day: i.Day, Route: i.Route, Requests: i.Requests, Refused: i.Refused}
		}),
	}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// usageDays are the days that a question for usage is about.
func (a *api) usageDays(params oapi.GetApiKeyUsageParams) (f org.KeyUsageFilter, err error) {
	const days, day = 30, 24 * time.Hour
	f = org.KeyUsageFilter{To: a.deps.Now().UTC(), Limit: a.pageLimit(params.Limit)}
	if params.To != nil {
		f.To = params.To.Time
	}
	f.From = f.To.AddDate(0, 0, -(days - 1))
	if params.From != nil {
		f.From = params.From.Time
	}
	switch span := f.To.Truncate(day).Sub(f.From.Truncate(day)); {
	case span < 0:
		return f, invalid([]fault.Field{{Parameter: "from", Detail: "must not lie after to"}})
	case span >= limits.KeyUsageRange*day:
		return f, invalid([]fault.Field{{Parameter: "from", Detail: fmt.Sprintf("must lie at most %d days before to", limits.KeyUsageRange-1)}})
	}
	return f, nil
}

// expiry reads expiresAt, of which null says something else than nothing.
func expiry(ctx context.Context, at *time.Time) org.Expiry {
	return org.Expiry{Said: at != nil || isNull(ctx, "expiresAt"), At: at}
}

// isNull reports whether the body of the request says null in a field, which decoding makes the same as its absence.
func isNull(ctx context.Context, field string) bool {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(requestOf(ctx).body, &fields); err != nil {
		return false // checkInput has read it, so it is an object
	}
	return string(fields[field]) == "null"
}

func shownKey(k org.APIKey, secret vault.Secret) oapi.ApiKey {
	view := keyView(k)
	view.Key = ptr(secret.Reveal())
	return view
}

func keyView(k org.APIKey) oapi.ApiKey {
	view := oapi.ApiKey{
		Id: k.ID, Name: k.Name, Label: k.Label, Role: oapi.Role(k.Role), Status: keyStatus(k), HolderId: k.HolderID,
		Scopes:           each(k.Scopes, func(p auth.Permission) string { return string(p) }),
		AllowedAddresses: append([]string{}, k.AllowedAddresses...),
		ExpiresAt:        optionalInstant(k.ExpiresAt), PreviousUntil: optionalInstant(k.PreviousUntil), LastUsedAt: optionalInstant(k.LastUsedAt),
		RevokedAt: optionalInstant(k.RevokedAt),
		CreatedAt: oapi.At(k.CreatedAt), UpdatedAt: oapi.At(k.UpdatedAt), Version: k.Version,
	}
	view.CreatedBy.Kind, view.CreatedBy.Id = oapi.ApiKeyCreatedByKind(k.CreatedKind), k.CreatedBy
	if k.RevokedBy != uuid.Nil {
		view.RevokedBy = &oapi.ApiKeyRevoker{Kind: oapi.ApiKeyRevokerKind(k.RevokedKind), Id: k.RevokedBy}
	}
	if k.RateLimit > 0 {
		view.RateLimit = &k.RateLimit
	}
	if k.LastAddress != "" {
		view.LastAddress = &k.LastAddress
	}
	return view
}

func keyStatus(k org.APIKey) oapi.ApiKeyStatus {
	switch {
	case k.RevokedAt != nil:
		return "revoked"
	case k.Expired:
		return "expired"
	case k.Suspended:
		return "suspended"
	}
	return "active"
}
