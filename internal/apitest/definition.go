package apitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// regionName is what a region may be called.
var regionName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// parsed is a body that was read: its definition and the project that it names, uuid.Nil when it names none.
type parsed struct {
	Definition
	projectID uuid.UUID
}

// reader takes a body apart and collects what is wrong with it.
type reader struct {
	regions   []string // that exist; nil = any name
	ownFields []string // members that are not the spec's
	faults    fault.Error
}

// read reads a test as the API takes it: the test's own fields beside those of its spec. Everything that is wrong is
// named in one fault.Invalid, with pointers into body; what isn't a JSON object is fault.Malformed.
func read(body []byte, regions []string, more ...testspec.Option) (parsed, error) {
	r := reader{regions: regions, ownFields: ownFields}
	fields, rest, err := r.split(body)
	if err != nil {
		return parsed{}, err
	}
	p := r.own(fields)
	// An environment or an execution may give any variable, so a name alone is never wrong here.
	// Secrets are looked up when the project is known.
	options := []testspec.Option{testspec.WithAnyName(), testspec.WithAnySecret()}
	options = append(options, more...)
	spec, err := testspec.Read(rest, options...)
	var f *fault.Error
	switch {
	case errors.As(err, &f) && f.Kind == fault.Invalid:
		r.faults.Fields = append(r.faults.Fields, f.Fields...)
	case err != nil:
		return parsed{}, err
	}
	p.Spec = spec
	if len(r.faults.Fields) > 0 {
		r.faults.Kind, r.faults.Code, r.faults.Message = fault.Invalid, "test.invalid", "The test has mistakes."
		return p, &r.faults
	}
	return p, nil
}

// ownFields are the members of a body that belong to the test; all others are the spec's, or unknown to it.
var ownFields = []string{"name", "description", "projectId", "environmentId", "regions", "tags", "retry", "schedule"}

// split returns the test's own fields and an object of all others.
func (r *reader) split(body []byte) (own map[string]json.RawMessage, rest []byte, err error) {
	malformed := func(err error) error {
		return fault.New(fault.Malformed, "test.malformed", "The test cannot be read as a JSON object.").Because(err)
	}
	if len(body) > limits.MaxSpecBytes {
		return nil, nil, fault.New(fault.TooLarge, "test.too_large", "A test has at most %d bytes of JSON.", limits.MaxSpecBytes)
	}
	if !utf8.Valid(body) {
		return nil, nil, malformed(errors.New("not UTF-8"))
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, nil, malformed(err)
	}
	own = map[string]json.RawMessage{}
	out := bytes.NewBufferString("{")
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, nil, malformed(err)
		}
		name, _ := tok.(string) // an object's members have names: anything else is a syntax error before
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, nil, malformed(err)
		}
		if slices.Contains(r.ownFields, name) {
			if _, twice := own[name]; twice {
				r.faults.At("/"+name, "This field stands here twice.")
			}
			own[name] = value
			continue
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, nil, malformed(err)
		}
		out.Write(key)
		out.WriteByte(':')
		out.Write(value)
	}
	if _, err := dec.Token(); err != nil {
		return nil, nil, malformed(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, malformed(errors.New("something follows the object"))
	}
	out.WriteByte('}')
	return own, out.Bytes(), nil
}

// own reads and checks the test's own fields.
func (r *reader) own(fields map[string]json.RawMessage) (p parsed) {
	p.Name = strings.TrimSpace(r.text(fields, "name"))
	switch n := utf8.RuneCountInString(p.Name); {
	case n == 0 && !r.has("/name"):
		r.faults.At("/name", "A name is needed.")
	case n > limits.MaxTestName:
		r.faults.At("/name", "A name has at most %d characters.", limits.MaxTestName)
	case strings.ContainsFunc(p.Name, unicode.IsControl):
		r.faults.At("/name", "A name has no control characters.")
	}
	p.Description = strings.TrimSpace(r.text(fields, "description"))
	switch {
	case utf8.RuneCountInString(p.Description) > limits.MaxDescription:
		r.faults.At("/description", "A description has at most %d characters.", limits.MaxDescription)
	case strings.ContainsRune(p.Description, 0):
		r.faults.At("/description", "A description is text without NUL.")
	}
	p.projectID = r.id(fields, "projectId")
	p.EnvironmentID = r.id(fields, "environmentId")
	p.Regions = r.checkRegions(r.texts(fields, "regions"))
	p.Tags = r.checkTags(r.texts(fields, "tags"))
	r.notYet(fields)
	return p
}

// notYet refuses what the language has and this version cannot honour.
func (r *reader) notYet(fields map[string]json.RawMessage) {
	if raw, ok := fields["schedule"]; ok && !isNull(raw) {
		r.faults.At("/schedule", "Schedules in a test are not supported yet.")
	}
	raw, ok := fields["retry"]
	if !ok || isNull(raw) {
		return
	}
	var once struct {
		Attempts *int `json:"attempts"`
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&once); err != nil || once.Attempts == nil || *once.Attempts != 1 {
		r.faults.At("/retry", "Retries are not supported yet: leave this out, or write {\"attempts\": 1}.")
	}
}

