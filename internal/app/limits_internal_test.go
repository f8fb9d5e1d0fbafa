package app

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/limits"
)

// What a setting may say at most, and says by default, is what limits.go says.
func TestTestLimits_defaultsAndBounds(t *testing.T) {
	t.Parallel()
	require.Equal(t, (limits.Tests{}).OrMost(), testLimits(limits.Defaults()))
	c, err := config.Load(config.Print, []string{"TESTFLOW_LIMIT_STEPS=7", "TESTFLOW_LIMIT_RUN_TIME=20s", "TESTFLOW_LIMIT_RESPONSE_HEADERS=4KiB"})
	require.NoError(t, err)
	got := testLimits(c.Limits)
	require.Equal(t, 7, got.Steps)
	require.Equal(t, 20*time.Second, got.RunTime)
	require.Equal(t, limits.Size(4096), got.ResponseHeaders)
	_, err = config.Load(config.Print, []string{"TESTFLOW_LIMIT_STEPS=101", "TESTFLOW_LIMIT_RUN_TIME=6m", "TESTFLOW_LIMIT_RESPONSE_BODY=11MiB", "TESTFLOW_LIMIT_REDIRECTS=0"})
	for _, want := range []string{"TESTFLOW_LIMIT_STEPS must be at most 100", "TESTFLOW_LIMIT_RUN_TIME must be at most 5m0s", "TESTFLOW_LIMIT_RESPONSE_BODY must be at most 10MiB", "TESTFLOW_LIMIT_REDIRECTS must be at least 1"} {
		require.ErrorContains(t, err, want)
	}
}
