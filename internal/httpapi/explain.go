package httpapi

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/org"
)

// withdrawing are the operations that only take access away, and what it takes to find whose: they stay allowed in an
// organization that is going to be deleted.
var withdrawing = []string{"removeMember", "listInvitations", "revokeInvitation", "revokeApiKey"}

// ExplainPermission answers GET /api/permissions/explain.
func (a *api) ExplainPermission(ctx context.Context, req oapi.ExplainPermissionRequestObject) (oapi.ExplainPermissionResponseObject, error) {
	perm, op, err := a.explained(req.Params)
	if err != nil {
		return nil, err
	}
	of := org.Subject{}
	if req.Params.UserId != nil {
		of.AccountID = *req.Params.UserId
	}
	if req.Params.ApiKeyId != nil {
		of.KeyID = *req.Params.ApiKeyId
	}
	e, err := a.deps.Orgs.Explain(ctx, auth.From(ctx).OrgID, of, perm, op != nil && slices.Contains(withdrawing, op.id))
	if err != nil {
		return nil, err
	}
	view := explanationView(e)
	if op != nil {
		view.Operation = &oapi.ExplainedOperation{Id: op.id, Method: op.method, Path: op.template, Summary: op.summary}
		if op.id == "eraseMe" && e.Who.Kind == auth.User && e.Allowed {
			view.Conditions = append(view.Conditions, eraseConditions(e)...)
		}
		if op.about != "" {
			view.Operation.Description = some(op.about)
		}
	}
	return oapi.ExplainPermission200JSONResponse(view), nil
}

// explained returns the permission that is asked about, and the operation if one was named, with every fault of the query.
func (a *api) explained(p oapi.ExplainPermissionParams) (perm auth.Permission, op *operation, err error) {
	var faults []fault.Field
	refuse := func(parameter, detail string) {
		faults = append(faults, fault.Field{Parameter: parameter, Detail: detail})
	}
	switch {
	case (p.Permission == nil) == (p.Operation == nil):
		refuse("permission", "name a permission or an operation, one of the two")
	case p.Permission != nil:
		perm = auth.Permission(*p.Permission)
		if !slices.ContainsFunc(auth.Grants(), func(g auth.Grant) bool { return g.Permission == perm }) {
			refuse("permission", "there is no such permission; docs/permissions.md lists them")
		}
	default:
		for _, o := range a.ops {
			if o.id == *p.Operation {
				op, perm = o, auth.Permission(o.permission)
			}
		}
		if op == nil {
			refuse("operation", "there is no operation with this operationId in /openapi.yaml")
		}
	}
	if p.UserId != nil && p.ApiKeyId != nil {
		refuse("apiKeyId", "ask about a person or about an API key, one of the two")
	}
	for name, id := range map[string]*uuid.UUID{"userId": p.UserId, "apiKeyId": p.ApiKeyId} {
		if id != nil && *id == uuid.Nil {
			refuse(name, "must be an id")
		}
	}
	if len(faults) > 0 {
		return "", nil, invalid(faults)
	}
	return perm, op, nil
}

// eraseConditions are what stands in the way of erasing one's account, which no permission says.
func eraseConditions(e org.Explanation) []string {
	list := []string{
		"It takes the password of the account.",
		"Who is the only admin of an organization that others are in hands it over or deletes it first; that holds for each of their organizations.",
		"The operator of the installation can't be erased.",
	}
	if e.LastAdmin {
		list = append(list, "They are the only admin of this one.")
	}
	return list
}

func explanationView(e org.Explanation) oapi.PermissionExplanation {
	view := oapi.PermissionExplanation{
		Allowed: e.Allowed, Permission: string(e.Permission), Conditions: append([]string{}, e.Conditions...),
		Organization: oapi.ExplainedOrganization{Id: e.ID, Name: e.Name, Frozen: e.Frozen},
		Subject:      oapi.ExplainedSubject{Kind: oapi.ExplainedSubjectKind(e.Who.Kind), Id: e.Who.ID},
		Checks: each(e.Checks, func(c auth.Check) oapi.PermissionCheck {
			return oapi.PermissionCheck{Rule: oapi.PermissionCheckRule(c.Rule), Holds: c.Holds, Detail: c.Detail}
		}),
	}
	if e.Who.Name != "" {
		view.Subject.Name = some(e.Who.Name)
	}
	if e.Who.Role != "" {
		view.Subject.Role = some(oapi.Role(e.Who.Role))
	}
	if e.Who.Kind == auth.APIKey {
		scopes := each(e.Who.Scopes, func(p auth.Permission) string { return string(p) })
		view.Subject.Scopes = &scopes
	}
	if i := slices.IndexFunc(e.Checks, func(c auth.Check) bool { return !c.Holds }); i >= 0 {
		view.DecidedBy = some(string(e.Checks[i].Rule))
	}
	if e.Grant != nil {
		view.Grant = &oapi.PermissionGrant{Permission: string(e.Grant.Permission), Allows: e.Grant.Allows, Roles: []oapi.Role{}}
		for _, r := range auth.Roles() {
			if r.May(e.Grant.Permission) {
				view.Grant.Roles = append(view.Grant.Roles, oapi.Role(r))
			}
		}
	}
	return view
}
