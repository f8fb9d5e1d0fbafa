package testspec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/testflow/testflow/internal/limits"
)

// A JSON Schema is judged by a library that can neither be stopped nor bounded: 24 nested allOf took 48 s and 11 GB, and
// an exponent of a million as much. So each compiled subschema gets a hook where its format stood (formats are
// annotations here, as 2020-12 has it): it counts what is looked at and reads the clock before the subschema goes on.

// The test's own schemas lie under schemaBase, the one of an assertion beside them, so that "schemas/pet" reaches the
// schema that the test calls pet.
const (
	schemaBase  = "testflow://test/"
	schemaNamed = schemaBase + "schemas/"
	schemaURL   = schemaBase + "expected"
)

// schemaFault is what is wrong with a schema: a clause, and where.
type schemaFault struct {
	name    string // of the schema in the test's schemas; "" for the one that was given
	pointer string // into it
	why     string
}

// schemaSet is one schema with those that it may refer to, compiled when needed. Safe for concurrent use.
type schemaSet struct {
	given any
	named map[string]any

	free sync.Pool // of *boundSchema
}

// boundSchema is a compiled schema with the meter that its hooks count with: for one evaluation at a time.
type boundSchema struct {
	schema *jsonschema.Schema
	meter  *schemaMeter
}

// schemaCache keeps schemas by their text and that of the test's schemas.
var schemaCache = mustCache[string, *schemaSet](512)

// schemaOf returns the set of raw, a schema, and the test's schemas. It compiles nothing.
func schemaOf(given any, named map[string]json.RawMessage) (*schemaSet, *schemaFault) {
	var key strings.Builder
	key.Write(encodeWhole(given))
	for _, name := range sorted(named) {
		key.WriteString("\x00" + name + "\x00")
		key.Write(named[name])
	}
	if set, ok := schemaCache.Get(key.String()); ok {
		return set, nil
	}
	set := &schemaSet{named: map[string]any{}}
	for name, text := range named {
		doc, err := decodeJSON(text)
		if err != nil {
			return nil, &schemaFault{name: name, why: "this is not JSON"}
		}
		set.named[name] = rootedReferences(doc, named)
	}
	set.given = rootedReferences(given, named)
	if countValues(set.given) > limits.MaxSchemaValues {
		return nil, &schemaFault{why: fmt.Sprintf("a schema holds at most %d JSON values", limits.MaxSchemaValues)}
	}
	if countValues(set.named) > 2*limits.MaxSchemaValues {
		return nil, &schemaFault{why: fmt.Sprintf("the test's schemas hold at most %d JSON values together", 2*limits.MaxSchemaValues)}
	}
	bound, fault := set.compile(schemaURL)
	if fault != nil {
		return nil, fault
	}
	set.free.Put(bound)
	schemaCache.Add(key.String(), set)
	return set, nil
}

// rootedReferences returns doc with each $ref to "schemas/NAME" made absolute, so that it means the same wherever it
// stands and whatever the $id around it.
func rootedReferences(doc any, named map[string]json.RawMessage) any {
	switch v := doc.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			if ref, ok := e.(string); ok && k == "$ref" {
				name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(ref, "/"), "schemas/"), "#")
				if _, known := named[name]; known && strings.HasPrefix(strings.TrimPrefix(ref, "/"), "schemas/") {
					out[k] = schemaBase + strings.TrimPrefix(ref, "/")
					continue
				}
			}
			out[k] = rootedReferences(e, named)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = rootedReferences(e, named)
		}
		return out
	}
	return doc
}

// encodeWhole writes v whatever its size: unlike encodeJSON it never stops.
func encodeWhole(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil // v came from decodeJSON
	}
	return b
}

// errNotCarried refuses every schema that the test doesn't carry.
type errNotCarried struct{ url string }

func (e errNotCarried) Error() string {
	return "the test carries no schema " + shorten(e.url, 120) + "; add it to the test's schemas"
}

