package testspec_test

import (
	"os"
	"strings"
	"testing"

	"github.com/testflow/testflow/internal/testspec"
)

// TestReference_isFresh holds docs/test-language.md to the tables.
func TestReference_isFresh(t *testing.T) {
	docs, err := os.ReadFile("../../docs/test-language.md")
	if err != nil {
		t.Fatal(err)
	}
	want := testspec.Reference()
	if string(docs) != want {
		t.Error("docs/test-language.md isn't what the tables say; run: make generate")
	}
	for _, names := range [][]string{testspec.SourceNames(), testspec.FilterNames(), testspec.OperatorNames()} {
		for _, name := range names {
			if !strings.Contains(want, "\n| `"+name+"` |") {
				t.Errorf("%s has no row", name)
			}
		}
	}
	if strings.Contains(want[strings.Index(want, "\n"):], "<!--") {
		t.Error("a table is missing")
	}
}
