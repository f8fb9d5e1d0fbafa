package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// formats are the formats of the document that are checked; kin-openapi knows others or weaker ones.
var formats = map[string]openapi3.StringFormatValidator{
	"uuid": openapi3.NewCallbackValidator(func(s string) error {
		if len(s) != 36 {
			return errors.New("no UUID")
		}
		return uuid.Validate(s)
	}),
	"date-time": openapi3.NewCallbackValidator(func(s string) error {
		_, err := time.Parse(time.RFC3339, s)
		return err
	}),
	"date": openapi3.NewCallbackValidator(func(s string) error {
		_, err := time.Parse(time.DateOnly, s)
		return err
	}),
}

// checkInput refuses what the document doesn't allow, every fault of parameters and body in one answer.
func (s *Server) checkInput(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := requestOf(c.Request().Context())
		if r.op == nil {
			return next(c)
		}
		if err := acceptable(c.Request(), r.op); err != nil {
			return err
		}
		faults, err := checkParameters(c, r)
		if err != nil {
			return err
		}
		body, bodyFaults, err := s.checkBody(c, r.op)
		if err != nil {
			var f *fault.Error
			if errors.As(err, &f) && (f.Kind == fault.Malformed || f.Kind == fault.Invalid) {
				f.Fields = append(f.Fields, faults...)
			}
			return err
		}
		r.body = body
		if r.op.id == "validateTest" && len(faults) == 0 {
			r.bodyFaults = bodyFaults
			return next(c)
		}
		if faults = append(faults, bodyFaults...); len(faults) == 0 {
			return next(c)
		}
		if r.op.definition && !r.op.patch { // a patch is no whole definition
			judge := s.definitionFaults
			if strings.HasSuffix(r.op.id, "Fragment") {
				judge = s.fragmentFaults
			}
			more, err := judge(c.Request().Context(), body)
			if err != nil && fault.KindOf(err) != fault.Malformed {
				return err
			}
			faults = append(faults, more...)
		}
		if r.op.id == "register" {
			faults = append(faults, s.registrationFaults(body)...)
		}
		return invalid(sortFields(faults))
	}
}

// sortFields orders faults, keeps the first at each place, and cuts the list.
func sortFields(fields []fault.Field) []fault.Field {
	slices.SortStableFunc(fields, func(a, b fault.Field) int {
		if c := strings.Compare(a.Parameter, b.Parameter); c != 0 {
			return c
		}
		return strings.Compare(a.Pointer, b.Pointer)
	})
	fields = slices.CompactFunc(fields, func(a, b fault.Field) bool { return a.Parameter == b.Parameter && a.Pointer == b.Pointer })
	return fields[:min(len(fields), limits.MaxFaults)]
}

// acceptable refuses a client that takes nothing that the operation can answer.
func acceptable(r *http.Request, op *operation) error {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if accept == "" || len(op.produces) == 0 {
		return nil
	}
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		for _, have := range op.produces {
			group, _, _ := strings.Cut(have, "/")
			if media == "*/*" || media == have || media == group+"/*" || media == problemType {
				return nil
			}
		}
	}
	return &httpFault{http.StatusNotAcceptable, "request.not_acceptable", "This address answers as " + strings.Join(op.produces, " or ") + "."}
}

// checkParameters checks path, query and headers. A path that cannot name anything is not found.
func checkParameters(c echo.Context, r *request) ([]fault.Field, error) {
	var faults []fault.Field
	for name, values := range r.query {
		switch {
		case !r.op.query[name]:
			faults = append(faults, fault.Field{Parameter: strings.ToValidUTF8(name, "\uFFFD"), Detail: unknownParameter(r.op)})
		case slices.ContainsFunc(values, unstorable):
			faults = append(faults, fault.Field{Parameter: name, Detail: "must be UTF-8 text without the character NUL"})
		}
	}
	path := map[string]string{}
	for i, name := range c.ParamNames() {
		path[name] = c.ParamValues()[i]
	}
	input := &openapi3filter.RequestValidationInput{
		Request: c.Request(), PathParams: path, QueryParams: r.query,
		Options: &openapi3filter.Options{
			MultiError: true, SkipSettingDefaults: true,
			SchemaValidationOptions: []openapi3.SchemaValidationOption{openapi3.WithStringFormatValidators(formats)},
		},
	}
	for _, p := range r.op.params {
		if p.In == openapi3.ParameterInHeader && len(c.Request().Header.Values(p.Name)) > 1 {
			faults = append(faults, fault.Field{Parameter: p.Name, Detail: "must not stand twice"})
			continue
		}
		if p.In == openapi3.ParameterInQuery && len(r.query[p.Name]) > 1 && !p.Schema.Value.Type.Is(openapi3.TypeArray) {
			faults = append(faults, fault.Field{Parameter: p.Name, Detail: "must not stand twice"})
			continue
		}
		err := openapi3filter.ValidateParameter(c.Request().Context(), input, p)
		if err == nil {
			continue
		}
		if p.In == openapi3.ParameterInPath {
			detail := parameterDetail(p, err)
			f := fault.New(fault.NotFound, "request.route", "There is nothing at this address: in its path %s %s.", p.Name, detail)
			f.Fields = []fault.Field{{Parameter: p.Name, Detail: detail}}
			return nil, f
		}
		faults = append(faults, fault.Field{Parameter: p.Name, Detail: parameterDetail(p, err)})
	}
	return faults, nil
}

