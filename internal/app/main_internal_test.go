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

func TestPrepare_makesKeysBeforeADatabaseAndNeverBesideOne(t *testing.T) {
	t.Parallel()
	fresh := &dataDir{path: t.TempDir()}
	require.NoError(t, fresh.prepare())
	require.NoError(t, os.Mkdir(filepath.Join(fresh.path, "postgres"), 0o700))
	_, made, err := fresh.secrets()
	require.NoError(t, err, "up takes the directory that another command began")
	assert.False(t, made)

	lost := &dataDir{path: t.TempDir()}
	require.NoError(t, os.Mkdir(filepath.Join(lost.path, "postgres"), 0o700))
	require.NoError(t, lost.prepare(), "a database without its keys can still be examined")
	_, _, err = lost.secrets()
	require.Error(t, err, "and gets no new ones")
}
