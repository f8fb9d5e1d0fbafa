package httpapi

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// shell is a server whose slices are never reached.
func shell(t *testing.T, change func(*Deps)) *Server {
	t.Helper()
	deps := Deps{
		Live: http.NotFoundHandler(), Registry: prometheus.NewRegistry(), Now: time.Now, NewID: uuid.New,
		Logger: slog.New(slog.DiscardHandler), Version: "test", CursorKey: []byte(strings.Repeat("k", 32)),
	}
	if change != nil {
		change(&deps)
	}
	s, err := New(deps)
	require.NoError(t, err)
	return s
}

func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := loadDocument()
	require.NoError(t, err)
	return doc
}

// assets belong to the docs page and stand in no document.
func isAsset(route string) bool { return strings.HasPrefix(route, "/api-docs/") }

func TestRoutes_areTheDocument(t *testing.T) {
	t.Parallel()
	s := shell(t, nil)
	var served, written []string
	for _, r := range s.echo.Routes() {
		if !isAsset(r.Path) {
			served = append(served, r.Method+" "+r.Path)
		}
	}
	for key := range s.ops {
		written = append(written, key)
	}
	assert.ElementsMatch(t, written, served)
}

func TestEveryRoute_needsACredential(t *testing.T) {
	t.Parallel()
	s := shell(t, nil)
	public := []string{"register", "confirmRegistration", "login", "refresh", "lookUpInvitation", "verifyEmail", "forgotPassword", "resetPassword", "openLive", "health", "livez", "readyz", "metrics", "apiDocs", "openapiYaml", "openapiJson", "asyncapiYaml"}
	for key, op := range s.ops {
		assert.Equal(t, slices.Contains(public, op.id), op.public, "%s: whoever opens a route writes it here too", key)
		if op.public {
			continue
		}
		path := strings.NewReplacer(":id", uuid.NewString(), ":environmentId", uuid.NewString(), ":fragmentId", uuid.NewString(), ":userId", uuid.NewString(), ":n", "1").Replace(op.route)
		for _, header := range []string{"", "Basic YTpi", "Bearer", "Bearer tf_x_y"} {
			r := httptest.NewRequestWithContext(t.Context(), op.method, path, strings.NewReader("{not even JSON"))
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			rec := httptest.NewRecorder()
			s.Handler().ServeHTTP(rec, r)
			assert.Equal(t, 401, rec.Code, "%s with %q: %s", key, header, rec.Body)
			assert.Equal(t, problemType, rec.Header().Get("Content-Type"), key)
		}
	}
}

func TestPermissions_areThoseOfAuth(t *testing.T) {
	t.Parallel()
	known := []string{permissionPublic, permissionSelf}
	for _, g := range auth.Grants() {
		known = append(known, string(g.Permission))
	}
	ops, err := loadOperations()
	require.NoError(t, err)
	for key, op := range ops {
		assert.Contains(t, known, op.permission, key)
	}
}

func TestDocument_isWhatTheLanguageOfTestsIs(t *testing.T) {
	t.Parallel()
	schemas := document(t).Components.Schemas
	enum := func(name string) []string {
		var names []string
		for _, v := range schemas[name].Value.Enum {
			names = append(names, v.(string))
		}
		return names
	}
	assert.ElementsMatch(t, testspec.SourceNames(), enum("Source"))
	assert.ElementsMatch(t, testspec.OperatorNames(), enum("Operator"))
	assert.EqualValues(t, limits.MaxSteps, *schemas["Steps"].Value.MaxItems)
	step := schemas["Step"].Value.Properties
	assert.EqualValues(t, limits.MaxAssertions, *step["assertions"].Value.MaxItems)
	assert.EqualValues(t, limits.MaxCaptures, *step["captures"].Value.MaxItems)

	// The fields of each part are those of the Go type that reads it.
	for name, part := range map[string]any{
		"Step": testspec.Step{}, "StepRequest": testspec.Request{}, "StepBodyRule": testspec.Body{},
		"StepAuth": testspec.Auth{}, "BodyPart": testspec.Part{}, "PartFile": testspec.PartFile{}, "GraphQlBody": testspec.GraphQL{},
		"Assertion": testspec.Assertion{}, "CaptureRule": testspec.Capture{}, "ForEach": testspec.ForEach{}, "Retry": testspec.Retry{},
	} {
		var want, have []string
		typ := reflect.TypeOf(part)
		for i := range typ.NumField() {
			field, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			want = append(want, field)
		}
		for field := range schemas[name].Value.Properties {
			have = append(have, field)
		}
		assert.ElementsMatch(t, want, have, name)
	}
}