// carried is the loader: what the test carries, by name. The library's own would read files.
type carried map[string]any

// Load returns a schema of the test.
func (c carried) Load(rawURL string) (any, error) {
	if name, ok := strings.CutPrefix(rawURL, schemaNamed); ok {
		if doc, ok := c[name]; ok {
			return doc, nil
		}
		return nil, errNotCarried{"schemas/" + name}
	}
	if doc, ok := c[rawURL]; ok {
		return doc, nil
	}
	return nil, errNotCarried{rawURL}
}

// compile compiles the schema at a URL of the set.
func (set *schemaSet) compile(at string) (bound *boundSchema, fault *schemaFault) {
	defer func() {
		// The library panics on some schemas that its metaschema let through.
		if recover() != nil {
			bound, fault = nil, &schemaFault{why: "this schema cannot be read"}
		}
	}()
	b := &boundSchema{meter: &schemaMeter{}}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseRegexpEngine(b.meter.regexp)
	loader := carried(maps.Clone(set.named))
	for _, doc := range set.named {
		addByID(loader, doc)
	}
	c.UseLoader(loader)
	if err := c.AddResource(schemaURL, set.given); err != nil {
		return nil, &schemaFault{why: "this schema cannot be read"}
	}
	schema, err := c.Compile(at)
	if err != nil {
		f := schemaFaultOf(err)
		return nil, &f
	}
	b.schema = schema
	g := schemaGraph{meter: b.meter, seen: map[*jsonschema.Schema]bool{}, weight: map[*jsonschema.Schema]int{}}
	g.visit(schema)
	if len(g.seen) > limits.MaxSchemaNodes {
		return nil, &schemaFault{why: fmt.Sprintf("a schema has at most %d subschemas, those that it refers to included", limits.MaxSchemaNodes)}
	}
	if g.weigh(schema) > limits.MaxSchemaExpansion {
		return nil, &schemaFault{why: fmt.Sprintf("with its references followed, more than %d subschemas apply to one value", limits.MaxSchemaExpansion)}
	}
	return b, nil
}

// addByID lets schemas within doc be referred to by their absolute $id.
func addByID(loader carried, doc any) {
	switch v := doc.(type) {
	case map[string]any:
		if id, ok := v["$id"].(string); ok {
			if u, err := url.Parse(id); err == nil && u.IsAbs() {
				u.Fragment = ""
				if _, has := loader[u.String()]; !has {
					loader[u.String()] = v
				}
			}
		}
		for _, e := range v {
			addByID(loader, e)
		}
	case []any:
		for _, e := range v {
			addByID(loader, e)
		}
	}
}

// schemaGraph goes over compiled subschemas.
type schemaGraph struct {
	meter  *schemaMeter
	seen   map[*jsonschema.Schema]bool
	weight map[*jsonschema.Schema]int
}

// visit hooks the meter into s and everything that it can reach.
func (g schemaGraph) visit(s *jsonschema.Schema) {
	if s == nil || g.seen[s] || len(g.seen) > limits.MaxSchemaNodes {
		return
	}
	g.seen[s] = true
	s.Format = &jsonschema.Format{Validate: func(v any) error {
		g.meter.look(s, v)
		return nil
	}}
	here, below := applicators(s)
	for _, kid := range append(here, below...) {
		g.visit(kid)
	}
}

// weigh returns how many subschemas apply to one value through s. A circle is the library's to refuse.
func (g schemaGraph) weigh(s *jsonschema.Schema) int {
	if w, ok := g.weight[s]; ok {
		return w
	}
	g.weight[s] = 1 // while its own are weighed: what refers back counts once
	here, below := applicators(s)
	w := 1
	for _, kid := range here {
		w = min(w+g.weigh(kid), limits.MaxSchemaExpansion+1)
	}
	most := 0
	for _, kid := range below {
		most = max(most, g.weigh(kid))
	}
	g.weight[s] = w
	return max(w, most)
}

