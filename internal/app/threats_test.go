package app_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	testNames  = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	namedTests = regexp.MustCompile("`(Test\\w+)`")
)

// TestHouse_threats_nameTestsThatExist holds docs/threats.md: every test and every table of guards that it names is
// there, and it names every attack and every table of guards.
func TestHouse_threats_nameTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/threats.md")
	require.NoError(t, err)
	there := map[string]bool{}
	require.NoError(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range testNames.FindAllSubmatch(src, -1) {
			there[string(m[1])] = true
		}
		return err
	}))
	named := map[string]bool{}
	for _, m := range namedTests.FindAllSubmatch(page, -1) {
		named[string(m[1])] = true
		assert.True(t, there[string(m[1])], "docs/threats.md names %s, which is gone", m[1])
	}
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if strings.HasPrefix(name, "TestAttack") {
			assert.True(t, named[name], "docs/threats.md doesn't say what %s is against", name)
		}
	}
	tables, err := filepath.Glob("../../.ci/guards/*.yaml")
	require.NoError(t, err)
	areas := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 3 || cells[0] == "| they try" {
			continue
		}
		for area := range strings.SplitSeq(strings.TrimSuffix(cells[2], " |"), ", ") {
			if area != "—" {
				areas[area] = true
				assert.True(t, slices.Contains(tables, "../../.ci/guards/"+area+".yaml"), "docs/threats.md names the guards %s, of which there is no table", area)
			}
		}
	}
	for _, table := range tables {
		area := strings.TrimSuffix(filepath.Base(table), ".yaml")
		assert.True(t, areas[area], "docs/threats.md doesn't say what the guards %s are for", area)
	}
}
