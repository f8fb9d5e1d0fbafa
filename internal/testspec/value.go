package testspec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/testflow/testflow/internal/limits"
)

// value is what a source read: a JSON value (nil, bool, json.Number, string, []any, map[string]any), or nothing.
type value struct {
	v    any
	wire bool   // text off the wire: where a number is asked for it is read as one
	list bool   // v is the []any that a path selected, not a value of the document
	none string // set when there is no value: a clause that says why
	// broken means that a value could not be had at all, not that the place is empty; then even exists fails.
	broken bool
	nodes  bool // v is the []any that an XPath or a CSS selector selected; a single one counts as itself
	date   bool // v is text that holds an instant, RFC 3339
}

// binary is bytes that are not text. JSON shows them as base64.
type binary []byte

func jsonNumber(s string) json.Number { return json.Number(s) }

func numberValue(i int64) value { return value{v: jsonNumber(strconv.FormatInt(i, 10))} }

func missing(why string) value { return value{none: why} }

func unreadable(why string) value { return value{none: why, broken: true} }

// typeName is what a sentence calls v's JSON type.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case string:
		return "text"
	case []any:
		return "a list"
	case binary:
		return "bytes"
	default:
		return "an object"
	}
}

// number returns v as a number: a JSON number, or wire text that is wholly one.
func (x value) number() (string, bool) {
	switch v := x.v.(type) {
	case json.Number:
		return v.String(), true
	case string:
		if t := strings.Trim(v, " \t"); x.wire {
			if _, ok := parseDecimal(t); ok {
				return t, true
			}
		}
	}
	return "", false
}

// decodeJSON reads exactly one JSON value, numbers exact. The depth of raw was checked before.
func decodeJSON(raw []byte) (any, error) {
	if v, ok := decodeScalar(raw); ok {
		return v, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("decode JSON: %w", err)
	}
	if rest := raw[dec.InputOffset():]; len(bytes.TrimLeft(rest, " \t\r\n")) > 0 {
		return nil, errors.New("decode JSON: something follows the value")
	}
	return v, nil
}

// decodeScalar reads what most expected values are without the cost of a decoder: a number, a literal, plain text.
func decodeScalar(raw []byte) (any, bool) {
	switch s := string(raw); {
	case s == "null":
		return nil, true
	case s == "true", s == "false":
		return s == "true", true
	case len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"':
		inner := s[1 : len(s)-1]
		for i := range len(inner) {
			if c := inner[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
				return nil, false
			}
		}
		return inner, true
	case len(s) <= limits.MaxNumberLength:
		if _, ok := parseDecimal(s); ok {
			return json.Number(s), true
		}
	}
	return nil, false
}

// deepEqual compares two JSON values: numbers by their value, texts by their characters, objects without order.
func deepEqual(a, b any) bool {
	switch x := a.(type) {
	case json.Number:
		y, ok := b.(json.Number)
		if !ok {
			return false
		}
		c, ok := compareNumbers(x.String(), y.String())
		return ok && c == 0
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, deepEqual)
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, deepEqual)
	case binary:
		y, ok := b.(binary)
		return ok && bytes.Equal(x, y)
	default:
		switch b.(type) {
		case []any, map[string]any, binary:
			return false
		}
		return a == b
	}
}

// encodeJSON appends v compactly, object keys sorted, and stops soon after limits.MaxShownSize. v came from decodeJSON.
func encodeJSON(b []byte, v any) []byte {
	if len(b) > limits.MaxShownSize {
		return b
	}
	switch x := v.(type) {
	case bool:
		return strconv.AppendBool(b, x)
	case json.Number:
		return append(b, x...)
	case string:
		return appendQuoted(b, x)
	case binary:
		return append(base64.StdEncoding.AppendEncode(append(b, '"'), x), '"')
	case []any:
		b = append(b, '[')
		for i, e := range x {
			if len(b) > limits.MaxShownSize {
				break
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = encodeJSON(b, e)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, k := range slices.Sorted(maps.Keys(x)) {
			if len(b) > limits.MaxShownSize {
				break
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, k), ':')
			b = encodeJSON(b, x[k])
		}
		return append(b, '}')
	default:
		return append(b, "null"...)
	}
}

// show cuts v down for a result.
func show(v any) Shown {
	if b, ok := v.(binary); ok {
		return showBytes(b)
	}
	text, isText := v.(string)
	if isText && len(text) > limits.MaxActual {
		return shownCut(text)
	}
	whole := encodeJSON(nil, v)
	if !isText {
		text = string(whole)
	}
	if len(text) > limits.MaxActual || !storable(v) {
		return shownCut(text)
	}
	return Shown{JSON: cleanNUL(whole), Size: len(text)}
}

// showBytes shows bytes as base64, cut to whole groups of it.
func showBytes(b binary) Shown {
	cut := b[:min(len(b), limits.MaxActual/4*3)]
	return Shown{JSON: encodeJSON(nil, cut), Size: len(b), Truncated: len(cut) < len(b)}
}

// shownCut shows text by its beginning, as a JSON string.
func shownCut(text string) Shown {
	cut := text
	if len(cut) > limits.MaxActual {
		cut = cut[:runeStart(cut, limits.MaxActual)]
	}
	return Shown{JSON: cleanNUL(appendQuoted(nil, cut)), Size: len(text), Truncated: len(cut) < len(text)}
}

// runeStart returns the last place at or before i where a character of s begins.
func runeStart(s string, i int) int {
	for i > 0 && !utf8.RuneStart(s[i]) {
		i--
	}
	return i
}

// storable says whether jsonb can hold every number in v.
func storable(v any) bool {
	switch x := v.(type) {
	case json.Number:
		return storableNumber(x.String()) == ""
	case []any:
		for _, e := range x {
			if !storable(e) {
				return false
			}
		}
	case map[string]any:
		for _, e := range x {
			if !storable(e) {
				return false
			}
		}
	}
	return true
}

// cleanNUL replaces NUL, which jsonb cannot hold, by U+FFFD. appendQuoted is the only writer of raw, so an escaped NUL
// has one form; a text that shows that form has its backslash doubled.
func cleanNUL(raw []byte) []byte {
	const nul = `\u0000`
	if !bytes.Contains(raw, []byte(nul)) {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		switch {
		case raw[i] != '\\':
			out = append(out, raw[i])
		case bytes.HasPrefix(raw[i:], []byte(nul)):
			out = utf8.AppendRune(out, utf8.RuneError)
			i += len(nul) - 1
		default:
			out = append(out, raw[i], raw[i+1])
			i++
		}
	}
	return out
}
