package testspec

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Kind is a set of the kinds of value that a source yields or an operator takes.
type Kind uint8

// The kinds.
const (
	KindNumber Kind = 1 << iota // a number
	KindText                    // text off the wire; where a number is asked for it is read as one
	KindJSON                    // any JSON value
)

// names returns k's kinds for a sentence.
func (k Kind) names() string {
	var list []string
	for _, n := range []struct {
		k    Kind
		name string
	}{{KindNumber, "a number"}, {KindText, "text"}, {KindJSON, "a JSON value"}} {
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
}

// sources is the table of sources. A new one is a new line here: validation, documents and messages follow.
var sources = []SourceInfo{
	{
		Name: "status", Doc: "The response's status code, a number.", Yields: KindNumber,
		read: func(_ context.Context, s *Subject, _ string) value { return numberValue(int64(s.Status)) },
		noun: func(string) string { return "the status" },
	},
	{
		Name: "header", Doc: "A response header, text; several lines of one name are joined with a comma and a space.",
		Property: "the header's name, in any case", Yields: KindText,
		checkProperty: func(p string) string {
			if !IsToken(p) {
				return "This is not the name of a header."
			}
			return ""
		},
		read: func(_ context.Context, s *Subject, p string) value {
			lines := s.Header[http.CanonicalHeaderKey(p)]
			if len(lines) == 0 {
				return missing("there is no such header")
			}
			return value{v: strings.Join(lines, ", "), wire: true}
		},
		noun: func(p string) string { return fmt.Sprintf("header %q", p) },
	},
	{
		Name: "body", Doc: "The response's body as text, after decompression.", Yields: KindText,
		read: func(_ context.Context, s *Subject, _ string) value { return value{v: s.text(), wire: true} },
		noun: func(string) string { return "the body" },
	},
	{
		Name: "jsonpath", Yields: KindJSON,
		Doc: "What a JSONPath (RFC 9535) selects from the body. A path that can select at most one value yields that " +
			"value; any other (with *, .., a slice, a filter or several selectors) yields the list of what it selects.",
		Property: "a JSONPath such as $.items[0].id",
		checkProperty: func(p string) string {
			if _, err := compilePath(p); err != nil {
				return sentence(err.Error()) + "."
			}
			return ""
		},
		read: func(ctx context.Context, s *Subject, p string) value { return s.selectPath(ctx, p) },
		noun: func(p string) string { return shorten(p, maxInSentence) },
	},
	{
		Name: "responseTime", Doc: "Milliseconds from the start of the request to the last byte of the body, redirects included; a number.",
		Yields: KindNumber,
		read: func(_ context.Context, s *Subject, _ string) value {
			us := s.ResponseTime.Microseconds()
			return value{v: jsonNumber(fmt.Sprintf("%d.%03d", us/1000, us%1000))}
		},
		noun: func(string) string { return "the response time in ms" },
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
