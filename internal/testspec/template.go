package testspec

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/testflow/testflow/internal/limits"
)

// A template is text with references: `{{name}}`, spaces around the name allowed. References are replaced in one pass:
// what a value brings in is never looked at again. `{{{{` stands for a literal `{{`; a `}}` outside a reference is
// itself. Names that begin with $ are generated values, a new one each time, or the iteration's $index; names with a dot
// belong to a scope such as `secrets.token`.

// TemplateError says what is wrong with a template; its text names at most a reference.
type TemplateError struct{ Detail string }

// Error returns the detail.
func (e *TemplateError) Error() string { return e.Detail }

// UndefinedError is a reference to a variable that has no value.
type UndefinedError struct{ Name string }

// Error names the variable.
func (e *UndefinedError) Error() string { return fmt.Sprintf("the variable %q has no value", e.Name) }

// OverflowError is text that is over its limit once variables are put in.
type OverflowError struct{ Max int }

// Error names the limit.
func (e *OverflowError) Error() string {
	return fmt.Sprintf("with variables put in it is over %d bytes", e.Max)
}

// part is a piece of a template: literal text, or a reference when ref is set.
type part struct{ lit, ref string }

// parseTemplate splits s. Text without references is one part.
func parseTemplate(s string) ([]part, error) {
	if !strings.Contains(s, "{{") {
		return []part{{lit: s}}, nil
	}
	var parts []part
	var lit strings.Builder
	for {
		i := strings.Index(s, "{{")
		if i < 0 {
			lit.WriteString(s)
			break
		}
		lit.WriteString(s[:i])
		s = s[i+2:]
		if strings.HasPrefix(s, "{{") {
			lit.WriteString("{{")
			s = s[2:]
			continue
		}
		end := strings.Index(s, "}}")
		if end < 0 {
			return nil, &TemplateError{"{{ without }}; write {{{{ for a literal {{"}
		}
		name := strings.Trim(s[:end], " ")
		if why := checkReference(name); why != "" {
			return nil, &TemplateError{why}
		}
		s = s[end+2:]
		if lit.Len() > 0 {
			parts = append(parts, part{lit: lit.String()})
			lit.Reset()
		}
		parts = append(parts, part{ref: name})
	}
	if lit.Len() > 0 || len(parts) == 0 {
		parts = append(parts, part{lit: lit.String()})
	}
	return parts, nil
}

// checkReference returns "" for a well-formed name, otherwise what is wrong.
func checkReference(name string) string {
	if strings.HasPrefix(name, "$") {
		_, _, why := parseGenerated(name)
		return why
	}
	scope, rest, scoped := strings.Cut(name, ".")
	if IsVariableName(scope) && (!scoped || IsVariableName(rest)) {
		return ""
	}
	return "{{…}} holds the name of a variable: letters, digits, _ and -; write {{{{ for a literal {{"
}

// IsVariableName says whether s may name a variable: a letter or _, then letters, digits, _ and -; at most
// limits.MaxVariableName characters.
func IsVariableName(s string) bool {
	if s == "" || len(s) > limits.MaxVariableName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return true
}

// References returns the names that s refers to, in order, repeats included; none when it is not a template.
func References(s string) []string {
	parts, err := parseTemplate(s)
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range parts {
		if p.ref != "" {
			names = append(names, p.ref)
		}
	}
	return names
}

// Scope is what references are looked up in: captures first, then layers from first to last. Not safe for concurrent
// writes.
type Scope struct {
	layers   []map[string]string
	captured map[string]json.RawMessage

	iteration *iteration          // the innermost; nil outside of loops
	steps     []map[string]string // of the steps that one is in, the innermost last
	fragments []map[string]string // parameters, the innermost last
	generator *Generator
}

// NewScope returns a Scope over layers, which are not changed; the first that has a name wins.
func NewScope(layers ...map[string]string) *Scope { return &Scope{layers: layers} }

// Capture sets a captured value; it wins over every layer and over an earlier capture of that name.
func (s *Scope) Capture(name string, value json.RawMessage) {
	if s.captured == nil {
		s.captured = map[string]json.RawMessage{}
	}
	s.captured[name] = value
	for _, parameters := range s.fragments {
		delete(parameters, name)
	}
}

