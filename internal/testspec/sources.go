package testspec

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Kind is a set of the kinds of value that a source yields or an operator takes.
type Kind uint8

// The kinds.
const (
	KindNumber Kind = 1 << iota // a number
	KindText                    // text off the wire; where a number is asked for it is read as one
	KindJSON                    // any JSON value
	KindList                    // a list
	KindDate                    // an instant
	KindBytes                   // bytes that need not be text
)

// names returns k's kinds for a sentence.
func (k Kind) names() string {
	var list []string
	for _, n := range []struct {
		k    Kind
		name string
	}{
		{KindNumber, "a number"},
		{KindText, "text"},
		{KindJSON, "a JSON value"},
		{KindList, "a list"},
		{KindDate, "a date"},
		{KindBytes, "bytes"},
	} {
		if k&n.k != 0 {
			list = append(list, n.name)
		}
	}
	return strings.Join(list, " or ")
}

// SourceInfo describes one source: a part of a response that an assertion judges and a capture keeps.
type SourceInfo struct {
	Name string
	// Doc is one sentence for documents and messages.
	Doc string
	// Property says in one clause what the property is, "" when the source takes none.
	Property string
	Yields   Kind

	checkProperty func(property string) string // what is wrong with it, "" when nothing is
	read          func(ctx context.Context, s *Subject, property string) value
	// noun is what a sentence calls the value, e.g. `header "etag"`.
	noun func(property string) string
	// parts, when set, lists what the property may be, with the kind that each part yields.
	parts []partInfo
	// kindOf, when set, is the kind that a property yields.
	kindOf func(property string) Kind
}

// partInfo describes one part of a source that has named parts.
type partInfo struct {
	name, doc string
	yields    Kind
}

// yields returns the kinds that property of src yields.
func (src *SourceInfo) yields(property string) Kind {
	if src.kindOf != nil {
		return src.kindOf(property)
	}
	for _, p := range src.parts {
		if p.name == property {
			return p.yields
		}
	}
	return src.Yields
}

