package testspec_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

func TestFromYAML(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a: 1\nb: [x, 'y', \"z\"]\n":            `{"a":1,"b":["x","y","z"]}`,
		"a: 0x1f\nb: 1_000\nc: +5\nd: .5\n":     `{"a":31,"b":1000,"c":5,"d":0.5}`,
		"n: 12345678901234567890123\nf: 1.10\n": `{"n":12345678901234567890123,"f":1.10}`,
		"a: ~\nb: null\nc: true\nd: yes\ne:\n":  `{"a":null,"b":null,"c":true,"d":"yes","e":null}`,
		"d: 2024-01-02\nq: \"\\u0001<&>\"\n":    `{"d":"2024-01-02","q":"\u0001<&>"}`,
		"t: |\n  two\n  lines\n":                `{"t":"two\nlines\n"}`,
	} {
		got, err := testspec.FromYAML([]byte(in))
		if err != nil || string(got) != want || !json.Valid(got) {
			t.Errorf("%q: %s, %v; want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"a: &x 1\nb: *x\n":   "Line 1: aliases and anchors",
		"a: 1\n<<: {b: 2}\n": "Line 2: a key is text",
		"a: 1\na: 2\n":       "twice",
		"1: a\n":             "Line 1: a key is text",
		"a: !mine x\n":       "the tag !mine is not known",
		"a: !!binary aGk=\n": "the tag",
		"a: .inf\n":          "no such number",
		"a: 1\n---\nb: 2\n":  "more than one document",
		"":                   "",
		"a: [\n":             "cannot be read as YAML",
		"a: 1\nb:\n\t- c\n":  "Line 3: the document cannot be read as YAML: found",
		"\xff":               "not UTF-8",
		strings.Repeat("[", limits.MaxSpecDepth+1) + strings.Repeat("]", limits.MaxSpecDepth+1): "nests deeper than 64",
		"[" + strings.Repeat("0,", limits.MaxSpecNodes) + "0]":                                  "more than 20000 values",
		"a: " + strings.Repeat("x", limits.MaxSpecBytes):                                        "at most 1048576 bytes",
	} {
		got, err := testspec.FromYAML([]byte(in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %.60s, %v; want %s", in, got, err, want)
		}
	}
}

// FuzzFromYAML: whatever is taken is JSON.
func FuzzFromYAML(f *testing.F) {
	f.Add("a: 1\nb: [x, {c: d}]\n")
	f.Add("? a\n: !!float 1e3\n")
	f.Fuzz(func(t *testing.T, in string) {
		if got, err := testspec.FromYAML([]byte(in)); err == nil && !json.Valid(got) {
			t.Fatalf("%q became %q", in, got)
		}
	})
}
