package testspec

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/testflow/testflow/internal/limits"
)

// Subject is a response as assertions and captures see it. It reads the body as text, JSON, XML or HTML once, when first
// asked to. Not safe for concurrent use.
type Subject struct {
	Status       int
	Header       http.Header // canonical names
	Body         []byte      // decompressed, whole
	ResponseTime time.Duration
	// Scope is what expressions and the source variable read variables from; nil means that there are none.
	Scope *Scope
	// Schemas are the JSON Schemas of the test, by name.
	Schemas map[string]json.RawMessage

	Reason      string // that the status line gives, "" when it gives none
	HTTPVersion string // "1.0", "1.1", "2", "3"
	URL         string // that answered, credentials masked
	RemoteIP    string
	Redirects   []Hop
	Timings     Timings
	// SetCookies are those that this response and the redirects before it set, in their order; Jar returns those that
	// would be sent to the URL that answered, and may be nil.
	SetCookies []*http.Cookie
	Jar        func() []*http.Cookie
	// TLSVersion ("1.3"), TLSCipher and ALPN are empty, and Certificate, the target's own, is nil without TLS.
	TLSVersion, TLSCipher, ALPN string
	Certificate                 *x509.Certificate
	// Now is the time at which all assertions of a step are judged.
	Now time.Time

	bodyText *string
	document any
	docError string // why the body cannot be read as JSON
	docRead  bool
	docNodes int // an upper bound

	plainDocument     any // document as expressions see it
	plainMade         bool
	markup, xmlAsHTML *markup

	// recorded holds, by source and property, what is taken in place of what would be read.
	recorded map[[2]string]value
}

// Hop is one redirect that was followed.
type Hop struct {
	Status        int
	URL, Location string // credentials masked
}

// Timings are the phases of a request, each summed over its redirects; 0 is one that did not happen.
type Timings struct{ DNS, Connect, TLS, FirstByte, Download time.Duration }

// text returns the body as text.
func (s *Subject) text() string {
	if s.bodyText == nil {
		t := decodeText(s.Body, s.Header.Get("Content-Type"))
		s.bodyText = &t
	}
	return *s.bodyText
}

// json returns the body as JSON; why is a clause that says why it isn't.
func (s *Subject) json() (doc any, why string) {
	if !s.docRead {
		s.docRead = true
		s.document, s.docNodes, s.docError = readDocument(bytes.TrimPrefix(s.Body, bomUTF8))
	}
	return s.document, s.docError
}

// readDocument reads a response's body as JSON within limits.MaxResponseDepth and limits.MaxResponseNodes, which are checked before
// anything is built: a list of empty lists takes twenty times its length in memory.
func readDocument(body []byte) (doc any, nodes int, why string) {
	if len(body) == 0 {
		return nil, 0, "the body is empty"
	}
	depth, inText := 0, false
	nodes = 1
	for i := 0; i < len(body); i++ {
		c := body[i]
		if inText {
			switch c {
			case '\\':
				i++
			case '"':
				inText = false
			}
			continue
		}
		switch c {
		case '"':
			inText = true
		case '[', '{':
			depth++
			nodes++
			if depth > limits.MaxResponseDepth {
				return nil, 0, fmt.Sprintf("the body nests deeper than %d levels", limits.MaxResponseDepth)
			}
		case ']', '}':
			depth--
		case ',':
			nodes++
		}
	}
	if nodes > limits.MaxResponseNodes {
		return nil, 0, fmt.Sprintf("the body holds more than %d JSON values", limits.MaxResponseNodes)
	}
	doc, err := decodeJSON(body)
	if err != nil {
		return nil, 0, "the body is not JSON"
	}
	return doc, nodes, ""
}

// CaptureError says why a capture kept nothing. Its text is one clause without the target's bytes.
type CaptureError struct{ Reason string }

// Error returns the reason.
func (e *CaptureError) Error() string { return e.Reason }

// Capture reads what c keeps: a JSON value of at most limits.MaxVariableValue bytes. The error is a *CaptureError.
func (s *Subject) Capture(ctx context.Context, c Capture) (json.RawMessage, error) {
	src, ok := sourceByName[c.Source]
	if !ok {
		return nil, &CaptureError{"there is no source " + shorten(c.Source, 40)}
	}
	v := s.filter(ctx, src.read(ctx, s, c.Property), c.Filters).only()
	if list, ok := v.v.([]any); ok && v.list && len(list) == 0 {
		v = missing("the path selects nothing")
	}
	if v.none != "" {
		return nil, &CaptureError{v.none}
	}
	if text, ok := v.v.(string); ok && len(text) > limits.MaxVariableValue {
		return nil, &CaptureError{fmt.Sprintf("it is longer than %d bytes", limits.MaxVariableValue)}
	}
	raw := encodeJSON(nil, v.v)
	if len(raw) > limits.MaxVariableValue {
		return nil, &CaptureError{fmt.Sprintf("it is longer than %d bytes", limits.MaxVariableValue)}
	}
	if !storable(v.v) {
		return nil, &CaptureError{"it holds a number that is too long"}
	}
	return cleanNUL(raw), nil
}

// errSelector is a selection that was given up; its text is a clause.
type errSelector struct{ why string }

func (e errSelector) Error() string { return e.why }

// selectPath reads a JSONPath from the body.
func (s *Subject) selectPath(ctx context.Context, property string) value {
	doc, why := s.json()
	if why != "" {
		return unreadable(why)
	}
	return selectFrom(ctx, doc, s.docNodes, property)
}

// selectFrom reads a JSONPath from doc, which holds at most so many values.
func selectFrom(ctx context.Context, doc any, size int, property string) value {
	path, err := compilePath(property)
	if err != nil {
		return unreadable(err.Error())
	}
	nodes, err := path.run(ctx, doc, size)
	if err != nil {
		var given errSelector
		if errors.As(err, &given) {
			return unreadable(given.why)
		}
		return unreadable("the path could not be followed")
	}
	if path.singular {
		if len(nodes) == 0 {
			return missing("the path selects nothing")
		}
		return value{v: nodes[0]}
	}
	return value{v: nodes, list: true}
}
