package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// oldest is the oldest major version that TestFlow runs on.
const oldest = 15

// Binaries is a directory with initdb and postgres of one version.
type Binaries struct {
	Dir     string
	Version int // major
}

// ErrNoBinaries says that no PostgreSQL server was found on the machine.
var ErrNoBinaries = errors.New("no PostgreSQL 15 or newer was found: install one (Debian: `apt-get install postgresql`), or set TESTFLOW_PG_BIN to its bin directory or DATABASE_URL to a server")

// binPatterns are where packages put the server, after PATH.
var binPatterns = []string{
	"/usr/lib/postgresql/*/bin", "/usr/libexec/postgresql*", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
	"/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// FindBinaries returns the PostgreSQL servers of the machine that TestFlow runs on, best first: binDir alone when it is
// given (TESTFLOW_PG_BIN), else the one on PATH, then installed packages from the highest version down, then what
// EnsureBinaries put into cacheDir ("" = DefaultCacheDir). ErrNoBinaries when there is none.
func FindBinaries(binDir, cacheDir string) ([]Binaries, error) {
	if binDir != "" {
		v, err := binVersion(binDir)
		if err != nil {
			return nil, fmt.Errorf("TESTFLOW_PG_BIN: %w", err)
		}
		return []Binaries{{Dir: binDir, Version: v}}, nil
	}
	return findBinaries(binPatterns, cacheDir)
}

func findBinaries(patterns []string, cacheDir string) ([]Binaries, error) {
	var found []Binaries
	add := func(dir string) {
		v, err := binVersion(dir)
		if err == nil && !slices.ContainsFunc(found, func(b Binaries) bool { return b.Dir == dir }) {
			found = append(found, Binaries{Dir: dir, Version: v})
		}
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			add(filepath.Dir(p))
		}
	}
	onPath := len(found)
	for _, pattern := range patterns {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("look for PostgreSQL in %s: %w", pattern, err)
		}
		for _, dir := range dirs {
			add(dir)
		}
	}
	slices.SortStableFunc(found[onPath:], func(a, b Binaries) int { return b.Version - a.Version })
	dir, err := cachedBinaries(cacheDir)
	if err != nil {
		return nil, err
	}
	if add(dir); len(found) == 0 {
		return nil, ErrNoBinaries
	}
	return found, nil
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// binVersion returns the major version of the server in dir, or an error that says why it cannot be used.
func binVersion(dir string) (int, error) {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return 0, fmt.Errorf("%s holds no %s", dir, name)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "postgres"), "--version") //nolint:noctx,gosec // prints a line and ends; a directory that we looked into
	cmd.Env = serverEnv()
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s/postgres does not run: %w", dir, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s/postgres says no version", dir)
	}
	v, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return 0, fmt.Errorf("%s/postgres: %w", dir, err)
	}
	if v < oldest {
		return 0, fmt.Errorf("%s holds PostgreSQL %d: TestFlow needs %d or newer", dir, v, oldest)
	}
	return v, nil
}

// cachedBinaries returns where EnsureBinaries unpacks.
func cachedBinaries(cacheDir string) (string, error) {
	if cacheDir == "" {
		var err error
		if cacheDir, err = DefaultCacheDir(); err != nil {
			return "", err
		}
	}
	return filepath.Join(cacheDir, "postgres-"+npmVersion, "native", "bin"), nil
}