// sources is the table of sources. A new one is a new line here: validation, documents and messages follow.
var sources = []SourceInfo{
	{
		Name: "status", Doc: "The response's status code, a number.", Yields: KindNumber, noun: plainNoun("the status"),
		read: func(_ context.Context, s *Subject, _ string) value { return numberValue(int64(s.Status)) },
	},
	{
		Name: "reason", Yields: KindText, noun: plainNoun("the reason"), read: readReason,
		Doc: "The reason phrase beside the status code, such as `Not Found`; HTTP/2 and 3 have none.",
	},
	{
		Name: "httpVersion", Yields: KindText, noun: plainNoun("the HTTP version"), read: readHTTPVersion,
		Doc: "The version of HTTP that the response came in: `1.0`, `1.1`, `2` or `3`.",
	},
	{
		Name: "url", Yields: KindText, noun: plainNoun("the URL"), read: readURL,
		Doc: "The URL that answered, after redirects. Values in its query that are credentials by their name are `•••`.",
	},
	{
		Name: "redirects", Yields: KindList, noun: plainNoun("the redirects"), read: readRedirects,
		Doc: "The redirects that were followed, a list of objects with `status`, `url` and `location`; empty when there was none.",
	},
	{
		Name: "remoteIp", Yields: KindText, noun: plainNoun("the remote address"), read: readRemoteIP,
		Doc: "The IP address that answered.",
	},
	{
		Name: "header", Doc: "A response header, text; several lines of one name are joined with a comma and a space.",
		Property: "the header's name, in any case", Yields: KindText, checkProperty: checkHeaderName, read: readHeader,
		noun: func(p string) string { return fmt.Sprintf("header %q", p) },
	},
	{
		Name: "cookie", Yields: KindText | KindNumber | KindDate | KindJSON, kindOf: cookieYields, Property: "a cookie's name, or one of its attributes such as session[HttpOnly]",
		Doc: "A cookie's value: the one that this response or a redirect before it sets, otherwise the one that the run's cookie jar " +
			"holds for the URL. `name[Attribute]` is an attribute of the one that is set: `Value`, `Path`, `Domain`, `MaxAge` (a number), " +
			"`Expires` (a date), `SameSite`, and `HttpOnly`, `Secure`, `Partitioned` (true or false). One without the attribute has nothing there.",
		checkProperty: checkCookie, read: readCookie, noun: func(p string) string { return fmt.Sprintf("cookie %q", p) },
	},
	{
		Name: "body", Yields: KindText, noun: plainNoun("the body"),
		Doc: "The response's body as text, after decompression, decoded by its byte order mark, else by the charset of its content " +
			"type, else as UTF-8.",
		read: func(_ context.Context, s *Subject, _ string) value { return value{v: s.text(), wire: true} },
	},
	{
		Name: "bytes", Yields: KindBytes, noun: plainNoun("the body's bytes"),
		Doc: "The response's body as bytes, after decompression. Results show them, and operators expect them, as base64; " +
			"expected may also be `hex:` and hexadecimal digits.",
		read: func(_ context.Context, s *Subject, _ string) value { return value{v: binary(s.Body)} },
	},
	{
		Name: "bodySize", Doc: "The number of bytes in the body, after decompression.", Yields: KindNumber, noun: plainNoun("the body's size in bytes"),
		read: func(_ context.Context, s *Subject, _ string) value { return numberValue(int64(len(s.Body))) },
	},
	{
		Name: "sha256", Doc: "The SHA-256 of the body's bytes, 64 small hexadecimal digits.", Yields: KindText,
		noun: plainNoun("the body's SHA-256"), read: readSHA256,
	},
	{
		Name: "md5", Doc: "The MD5 of the body's bytes, 32 small hexadecimal digits.", Yields: KindText,
		noun: plainNoun("the body's MD5"), read: readMD5,
	},
	{
		Name: "jsonpath", Yields: KindJSON,
		Doc: "What a JSONPath (RFC 9535) selects from the body. A path that can select at most one value yields that " +
			"value; any other (with *, .., a slice, a filter or several selectors) yields the list of what it selects.",
		Property: "a JSONPath such as $.items[0].id", checkProperty: checkPath,
		read: func(ctx context.Context, s *Subject, p string) value { return s.selectPath(ctx, p) },
		noun: func(p string) string { return shorten(p, maxInSentence) },
	},
	{
		Name: "xpath", Yields: kindsOfXPath, Property: "an XPath 1.0 such as //item/@id", checkProperty: checkXPath, read: readXPath,
		Doc: "What an XPath 1.0 yields from the body, read as XML when its content type says so (or says nothing and the body begins with " +
			"`<?xml`), else as HTML: a number, text, true or false, or of nodes their texts. A single node counts as its text, several are a list. " +
			"A prefix is the one that the document writes; a name without one finds elements without one. " +
			"The functions id() and lang(), the axis namespace and processing instructions are not known and refused.",
		noun: func(p string) string { return shorten(p, maxInSentence) },
	},
	{
		Name: "css", Yields: KindText | KindList, Property: "a CSS selector such as h1.title, or with an attribute: a.next@href",
		checkProperty: checkCSS, read: readCSS,
		Doc: "The texts, without white space at their ends, of the elements that a CSS selector selects from the body read as HTML; " +
			"with `@name` behind it, the values of that attribute where it is set. A single element counts as its text, several are a list.",
		noun: func(p string) string { return shorten(p, maxInSentence) },
	},
	{
		Name: "regex", Yields: KindText, Property: "a regular expression (RE2)", checkProperty: checkRegex, read: readRegex,
		Doc:  "What the regular expression finds first in the body's text: its group named `value`, else its first group, else the whole match.",
		noun: func(p string) string { return "the match of " + shorten(p, maxInSentence) },
	},
	{
		Name: "responseTime", Doc: "Milliseconds from the start of the request to the last byte of the body, redirects included; a number.",
		Yields: KindNumber, noun: plainNoun("the response time in ms"),
		read: func(_ context.Context, s *Subject, _ string) value { return millisValue(s.ResponseTime) },
	},
	{
		Name: "timing", Property: "a phase", parts: phases, Yields: KindNumber, read: readTiming,
		Doc: "Milliseconds that a phase of the request took, summed over its redirects; 0 when it did not happen, as on a connection " +
			"that was kept.",
		noun: func(p string) string { return "the " + p + " time in ms" },
	},
	{
		Name: "certificate", Property: "a field of the certificate", parts: certificateParts(), Yields: KindText | KindNumber | KindDate | KindList | KindJSON,
		Doc: "A field of the certificate that the target itself showed; nothing without TLS.", read: readCertificate,
		noun: func(p string) string { return "the certificate's " + p },
	},
	{
		Name: "tls", Property: "a part of what was agreed on", parts: tlsParts, Yields: KindText, read: readTLS,
		Doc:  "What the TLS handshake agreed on; nothing without TLS.",
		noun: func(p string) string { return "TLS " + p },
	},
	{
		Name: "variable", Property: "the variable's name", Yields: KindText | KindJSON, read: readVariable, checkProperty: checkVariableName,
		Doc: "A variable as this step's request saw it: a capture of an earlier step with its JSON type, any other as text that is read as a " +
			"number where one is asked for. Secrets cannot be read.",
		noun: func(p string) string { return fmt.Sprintf("variable %q", p) },
	},
	{
		Name: "jsonSchema", Yields: KindJSON,
		Doc: "The whole body read as JSON, for the operator matchesSchema.",
		read: func(_ context.Context, s *Subject, _ string) value {
			doc, why := s.json()
			if why != "" {
				return unreadable(why)
			}
			return value{v: doc}
		},
		noun: func(string) string { return "the body" },
	},
	{
		Name: "expression", Yields: KindJSON,
		Doc:           "What an expression yields, for what no operator says: any JSON value.",
		Property:      "an expression such as json.total == len(json.items)",
		checkProperty: checkExpressionProperty,
		read:          func(ctx context.Context, s *Subject, p string) value { return s.readExpression(ctx, p) },
		noun:          func(p string) string { return shorten(p, maxInSentence) },
	},
}

