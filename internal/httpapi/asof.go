package httpapi

import (
	"context"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/org"
)

// organization reads an organization as it is, or as it was.
func (a *api) organization(ctx context.Context, id uuid.UUID, asOf *string) (org.Org, error) {
	if asOf == nil {
		return a.deps.Orgs.Get(ctx, id)
	}
	point, err := org.ParseAsOf(*asOf)
	if err != nil {
		return org.Org{}, err
	}
	return a.deps.Orgs.GetAsOf(ctx, id, point)
}

// members reads who is in an organization, or who was.
func (a *api) members(ctx context.Context, id uuid.UUID, asOf *string, f org.Filter) ([]org.Member, *org.Cursor, error) {
	if asOf == nil {
		return a.deps.Orgs.Members(ctx, id, f)
	}
	point, err := org.ParseAsOf(*asOf)
	if err != nil {
		return nil, nil, err
	}
	return a.deps.Orgs.MembersAsOf(ctx, id, point, f)
}