func (r *reader) checkRegions(names []string) []string {
	if len(names) == 0 {
		return []string{DefaultRegion}
	}
	if len(names) > limits.MaxRegions {
		r.faults.At("/regions", "A test has at most %d regions.", limits.MaxRegions)
		return names
	}
	for _, f := range CheckRegions("/regions", names, r.regions) {
		if !r.has(f.Pointer) { // else it isn't even text
			r.faults.Fields = append(r.faults.Fields, f)
		}
	}
	return names
}

// CheckRegions names what is wrong with a list of regions that stands at pointer: a name that none can have, one that
// isn't among known (nil = all are), one that stands there twice.
func CheckRegions(pointer string, names, known []string) []fault.Field {
	var faults fault.Error
	for i, name := range names {
		at := fmt.Sprintf("%s/%d", pointer, i)
		switch {
		case !regionName.MatchString(name):
			faults.At(at, "A region's name has lower-case letters, digits and -, at most 40.")
		case known != nil && !slices.Contains(known, name):
			faults.At(at, "There is no region of this name.")
		case slices.Contains(names[:i], name):
			faults.At(at, "This region stands here twice.")
		}
	}
	return faults.Fields
}

func (r *reader) checkTags(tags []string) []string {
	if len(tags) > limits.MaxTags {
		r.faults.At("/tags", "A test has at most %d tags.", limits.MaxTags)
		return tags
	}
	for i, tag := range tags {
		at := fmt.Sprintf("/tags/%d", i)
		switch {
		case tag == "" || utf8.RuneCountInString(tag) > limits.MaxTagLength || strings.TrimSpace(tag) != tag || strings.ContainsFunc(tag, unicode.IsControl):
			r.faults.At(at, "A tag has 1 to %d characters, no control characters and no space at its ends.", limits.MaxTagLength)
		case slices.Contains(tags[:i], tag):
			r.faults.At(at, "This tag stands here twice.")
		}
	}
	if tags == nil {
		return []string{}
	}
	return tags
}

// text returns a field that is text; absent and null are "".
func (r *reader) text(fields map[string]json.RawMessage, name string) (s string) {
	r.decode(fields, name, &s, "This must be text.")
	return s
}

func (r *reader) texts(fields map[string]json.RawMessage, name string) (list []string) {
	var raw []json.RawMessage
	if !r.decode(fields, name, &raw, "This must be a list of texts.") {
		return nil
	}
	list = make([]string, len(raw))
	for i := range raw {
		if isNull(raw[i]) || json.Unmarshal(raw[i], &list[i]) != nil {
			r.faults.At(fmt.Sprintf("/%s/%d", name, i), "This must be text.")
			list[i] = fmt.Sprintf("%s-%d", name, i) // the place has its fault; it shall have no second one
		}
	}
	return list
}

func (r *reader) id(fields map[string]json.RawMessage, name string) uuid.UUID {
	s := r.text(fields, name)
	if s == "" {
		return uuid.Nil
	}
	id, err := uuid.Parse(s)
	if err != nil || len(s) != 36 || id == uuid.Nil {
		r.faults.At("/"+name, "This must be an id.")
		return uuid.Nil
	}
	return id
}

func (r *reader) decode(fields map[string]json.RawMessage, name string, into any, want string) bool {
	raw, ok := fields[name]
	if !ok || isNull(raw) {
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil {
		r.faults.At("/"+name, "%s", want)
		return false
	}
	return true
}

func (r *reader) has(pointer string) bool {
	return slices.ContainsFunc(r.faults.Fields, func(f fault.Field) bool { return f.Pointer == pointer })
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(bytes.TrimSpace(raw), []byte("null")) }

// merge applies a JSON Merge Patch (RFC 7396) to a JSON object.
func merge(target, patch []byte) ([]byte, error) {
	var change any
	dec := json.NewDecoder(bytes.NewReader(patch))
	dec.UseNumber()
	if err := dec.Decode(&change); err != nil {
		return nil, fault.New(fault.Malformed, "test.malformed", "The patch cannot be read as a JSON object.").Because(err)
	}
	if _, ok := change.(map[string]any); !ok || dec.More() {
		return nil, fault.New(fault.Malformed, "test.malformed", "A patch is one JSON object.")
	}
	var base any
	dec = json.NewDecoder(bytes.NewReader(target))
	dec.UseNumber()
	if err := dec.Decode(&base); err != nil {
		return nil, fmt.Errorf("read definition: %w", err)
	}
	out, err := json.Marshal(mergeValue(base, change))
	if err != nil {
		return nil, fmt.Errorf("write definition: %w", err)
	}
	return out, nil
}

func mergeValue(target, patch any) any {
	change, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	base, ok := target.(map[string]any)
	if !ok {
		base = map[string]any{}
	}
	for name, value := range change {
		if value == nil {
			delete(base, name)
			continue
		}
		base[name] = mergeValue(base[name], value)
	}
	return base
}
