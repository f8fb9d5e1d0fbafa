package eventstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/seal"
)

// ContentHash returns SHA-256 over the RFC 8785 JSON of what was appended: organization, stream, kind, type, schema,
// meta and data. schema and data must be as they were stored, not lifted. Position, version and time are not in it: they
// are the log's, and stand beside the hash in the leaf of the tamper-evident tree.
func ContentHash(st Stream, typ string, schema int, meta, data json.RawMessage) ([]byte, error) {
	hash, err := seal.Content{OrgID: st.OrgID, StreamID: st.ID, Kind: st.Kind, Type: typ, Schema: schema, Meta: meta, Data: data}.Hash()
	if err != nil {
		return nil, err
	}
	return hash[:], nil
}

// encode marshals a payload into JSON that jsonb can hold. What jsonb cannot hold is U+0000, lone surrogates and
// numbers beyond its range: with repair they become U+FFFD and null, without it they are a fault. same says that raw
// says what d says, to the letter: it doesn't after a repair, nor where d holds what is no UTF-8.
func encode(d Data, repair bool) (raw json.RawMessage, same bool, err error) {
	if raw, err = json.Marshal(d); err != nil {
		return nil, false, fmt.Errorf("encode %s: %w", d.EventType(), err)
	}
	if storable(raw) {
		return raw, !bytes.Contains(raw, []byte(replacement)), nil
	}
	if !repair {
		return nil, false, fault.New(fault.Invalid, "request.text_not_storable", "A text holds a NUL character, half a character, or a number is out of range.")
	}
	return mend(raw), false, nil
}

// replacement is how json.Marshal and we write what cannot be written.
const replacement = `\ufffd`

// storable says whether jsonb takes the valid JSON in raw.
func storable(raw []byte) bool {
	return bytes.Equal(mendInto(nil, raw, true), raw)
}

func mend(raw []byte) []byte { return mendInto(make([]byte, 0, len(raw)), raw, false) }

// mendInto copies valid JSON, replacing what jsonb refuses. With probe it copies nothing: it returns raw when there is
// nothing to replace and nil otherwise.
func mendInto(out, raw []byte, probe bool) []byte {
	emit := func(b ...byte) {
		if !probe {
			out = append(out, b...)
		}
	}
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == '"':
			emit(c)
			for i++; raw[i] != '"'; {
				if raw[i] != '\\' {
					emit(raw[i])
					i++
					continue
				}
				if raw[i+1] != 'u' {
					emit(raw[i], raw[i+1])
					i += 2
					continue
				}
				n := 6
				switch u := codeUnit(raw[i:]); {
				case u == 0, u >= 0xDC00 && u <= 0xDFFF:
					n = -6
				case u >= 0xD800 && u <= 0xDBFF:
					if low := codeUnit(raw[i+6:]); low >= 0xDC00 && low <= 0xDFFF {
						n = 12
					} else {
						n = -6
					}
				}
				if n > 0 {
					emit(raw[i : i+n]...)
					i += n
					continue
				}
				if probe {
					return nil
				}
				emit([]byte(replacement)...)
				i += 6
			}
			emit('"')
			i++
		case c == '-' || c >= '0' && c <= '9':
			j := i + 1
			for j < len(raw) && isNumberByte(raw[j]) {
				j++
			}
			if numberFits(raw[i:j]) {
				emit(raw[i:j]...)
			} else {
				if probe {
					return nil
				}
				emit([]byte("null")...)
			}
			i = j
		default:
			emit(c)
			i++
		}
	}
	if probe {
		return raw
	}
	return out
}

func isNumberByte(c byte) bool {
	return c >= '0' && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

// numberFits says whether jsonb takes the number: numeric has room for 131072 digits before the point and 16383 after,
// and we take far fewer, so that no sum with an exponent matters.
func numberFits(n []byte) bool {
	if len(n) > 4096 {
		return false
	}
	e := bytes.IndexAny(n, "eE")
	if e < 0 {
		return true
	}
	exp, err := strconv.Atoi(string(bytes.TrimPrefix(n[e+1:], []byte("+"))))
	return err == nil && exp > -8192 && exp < 8192
}

// codeUnit reads \uXXXX at the start of b; -1 when there is none.
func codeUnit(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	u, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(u)
}
