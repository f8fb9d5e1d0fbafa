package httpapi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/testflow/testflow/internal/fault"
)

// FuzzScanJSON holds scanJSON against encoding/json: it takes no more, and of what it takes without a fault it reads the
// same.
func FuzzScanJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"a":2}`, `{"a":{"b":[1,2,{"c":"\ud83d\ude00"}]}}`, `"\ud800"`, `"\ud800\ud800"`, `"\\ud800"`, `"\\\ud800"`, `[1e400,-0,1E-2]`,
		`{"a\u0000":1}`, ` [ ] `, `nul`, `{"a":1}{}`, `"` + "\xff" + `"`, `[[[[]]]]`, `{"":{"":""}}`, `{"a/b":1,"a~b":2}`, `true`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		value, faults, err := scanJSON(body)
		var want any
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		if json.Valid(body) {
			if dec.Decode(&want) != nil {
				t.Skip("valid and not decodable")
			}
			if err != nil && fault.KindOf(err) == fault.Internal {
				t.Fatalf("%q: %v", body, err)
			}
		} else if err == nil {
			t.Fatalf("took what is no JSON: %q", body)
		}
		if err == nil && len(faults) == 0 && !reflect.DeepEqual(value, want) {
			t.Fatalf("%q: read %#v, want %#v", body, value, want)
		}
		for _, one := range faults {
			if one.Pointer != "" && one.Pointer[0] != '/' || one.Detail == "" {
				t.Fatalf("%q: a fault without a place: %+v", body, one)
			}
		}
	})
}