// applicators returns the subschemas of s that apply to the same value, and those that apply to what is in it.
func applicators(s *jsonschema.Schema) (here, below []*jsonschema.Schema) {
	add := func(list *[]*jsonschema.Schema, kids ...*jsonschema.Schema) {
		for _, kid := range kids {
			if kid != nil {
				*list = append(*list, kid)
			}
		}
	}
	add(&here, s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else)
	add(&here, s.AllOf...)
	add(&here, s.AnyOf...)
	add(&here, s.OneOf...)
	if s.DynamicRef != nil {
		add(&here, s.DynamicRef.Ref)
	}
	for _, name := range sorted(s.DependentSchemas) {
		add(&here, s.DependentSchemas[name])
	}
	for _, name := range sorted(s.Dependencies) {
		if kid, ok := s.Dependencies[name].(*jsonschema.Schema); ok {
			add(&here, kid)
		}
	}
	add(&below, s.PropertyNames, s.UnevaluatedProperties, s.Contains, s.Items2020, s.UnevaluatedItems, s.ContentSchema)
	add(&below, s.PrefixItems...)
	for _, name := range sorted(s.Properties) {
		add(&below, s.Properties[name])
	}
	for _, kid := range s.PatternProperties {
		add(&below, kid)
	}
	for _, some := range []any{s.AdditionalProperties, s.Items, s.AdditionalItems} {
		switch kids := some.(type) {
		case *jsonschema.Schema:
			add(&below, kids)
		case []*jsonschema.Schema:
			add(&below, kids...)
		}
	}
	return here, below
}

// schemaMeter bounds one evaluation. It stops one by a panic with an errSelector, for the library knows no other way.
type schemaMeter struct {
	ctx   context.Context //nolint:containedctx // lives as long as one call of validate
	steps int
}

func (m *schemaMeter) spend(n int) {
	before := m.steps
	m.steps += n
	switch {
	case m.steps > limits.MaxSchemaSteps:
		panic(errSelector{"judging it by this schema takes too many steps"})
	case before>>8 == m.steps>>8 || m.ctx.Err() == nil:
	case errors.Is(m.ctx.Err(), context.DeadlineExceeded):
		panic(errSelector{"judging it by this schema takes too long"})
	default:
		panic(errSelector{"the run was stopped"})
	}
}

// look counts that s is about to judge v: what looks at each member of v is counted for each.
func (m *schemaMeter) look(s *jsonschema.Schema, v any) {
	if m.ctx == nil {
		return // compiling
	}
	n := 1
	switch x := v.(type) {
	case []any:
		n += len(x)
		if s.Contains != nil {
			n += len(x)
		}
		if s.UniqueItems {
			n += countValues(x)
		}
	case map[string]any:
		n += len(x) * (1 + len(s.PatternProperties))
		if s.PropertyNames != nil {
			n += len(x)
		}
	case string:
		n += len(x) >> 10
	}
	m.spend(n)
}

// countValues counts the values in v, itself included.
func countValues(v any) int {
	n := 1
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			n += countValues(e)
		}
	case map[string]any:
		for _, e := range x {
			n += countValues(e)
		}
	}
	return n
}

// schemaRegexp is a pattern under the meter.
type schemaRegexp struct {
	re     *regexp.Regexp
	source string
	meter  *schemaMeter
}

// String returns the pattern as it was written.
func (r *schemaRegexp) String() string { return r.source }

// MatchString looks for the pattern in s.
func (r *schemaRegexp) MatchString(s string) bool {
	if r.meter.ctx != nil {
		if len(s) > limits.MaxMatchInput {
			panic(errSelector{fmt.Sprintf("it holds text of more than %d bytes, too long for a pattern", limits.MaxMatchInput)})
		}
		r.meter.spend(1 + len(s)>>6)
	}
	return r.re.MatchString(s)
}

