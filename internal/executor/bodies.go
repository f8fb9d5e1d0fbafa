package executor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// prepareBody writes p's body and its Content-Type; a header of the request's own wins over what the kind brings, the
// body's contentType over both.
func (r *runner) prepareBody(p *prepared) *Error {
	b := p.spec.Body
	if b == nil {
		return nil
	}
	body, contentType, err := r.encodeBody(p, b)
	if err != nil || contentType == "" { // GraphQL by GET has none
		return err
	}
	p.body, p.hasBody = body, true
	if p.header["Content-Type"] == nil || b.ContentType != "" {
		p.header["Content-Type"] = []string{contentType}
	}
	return nil
}

func (r *runner) encodeBody(p *prepared, b *testspec.Body) (body []byte, contentType string, err *Error) {
	switch {
	case b.JSON != nil:
		body, err = r.expandJSON(b.JSON, "the body")
		return body, "application/json", err
	case b.Text != nil:
		body, err = r.expandBytes(*b.Text, "the body")
		return body, or(b.ContentType, "text/plain; charset=utf-8"), err
	case b.XML != nil:
		body, err = r.expandBytes(*b.XML, "the body")
		return body, or(b.ContentType, "application/xml"), err
	case b.Base64 != nil:
		body, err = r.expandBase64(*b.Base64, "the body")
		return body, or(b.ContentType, "application/octet-stream"), err
	case b.Multipart != nil:
		return r.encodeMultipart(b.Multipart)
	case b.GraphQL != nil:
		return r.encodeGraphQL(p, b.GraphQL)
	default:
		form, bad := r.encodePairs(b.Form, "the form value ", limits.MaxRequestBody)
		return []byte(form), "application/x-www-form-urlencoded", bad
	}
}

// or returns s, or other when s is empty.
func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (r *runner) expandBytes(template, what string) ([]byte, *Error) {
	text, err := r.scope.Expand(template, limits.MaxRequestBody)
	if err != nil {
		return nil, expandError(what, err)
	}
	return []byte(text), nil
}

func (r *runner) expandJSON(template json.RawMessage, what string) ([]byte, *Error) {
	raw, err := r.scope.ExpandJSON(template, limits.MaxRequestBody)
	if err != nil {
		return nil, expandError(what, err)
	}
	return raw, nil
}

func (r *runner) expandBase64(template, what string) ([]byte, *Error) {
	text, bad := r.expandBytes(template, what)
	if bad != nil {
		return nil, bad
	}
	data, err := testspec.DecodeBase64(string(text))
	if err != nil {
		return nil, expandError(what, err)
	}
	if r.fromSecret(template) {
		r.hide(string(data)) // a target that gives the bytes back would show the secret to whoever encodes them again
	}
	return data, nil
}

// encodedPart is a part with its variables put in.
type encodedPart struct {
	header textproto.MIMEHeader
	data   []byte
}

