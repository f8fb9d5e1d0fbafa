package app

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/config"
)

func TestLogger_writesDurationsWithTheirUnit(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "log")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	log := terminal{err: f}.logger(config.Log{Format: "json"})
	log.InfoContext(t.Context(), "done", slog.Duration("took", 1500*time.Millisecond))
	text, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	assert.Contains(t, string(text), `"took":"1.5s"`)
}
