package testspec_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// fieldsOf returns pointer → detail of a fault.Invalid.
func fieldsOf(tb testing.TB, err error) map[string]string {
	tb.Helper()
	out := map[string]string{}
	if err == nil {
		return out
	}
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Invalid {
		tb.Fatalf("not fault.Invalid: %v", err)
	}
	for _, f := range e.Fields {
		out[f.Pointer] = f.Detail
	}
	return out
}

const minimal = `{"steps":[{"request":{"method":"GET","url":"https://a.example/"}}]}`

func TestParse_namesEveryPlace(t *testing.T) {
	_, err := testspec.Parse([]byte(`{
		"Timeout":"1s", "timeout":30, "variables":{"a":1,"b":"x","b":"y"}, "rerunOnWorkerLoss":"yes",
		"steps":[
			{"name":7,"request":{"method":"GET","METHOD":"PUT","url":"https://a.example/","query":{"n":5,"m":["a",true]},
			 "headers":[],"followRedirects":1,"maxRedirects":1.5,"timeout":"fast","httpVersion":2,
			 "body":{"json":{"a":1,"a":2,"/~":"\u0000"},"text":null}},
			 "assertions":{"source":"status"},"captures":[{"name":"x","source":"status","extra":1}],"z":0},
			"step"
		]}`))
	got := fieldsOf(t, err)
	want := []string{
		"/Timeout", "/steps/0/assertions", "/steps/0/captures/0/extra", "/steps/0/name", "/steps/0/request/METHOD",
		"/steps/0/request/body/json/a", "/steps/0/request/body/json/~1~0", "/steps/0/request/body/text",
		"/steps/0/request/followRedirects", "/steps/0/request/headers", "/steps/0/request/httpVersion",
		"/steps/0/request/maxRedirects", "/steps/0/request/query/m/1", "/steps/0/request/query/n",
		"/steps/0/request/timeout", "/steps/0/z", "/steps/1", "/rerunOnWorkerLoss", "/timeout", "/variables/a", "/variables/b",
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
	if !strings.Contains(got["/steps/0/request/query/n"], "quotes") {
		t.Errorf("no hint at quotes: %q", got["/steps/0/request/query/n"])
	}
	if !strings.Contains(got["/steps/0/z"], "assertions") {
		t.Errorf("the known fields are not named: %q", got["/steps/0/z"])
	}
}

func TestParse_refusesWhole(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for name, c := range map[string]struct {
		in   string
		kind fault.Kind
	}{
		"empty":       {"", fault.Malformed},
		"cut":         {`{"steps":[`, fault.Malformed},
		"two values":  {minimal + `{}`, fault.Malformed},
		"not UTF-8":   {"{\"steps\":\"\xff\"}", fault.Malformed},
		"comment":     {"{/* */}", fault.Malformed},
		"NaN":         {`{"timeout":NaN}`, fault.Malformed},
		"deep":        {`{"steps":` + deep + `}`, fault.TooLarge},
		"many values": {`{"steps":[` + strings.Repeat("0,", limits.MaxSpecNodes) + `0]}`, fault.TooLarge},
		"large":       {`{"steps":"` + strings.Repeat("a", limits.MaxSpecBytes) + `"}`, fault.TooLarge},
		"a list":      {`[]`, fault.Invalid},
		"null":        {`null`, fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := testspec.Parse([]byte(c.in))
			if got := fault.KindOf(err); got != c.kind {
				t.Errorf("%s, want %s (%v)", got, c.kind, err)
			}
		})
	}
}

// TestParse_whatJsonbCannotHold: each would make the insert fail, or change silently.
func TestParse_whatJsonbCannotHold(t *testing.T) {
	for _, body := range []string{
		`"a\u0000b"`, `"\ud800"`, `"\udc00"`, `"\ud800x"`, `"\ud800\u0041"`, `{"\u0000":1}`, `1e400000`, `1e99999999999999999999`,
		strings.Repeat("1", 200), `-1e-2000`,
	} {
		in := `{"steps":[{"request":{"method":"POST","url":"https://a.example/","body":{"json":` + body + `}}}]}`
		if _, err := testspec.Parse([]byte(in)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%.40s was taken: %v", body, err)
		}
	}
	for _, body := range []string{`"\ud83d\ude00"`, `"\\ud800"`, `"\\u0000"`, `1e300`, `0.1`, `-0`, `9007199254740993`} {
		in := `{"steps":[{"request":{"method":"POST","url":"https://a.example/","body":{"json":` + body + `}}}]}`
		if _, err := testspec.Parse([]byte(in)); err != nil {
			t.Errorf("%s was refused: %v", body, err)
		}
	}
}