// unstorable tells a text that Postgres cannot take, even to compare with.
func unstorable(s string) bool { return !utf8.ValidString(s) || strings.ContainsRune(s, 0) }

func unknownParameter(op *operation) string {
	if len(op.query) == 0 {
		return "is unknown; this address takes no query parameters"
	}
	return "is unknown; there are " + strings.Join(slices.Sorted(maps.Keys(op.query)), ", ")
}

// parameterDetail says what would be right, never what was sent.
func parameterDetail(p *openapi3.Parameter, err error) string {
	var schema *openapi3.SchemaError
	var parse *openapi3filter.ParseError
	switch {
	case errors.As(err, &schema):
		return schemaDetail(schema)
	case errors.Is(err, openapi3filter.ErrInvalidRequired):
		return "is required"
	case errors.As(err, &parse) && p.Schema.Value.Type.Is(openapi3.TypeInteger):
		return "must be a whole number"
	}
	return "has the wrong form"
}

// checkBody reads and checks the body; it returns the bytes as they came.
func (s *Server) checkBody(c echo.Context, op *operation) ([]byte, []fault.Field, error) {
	if !op.command() {
		return nil, nil, nil
	}
	body, err := s.readBody(c)
	if err != nil {
		return nil, nil, err
	}
	if len(body) == 0 {
		if op.needsBody {
			return nil, nil, malformed("This address needs a body.")
		}
		return nil, nil, nil
	}
	if op.yaml && isYAML(c.Request()) {
		if body, err = testspec.FromYAML(body); err != nil {
			return nil, nil, err
		}
	} else if err := jsonMedia(c.Request(), op.yaml); err != nil {
		return nil, nil, err
	}
	value, faults, err := scanJSON(body)
	if err != nil {
		return nil, nil, err
	}
	if !op.hasBody {
		if object, ok := value.(map[string]any); !ok || len(object) > 0 {
			faults = append(faults, fault.Field{Detail: "must be left out; this address takes no body"})
		}
		return nil, faults, nil
	}
	if op.definition || op.assertions {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, nil, invalid([]fault.Field{{Detail: "must be an object"}})
		}
		if op.patch {
			faults = append(faults, unknownRemovals(op.bodySchema, object)...)
		}
		return body, faults, nil
	}
	return body, append(faults, schemaFaults(op.bodySchema, value)...), nil
}

// unknownRemovals are the fields that a merge patch takes away and that there never are: what the patch makes doesn't
// show them, so nobody behind the door sees the mistake.
func unknownRemovals(schema *openapi3.Schema, patch map[string]any) (faults []fault.Field) {
	for name, value := range patch {
		if value == nil && schema.Properties[name] == nil {
			faults = append(faults, fault.Field{Pointer: "/" + escapePointer(name), Detail: "is unknown; there are " + strings.Join(slices.Sorted(maps.Keys(schema.Properties)), ", ")})
		}
	}
	return faults
}

func (s *Server) readBody(c echo.Context) ([]byte, error) {
	r := c.Request()
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if slices.ContainsFunc(r.Header.Values("Content-Encoding"), func(enc string) bool { return enc != "" && !strings.EqualFold(enc, "identity") }) {
		return nil, &httpFault{http.StatusUnsupportedMediaType, "request.media_type", "Send the body without Content-Encoding."}
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Response().Writer, r.Body, s.deps.Limits.RequestBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, fault.New(fault.TooLarge, "request.too_large", "The body must have at most %d bytes.", tooLarge.Limit)
	case err != nil:
		return nil, malformed("The body ended before it was complete.").Because(err)
	}
	return body, nil
}

// yamlType is the media type of RFC 9512.
const yamlType = "application/yaml"

// isYAML says whether a body is said to be YAML.
func isYAML(r *http.Request) bool {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, given := params["charset"]
	return err == nil && len(r.Header.Values("Content-Type")) == 1 && media == yamlType && (!given || strings.EqualFold(charset, "utf-8"))
}

