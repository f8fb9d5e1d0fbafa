package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// scanJSON reads a body into the values that encoding/json would give (numbers as json.Number) and returns the faults
// that encoding/json lets pass: names that stand twice, texts that Postgres cannot hold, and too much of anything.
// A body that is no JSON at all is a fault.Malformed error.
func scanJSON(body []byte) (value any, faults []fault.Field, err error) {
	if !utf8.Valid(body) {
		return nil, nil, malformed("The body is not UTF-8.")
	}
	if err := wellFormed(body); err != nil {
		return nil, nil, err
	}
	s := &scanner{dec: json.NewDecoder(bytes.NewReader(body)), body: body}
	s.dec.UseNumber()
	value, err = s.value("", 0)
	if err != nil {
		return nil, nil, err
	}
	return value, s.faults, nil
}

// wellFormed says where the body stops being JSON.
func wellFormed(body []byte) error {
	if json.Valid(body) {
		return nil
	}
	var raw json.RawMessage
	err := json.Unmarshal(body, &raw)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && strings.HasSuffix(syntax.Error(), "exceeded max depth") { // encoding/json gives up deeper than we do
		return fault.New(fault.Invalid, codeInvalid, "%s", countFaults(1)).At("", "must not nest deeper than %d levels", limits.MaxJSONDepth)
	}
	if errors.As(err, &syntax) {
		return malformed(fmt.Sprintf("The body is not well-formed JSON at byte %d.", syntax.Offset))
	}
	return malformed("The body is not well-formed JSON.")
}

func malformed(detail string) *fault.Error {
	e := fault.New(fault.Malformed, codeMalformed, "%s", detail)
	return e.At("", "must be one well-formed JSON value")
}

type scanner struct {
	dec    *json.Decoder
	body   []byte
	nodes  int
	faults []fault.Field
}

func (s *scanner) fault(pointer, detail string) {
	if len(s.faults) < limits.MaxFaults {
		s.faults = append(s.faults, fault.Field{Pointer: pointer, Detail: detail})
	}
}

// next returns the next token and its bytes as they were written.
func (s *scanner) next() (json.Token, []byte, error) {
	start := s.dec.InputOffset()
	token, err := s.dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, nil, malformed("The body is not well-formed JSON.").Because(err)
	}
	return token, s.body[start:s.dec.InputOffset()], nil
}

func (s *scanner) value(pointer string, depth int) (any, error) {
	token, raw, err := s.next()
	if err != nil {
		return nil, err
	}
	if s.nodes++; s.nodes > limits.MaxJSONNodes {
		return nil, fault.New(fault.TooLarge, "request.too_large", "The body holds more than %d values.", limits.MaxJSONNodes)
	}
	switch t := token.(type) {
	case json.Delim:
		if depth >= limits.MaxJSONDepth {
			e := fault.New(fault.Invalid, codeInvalid, "%s", countFaults(1))
			return nil, e.At(pointer, "must not nest deeper than %d levels", limits.MaxJSONDepth)
		}
		if t == '{' {
			return s.object(pointer, depth)
		}
		return s.array(pointer, depth)
	case string:
		s.text(pointer, t, raw)
	case json.Number:
		s.number(pointer, t)
	}
	return token, nil
}

func (s *scanner) object(pointer string, depth int) (any, error) {
	object := map[string]any{}
	for s.dec.More() {
		token, raw, err := s.next()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		at := pointer + "/" + escapePointer(name)
		s.text(at, name, raw)
		if _, twice := object[name]; twice {
			s.fault(at, "must not stand twice")
		}
		if object[name], err = s.value(at, depth+1); err != nil {
			return nil, err
		}
	}
	_, _, err := s.next()
	return object, err
}

func (s *scanner) array(pointer string, depth int) (any, error) {
	array := []any{}
	for s.dec.More() {
		v, err := s.value(pointer+"/"+strconv.Itoa(len(array)), depth+1)
		if err != nil {
			return nil, err
		}
		array = append(array, v)
	}
	_, _, err := s.next()
	return array, err
}

// text refuses what jsonb refuses: NUL, and halves of surrogate pairs, which encoding/json replaces silently.
func (s *scanner) text(pointer, text string, raw []byte) {
	if strings.ContainsRune(text, 0) {
		s.fault(pointer, `must not hold the character NUL (\u0000)`)
	}
	if loneSurrogate(raw) {
		s.fault(pointer, "must not hold half of a surrogate pair")
	}
}

// number refuses what no float64 and no jsonb column holds exactly enough to compare.
func (s *scanner) number(pointer string, n json.Number) {
	if len(n) > limits.MaxJSONNumber {
		s.fault(pointer, "must be written with at most "+strconv.Itoa(limits.MaxJSONNumber)+" characters")
		return
	}
	if _, err := n.Float64(); err != nil {
		s.fault(pointer, "is out of range")
	}
}

// loneSurrogate reports whether a JSON string as written has a \uD800–\uDFFF escape without its other half.
func loneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++
		if i >= len(raw) || raw[i] != 'u' {
			continue
		}
		unit := hexUnit(raw, i+1)
		i += 4
		switch {
		case unit < 0xD800 || unit > 0xDFFF:
		case unit >= 0xDC00:
			return true
		default:
			if i+2 >= len(raw) || raw[i+1] != '\\' || raw[i+2] != 'u' {
				return true
			}
			if low := hexUnit(raw, i+3); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 6
		}
	}
	return false
}

func hexUnit(raw []byte, at int) uint64 {
	if at+4 > len(raw) {
		return 0
	}
	n, err := strconv.ParseUint(string(raw[at:at+4]), 16, 32)
	if err != nil {
		return 0
	}
	return n
}

// escapePointer writes a name as a reference token of RFC 6901.
func escapePointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
