package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/openapi"
)

// operation is what the document says of one route, in the form that middleware needs.
type operation struct {
	id         string
	method     string
	route      string // as Echo writes it: /api/runs/:id
	template   string // as the document does: /api/runs/{id}
	summary    string
	about      string    // its description; may be empty
	public     bool      // security: []
	permission string    // x-permission
	rate       rateClass // x-rate-limit
	params     []*openapi3.Parameter
	query      map[string]bool // the query parameters that there are
	bodySchema *openapi3.Schema
	hasBody    bool
	needsBody  bool
	idempotent bool // takes an Idempotency-Key
	waits      bool // takes Prefer
	definition bool // takes a test's definition, whose only judge is apitest
	patch      bool // of a definition: the body is a merge patch
	yaml       bool // takes its body as application/yaml too
	assertions bool // takes assertions, whose only judge is run
	secret     bool // x-answers-secret: its answer shows a secret
	produces   []string
}

// Permissions that are no permissions of auth.
const (
	permissionPublic = "public" // anybody
	permissionSelf   = "self"   // anybody who is signed in
)

// command reports whether the operation changes something.
func (o *operation) command() bool { return o.method != http.MethodGet }

// analytics reports whether the operation reads projections, which follow the log, instead of inline read models.
func (o *operation) analytics() bool { return strings.HasPrefix(o.route, "/api/analytics/") }

// streams reports whether the answer may take longer than a request's deadline.
func (o *operation) streams() bool { return o.id == "exportAudit" || o.id == "openLive" }

// provesPassword reports whether the operation succeeds only for who knows the password.
func (o *operation) provesPassword() bool { return o.id == "login" || o.id == "changePassword" }

// loadDocument returns the checked API document.
func loadDocument() (*openapi3.T, error) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(openapi.YAML)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(loader.Context); err != nil {
		return nil, err
	}
	return doc, nil
}

// loadOperations returns the operations of the document by method and route.
func loadOperations() (map[string]*operation, error) {
	doc, err := loadDocument()
	if err != nil {
		return nil, err
	}
	ops := map[string]*operation{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			o, err := newOperation(method, path, item, op)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			ops[method+" "+o.route] = o
		}
	}
	return ops, nil
}

func newOperation(method, path string, item *openapi3.PathItem, op *openapi3.Operation) (*operation, error) {
	o := &operation{id: op.OperationID, method: method, route: echoRoute(path), summary: op.Summary, about: strings.TrimSpace(op.Description), template: path, query: map[string]bool{}}
	o.public = op.Security != nil && len(*op.Security) == 0
	o.permission, _ = op.Extensions["x-permission"].(string)
	o.secret, _ = op.Extensions["x-answers-secret"].(bool)
	if o.permission == "" || (o.permission == permissionPublic) != o.public {
		return nil, errors.New("x-permission is missing or contradicts security")
	}
	rate, _ := op.Extensions["x-rate-limit"].(string)
	if o.rate = cmp.Or(rateClass(rate), rateGeneral); !o.rate.known() {
		return nil, fmt.Errorf("x-rate-limit: %s is none", rate)
	}
	for _, p := range append(item.Parameters, op.Parameters...) {
		o.params = append(o.params, p.Value)
		switch {
		case p.Value.In == openapi3.ParameterInQuery:
			o.query[p.Value.Name] = true
		case p.Value.Name == "Idempotency-Key":
			o.idempotent = true
		case p.Value.Name == "Prefer":
			o.waits = true
		}
	}
	if op.RequestBody != nil {
		media := op.RequestBody.Value.Content.Get("application/json")
		if media == nil || media.Schema == nil {
			return nil, errors.New("a body without a JSON schema")
		}
		o.yaml = op.RequestBody.Value.Content.Get("application/yaml") != nil
		o.hasBody, o.needsBody, o.bodySchema = true, op.RequestBody.Value.Required, media.Schema.Value
	}
	switch o.id {
	case "createTest", "replaceTest", "updateTest", "validateTest", "createFragment", "replaceFragment", "updateFragment":
		o.definition = true
		o.patch = op.OperationID == "updateTest" || op.OperationID == "updateFragment"
	case "reevaluateRun", "reevaluateTest":
		o.assertions = true
	}
	for status, answer := range op.Responses.Map() {
		if strings.HasPrefix(status, "2") && answer.Value != nil {
			for mime := range answer.Value.Content {
				o.produces = append(o.produces, mime)
			}
		}
	}
	return o, nil
}

// echoRoute writes a path of the document as Echo does: {id} is :id.
func echoRoute(path string) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(path)
}

type operationKey struct{}

// request is what the door knows of a request; handlers reach it through the context.
type request struct {
	op    *operation
	id    string // request id
	path  string
	query map[string][]string
	// header is the request's own.
	header http.Header
	body   []byte
	// bodyFaults are those of a definition that is only to be judged: the handler answers with them.
	bodyFaults []fault.Field
	counted    bool // against a limit
	inUnit     bool // a unit of work is open around the handler
}

// requestOf returns the door's notes on the request of ctx; there always are some behind identify.
func requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(operationKey{}).(*request)
	if r == nil {
		return &request{}
	}
	return r
}
