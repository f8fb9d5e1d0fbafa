package pgtest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNew_isPrivateMigratedAndDropped(t *testing.T) {
	t.Parallel()
	var names []string
	t.Run("inside", func(t *testing.T) {
		for range 2 {
			db := New(t)
			var name string
			require.NoError(t, db.System.QueryRow(t.Context(), `SELECT current_database()`).Scan(&name))
			assert.NotContains(t, names, name)
			names = append(names, name, name+"_analytics")
			_, err := db.System.Exec(t.Context(), `SELECT FROM river.river_job`)
			require.NoError(t, err)
			require.NoError(t, db.Analytics.System.QueryRow(t.Context(), `SELECT current_database()`).Scan(&name))
			assert.Equal(t, names[len(names)-1], name)
		}
	})
	var left int
	require.NoError(t, Admin(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_database WHERE datname = ANY ($1)`, names).Scan(&left))
	assert.Zero(t, left)
}

func TestWrap_handsOnAddressAndExitCode(t *testing.T) {
	for name, c := range map[string]struct {
		command []string
		want    int
	}{
		"its exit code": {[]string{"--", "sh", "-c", `case "$TESTFLOW_TEST_DATABASE_URL" in postgres://*) exit 3;; esac`}, 3},
		"success":       {[]string{"true"}, 0},
		"no such thing": {[]string{"/no/such/thing"}, 2},
		"no command":    {nil, 2},
		"killed":        {[]string{"sh", "-c", "kill -9 $$"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			assert.Equal(t, c.want, Wrap(&out, c.command), out.String())
			if c.want != 2 {
				assert.Contains(t, out.String(), "tests run on ")
			}
		})
	}
}

func TestChoose_saysWhatIsWrong(t *testing.T) {
	t.Setenv("TESTFLOW_TEST_DATABASE_URL", "")
	t.Setenv("TESTFLOW_TEST_PG", "url")
	_, err := choose(t.Context(), true)
	require.ErrorContains(t, err, "needs TESTFLOW_TEST_DATABASE_URL")
	t.Setenv("TESTFLOW_TEST_PG", "oracle")
	_, err = choose(t.Context(), true)
	require.ErrorContains(t, err, "auto, url, container or local")
	t.Setenv("TESTFLOW_TEST_PG", "container")
	t.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	_, err = choose(t.Context(), false)
	require.Error(t, err, "without a reaper a process that nobody stops starts no container")
}