// encodeMultipart writes parts as RFC 7578 has it. The boundary is a hash of them all, so that equal parts make equal
// bodies: nothing can hold its own hash.
func (r *runner) encodeMultipart(parts []testspec.Part) ([]byte, string, *Error) {
	encoded := make([]encodedPart, len(parts))
	sum, size := sha256.New(), 0
	for i, part := range parts {
		e, err := r.encodePart(part)
		if err != nil {
			return nil, "", err
		}
		if size += len(e.data); size > limits.MaxRequestBody {
			return nil, "", badRequest("With its variables put in, the body is too long.")
		}
		sum.Write([]byte(e.header.Get("Content-Disposition")))
		sum.Write(e.data)
		encoded[i] = e
	}
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	err := w.SetBoundary("testflow-" + hex.EncodeToString(sum.Sum(nil)[:20]))
	for _, e := range encoded {
		if err != nil {
			break
		}
		part, failed := w.CreatePart(e.header)
		if err = failed; err == nil {
			_, err = part.Write(e.data)
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil { // into memory, with a boundary of ours: a defect
		return nil, "", &Error{Code: CodeInternal, Phase: PhasePrepare, Message: "The multipart body could not be written."}
	}
	if buf.Len() > limits.MaxRequestBody {
		return nil, "", badRequest("With its variables put in, the body is too long.")
	}
	return buf.Bytes(), w.FormDataContentType(), nil
}

func (r *runner) encodePart(part testspec.Part) (e encodedPart, err *Error) {
	what := "the part " + part.Name
	name, err := r.expandName(part.Name, "the name of "+what)
	if err != nil {
		return e, err
	}
	e.header = textproto.MIMEHeader{}
	if part.File == nil {
		e.header.Set("Content-Disposition", `form-data; name="`+nameQuoter.Replace(name)+`"`)
		if part.ContentType != "" {
			e.header.Set("Content-Type", part.ContentType)
		}
		e.data, err = r.expandBytes(*part.Value, what)
		return e, err
	}
	file, err := r.expandName(part.File.Name, "the file name of "+what)
	if err != nil {
		return e, err
	}
	e.header.Set("Content-Disposition", `form-data; name="`+nameQuoter.Replace(name)+`"; filename="`+nameQuoter.Replace(file)+`"`)
	e.header.Set("Content-Type", or(part.File.ContentType, "application/octet-stream"))
	if part.File.Text != nil {
		e.data, err = r.expandBytes(*part.File.Text, what)
	} else {
		e.data, err = r.expandBase64(*part.File.Base64, what)
	}
	return e, err
}

// nameQuoter writes a name as browsers do (HTML's multipart/form-data encoding algorithm), which servers read.
var nameQuoter = strings.NewReplacer(`"`, "%22", "\r", "%0D", "\n", "%0A")

func (r *runner) expandName(template, what string) (string, *Error) {
	name, err := r.scope.Expand(template, limits.MaxProperty)
	if err != nil {
		return "", expandError(what, err)
	}
	if !testspec.ValidHeaderValue(name) {
		return "", badRequest("With its variables put in, " + what + " holds control characters.")
	}
	return name, nil
}

// graphQLAccept is what a client of GraphQL over HTTP understands.
const graphQLAccept = "application/graphql-response+json, application/json;q=0.9, */*;q=0.1"

// encodeGraphQL returns the body of a POST; of a GET it puts the operation into the query and returns no type.
func (r *runner) encodeGraphQL(p *prepared, g *testspec.GraphQL) ([]byte, string, *Error) {
	query, bad := r.expandBytes(g.Query, "the GraphQL query")
	if bad != nil {
		return nil, "", bad
	}
	name, err := r.scope.Expand(g.OperationName, limits.MaxProperty)
	if err != nil {
		return nil, "", expandError("the GraphQL operation's name", err)
	}
	var variables json.RawMessage
	if g.Variables != nil {
		if variables, bad = r.expandJSON(g.Variables, "the GraphQL variables"); bad != nil {
			return nil, "", bad
		}
	}
	if !hasHeader(p.spec.Headers, "Accept") {
		p.header["Accept"] = []string{graphQLAccept}
	}
	if p.method == http.MethodGet {
		return nil, "", graphQLQuery(p, string(query), name, variables)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(struct {
		Query         string          `json:"query"`
		Variables     json.RawMessage `json:"variables,omitempty"`
		OperationName string          `json:"operationName,omitempty"`
	}{string(query), variables, name}); err != nil {
		return nil, "", badRequest("With its variables put in, the GraphQL operation is not JSON.")
	}
	if buf.Len() > limits.MaxRequestBody {
		return nil, "", badRequest("With its variables put in, the body is too long.")
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), "application/json", nil
}

// graphQLQuery puts an operation into p's query, beside what is there.
func graphQLQuery(p *prepared, query, name string, variables json.RawMessage) *Error {
	pairs := "query=" + url.QueryEscape(query)
	if variables != nil {
		pairs += "&variables=" + url.QueryEscape(string(variables))
	}
	if name != "" {
		pairs += "&operationName=" + url.QueryEscape(name)
	}
	if p.url.RawQuery != "" {
		pairs = p.url.RawQuery + "&" + pairs
	}
	p.url.RawQuery = pairs
	if tooLong(p.url) {
		return badRequest("With its variables put in, the URL is too long; send the GraphQL operation by POST.")
	}
	return nil
}

func hasHeader(h map[string]testspec.Values, name string) bool {
	for n := range h {
		if http.CanonicalHeaderKey(n) == name {
			return true
		}
	}
	return false
}