func TestRead_saysShapeAndMeaningAtOnce(t *testing.T) {
	_, err := testspec.Read([]byte(`{"timeout":"10m","steps":[{"request":{"method":"get","url":5}},{"request":{"url":"ftp://x"},"asertions":[]}]}`))
	got := slices.Sorted(maps.Keys(fieldsOf(t, err)))
	want := []string{"/steps/0/request/method", "/steps/0/request/url", "/steps/1/asertions", "/steps/1/request/method", "/steps/1/request/url", "/timeout"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

const full = `{"timeout":"90s","variables":{"b":"2","a":"1"},"rerunOnWorkerLoss":true,"steps":[{"name":"one","request":{
	"method":"POST","url":"https://a.example/{{a}}","query":{"z":"1","y":["a","b"]},"headers":{"X-A":"<&>","X-B":["1"]},
	"body":{"json":{"z":1.0,"a":[9007199254740993,1e2],"m":"\u2028<\ud83d\ude00"}},"followRedirects":false,"maxRedirects":0,"timeout":"1m0s",
	"httpVersion":"1.1","verifyTls":false,"cookies":false},
	"assertions":[{"source":"status","operator":"equals","expected":200,"not":true,"severity":"soft"},{"source":"jsonpath","property":"$.a","operator":"equals","expected":null}],
	"captures":[{"name":"c","source":"header","property":"etag"}]}]}`

func TestCanonical_isStable(t *testing.T) {
	spec, err := testspec.Read([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	once, err := spec.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	again, err := testspec.Parse(once)
	if err != nil {
		t.Fatalf("its own form is refused: %v", err)
	}
	twice, err := again.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(once), string(twice)); diff != "" {
		t.Errorf("changed (-once +twice):\n%s", diff)
	}
	if diff := cmp.Diff(spec, again); diff != "" {
		t.Errorf("the spec changed (-want +got):\n%s", diff)
	}
	// encoding/json, which a slice may use to store it, reads back the same.
	stored, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var read testspec.Spec
	if err := json.Unmarshal(stored, &read); err != nil {
		t.Fatal(err)
	}
	h1, err1 := spec.Hash()
	h2, err2 := read.Hash()
	if err1 != nil || err2 != nil || h1 != h2 {
		t.Errorf("another hash after json.Marshal and Unmarshal: %v %v", err1, err2)
	}
	// A null that is expected is not the same as nothing.
	if got := string(read.Steps[0].Assertions[1].Expected); got != "null" {
		t.Errorf("expected is %q, want null", got)
	}
}

func TestHash_differsBeyondFloat64(t *testing.T) {
	hash := func(n string) [32]byte {
		spec, err := testspec.Parse([]byte(`{"steps":[{"request":{"method":"POST","url":"https://a.example/","body":{"json":` + n + `}}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		h, err := spec.Hash()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if hash("9007199254740992") == hash("9007199254740993") {
		t.Error("two numbers that differ have one hash")
	}
	if hash(`{"a":1,"b":2}`) != hash(` { "b" : 2 , "a":1 } `) {
		t.Error("order and blanks change the hash")
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]string{"30s": "30s", "60s": "1m", "90s": "1m30s", "250ms": "250ms", "1h": "1h", "1.5s": "1.5s", "0.5m": "30s", "61m": "1h1m0s"} {
		d, err := testspec.ParseDuration(in)
		if err != nil || d.String() != want {
			t.Errorf("%s is %s, %v, want %s", in, d, err, want)
		}
		if back, err := testspec.ParseDuration(d.String()); err != nil || back != d {
			t.Errorf("%s does not come back: %s, %v", d, back, err)
		}
	}
	for _, in := range []string{"", "5", "-1s", "0s", "1us", "1.0001ms", "1d", "fast", strings.Repeat("1", 40) + "s"} {
		if d, err := testspec.ParseDuration(in); err == nil {
			t.Errorf("%q is %s", in, d)
		}
	}
}

// FuzzRead: whatever is read has a canonical form that reads back the same, and nothing makes it panic.
func FuzzRead(f *testing.F) {
	f.Add(minimal)
	f.Add(full)
	f.Add(`{"steps":[{"request":{"method":"GET","url":"{{{{x"},"assertions":[{"source":"jsonpath","property":"$[?@.a==1]","operator":"matches","expected":"("}]}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		spec, err := testspec.Read([]byte(in), testspec.WithAnyName())
		if err != nil {
			return
		}
		once, err := spec.Canonical()
		if err != nil {
			t.Fatalf("no canonical form: %v", err)
		}
		again, err := testspec.Read(once, testspec.WithAnyName())
		if err != nil {
			t.Fatalf("its canonical form is refused: %v\n%s", err, once)
		}
		twice, err := again.Canonical()
		if err != nil || string(once) != string(twice) {
			t.Fatalf("changed: %v\n%s\n%s", err, once, twice)
		}
	})
}
