package httpapi

import (
	"context"

	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/vault"
)

// EraseMe answers DELETE /api/auth/me.
func (a *api) EraseMe(ctx context.Context, req oapi.EraseMeRequestObject) (oapi.EraseMeResponseObject, error) {
	position, err := a.deps.Orgs.EraseMe(ctx, vault.NewSecret(req.Body.Password))
	if err != nil {
		return nil, err
	}
	return oapi.EraseMe204Response{Headers: oapi.EraseMe204ResponseHeaders{XEventPosition: positionHeader(position)}}, nil
}
