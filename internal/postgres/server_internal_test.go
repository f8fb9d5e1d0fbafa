package postgres

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var discard = slog.New(slog.DiscardHandler)

const helperEnv = "TESTFLOW_TEST_SERVER_DIR"

// TestMain is also the program that other tests kill: it runs a server until its input ends.
func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		s, err := StartServer(context.Background(), ServerConfig{DataDir: dir})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("ready", s.URL, s.PID)
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // without Stop: the kernel has to do it
	}
	code := m.Run()
	if clusterDir != "" {
		_ = os.RemoveAll(filepath.Dir(clusterDir))
	}
	os.Exit(code)
}

var (
	clusterOnce sync.Once
	clusterDir  string
)

// cluster returns a data directory that has been used before: a copy, since initdb takes a second of a core.
func cluster(t *testing.T) string {
	t.Helper()
	clusterOnce.Do(func() {
		base, err := os.MkdirTemp("", "tfpg") //nolint:usetesting // outlives the test that came first; TestMain removes it
		require.NoError(t, err)
		require.NoError(t, os.Chmod(base, 0o755))
		dir := filepath.Join(base, "data")
		s, err := StartServer(t.Context(), ServerConfig{DataDir: dir, Throwaway: true})
		require.NoError(t, err)
		require.NoError(t, s.Stop(t.Context()))
		clusterDir = dir
	})
	require.NotEmpty(t, clusterDir)
	dir := filepath.Join(reachableDir(t), "data")
	out, err := exec.Command("cp", "-a", clusterDir, dir).CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

type helper struct {
	cmd   *exec.Cmd
	stdin io.Closer
	url   string
	pid   int // of its postmaster
}

func startHelper(t *testing.T, dir string) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		require.NoError(t, stopOrphans(context.Background(), filepath.Join(dir, "postgres"), discard))
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	h := &helper{cmd: cmd, stdin: in}
	_, err = fmt.Sscanf(line, "ready %s %d", &h.url, &h.pid)
	require.NoError(t, err, line)
	return h
}

func exec1(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func value[T any](t *testing.T, url, sql string) (v T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&v))
	return v
}

func start(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := StartServer(t.Context(), ServerConfig{DataDir: dir, Throwaway: true})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Stop(context.Background())) })
	return s
}

func TestServer_stopAndStart_keepsTheData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), "data")
	s, err := StartServer(t.Context(), ServerConfig{DataDir: dir})
	require.NoError(t, err)
	exec1(t, s.URL, "CREATE TABLE kept AS SELECT 42 AS n")
	assert.Equal(t, "on", value[string](t, s.URL, "SELECT current_setting('synchronous_commit')"))
	assert.Equal(t, "on", value[string](t, s.URL, "SELECT current_setting('fsync')"))
	assert.Equal(t, "127.0.0.1", value[string](t, s.URL, "SELECT current_setting('listen_addresses')"))
	address, err := os.ReadFile(filepath.Join(dir, "database.url"))
	require.NoError(t, err)
	assert.Equal(t, s.URL+"\n", string(address))
	for _, f := range []string{"postgres.password", "postgres.lock", "database.url"} {
		fi, err := os.Stat(filepath.Join(dir, f))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), fi.Mode().Perm(), f)
	}
	fi, err := os.Stat(filepath.Join(dir, "postgres"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), fi.Mode().Perm())
	_, err = os.Stat(filepath.Join(dir, "postgres.pwfile"))
	require.ErrorIs(t, err, os.ErrNotExist)
	wrong, err := pgx.ParseConfig(s.URL)
	require.NoError(t, err)
	wrong.Password = "guess"
	_, err = pgx.ConnectConfig(t.Context(), wrong)
	assert.Equal(t, "28P01", SQLState(err))

	require.NoError(t, s.Stop(t.Context()))
	require.NoError(t, s.Stop(t.Context()), "a second time")
	require.NoError(t, s.Err())
	assert.Empty(t, processesIn(filepath.Join(dir, "postgres"), 0))
	_, err = os.Stat(filepath.Join(dir, "database.url"))
	require.ErrorIs(t, err, os.ErrNotExist)
	again := start(t, dir)
	assert.Equal(t, 42, value[int](t, again.URL, "SELECT n FROM kept"))
}

func TestServer_secondOnTheSameDirectory_isRefused(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	start(t, dir)
	_, err := StartServer(t.Context(), ServerConfig{DataDir: dir})
	var used *InUseError
	require.ErrorAs(t, err, &used)
	assert.Equal(t, fmt.Sprint(os.Getpid()), used.PID)
}

// What runs when the program is gone, however it went, is found and ended, and the data is there.
func TestServer_killed_recovers(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(t *testing.T, h *helper, pg string){
		"only the program": func(t *testing.T, h *helper, _ string) {
			t.Helper()
			require.NoError(t, h.cmd.Process.Kill())
		},
		"the program, by its own end": func(t *testing.T, h *helper, _ string) {
			t.Helper()
			require.NoError(t, h.stdin.Close())
		},
		"everything": func(t *testing.T, h *helper, pg string) {
			t.Helper()
			require.NoError(t, h.cmd.Process.Kill())
			for _, pid := range processesIn(pg, h.pid) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		},
		"the postmaster, then the program": func(t *testing.T, h *helper, _ string) {
			t.Helper()
			require.NoError(t, syscall.Kill(h.pid, syscall.SIGKILL))
			require.NoError(t, h.cmd.Process.Kill())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := cluster(t)
			h := startHelper(t, dir)
			exec1(t, h.url, "CREATE TABLE kept AS SELECT 42 AS n")
			kill(t, h, filepath.Join(dir, "postgres"))
			_ = h.cmd.Wait() // frees the directory's lock
			again := start(t, dir)
			assert.Equal(t, 42, value[int](t, again.URL, "SELECT n FROM kept"))
		})
	}
}