// Every object that a client sends refuses fields that it doesn't know: what isn't written can't be set.
func TestDocument_bodiesAreClosed(t *testing.T) {
	t.Parallel()
	for path, item := range document(t).Paths.Map() {
		for method, op := range item.Operations() {
			if op.RequestBody == nil {
				continue
			}
			body := op.RequestBody.Value.Content.Get("application/json").Schema
			err := body.WalkSubtree(func(_ string, ref *openapi3.SchemaRef) error {
				s := ref.Value
				if s.Type.Is(openapi3.TypeObject) {
					closed := s.AdditionalProperties.Has != nil && !*s.AdditionalProperties.Has || s.AdditionalProperties.Schema != nil
					assert.True(t, closed, "%s %s: an open object %s", method, path, ref.Ref)
				}
				return nil
			})
			require.NoError(t, err)
			for _, owned := range []string{"id", "orgId", "organizationId", "version", "revision", "role", "operator", "createdAt"} {
				if slices.Contains([]string{"updateMember", "createInvitation", "transferOrganization"}, op.OperationID) && owned == "role" {
					continue // that is what they are for, and nobody reaches above themselves
				}
				if strings.HasPrefix(op.OperationID, "reevaluate") && owned == "revision" {
					continue // whose assertions are asked for; nothing is written
				}
				assert.NotContains(t, body.Value.Properties, owned, "%s %s", method, path)
			}
		}
	}
}

func TestDocument_examplesAreRight(t *testing.T) {
	t.Parallel()
	for path, item := range document(t).Paths.Map() {
		for method, op := range item.Operations() {
			if op.RequestBody == nil {
				continue
			}
			media := op.RequestBody.Value.Content.Get("application/json")
			examples := []any{}
			if media.Example != nil {
				examples = append(examples, media.Example)
			}
			for _, e := range media.Examples {
				examples = append(examples, e.Value.Value)
			}
			for _, e := range examples {
				raw, err := json.Marshal(e)
				require.NoError(t, err)
				value, faults, err := scanJSON(raw)
				require.NoError(t, err)
				assert.Empty(t, append(faults, schemaFaults(media.Schema.Value, value)...), "%s %s", method, path)
			}
		}
	}
}

// Every code that a room gives stands in the document, since programs are told to rely on them.
func TestDocument_listsEveryCode(t *testing.T) {
	t.Parallel()
	raw, _ := document(t).Components.Schemas["Code"].Value.Extensions["x-extensible-enum"].([]any)
	listed := map[string]bool{}
	for _, v := range raw {
		listed[v.(string)] = false
	}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		if d.Name() == "check.go" {
			return nil // what a check says stands in /health, not in a problem document
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 3 {
				return true
			}
			if fn, ok := call.Fun.(*ast.SelectorExpr); !ok || fn.Sel.Name != "New" || exprName(fn.X) != "fault" {
				return true
			}
			lit, ok := call.Args[1].(*ast.BasicLit)
			if !ok {
				return true
			}
			code, err := strconv.Unquote(lit.Value)
			if err != nil {
				return true
			}
			if _, ok := listed[code]; !ok {
				t.Errorf("%s gives the code %s, which openapi.yaml doesn't list", path, code)
			}
			listed[code] = true
			return true
		})
		return nil
	})
	require.NoError(t, err)
}

func exprName(e ast.Expr) string {
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

func TestPanic_isAnAnswerWithoutDetail(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := shell(t, func(d *Deps) {
		d.Logger = slog.New(slog.NewTextHandler(&log, nil))
		d.Live = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the secret is out") })
	})
	rec := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/live", nil)
	r.Header.Set(headerRequestID, "req-12345")
	s.Handler().ServeHTTP(rec, r)
	assert.Equal(t, 500, rec.Code)
	assert.NotContains(t, rec.Body.String(), "secret")
	assert.Contains(t, rec.Body.String(), "req-12345")
	assert.Contains(t, log.String(), "the secret is out")
	assert.Contains(t, log.String(), "req-12345")
}