func plainNoun(noun string) func(string) string { return func(string) string { return noun } }

func (src *SourceInfo) hasPart(name string) bool {
	return slices.ContainsFunc(src.parts, func(p partInfo) bool { return p.name == name })
}

func (src *SourceInfo) partNames() []string {
	return namesOf(src.parts, func(p *partInfo) string { return p.name })
}

// wants says what the property must be.
func (src *SourceInfo) wants() string {
	if src.parts == nil {
		return src.Property
	}
	return "one of " + strings.Join(src.partNames(), ", ")
}

// kinds follows what a's source yields through its filters; 0 when that is not known.
func (a Assertion) kinds() Kind {
	src := sourceByName[a.Source]
	if src == nil || a.Quantifier != "" {
		return 0
	}
	kinds := src.yields(a.Property)
	for _, f := range a.Filters {
		info := filterByName[f.Name]
		if info == nil || kinds&(KindList|KindJSON) != 0 && !info.whole {
			return 0
		}
		kinds = info.Yields
	}
	return kinds
}

// Costly says whether judging a may take long even with a small body.
func (a Assertion) Costly() bool {
	op := operatorByName[a.Operator]
	return op != nil && op.costly || costly(a.Source, a.Property, a.Filters)
}

// Costly says whether keeping c may take long even with a small body.
func (c Capture) Costly() bool { return costly(c.Source, c.Property, c.Filters) }

func costly(source, property string, filters []Filter) bool {
	switch source {
	case "xpath", "css", "regex":
		return true
	}
	for i := range filters {
		if info := filterByName[filters[i].Name]; info != nil && info.costly {
			return true
		}
	}
	return Costly(source, property)
}

var sourceByName = indexBy(sources, func(s *SourceInfo) string { return s.Name })

// Sources lists every source in the order of the documents.
func Sources() []SourceInfo { return append([]SourceInfo(nil), sources...) }

// SourceNames lists their names.
func SourceNames() []string { return namesOf(sources, func(s *SourceInfo) string { return s.Name }) }

func indexBy[T any](list []T, name func(*T) string) map[string]*T {
	m := make(map[string]*T, len(list))
	for i := range list {
		m[name(&list[i])] = &list[i]
	}
	return m
}

func namesOf[T any](list []T, name func(*T) string) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = name(&list[i])
	}
	return out
}

// IsToken says whether s is an HTTP token (RFC 9110, 5.6.2): what a method or a header's name is made of.
func IsToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
