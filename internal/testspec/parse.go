package testspec

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// Codes of the faults that Parse and Read return.
const (
	CodeMalformed = "spec.malformed" // fault.Malformed: it is not JSON
	CodeTooLarge  = "spec.too_large" // fault.TooLarge: over limits.MaxSpecBytes, limits.MaxSpecDepth or limits.MaxSpecNodes
	CodeInvalid   = "spec.invalid"   // fault.Invalid, with every place
)

// Parse reads a spec from JSON, strictly: unknown and duplicate fields, wrong types and what could not be stored are
// refused, all of them in one *fault.Error with pointers relative to the spec. It does not Validate.
func Parse(data []byte) (Spec, error) {
	spec, faults, err := parse(data)
	if err != nil {
		return Spec{}, err
	}
	if faults != nil {
		return Spec{}, invalid(faults)
	}
	return spec, nil
}

// Read parses and validates; the *fault.Error names everything that is wrong in shape and in meaning.
func Read(data []byte, opts ...Option) (Spec, error) {
	spec, faults, err := parse(data)
	if err != nil {
		return Spec{}, err
	}
	// What has the wrong shape was left out, so its absence is no news.
	for _, f := range Validate(spec, opts...) {
		if !related(faults, f.Pointer) {
			faults = append(faults, f)
		}
	}
	if faults != nil {
		return Spec{}, invalid(faults)
	}
	return spec, nil
}

// related says whether a fault stands at, above or below pointer.
func related(faults []fault.Field, pointer string) bool {
	for _, f := range faults {
		if f.Pointer == pointer || strings.HasPrefix(f.Pointer, pointer+"/") || strings.HasPrefix(pointer, f.Pointer+"/") {
			return true
		}
	}
	return false
}

func parse(data []byte) (Spec, []fault.Field, error) {
	tree, faults, err := readSource(data)
	if err != nil {
		return Spec{}, nil, err
	}
	var spec Spec
	d := decoder{faults: faults}
	d.decode(tree, reflect.ValueOf(&spec).Elem(), "")
	return spec, d.faults, nil
}

// readSource reads what people wrote; the error is a *fault.Error.
func readSource(data []byte) (*node, []fault.Field, error) {
	tree, faults, err := readTree(data, limits.MaxSpecBytes)
	var tooMuch errTooMuch
	switch {
	case errors.As(err, &tooMuch):
		return nil, nil, fault.New(fault.TooLarge, CodeTooLarge, "%s", tooMuch.detail)
	case err != nil:
		return nil, nil, fault.New(fault.Malformed, CodeMalformed, "The spec cannot be read as JSON.").Because(err)
	}
	return tree, faults, nil
}

func invalid(faults []fault.Field) *fault.Error {
	e := fault.New(fault.Invalid, CodeInvalid, "The spec has %d mistakes.", len(faults))
	if len(faults) == 1 {
		e.Message = "The spec has a mistake."
	}
	e.Fields = faults
	return e
}

// Under returns fields with prefix, a JSON Pointer such as "/spec", before each pointer.
func Under(prefix string, fields []fault.Field) []fault.Field {
	out := make([]fault.Field, len(fields))
	for i, f := range fields {
		f.Pointer = prefix + f.Pointer
		out[i] = f
	}
	return out
}

// Canonical returns the one JSON form of s: compact, object keys sorted, numbers as written (RFC 8785 would round them
// to a float64 and so take two different specs for one). Equal specs have equal bytes.
func (s Spec) Canonical() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("write spec: %w", err)
	}
	tree, _, err := readTree(buf.Bytes(), 6*limits.MaxSpecBytes)
	if err != nil {
		return nil, fmt.Errorf("read back spec: %w", err)
	}
	return tree.appendJSON(nil), nil
}

// Hash returns the SHA-256 of Canonical. Saving a spec whose hash is the last revision's changes nothing.
func (s Spec) Hash() ([32]byte, error) {
	b, err := s.Canonical()
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(b), nil
}
