package testspec

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"mime"
	"strconv"
	"strings"

	"github.com/testflow/testflow/internal/limits"
)

// Body is what a request carries: exactly one of its kinds, BodyKinds.
type Body struct {
	// JSON is any JSON value. References stand in its strings, not in its keys; a string that is nothing but one
	// reference to a captured value takes that value's JSON type.
	JSON json.RawMessage `json:"json,omitempty"`
	// Text is sent as it is, with ContentType (text/plain; charset=utf-8 unless set).
	Text *string `json:"text,omitempty"`
	// XML is sent as it is, with ContentType (application/xml unless set). What a reference brings in is not escaped, so
	// that it may be an element.
	XML *string `json:"xml,omitempty"`
	// Form is sent as application/x-www-form-urlencoded, its names in alphabetical order.
	Form map[string]Values `json:"form,omitempty"`
	// Multipart is sent as multipart/form-data (RFC 7578), its parts in this order.
	Multipart []Part `json:"multipart,omitempty"`
	// GraphQL is sent as GraphQL over HTTP has it: by POST as JSON, by GET in the query.
	GraphQL *GraphQL `json:"graphql,omitempty"`
	// Base64 is decoded and sent with ContentType (application/octet-stream unless set).
	Base64 *string `json:"base64,omitempty"`
	// ContentType is for Text, XML and Base64; with the others a header Content-Type may be set.
	ContentType string `json:"contentType,omitempty"`
}

// BodyKinds lists the fields of which a Body has exactly one, for documents.
func BodyKinds() []string {
	return []string{"json", "text", "xml", "form", "multipart", "graphql", "base64"}
}

// Part is one part of a multipart body: exactly one of Value and File.
type Part struct {
	Name string `json:"name"`
	// Value is text, with ContentType when that is set.
	Value       *string   `json:"value,omitempty"`
	ContentType string    `json:"contentType,omitempty"`
	File        *PartFile `json:"file,omitempty"`
}

// PartFile is a part with a file's name: exactly one of Text and Base64.
type PartFile struct {
	Name string `json:"name"`
	// ContentType is application/octet-stream unless set.
	ContentType string  `json:"contentType,omitempty"`
	Text        *string `json:"text,omitempty"`
	Base64      *string `json:"base64,omitempty"`
}

// GraphQL is an operation. References stand in its texts and in the strings of its variables.
type GraphQL struct {
	Query string `json:"query"`
	// Variables is a JSON object.
	Variables     json.RawMessage `json:"variables,omitempty"`
	OperationName string          `json:"operationName,omitempty"`
}

// DecodeBase64 reads standard base64, with or without its padding; spaces and line ends in it are left out.
func DecodeBase64(s string) ([]byte, error) {
	s = strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, s)
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, errors.New("this is not base64")
	}
	return b, nil
}

func (v *validator) body(r Request, at string) {
	b := r.Body
	if b == nil {
		return
	}
	kinds := 0
	for _, has := range []bool{
		b.JSON != nil, b.Text != nil, b.XML != nil, b.Form != nil, b.Multipart != nil, b.GraphQL != nil, b.Base64 != nil,
	} {
		if has {
			kinds++
		}
	}
	if kinds != 1 {
		v.refuse(at, "A body is exactly one of %s.", strings.Join(BodyKinds(), ", "))
	}
	if b.JSON != nil {
		v.bodyJSON(b.JSON, at+"/json")
	}
	if b.Text != nil {
		v.bodyText(*b.Text, at+"/text")
	}
	if b.XML != nil && v.bodyText(*b.XML, at+"/xml") {
		v.xml(*b.XML, at+"/xml")
	}
	v.pairs(b.Form, at+"/form", limits.MaxFormValues, "form values")
	if b.Multipart != nil {
		v.multipart(b.Multipart, at+"/multipart")
	}
	if b.GraphQL != nil {
		v.graphQL(r, at+"/graphql")
	}
	if b.Base64 != nil && v.bodyText(*b.Base64, at+"/base64") {
		v.base64(*b.Base64, at+"/base64")
	}
	if b.ContentType != "" && b.Text == nil && b.XML == nil && b.Base64 == nil {
		v.refuse(at+"/contentType", "Only a text, xml or base64 body has a content type of its own; for the others set the header content-type.")
	}
	v.mediaType(b.ContentType, at+"/contentType")
}

// bodyText checks a template of a body's; false when its form is wrong.
func (v *validator) bodyText(s, at string) bool {
	if len(s) > limits.MaxRequestBody {
		v.refuse(at, "A body has at most %d bytes.", limits.MaxRequestBody)
		return false
	}
	return v.template(s, at)
}

