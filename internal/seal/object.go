package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// object is a JSON object by its keys, each value as it stands there.
type object map[string]json.RawMessage

var errNoObject = errors.New("it is no JSON object")

// parseObject splits a JSON object. Unlike encoding/json it takes no key twice and no key in another case: what a person
// reads in the file must be what is verified.
func parseObject(raw []byte) (object, error) {
	if !json.Valid(raw) {
		return nil, errNoObject
	}
	i := skipSpace(raw, 0)
	if raw[i] != '{' {
		return nil, errNoObject
	}
	o := object{}
	for i = skipSpace(raw, i+1); raw[i] != '}'; {
		end := endOfText(raw, i)
		key, err := unquote(raw[i:end])
		if err != nil {
			return nil, fmt.Errorf("read a key: %w", err)
		}
		if _, twice := o[key]; twice {
			return nil, fmt.Errorf("the field %q stands in it twice", key)
		}
		i = skipSpace(raw, skipSpace(raw, end)+1) // behind the colon
		end = endOfValue(raw, i)
		o[key] = raw[i:end]
		if i = skipSpace(raw, end); raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
	}
	return o, nil
}

// skipSpace returns the index of the first byte at or after i that isn't white space.
func skipSpace(raw []byte, i int) int {
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\n' || raw[i] == '\r') {
		i++
	}
	return i
}

// endOfValue returns the index behind the value that begins at i, in valid JSON.
func endOfValue(raw []byte, i int) int {
	depth := 0
	for i < len(raw) {
		switch raw[i] {
		case '"':
			if i = endOfText(raw, i); depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // the end of what a number or a word stands in
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// only returns the first key that isn't one of those, "" when all are.
func (o object) only(keys ...string) string {
	known := 0
	for _, k := range keys {
		if _, ok := o[k]; ok {
			known++
		}
	}
	if known == len(o) {
		return ""
	}
	for k := range o {
		found := false
		for _, known := range keys {
			found = found || k == known
		}
		if !found {
			return k
		}
	}
	return ""
}

// text returns a text field, "" when it isn't there or no text.
func (o object) text(key string) string {
	raw := o[key]
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	s, err := unquote(raw)
	if err != nil {
		return ""
	}
	return s
}

// unquote returns the text of a JSON string.
func unquote(raw []byte) (s string, err error) {
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) { // as it is: most are
		return string(raw[1 : len(raw)-1]), nil
	}
	err = json.Unmarshal(raw, &s)
	return s, err
}

// number returns a whole number; ok is false when it isn't there or none.
func (o object) number(key string) (n int64, ok bool) {
	n, err := strconv.ParseInt(string(o[key]), 10, 64)
	return n, err == nil
}

// into decodes a field into v.
func (o object) into(key string, v any) error {
	raw, ok := o[key]
	if !ok {
		return fmt.Errorf("the field %q is missing", key)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("the field %q can't be read: %w", key, err)
	}
	return nil
}
