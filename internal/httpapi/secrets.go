package httpapi

import (
	"context"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/vault"
)

// ListOrganizationSecrets answers GET /api/organizations/{id}/secrets.
func (a *api) ListOrganizationSecrets(ctx context.Context, req oapi.ListOrganizationSecretsRequestObject) (oapi.ListOrganizationSecretsResponseObject, error) {
	list, link, err := a.listSecrets(ctx, req.Id, secret.Scope{}, req.Params.Limit, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	return oapi.ListOrganizationSecrets200JSONResponse{Body: list, Headers: oapi.ListOrganizationSecrets200ResponseHeaders{Link: link}}, nil
}

// SetOrganizationSecret answers PUT /api/organizations/{id}/secrets/{name}.
func (a *api) SetOrganizationSecret(ctx context.Context, req oapi.SetOrganizationSecretRequestObject) (oapi.SetOrganizationSecretResponseObject, error) {
	out, err := a.setSecret(ctx, req.Id, secret.Scope{}, req.Name, *req.Body, req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	return oapi.SetOrganizationSecret200JSONResponse{Body: secretView(out), Headers: oapi.SetOrganizationSecret200ResponseHeaders{
		ETag: etag(out.Version), XEventPosition: positionHeader(out.Position),
	}}, nil
}

// RemoveOrganizationSecret answers DELETE /api/organizations/{id}/secrets/{name}.
func (a *api) RemoveOrganizationSecret(ctx context.Context, req oapi.RemoveOrganizationSecretRequestObject) (oapi.RemoveOrganizationSecretResponseObject, error) {
	position, err := a.removeSecret(ctx, req.Id, secret.Scope{}, req.Name, req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	return oapi.RemoveOrganizationSecret204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// ListProjectSecrets answers GET /api/projects/{id}/secrets.
func (a *api) ListProjectSecrets(ctx context.Context, req oapi.ListProjectSecretsRequestObject) (oapi.ListProjectSecretsResponseObject, error) {
	list, link, err := a.listSecrets(ctx, orgOf(ctx), secret.Scope{ProjectID: req.Id}, req.Params.Limit, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	return oapi.ListProjectSecrets200JSONResponse{Body: list, Headers: oapi.ListProjectSecrets200ResponseHeaders{Link: link}}, nil
}

// SetProjectSecret answers PUT /api/projects/{id}/secrets/{name}.
func (a *api) SetProjectSecret(ctx context.Context, req oapi.SetProjectSecretRequestObject) (oapi.SetProjectSecretResponseObject, error) {
	out, err := a.setSecret(ctx, orgOf(ctx), secret.Scope{ProjectID: req.Id}, req.Name, *req.Body, req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	return oapi.SetProjectSecret200JSONResponse{Body: secretView(out), Headers: oapi.SetProjectSecret200ResponseHeaders{
		ETag: etag(out.Version), XEventPosition: positionHeader(out.Position),
	}}, nil
}

// RemoveProjectSecret answers DELETE /api/projects/{id}/secrets/{name}.
func (a *api) RemoveProjectSecret(ctx context.Context, req oapi.RemoveProjectSecretRequestObject) (oapi.RemoveProjectSecretResponseObject, error) {
	position, err := a.removeSecret(ctx, orgOf(ctx), secret.Scope{ProjectID: req.Id}, req.Name, req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	return oapi.RemoveProjectSecret204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

// ListEnvironmentSecrets answers GET /api/projects/{id}/environments/{environmentId}/secrets.
func (a *api) ListEnvironmentSecrets(ctx context.Context, req oapi.ListEnvironmentSecretsRequestObject) (oapi.ListEnvironmentSecretsResponseObject, error) {
	list, link, err := a.listSecrets(ctx, orgOf(ctx), secret.Scope{ProjectID: req.Id, EnvironmentID: req.EnvironmentId}, req.Params.Limit, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	return oapi.ListEnvironmentSecrets200JSONResponse{Body: list, Headers: oapi.ListEnvironmentSecrets200ResponseHeaders{Link: link}}, nil
}

// SetEnvironmentSecret answers PUT /api/projects/{id}/environments/{environmentId}/secrets/{name}.
func (a *api) SetEnvironmentSecret(ctx context.Context, req oapi.SetEnvironmentSecretRequestObject) (oapi.SetEnvironmentSecretResponseObject, error) {
	out, err := a.setSecret(ctx, orgOf(ctx), secret.Scope{ProjectID: req.Id, EnvironmentID: req.EnvironmentId}, req.Name, *req.Body, req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	return oapi.SetEnvironmentSecret200JSONResponse{Body: secretView(out), Headers: oapi.SetEnvironmentSecret200ResponseHeaders{
		ETag: etag(out.Version), XEventPosition: positionHeader(out.Position),
	}}, nil
}

// RemoveEnvironmentSecret answers DELETE /api/projects/{id}/environments/{environmentId}/secrets/{name}.
func (a *api) RemoveEnvironmentSecret(ctx context.Context, req oapi.RemoveEnvironmentSecretRequestObject) (oapi.RemoveEnvironmentSecretResponseObject, error) {
	position, err := a.removeSecret(ctx, orgOf(ctx), secret.Scope{ProjectID: req.Id, EnvironmentID: req.EnvironmentId}, req.Name, req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	return oapi.RemoveEnvironmentSecret204Response{Headers: oapi.DeletedResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}

func (a *api) listSecrets(ctx context.Context, orgID uuid.UUID, scope secret.Scope, limit *oapi.Limit, at *oapi.Cursor) (out oapi.SecretList, link *string, err error) {
	cursor, err := after[secret.Cursor](ctx, a.Server, at)
	if err != nil {
		return oapi.SecretList{}, nil, err
	}
	items, next, err := a.deps.Secrets.List(ctx, orgID, scope, secret.Filter{Limit: a.pageLimit(limit), After: cursor})
	if err != nil {
		return oapi.SecretList{}, nil, err
	}
	out = oapi.SecretList{Items: each(items, secretView)}
	out.NextCursor, link, err = nextPage(ctx, a.Server, next)
	return out, link, err
}

func (a *api) setSecret(ctx context.Context, orgID uuid.UUID, scope secret.Scope, name string, body oapi.SecretSet, ifMatch *string) (secret.Secret, error) {
	version, err := expected(ifMatch)
	if err != nil {
		return secret.Secret{}, err
	}
	return a.deps.Secrets.Set(ctx, orgID, scope, name, secret.Draft{Value: vault.NewSecret(text(body.Value)), Description: body.Description}, version)
}

func (a *api) removeSecret(ctx context.Context, orgID uuid.UUID, scope secret.Scope, name string, ifMatch *string) (int64, error) {
	version, err := expected(ifMatch)
	if err != nil {
		return 0, err
	}
	return a.deps.Secrets.Remove(ctx, orgID, scope, name, version)
}

func secretView(s secret.Secret) oapi.Secret {
	view := oapi.Secret{
		Id: s.ID, Scope: oapi.SecretScope(s.Kind()), Name: s.Name, Description: s.Description, Version: s.Version,
		CreatedAt: oapi.At(s.CreatedAt), UpdatedAt: oapi.At(s.UpdatedAt), UpdatedBy: oapi.SecretEditor{Kind: oapi.SecretEditorKind(s.UpdatedKind)},
	}
	for to, id := range map[**uuid.UUID]uuid.UUID{&view.ProjectId: s.ProjectID, &view.EnvironmentId: s.EnvironmentID, &view.UpdatedBy.Id: s.UpdatedBy} {
		if id != uuid.Nil {
			*to = &id
		}
	}
	return view
}