// A server that nobody tells of the program's death (no such signal, or it was lost) goes on; the next start ends it.
func TestServer_runningOrphan_isStopped(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	s := start(t, dir)
	exec1(t, s.URL, "CREATE TABLE kept AS SELECT 42 AS n")
	require.NoError(t, s.Stop(t.Context()))

	port, err := freePort(t.Context())
	require.NoError(t, err)
	orphan := exec.Command(filepath.Join(s.BinDir, "postgres"), "-D", s.pg, "-p", fmt.Sprint(port), "-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1")
	orphan.Dir, orphan.Env = s.pg, serverEnv()
	orphan.SysProcAttr = s.acct.procAttr()
	logs, err := orphan.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, orphan.Start())
	gone := make(chan error, 1)
	lines := bufio.NewScanner(logs)
	for lines.Scan() && !strings.Contains(lines.Text(), "ready to accept") {
	}
	go func() {
		_, _ = io.Copy(io.Discard, logs)
		gone <- orphan.Wait()
	}()
	again := start(t, dir)
	assert.Equal(t, 42, value[int](t, again.URL, "SELECT n FROM kept"))
	select {
	case err := <-gone:
		require.NoError(t, err, "it ended in order")
	case <-time.After(20 * time.Second):
		t.Error("the orphan still runs")
	}
}

// The number in a stale postmaster.pid may be somebody else's by now: it is left alone.
func TestServer_stalePIDOfAnother_isLeftAlone(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	s := start(t, dir)
	require.NoError(t, s.Stop(t.Context()))
	other := exec.Command("sleep", "60")
	other.SysProcAttr = s.acct.procAttr()
	require.NoError(t, other.Start())
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	require.NoError(t, os.WriteFile(filepath.Join(s.pg, "postmaster.pid"), fmt.Appendf(nil, "%d\n%s\n1\n5432\n\n127.0.0.1\n", other.Process.Pid, s.pg), 0o600))
	start(t, dir)
	require.NoError(t, other.Process.Signal(syscall.Signal(0)))
}

func TestServer_endsByItself_isSaid(t *testing.T) {
	t.Parallel()
	s := start(t, cluster(t))
	require.NoError(t, s.Err())
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGQUIT))
	<-s.Done()
	require.ErrorContains(t, s.Err(), "by itself")
}

// Each of these is one line that says what to do.
func TestServer_cannotStart_saysWhatToDo(t *testing.T) {
	t.Parallel()
	version := func(t *testing.T, v string) string {
		t.Helper()
		dir := filepath.Join(reachableDir(t), "data")
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "postgres"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "postgres", "PG_VERSION"), []byte(v), 0o600))
		return dir
	}
	for name, c := range map[string]struct {
		dir  func(t *testing.T) string
		want string
	}{
		"newer data":   {func(t *testing.T) string { t.Helper(); return version(t, "99\n") }, "was written by PostgreSQL 99"},
		"older data":   {func(t *testing.T) string { t.Helper(); return version(t, "9\n") }, "was written by PostgreSQL 9,"},
		"damaged data": {func(t *testing.T) string { t.Helper(); return version(t, "??") }, "is damaged"},
		"a broken cluster": {func(t *testing.T) string {
			t.Helper()
			dir := cluster(t)
			require.NoError(t, os.Remove(filepath.Join(dir, "postgres", "global", "pg_control")))
			return dir
		}, "pg_control"},
		"not a cluster": {func(t *testing.T) string {
			t.Helper()
			dir := filepath.Join(reachableDir(t), "data")
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "postgres", "holiday"), 0o755))
			return dir
		}, "not a PostgreSQL cluster"},
		"a file": {func(t *testing.T) string {
			t.Helper()
			f := filepath.Join(reachableDir(t), "file")
			require.NoError(t, os.WriteFile(f, nil, 0o600))
			return f
		}, "TESTFLOW_DATA_DIR"},
		"unwritable": {func(*testing.T) string { return "/proc/testflow" }, "cannot write to the data directory"},
		"unreachable for the account": {func(t *testing.T) string {
			t.Helper()
			if os.Geteuid() != 0 {
				t.Skip("only root runs the server as another account")
			}
			dir := reachableDir(t)
			require.NoError(t, os.Chmod(dir, 0o700))
			return filepath.Join(dir, "data")
		}, "may not enter"},
		"no password": {func(t *testing.T) string {
			t.Helper()
			dir := cluster(t)
			require.NoError(t, os.Remove(filepath.Join(dir, "postgres.password")))
			return dir
		}, "postgres.password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := c.dir(t)
			_, err := StartServer(t.Context(), ServerConfig{DataDir: dir})
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "\n")
			t.Log(err)
		})
	}
}

// initdb that died in the middle leaves nothing that the next start stumbles over.
func TestServer_killedInInitdb_startsAfresh(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), "data")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "postgres.new", "base"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "postgres.password"), []byte("old\n"), 0o600))
	s := start(t, dir)
	assert.Equal(t, 1, value[int](t, s.URL, "SELECT 1"))
}