func jsonMedia(r *http.Request, yaml bool) error {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, given := params["charset"]
	if err == nil && len(r.Header.Values("Content-Type")) == 1 && media == jsonType && (!given || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	if yaml {
		return &httpFault{http.StatusUnsupportedMediaType, "request.media_type", "Send the body as application/json or application/yaml."}
	}
	return &httpFault{http.StatusUnsupportedMediaType, "request.media_type", "Send the body as application/json."}
}

// schemaFaults returns every place where value isn't what the schema says.
func schemaFaults(schema *openapi3.Schema, value any) []fault.Field {
	err := schema.VisitJSON(value, openapi3.MultiErrors(), openapi3.VisitAsRequest(), openapi3.WithStringFormatValidators(formats))
	return flatten(nil, err)
}

func flatten(faults []fault.Field, err error) []fault.Field {
	var several openapi3.MultiError
	var one *openapi3.SchemaError
	switch {
	case err == nil || len(faults) >= limits.MaxFaults:
	case errors.As(err, &several):
		for _, e := range several {
			faults = flatten(faults, e)
		}
	case errors.As(err, &one):
		pointer := ""
		for _, token := range one.JSONPointer() {
			pointer += "/" + escapePointer(token)
		}
		if name, ok := unknownProperty(one); ok {
			pointer += "/" + escapePointer(name)
		}
		faults = append(faults, fault.Field{Pointer: pointer, Detail: schemaDetail(one)})
	default:
		faults = append(faults, fault.Field{Detail: "has the wrong form"})
	}
	return faults
}

// unknownProperty returns the name of a property that the schema doesn't have; kin-openapi tells it in its text alone.
func unknownProperty(e *openapi3.SchemaError) (string, bool) {
	if e.SchemaField != "properties" {
		return "", false
	}
	quoted, ok := strings.CutPrefix(e.Reason, "property ")
	if !ok {
		return "", false
	}
	name, err := strconv.Unquote(strings.TrimSuffix(quoted, " is unsupported"))
	return name, err == nil
}

// schemaDetail says what would be right. It never repeats what was sent.
func schemaDetail(e *openapi3.SchemaError) string {
	schema := e.Schema
	if schema == nil {
		return "has the wrong form"
	}
	switch e.SchemaField {
	case "properties":
		return "is unknown; there are " + strings.Join(slices.Sorted(maps.Keys(schema.Properties)), ", ")
	case "required":
		return "is required"
	case "type":
		return "must be " + typeName(schema)
	case "nullable":
		return "must not be null"
	case "enum":
		return "must be one of " + enumNames(schema.Enum)
	case "minLength":
		return "must have at least " + characters(schema.MinLength)
	case "maxLength":
		return "must have at most " + characters(*schema.MaxLength)
	case "minItems":
		return "must have at least " + items(schema.MinItems)
	case "maxItems":
		return "must have at most " + items(*schema.MaxItems)
	case "minProperties":
		return "must name at least one field"
	case "maxProperties":
		return fmt.Sprintf("must have at most %d entries", *schema.MaxProps)
	case "minimum":
		return fmt.Sprintf("must be at least %g", *schema.Min)
	case "maximum":
		return fmt.Sprintf("must be at most %g", *schema.Max)
	case "uniqueItems":
		return "must not hold an item twice"
	case "format":
		return formatDetail(schema.Format)
	case "pattern":
		if schema.Example != nil {
			return fmt.Sprintf("has the wrong form; right is for example %v", schema.Example)
		}
	}
	return "has the wrong form"
}

func characters(n uint64) string {
	if n == 1 {
		return "1 character"
	}
	return strconv.FormatUint(n, 10) + " characters"
}

func items(n uint64) string {
	if n == 1 {
		return "1 item"
	}
	return strconv.FormatUint(n, 10) + " items"
}

func typeName(schema *openapi3.Schema) string {
	var names []string
	for _, t := range schema.Type.Slice() {
		switch t {
		case openapi3.TypeString:
			names = append(names, "text")
		case openapi3.TypeInteger:
			names = append(names, "a whole number")
		case openapi3.TypeBoolean:
			names = append(names, "true or false")
		case openapi3.TypeArray:
			names = append(names, "a list")
		case openapi3.TypeObject:
			names = append(names, "an object")
		default:
			names = append(names, "a "+t)
		}
	}
	return strings.Join(names, " or ")
}

func enumNames(values []any) string {
	names := make([]string, 0, len(values))
	for _, v := range values {
		if v != "" {
			names = append(names, fmt.Sprint(v))
		}
	}
	return strings.Join(names, ", ")
}

func formatDetail(format string) string {
	switch format {
	case "uuid":
		return "must be a UUID"
	case "date-time":
		return "must be an RFC 3339 time such as 2026-11-22T17:30:00Z"
	case "date":
		return "must be a date such as 2026-11-22"
	case "int32", "int64":
		return "is out of range"
	}
	return "has the wrong form"
}

// bodyBinder gives generated code the body that checkInput has read and found right.
type bodyBinder struct{}

// Bind decodes the body of c into target; an absent body leaves it as it is.
func (bodyBinder) Bind(target any, c echo.Context) error {
	body := requestOf(c.Request().Context()).body
	if len(body) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := dec.Decode(target); err != nil {
		// The document allowed it, so the document and the Go type disagree.
		return fmt.Errorf("decode a checked body: %w", err)
	}
	return nil
}