func (v *validator) bodyJSON(raw json.RawMessage, at string) {
	if len(raw) > limits.MaxRequestBody {
		v.refuse(at, "A body has at most %d bytes.", limits.MaxRequestBody)
		return
	}
	v.jsonTemplate(raw, at)
}

func (v *validator) mediaType(s, at string) {
	if s == "" {
		return
	}
	if _, _, err := mime.ParseMediaType(s); err != nil || !ValidHeaderValue(s) || len(s) > limits.MaxContentType {
		v.refuse(at, "This is not a media type such as text/plain; charset=utf-8.")
	}
}

// base64 checks what holds no reference; the rest is seen when the values are there.
func (v *validator) base64(s, at string) {
	if len(References(s)) > 0 {
		return
	}
	if _, err := DecodeBase64(s); err != nil {
		v.refuse(at, "This is not base64.")
	}
}

// xml checks that s is well-formed, with a word in each reference's place: text, a name or a value fit there. A text
// with a document type is not looked at, since that may define entities; what shall not be well-formed is a text body.
func (v *validator) xml(s, at string) {
	parts, err := parseTemplate(s)
	if err != nil || strings.Contains(s, "<!DOCTYPE") || len(parts) == 1 && parts[0].ref != "" {
		return
	}
	var probe strings.Builder
	for _, p := range parts {
		if p.ref != "" {
			p.lit = "x"
		}
		probe.WriteString(p.lit)
	}
	d := xml.NewDecoder(strings.NewReader(probe.String()))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	elements := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, column := d.InputPos()
			v.refuse(at, "This is not well-formed XML near line %d, column %d; send it as text if it shall be so.", line, column)
			return
		}
		if _, ok := token.(xml.StartElement); ok {
			elements++
		}
	}
	if elements == 0 && len(References(s)) == 0 {
		v.refuse(at, "This is not XML: it has no element.")
	}
}

func (v *validator) multipart(parts []Part, at string) {
	switch {
	case len(parts) == 0:
		v.refuse(at, "A multipart body has at least one part.")
	case len(parts) > limits.MaxParts:
		v.refuse(at, "A multipart body has at most %d parts.", limits.MaxParts)
		return
	}
	for i, p := range parts {
		here := at + "/" + strconv.Itoa(i)
		v.partName(p.Name, here+"/name", "A part")
		v.mediaType(p.ContentType, here+"/contentType")
		if (p.Value != nil) == (p.File != nil) {
			v.refuse(here, "A part is exactly one of value and file.")
		}
		if p.Value != nil {
			v.bodyText(*p.Value, here+"/value")
		}
		if p.File == nil {
			continue
		}
		if p.ContentType != "" {
			v.refuse(here+"/contentType", "A file's content type stands in file.")
		}
		v.partFile(*p.File, here+"/file")
	}
}

func (v *validator) partFile(f PartFile, at string) {
	v.partName(f.Name, at+"/name", "A file")
	v.mediaType(f.ContentType, at+"/contentType")
	if (f.Text != nil) == (f.Base64 != nil) {
		v.refuse(at, "A file is exactly one of text and base64.")
	}
	if f.Text != nil {
		v.bodyText(*f.Text, at+"/text")
	}
	if f.Base64 != nil && v.bodyText(*f.Base64, at+"/base64") {
		v.base64(*f.Base64, at+"/base64")
	}
}

func (v *validator) partName(name, at, what string) {
	switch {
	case name == "":
		v.refuse(at, "%s has a name.", what)
	case !ValidHeaderValue(name):
		v.refuse(at, "A name holds no control characters.")
	case len(name) > limits.MaxProperty:
		v.refuse(at, "A name has at most %d bytes.", limits.MaxProperty)
	default:
		v.template(name, at)
	}
}

func (v *validator) graphQL(r Request, at string) {
	g := r.Body.GraphQL
	if r.Method != "GET" && r.Method != "POST" {
		v.refuse(at, "GraphQL is sent by POST or GET.")
	}
	if strings.TrimSpace(g.Query) == "" {
		v.refuse(at+"/query", "A GraphQL body has a query.")
	}
	v.bodyText(g.Query, at+"/query")
	v.template(g.OperationName, at+"/operationName")
	if r.Method == "GET" && strings.HasPrefix(strings.TrimSpace(g.Query), "mutation") {
		v.refuse(at+"/query", "A mutation is sent by POST: GET changes nothing.")
	}
	if g.Variables == nil {
		return
	}
	if g.Variables[0] != '{' {
		v.refuse(at+"/variables", "An object belongs here.")
		return
	}
	v.bodyJSON(g.Variables, at+"/variables")
}