// regexp compiles a pattern, which ECMA-262 defines, by RE2.
func (m *schemaMeter) regexp(pattern string) (jsonschema.Regexp, error) {
	if len(pattern) > limits.MaxPattern {
		return nil, fmt.Errorf("a regular expression has at most %d bytes", limits.MaxPattern)
	}
	re, err := regexp.Compile(fromECMA(pattern))
	if err != nil {
		return nil, errors.New("this is not a regular expression that RE2 can run (it knows neither lookaround nor backreferences)")
	}
	return &schemaRegexp{re: re, source: pattern, meter: m}, nil
}

// validate judges v; a nil list means that it is valid. cannot is a clause that says why it could not be judged.
func (set *schemaSet) validate(ctx context.Context, v any) (violations []violation, cannot string) {
	bound, ok := set.free.Get().(*boundSchema)
	if !ok {
		var fault *schemaFault
		if bound, fault = set.compile(schemaURL); fault != nil {
			return nil, fault.why
		}
	}
	if !storable(v) {
		return nil, "it holds a number that is too long"
	}
	ctx, stop := context.WithTimeout(ctx, limits.SchemaTime)
	defer stop()
	defer func() {
		if p := recover(); p != nil {
			// The schema's hooks are done with; it is not used again, for it may have been left half way.
			stopped, ours := p.(errSelector)
			if !ours {
				panic(p)
			}
			violations, cannot = nil, stopped.why
		}
	}()
	bound.meter.ctx, bound.meter.steps = ctx, 0
	err := bound.schema.Validate(v)
	bound.meter.ctx = nil
	set.free.Put(bound)
	if err == nil {
		return nil, ""
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return nil, "it could not be judged by this schema"
	}
	return violationsOf(invalid), ""
}

// checkSchema says what is wrong with a schema, nil when nothing is. at is "" for the schema that was given, or the
// name of one of the test's.
func checkSchema(given json.RawMessage, named map[string]json.RawMessage) *schemaFault {
	if len(given) > limits.MaxSchemaBytes {
		return &schemaFault{why: fmt.Sprintf("a schema has at most %d bytes", limits.MaxSchemaBytes)}
	}
	doc, why := schemaDocument(given)
	if why != "" {
		return &schemaFault{why: why}
	}
	_, fault := schemaOf(doc, named)
	return fault
}

// schemaDocument reads a schema: an object, true or false; or text that is the JSON of one, such as a variable's.
func schemaDocument(raw json.RawMessage) (doc any, why string) {
	doc, err := decodeJSON(raw)
	if err != nil {
		return nil, "this is not JSON"
	}
	return schemaValue(doc)
}

func schemaValue(doc any) (schema any, why string) {
	if text, ok := doc.(string); ok {
		if len(text) > limits.MaxSchemaBytes {
			return nil, fmt.Sprintf("a schema has at most %d bytes", limits.MaxSchemaBytes)
		}
		tree, _, err := readTree([]byte(text), limits.MaxSpecBytes)
		if err == nil {
			doc, err = decodeJSON(tree.appendJSON(nil))
		}
		if err != nil {
			return nil, "this text is not the JSON of a schema"
		}
	}
	switch doc.(type) {
	case map[string]any, bool:
		return doc, ""
	}
	return nil, "a JSON Schema is an object, true or false, not " + typeName(doc)
}

// evalMatchesSchema is the operator matchesSchema.
func evalMatchesSchema(ctx context.Context, s *Subject, a value, expected any) (bool, string) {
	violations, cannot := s.violations(ctx, a, expected)
	return len(violations) == 0 && cannot == "", cannot
}

// explainSchema says what violates the schema, a clause.
func explainSchema(ctx context.Context, s *Subject, a value, expected any) string {
	violations, cannot := s.violations(ctx, a, expected)
	if cannot != "" {
		return cannot
	}
	return describeViolations(violations)
}

