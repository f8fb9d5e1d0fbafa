package app

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/config"
)

func TestLogger_writesDurationsWithTheirUnit(t *testing.T) {
	t.Parallel()
	f, err := os.CreateTemp(t.TempDir(), "log")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	log := terminal{err: f}.logger(config.Log{Format: "json"})
	log.InfoContext(t.Context(), "done", slog.Duration("took", 1500*time.Millisecond))
	text, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	assert.Contains(t, string(text), `"took":"1.5s"`)
}

func TestSecrets_ofAnotherUserSayWhatToDo(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets.json"), []byte("{}"), 0o000))
	_, _, err := (&dataDir{path: dir}).secrets()
	require.ErrorIs(t, err, fs.ErrPermission)
	assert.Contains(t, err.Error(), "TESTFLOW_DATA_DIR")

	shut := filepath.Join(dir, "shut")
	require.NoError(t, os.Mkdir(shut, 0o500))
	_, _, err = (&dataDir{path: shut}).secrets()
	require.ErrorIs(t, err, fs.ErrPermission)
	assert.Contains(t, err.Error(), "TESTFLOW_DATA_DIR")
}