// lookup returns a value as text, and as JSON when it was captured or is a generated number or boolean.
func (s *Scope) lookup(name string) (text string, raw json.RawMessage, ok bool) {
	if strings.HasPrefix(name, "$") {
		return s.generate(name)
	}
	if s.iteration != nil || len(s.fragments) > 0 {
		if text, raw, ok := s.local(name); ok {
			return text, raw, true
		}
	}
	if raw, ok := s.captured[name]; ok {
		var str string
		if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &str) == nil {
			return str, raw, true
		}
		return string(raw), raw, true
	}
	for i, layer := range s.layers {
		if v, ok := layer[name]; ok {
			return v, nil, true
		}
		for j := len(s.steps) - 1; i == 0 && j >= 0; j-- {
			if v, ok := s.steps[j][name]; ok {
				return v, nil, true
			}
		}
	}
	return "", nil, false
}

// Expand puts variables into template. The error is a *TemplateError, an *UndefinedError or, when the outcome is over
// limit bytes, an *OverflowError.
func (s *Scope) Expand(template string, limit int) (string, error) {
	if !strings.Contains(template, "{{") {
		if len(template) > limit {
			return "", &OverflowError{limit}
		}
		return template, nil
	}
	parts, err := parseTemplate(template)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, p := range parts {
		text := p.lit
		if p.ref != "" {
			var ok bool
			if text, _, ok = s.lookup(p.ref); !ok {
				return "", &UndefinedError{p.ref}
			}
		}
		if out.Len()+len(text) > limit {
			return "", &OverflowError{limit}
		}
		out.WriteString(text)
	}
	return out.String(), nil
}

// ExpandJSON puts variables into the strings of a JSON value. Keys stay. A string that is nothing but one reference to
// a captured value, or to a generated number or boolean, becomes that value, with its JSON type; in all other places it
// is put in as text. The errors are Expand's.
func (s *Scope) ExpandJSON(raw json.RawMessage, limit int) (json.RawMessage, error) {
	if !mayHoldReference(raw) {
		if len(raw) > limit {
			return nil, &OverflowError{limit}
		}
		return raw, nil
	}
	tree, _, err := readTree(raw, limits.MaxSpecBytes)
	if err != nil {
		return nil, &TemplateError{"this is not JSON"}
	}
	budget := limit
	if err := s.expandNode(tree, &budget); err != nil {
		return nil, err
	}
	out := tree.appendJSON(nil)
	if len(out) > limit {
		return nil, &OverflowError{limit}
	}
	return out, nil
}

// mayHoldReference is a quick look: `{` can also be written as an escape.
func mayHoldReference(raw json.RawMessage) bool {
	s := string(raw)
	return strings.Contains(s, "{{") || strings.Contains(s, `\u007`)
}

func (s *Scope) expandNode(n *node, budget *int) error {
	for _, kid := range n.kids {
		if err := s.expandNode(kid, budget); err != nil {
			return err
		}
	}
	if n.kind != 's' || !strings.Contains(n.text, "{{") {
		return nil
	}
	parts, err := parseTemplate(n.text)
	if err != nil {
		return err
	}
	if len(parts) == 1 && parts[0].ref != "" {
		text, raw, ok := s.lookup(parts[0].ref)
		if !ok {
			return &UndefinedError{parts[0].ref}
		}
		if *budget -= len(text); *budget < 0 {
			return &OverflowError{limits.MaxRequestBody}
		}
		if raw == nil {
			n.text = text
			return nil
		}
		// Written out verbatim by appendJSON, as numbers are: it is JSON already.
		n.kind, n.text = 'n', string(raw)
		return nil
	}
	if n.text, err = s.Expand(n.text, *budget); err != nil {
		return err
	}
	*budget -= len(n.text)
	return nil
}

// shorten cuts s to at most limit bytes at a character's border and says so with an ellipsis.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:runeStart(s, limit)] + "…"
}