func (s *Subject) violations(ctx context.Context, a value, expected any) ([]violation, string) {
	doc, why := schemaValue(expected)
	if why != "" {
		return nil, why
	}
	set, fault := schemaOf(doc, s.Schemas)
	if fault != nil {
		return nil, fault.sentence()
	}
	return set.validate(ctx, a.v)
}

// sentence says what is wrong and where, a clause.
func (f *schemaFault) sentence() string {
	where := "the schema"
	if f.name != "" {
		where = "the schema " + shorten(f.name, 80)
	}
	if f.pointer != "" {
		where += " at " + shorten(f.pointer, 120)
	}
	return where + " is wrong: " + f.why
}

// schemas checks the test's own schemas.
func (v *validator) schemas(named map[string]json.RawMessage) {
	if len(named) > limits.MaxSchemas {
		v.refuse("/schemas", "A test has at most %d schemas.", limits.MaxSchemas)
		return
	}
	v.schemasNamed = named
	bad := map[string]bool{}
	size := 0
	for _, name := range sorted(named) {
		at := "/schemas/" + escapePointer(name)
		size += len(named[name])
		if why := refusedSchemaName(name); why != "" {
			v.refuse(at, "%s", why)
			bad[name] = true
			continue
		}
		if len(named[name]) > limits.MaxSchemaBytes {
			v.refuse(at, "A schema has at most %d bytes.", limits.MaxSchemaBytes)
			bad[name] = true
			continue
		}
		if _, faults, err := readTree(named[name], limits.MaxSpecBytes); err != nil {
			v.refuse(at, "This is not JSON.")
			bad[name] = true
		} else {
			v.faults = append(v.faults, Under(at, faults)...)
		}
	}
	if size > limits.MaxSchemasBytes {
		v.refuse("/schemas", "A test's schemas have at most %d bytes together.", limits.MaxSchemasBytes)
		return
	}
	if len(bad) > 0 {
		return
	}
	for _, name := range sorted(named) {
		ref := name
		if !strings.Contains(name, ":") {
			ref = "schemas/" + name
		}
		v.schema(append(appendQuoted([]byte(`{"$ref":`), ref), '}'), "/schemas/"+escapePointer(name))
	}
}

// schema checks a schema that stands at a place of the spec.
func (v *validator) schema(raw json.RawMessage, at string) {
	f := checkSchema(raw, v.schemasNamed)
	switch {
	case f == nil:
	case f.name == "":
		v.refuse(at+f.pointer, "%s.", sentence(f.why))
	case at == "/schemas/"+escapePointer(f.name):
		v.refuse(at+f.pointer, "%s.", sentence(f.why))
	case strings.HasPrefix(at, "/schemas/"):
		// It is told where it stands.
	default:
		v.refuse(at, "%s.", sentence(f.sentence()))
	}
}

// refusedSchemaName says why a schema cannot have a name: it is one that a reference can hold, or an absolute URI.
func refusedSchemaName(name string) string {
	const rule = "A schema's name has letters, digits, _, - and ., at most 64 characters; or it is an absolute URI without a fragment, at most 200 bytes."
	if strings.Contains(name, ":") {
		u, err := url.Parse(name)
		if err != nil || !u.IsAbs() || u.Fragment != "" || strings.HasSuffix(name, "#") || len(name) > 200 || u.Scheme == "testflow" {
			return rule
		}
		if strings.HasPrefix(name, "http://json-schema.org/") || strings.HasPrefix(name, "https://json-schema.org/") {
			return "The metaschemas are known already and cannot be changed."
		}
		return ""
	}
	ok := name != "" && len(name) <= limits.MaxVariableName && !strings.Contains(name, "..") && name[0] != '.'
	for i := range len(name) {
		c := name[i]
		ok = ok && (c == '_' || c == '-' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	if !ok {
		return rule
	}
	return ""
}
