package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGuards_tablesAreFresh reads .ci/guards and finds everything that it names in the tree, without running anything.
func TestGuards_tablesAreFresh(t *testing.T) {
	t.Parallel()
	guards, err := load("../../../.ci/guards")
	require.NoError(t, err)
	require.NotEmpty(t, guards)
	require.NoError(t, stale("../../..", guards))
}

// door is a package with a guard, another one behind it, and tests that look at them in all ways that there are.
var door = map[string]string{
	"go.mod": "module door\n\ngo 1.26\n",
	"door/door.go": `package door

func May(name string) bool {
	if name == "intruder" {
		return false
	}
	return name != "burglar" && known(name)
}

func known(name string) bool { return name != "burglar" }
`,
	"door/door_test.go": `package door

import "testing"

func TestIntruder(t *testing.T) {
	t.Run("by name", func(t *testing.T) {
		if May("intruder") {
			t.Error("in")
		}
	})
	t.Run("by day", func(t *testing.T) {
		if !May("friend") {
			t.Error("out")
		}
	})
}

func TestBurglar(t *testing.T) {
	if May("burglar") {
		t.Error("in")
	}
}

func TestSkips(t *testing.T) { t.Skip("no door") }

func TestFails(t *testing.T) { t.Error("always") }

func TestPanics(t *testing.T) {
	if May("intruder") {
		panic("in")
	}
}
`,
}

const guard = `
- name: the guard
  attack: an intruder walks in
  file: door/door.go
  find: |2
    	if name == "intruder" {
  replace: |2
    	if name == "" {
  package: ./door
`

func TestGuards_areShownOrNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ table, want string }{
		"shown":                        {guard + "  test: TestIntruder\n", ""},
		"shown by a subtest":           {guard + "  test: TestIntruder/by name\n", ""},
		"another subtest is none":      {guard + "  test: TestIntruder/by day\n", "passes (or skips) without it"},
		"nothing looks":                {guard + "  test: TestBurglar\n", "passes (or skips) without it"},
		"it skips":                     {guard + "  test: TestSkips\n", "is skip"},
		"it fails anyhow":              {guard + "  test: TestFails\n", "is fail"},
		"it panics":                    {guard + "  test: TestPanics\n", "without it the test breaks"},
		"no such test":                 {guard + "  test: TestNobody\n", "has no test"},
		"no such subtest":              {guard + "  test: TestIntruder/by night\n", "no test TestIntruder/by_night ran"},
		"a replacement that is no Go":  {"- {name: n, attack: a, file: door/door.go, find: 'name == \"intruder\"', replace: 'nme == \"\"', package: ./door, test: TestIntruder}", "doesn't build"},
		"stale":                        {"- {name: n, attack: a, file: door/door.go, find: 'name == \"nobody\"', replace: x, package: ./door, test: TestIntruder}", "stands 0 times"},
		"ambiguous":                    {"- {name: n, attack: a, file: door/door.go, find: '!= \"burglar\"', replace: '!= \"\"', package: ./door, test: TestBurglar}", "stands 2 times"},
		"changes nothing":              {"- {name: n, attack: a, file: door/door.go, find: 'name == \"intruder\"', replace: 'name == \"intruder\"', package: ./door, test: TestIntruder}", "changes nothing"},
		"two layers, one taken away":   {"- {name: n, attack: a, file: door/door.go, find: 'name != \"burglar\" && known', replace: known, package: ./door, test: TestBurglar}", "something else stops the attack too"},
		"two layers, both taken away":  {"- {name: n, attack: a, file: door/door.go, find: 'name != \"burglar\" && known', replace: known, also: [{file: door/door.go, find: '{ return name != \"burglar\" }', replace: '{ return true }'}], package: ./door, test: TestBurglar}", ""},
		"a field that nobody knows":    {guard + "  test: TestIntruder\n  lets: in\n", "lets not found"},
		"a field that is missing":      {guard, "test is missing"},
		"a name that stands twice":     {guard + "  test: TestIntruder\n" + guard + "  test: TestIntruder\n", "stands twice"},
		"a pattern that matches no id": {"[]", "no guard matches"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for file, text := range door {
				write(t, filepath.Join(root, file), text)
			}
			write(t, filepath.Join(root, ".ci/guards/door.yaml"), c.table)
			var said bytes.Buffer
			err := command(t.Context(), &said, []string{"-root", root, "-jobs", "1"})
			if c.want == "" {
				require.NoError(t, err)
				assert.Contains(t, said.String(), "1 guards, each of which")
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}
