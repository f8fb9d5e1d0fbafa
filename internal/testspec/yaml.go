package testspec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// FromYAML returns one YAML document as JSON, which Parse and Read then take, so that pointers into the one are good for
// the other. The error is a *fault.Error whose message has the line. Refused are aliases, anchors and merge keys (by which a small
// text makes a large one), tags of one's own, keys that are not text or stand twice, numbers that JSON cannot write, more
// than one document, and what is over limits.MaxSpecBytes, limits.MaxSpecDepth or limits.MaxSpecNodes. A date is text.
func FromYAML(data []byte) ([]byte, error) {
	if len(data) > limits.MaxSpecBytes {
		return nil, fault.New(fault.TooLarge, CodeTooLarge, "A document has at most %d bytes.", limits.MaxSpecBytes)
	}
	if !utf8.Valid(data) {
		return nil, fault.New(fault.Malformed, CodeMalformed, "The document is not UTF-8.")
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, fault.New(fault.Malformed, CodeMalformed, "%s", syntaxMessage(err))
	}
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Malformed, CodeMalformed, "There is more than one document.")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, fault.New(fault.Malformed, CodeMalformed, "The document is empty.")
	}
	w := yamlWriter{}
	w.node(doc.Content[0], 1)
	return w.out, w.err
}

// yamlPlace is how the library says where and why a document is no YAML.
var yamlPlace = regexp.MustCompile(`^yaml: (?:line (\d+): )?([a-z][a-z ,':?.-]*)`)

// syntaxMessage says where a document is no YAML and why, with nothing of what stands there.
func syntaxMessage(err error) string {
	const text = "The document cannot be read as YAML."
	m := yamlPlace.FindStringSubmatch(err.Error())
	switch {
	case m == nil:
		return text
	case m[1] == "":
		return strings.TrimSuffix(text, ".") + ": " + m[2] + "."
	}
	return "Line " + m[1] + ": the document cannot be read as YAML: " + m[2] + "."
}

// yamlWriter writes nodes as JSON until something is wrong.
type yamlWriter struct {
	out   []byte
	nodes int
	err   error
}

func (w *yamlWriter) refuse(n *yaml.Node, format string, args ...any) {
	if w.err == nil {
		w.err = fault.New(fault.Malformed, CodeMalformed, "Line %d: %s", n.Line, fmt.Sprintf(format, args...))
	}
}

func (w *yamlWriter) node(n *yaml.Node, depth int) {
	w.nodes++
	switch {
	case w.err != nil:
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		w.refuse(n, "aliases and anchors are not taken; write the value out.")
	case depth > limits.MaxSpecDepth:
		w.refuse(n, "this nests deeper than %d levels.", limits.MaxSpecDepth)
	case w.nodes > limits.MaxSpecNodes:
		w.refuse(n, "there are more than %d values.", limits.MaxSpecNodes)
	case n.Kind == yaml.MappingNode && n.ShortTag() == "!!map":
		w.mapping(n, depth)
	case n.Kind == yaml.SequenceNode && n.ShortTag() == "!!seq":
		w.out = append(w.out, '[')
		for i, kid := range n.Content {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.node(kid, depth+1)
		}
		w.out = append(w.out, ']')
	case n.Kind == yaml.ScalarNode:
		w.scalar(n)
	default:
		w.refuse(n, "the tag %s is not known.", shorten(n.Tag, 40))
	}
}

func (w *yamlWriter) mapping(n *yaml.Node, depth int) {
	seen := make(map[string]bool, len(n.Content)/2)
	w.out = append(w.out, '{')
	for i := 0; i+1 < len(n.Content) && w.err == nil; i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || key.Anchor != "":
			w.refuse(key, "a key is text; put it in quotes.")
			return
		case seen[key.Value]:
			w.refuse(key, "the key %q stands here twice.", shorten(key.Value, 64))
			return
		}
		seen[key.Value] = true
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.out = append(appendQuoted(w.out, key.Value), ':')
		w.node(n.Content[i+1], depth+1)
	}
	w.out = append(w.out, '}')
}

func (w *yamlWriter) scalar(n *yaml.Node) {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		w.out = appendQuoted(w.out, n.Value)
	case "!!null":
		w.out = append(w.out, "null"...)
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			w.refuse(n, "this is neither true nor false.")
			return
		}
		w.out = strconv.AppendBool(w.out, b)
	case "!!int", "!!float":
		w.number(n)
	default:
		w.refuse(n, "the tag %s is not known.", shorten(n.Tag, 40))
	}
}

// number writes a number as it stands when JSON has that form, so that no digit is lost; else what it means.
func (w *yamlWriter) number(n *yaml.Node) {
	if v, err := decodeJSON([]byte(n.Value)); err == nil && typeName(v) == typeName(jsonNumber("1")) {
		w.out = append(w.out, n.Value...)
		return
	}
	var i int64
	if n.ShortTag() == "!!int" && n.Decode(&i) == nil {
		w.out = strconv.AppendInt(w.out, i, 10)
		return
	}
	var f float64
	if n.Decode(&f) != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		w.refuse(n, "JSON has no such number; put it in quotes.")
		return
	}
	w.out = strconv.AppendFloat(w.out, f, 'g', -1, 64)
}
