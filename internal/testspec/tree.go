package testspec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// node is one JSON value, its members in the order in which they were written.
type node struct {
	kind byte // '{' '[' 's' 'n' 't' 'f' '0' (null)
	text string
	keys []string // of an object
	kids []*node
}

// kindName is what a person calls the JSON type of a node.
func (n *node) kindName() string {
	switch n.kind {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 's':
		return "text"
	case 'n':
		return "a number"
	case 't', 'f':
		return "true or false"
	default:
		return "null"
	}
}

// treeReader reads JSON under budgets into nodes and collects what is not allowed in a spec although it is JSON.
type treeReader struct {
	data   []byte
	dec    *json.Decoder
	nodes  int
	faults []fault.Field
}

// errTooMuch is a budget that ran out while reading.
type errTooMuch struct{ detail string }

func (e errTooMuch) Error() string { return e.detail }

// readTree reads data as exactly one JSON value. The error says that it isn't JSON or is too much; the faults name
// duplicate fields and what could not be stored.
func readTree(data []byte, limit int) (*node, []fault.Field, error) {
	if len(data) > limit {
		return nil, nil, errTooMuch{fmt.Sprintf("A spec has at most %d bytes of JSON.", limits.MaxSpecBytes)}
	}
	if !utf8.Valid(data) {
		return nil, nil, errors.New("JSON is UTF-8, this is not")
	}
	r := &treeReader{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	n, err := r.value("", 1)
	if err != nil {
		return nil, nil, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("something follows the JSON value at byte %d", r.dec.InputOffset())
	}
	return n, r.faults, nil
}

// token returns the next token and its source text.
func (r *treeReader) token() (json.Token, []byte, error) {
	from := r.dec.InputOffset()
	tok, err := r.dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, nil, fmt.Errorf("not JSON near byte %d: %w", r.dec.InputOffset(), err)
	}
	return tok, r.data[from:r.dec.InputOffset()], nil
}

func (r *treeReader) value(at string, depth int) (*node, error) {
	tok, src, err := r.token()
	if err != nil {
		return nil, err
	}
	return r.valueOf(tok, src, at, depth)
}

func (r *treeReader) valueOf(tok json.Token, src []byte, at string, depth int) (*node, error) {
	if r.nodes++; r.nodes > limits.MaxSpecNodes {
		return nil, errTooMuch{fmt.Sprintf("A spec has at most %d JSON values.", limits.MaxSpecNodes)}
	}
	switch v := tok.(type) {
	case json.Delim:
		if depth >= limits.MaxSpecDepth {
			return nil, errTooMuch{fmt.Sprintf("A spec nests at most %d levels deep.", limits.MaxSpecDepth)}
		}
		if v == '{' {
			return r.object(at, depth)
		}
		return r.list(at, depth)
	case string:
		r.checkText(v, src, at)
		return &node{kind: 's', text: v}, nil
	case json.Number:
		if why := storableNumber(v.String()); why != "" {
			r.faults = append(r.faults, fault.Field{Pointer: at, Detail: why})
		}
		return &node{kind: 'n', text: v.String()}, nil
	case bool:
		if v {
			return &node{kind: 't'}, nil
		}
		return &node{kind: 'f'}, nil
	default:
		return &node{kind: '0'}, nil
	}
}

func (r *treeReader) object(at string, depth int) (*node, error) {
	n := &node{kind: '{'}
	seen := map[string]bool{}
	for {
		tok, src, err := r.token()
		if err != nil {
			return nil, err
		}
		key, isKey := tok.(string)
		if !isKey {
			return n, nil // '}'
		}
		below := at + "/" + escapePointer(key)
		r.checkText(key, src, below)
		kid, err := r.value(below, depth+1)
		if err != nil {
			return nil, err
		}
		if seen[key] {
			r.faults = append(r.faults, fault.Field{Pointer: below, Detail: "This field stands here twice."})
			continue
		}
		seen[key] = true
		n.keys, n.kids = append(n.keys, key), append(n.kids, kid)
	}
}

func (r *treeReader) list(at string, depth int) (*node, error) {
	n := &node{kind: '['}
	for {
		tok, src, err := r.token()
		if err != nil {
			return nil, err
		}
		if tok == json.Delim(']') {
			return n, nil
		}
		kid, err := r.valueOf(tok, src, at+"/"+strconv.Itoa(len(n.kids)), depth+1)
		if err != nil {
			return nil, err
		}
		n.kids = append(n.kids, kid)
	}
}

// checkText refuses what jsonb cannot hold: NUL, and surrogates without their other half, which Go would replace.
func (r *treeReader) checkText(s string, src []byte, at string) {
	if strings.ContainsRune(s, 0) {
		r.faults = append(r.faults, fault.Field{Pointer: at, Detail: "Text holds no NUL character."})
	}
	if loneSurrogate(src) {
		r.faults = append(r.faults, fault.Field{Pointer: at, Detail: `Text holds half a surrogate pair (\ud800 to \udfff).`})
	}
}

// loneSurrogate says whether a JSON string's source escapes half a surrogate pair.
func loneSurrogate(src []byte) bool {
	for i := 0; i+1 < len(src); i++ {
		if src[i] != '\\' {
			continue
		}
		if src[i+1] != 'u' || i+6 > len(src) {
			i++
			continue
		}
		u, err := strconv.ParseUint(string(src[i+2:i+6]), 16, 32)
		switch {
		case err != nil:
		case u >= 0xdc00 && u <= 0xdfff:
			return true
		case u >= 0xd800 && u <= 0xdbff:
			if i+12 > len(src) || src[i+6] != '\\' || src[i+7] != 'u' {
				return true
			}
			low, err := strconv.ParseUint(string(src[i+8:i+12]), 16, 32)
			if err != nil || low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 6
		}
		i += 5
	}
	return false
}

// storableNumber returns "" when jsonb and every reader can hold the number, otherwise why not.
func storableNumber(s string) string {
	if len(s) > limits.MaxNumberLength {
		return fmt.Sprintf("A number has at most %d characters.", limits.MaxNumberLength)
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		exp, err := strconv.Atoi(s[i+1:])
		if err != nil || exp > limits.MaxNumberExponent || exp < -limits.MaxNumberExponent {
			return fmt.Sprintf("A number's exponent is between -%d and %d.", limits.MaxNumberExponent, limits.MaxNumberExponent)
		}
	}
	return ""
}

// appendJSON writes n compactly, object keys sorted, numbers as they were written.
func (n *node) appendJSON(b []byte) []byte {
	switch n.kind {
	case '{':
		order := make([]int, len(n.keys))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(i, j int) int { return strings.Compare(n.keys[i], n.keys[j]) })
		b = append(b, '{')
		for k, i := range order {
			if k > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, n.keys[i]), ':')
			b = n.kids[i].appendJSON(b)
		}
		return append(b, '}')
	case '[':
		b = append(b, '[')
		for i, kid := range n.kids {
			if i > 0 {
				b = append(b, ',')
			}
			b = kid.appendJSON(b)
		}
		return append(b, ']')
	case 's':
		return appendQuoted(b, n.text)
	case 'n':
		return append(b, n.text...)
	case 't':
		return append(b, "true"...)
	case 'f':
		return append(b, "false"...)
	default:
		return append(b, "null"...)
	}
}

const hexDigits = "0123456789abcdef"

// appendQuoted writes s as a JSON string that escapes only what JSON demands; invalid UTF-8 becomes U+FFFD.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}

// escapePointer writes one reference token of a JSON Pointer.
func escapePointer(s string) string {
	if !strings.ContainsAny(s, "~/") {
		return s
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}
