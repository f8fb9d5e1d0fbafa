package postgres

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	superuser    = "testflow"       // of a server of our own
	startTimeout = 60 * time.Second // recovery after a kill -9 may take its time
	stopTimeout  = 10 * time.Second // from SIGINT to SIGQUIT
	portTries    = 5                // a port found free can be taken before Postgres has it
	keptLines    = 40               // of the server's log, for the error when it does not start
)

// ServerConfig says how to run a Postgres of our own.
type ServerConfig struct {
	DataDir   string            // holds cluster, password and lock; "" = DefaultDataDir()
	BinDir    string            // with initdb and postgres; "" = FindBinaries
	CacheDir  string            // where EnsureBinaries unpacks; searched last; "" = DefaultCacheDir()
	Database  string            // made when missing; "" = "testflow"
	Settings  map[string]string // over the defaults, by name, as in postgresql.conf
	Throwaway bool              // for tests: nothing survives a power cut, everything is quicker
	Logger    *slog.Logger
}

// Server is a running Postgres that this process owns. It listens on 127.0.0.1 only, on a port of its own each time,
// and ends with this process, however that ends. While it runs, <DataDir>/database.url holds its address, readable by
// this user alone; after a kill a stale one stays until the next start.
type Server struct {
	URL     string // of the database, as a superuser; holds the password
	Version int    // major
	BinDir  string
	PID     int

	cfg  ServerConfig
	acct account
	pg   string // the cluster's directory
	lock *os.File
	done chan struct{}
	err  error // of the process, once done is closed
	stop sync.Once
	quit bool
	mu   sync.Mutex
}

// StartServer starts Postgres on cfg.DataDir, making the cluster on first use, and returns when it takes connections.
// What is left of a killed predecessor, a running orphan too, is stopped and recovered from. Each error is one line
// that says what to do. The caller stops the server.
func StartServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Database == "" {
		cfg.Database = superuser
	}
	acct, err := serverAccount()
	if err != nil {
		return nil, err
	}
	if cfg.DataDir == "" {
		if cfg.DataDir, err = DefaultDataDir(); err != nil {
			return nil, err
		}
	}
	if cfg.DataDir, err = filepath.Abs(cfg.DataDir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &Server{cfg: cfg, acct: acct, pg: filepath.Join(cfg.DataDir, "postgres")}
	if err := s.prepareDir(); err != nil {
		return nil, err
	}
	if s.lock, err = lockDir(cfg.DataDir); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if err := s.chooseBinaries(); err != nil {
		return err
	}
	if err := stopOrphans(ctx, s.pg, s.cfg.Logger); err != nil {
		return err
	}
	password, err := s.ensureCluster(ctx)
	if err != nil {
		return err
	}
	var port int
	for try := 1; ; try++ {
		if port, err = freePort(ctx); err != nil {
			return err
		}
		err = s.launch(ctx, port)
		if err == nil {
			break
		}
		if !errors.Is(err, errPortTaken) || try == portTries {
			return err
		}
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/" + s.cfg.Database, RawQuery: "sslmode=disable"}
	s.URL = u.String()
	err = s.ensureDatabase(ctx)
	if err == nil {
		if err = writeFile(s.urlFile(), []byte(s.URL+"\n")); err != nil {
			err = dirError(s.cfg.DataDir, err)
		}
	}
	if err != nil {
		return errors.Join(err, s.end(ctx)) // StartServer frees the directory
	}
	return nil
}

// urlFile holds the server's address while it runs, for other commands of the same user.
func (s *Server) urlFile() string { return filepath.Join(s.cfg.DataDir, "database.url") }

// Done is closed when the server's process has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says why the server ended although nobody stopped it; nil while it runs and after Stop.
func (s *Server) Err() error {
	select {
	case <-s.done:
	default:
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quit {
		return nil
	}
	return fmt.Errorf("postgres ended by itself: %w", s.err)
}

// Stop ends the server: sessions are cut, what is committed is written, and after 10 s without success it is killed,
// which recovers at the next start. A second call returns at once.
func (s *Server) Stop(ctx context.Context) (err error) {
	s.stop.Do(func() {
		s.mu.Lock()
		s.quit = true
		s.mu.Unlock()
		err = s.end(ctx)
		if errFile := os.Remove(s.urlFile()); errFile != nil && !errors.Is(errFile, os.ErrNotExist) {
			err = errors.Join(err, errFile)
		}
		err = errors.Join(err, s.lock.Close())
	})
	return err
}

// end signals the postmaster until it has gone, longer than ctx lives if need be.
func (s *Server) end(ctx context.Context) error {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		if err := syscall.Kill(s.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop postgres: %w", err)
		}
		select {
		case <-s.done:
			return nil
		case <-time.After(stopTimeout):
			s.cfg.Logger.WarnContext(ctx, "postgres does not stop", slog.String("signal", sig.String()))
		}
	}
	<-s.done
	return nil
}

// prepareDir makes the data directory and lets the server's account reach it.
func (s *Server) prepareDir() error {
	dir := s.cfg.DataDir
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the server's account must pass through
		return dirError(dir, err)
	}
	probe, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return dirError(dir, err)
	}
	err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	if err != nil {
		return dirError(dir, err)
	}
	return s.acct.canReach(dir)
}

func dirError(dir string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("cannot write to the data directory %s (%w): make it writable, or set TESTFLOW_DATA_DIR to one that is", dir, err)
}

// chooseBinaries finds binaries that can run the cluster that is there, or a new one.
func (s *Server) chooseBinaries() error {
	want, err := clusterVersion(s.pg)
	if err != nil {
		return err
	}
	all, err := FindBinaries(s.cfg.BinDir, s.cfg.CacheDir)
	if err != nil {
		return err
	}
	pick := all[0]
	if i := slices.IndexFunc(all, func(b Binaries) bool { return b.Version == want }); i >= 0 {
		pick = all[i]
	}
	s.BinDir, s.Version = pick.Dir, pick.Version
	if want != 0 && want != s.Version {
		return fmt.Errorf("the data in %s was written by PostgreSQL %d, but only %d was found (%s): install PostgreSQL %d or point TESTFLOW_PG_BIN at it, or set TESTFLOW_DATA_DIR to an empty directory to start afresh",
			s.cfg.DataDir, want, s.Version, s.BinDir, want)
	}
	return s.acct.canReach(s.BinDir)
}

// clusterVersion returns the major version that wrote a cluster, 0 when there is none yet.
func clusterVersion(pg string) (int, error) {
	b, err := os.ReadFile(filepath.Join(pg, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		if entries, err := os.ReadDir(pg); err == nil && len(entries) > 0 {
			return 0, fmt.Errorf("%s is not empty and not a PostgreSQL cluster: move it away, or set TESTFLOW_DATA_DIR to another directory", pg)
		}
		return 0, nil
	}
	if err != nil {
		return 0, dirError(pg, err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s/PG_VERSION is damaged: restore the directory from a backup, or move it away to start afresh", pg)
	}
	return v, nil
}

// ensureCluster runs initdb on first use and returns the superuser's password. initdb works beside and is renamed, so
// that a kill in the middle leaves nothing that looks like a cluster.
func (s *Server) ensureCluster(ctx context.Context) (string, error) {
	passwordFile := filepath.Join(s.cfg.DataDir, "postgres.password")
	if v, err := clusterVersion(s.pg); err != nil || v != 0 {
		if err != nil {
			return "", err
		}
		b, err := os.ReadFile(passwordFile)
		if err != nil {
			return "", fmt.Errorf("the password of the database in %s cannot be read (%w): restore postgres.password, or move %s away to start afresh", s.cfg.DataDir, err, s.cfg.DataDir)
		}
		return strings.TrimSpace(string(b)), nil
	}
	password := rand.Text()
	fresh := s.pg + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	if err := writeFile(passwordFile, []byte(password+"\n")); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	pwfile := filepath.Join(s.cfg.DataDir, "postgres.pwfile") // initdb's own copy: it runs as another account
	if err := writeFile(pwfile, []byte(password+"\n")); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	defer os.Remove(pwfile)
	if err := errors.Join(s.acct.own(fresh), s.acct.own(pwfile)); err != nil {
		return "", err
	}
	auth := "scram-sha-256"
	args := []string{"-D", fresh, "-U", superuser, "--pwfile=" + pwfile, "-E", "UTF8", "--locale=C"}
	if s.cfg.Throwaway {
		args = append(args, "--no-sync")
		auth = "password" // thousands of short connections: no key derivation for each
	}
	args = append(args, "-A", auth)
	cmd := exec.CommandContext(ctx, filepath.Join(s.BinDir, "initdb"), args...) //nolint:gosec // our own arguments
	cmd.Dir, cmd.Env = s.cfg.DataDir, serverEnv()
	cmd.SysProcAttr = s.acct.procAttr()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a database cluster in %s: %w: %s", s.cfg.DataDir, err, lastLines(string(out), 3))
	}
	if err := os.RemoveAll(s.pg); err != nil { // at most an empty directory: clusterVersion saw to that
		return "", dirError(s.cfg.DataDir, err)
	}
	if err := os.Rename(fresh, s.pg); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	return password, nil
}

// settings are what the server runs with: sized for a small machine that also runs us.
func (s *Server) settings(port int) map[string]string {
	set := map[string]string{
		"listen_addresses":           "127.0.0.1",
		"unix_socket_directories":    "",
		"port":                       strconv.Itoa(port),
		"max_connections":            "100",
		"shared_buffers":             "256MB",
		"effective_cache_size":       "1GB",
		"work_mem":                   "8MB",
		"maintenance_work_mem":       "64MB",
		"max_wal_size":               "1GB",
		"checkpoint_timeout":         "15min",
		"wal_compression":            "on",
		"random_page_cost":           "1.1",
		"jit":                        "off",
		"synchronous_commit":         "on",
		"timezone":                   "UTC",
		"log_timezone":               "UTC",
		"lc_messages":                "C",
		"logging_collector":          "off",
		"log_destination":            "stderr",
		"log_line_prefix":            "",
		"log_min_messages":           "warning",
		"log_min_error_statement":    "panic", // statements and values may hold what no log should
		"log_error_verbosity":        "terse",
		"log_statement":              "none",
		"log_min_duration_statement": "-1",
	}
	if s.cfg.Throwaway {
		for k, v := range map[string]string{
			"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300", "shared_buffers": "128MB",
			"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "256MB", "log_checkpoints": "off", "max_locks_per_transaction": "128",
		} {
			set[k] = v
		}
	}
	for k, v := range s.cfg.Settings {
		set[k] = v
	}
	return set
}

var errPortTaken = errors.New("the port was taken in the meantime")

// launch runs postgres itself (no pg_ctl, no shell) and waits until it takes connections.
func (s *Server) launch(ctx context.Context, port int) error {
	args := []string{"-D", s.pg}
	set := s.settings(port)
	for _, k := range sortedKeys(set) {
		args = append(args, "-c", k+"="+set[k])
	}
	// Not CommandContext: the server ends by Stop, in order, and not with the context that started it.
	cmd := exec.Command(filepath.Join(s.BinDir, "postgres"), args...) //nolint:noctx,gosec // see above; our own arguments
	cmd.Dir, cmd.Env = s.pg, serverEnv()
	cmd.SysProcAttr = s.acct.procAttr()
	logs, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	cmd.Stdout, cmd.Stderr = w, w

	s.done = make(chan struct{})
	tail := &tailLog{log: s.cfg.Logger.With(slog.String("room", "postgres")), ready: make(chan struct{}), end: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the thread that started the child ends: keep it until the child has gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		err2 := w.Close()
		started <- errors.Join(err, err2)
		if err != nil {
			return
		}
		s.err = cmd.Wait()
		close(s.done)
	}()
	if err := <-started; err != nil {
		return errors.Join(fmt.Errorf("start postgres: %w", err), logs.Close())
	}
	s.PID = cmd.Process.Pid
	go tail.follow(ctx, logs)

	wait := time.NewTimer(startTimeout)
	defer wait.Stop()
	select {
	case <-tail.ready:
		return nil
	case <-s.done:
		<-tail.end // its last words may still be in the pipe
		text := tail.text()
		if strings.Contains(text, "Address already in use") {
			return errPortTaken
		}
		return fmt.Errorf("postgres did not start on %s (%w): %s; restore the directory from a backup, or move it away to start afresh", s.pg, s.err, lastLines(text, 4))
	case <-ctx.Done():
		err = ctx.Err()
	case <-wait.C:
		err = fmt.Errorf("no answer in %s", startTimeout)
	}
	return errors.Join(fmt.Errorf("postgres did not start on %s: %w: %s", s.pg, err, lastLines(tail.text(), 4)), s.end(ctx))
}

// ensureDatabase makes the database on first use.
func (s *Server) ensureDatabase(ctx context.Context) error {
	admin, err := WithDatabase(s.URL, "postgres")
	if err != nil {
		return err
	}
	conn, err := connect(ctx, admin)
	if err != nil {
		return fmt.Errorf("our own postgres: %w", err)
	}
	defer closeConn(ctx, conn)
	todo, err := missingDatabase(ctx, conn, s.URL)
	if err != nil {
		return err
	}
	return execAll(ctx, conn, todo)
}

// tailLog passes the server's log on and keeps its end.
type tailLog struct {
	log   *slog.Logger
	ready chan struct{} // closed when the server takes connections
	end   chan struct{} // closed when there is nothing more to read

	mu    sync.Mutex
	lines []string
	once  sync.Once
}

func (t *tailLog) follow(ctx context.Context, r io.ReadCloser) {
	ctx = context.WithoutCancel(ctx)
	defer close(t.end)
	defer r.Close()
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		t.mu.Lock()
		t.lines = append(t.lines, line)
		if len(t.lines) > keptLines {
			t.lines = slices.Delete(t.lines, 0, 1)
		}
		t.mu.Unlock()
		level := slog.LevelDebug
		if strings.HasPrefix(line, "PANIC:") || strings.HasPrefix(line, "WARNING:") {
			level = slog.LevelWarn
		}
		t.log.Log(ctx, level, "postgres says", slog.String("line", line))
		if strings.Contains(line, "ready to accept connections") {
			t.once.Do(func() { close(t.ready) })
		}
	}
	// A line past the buffer ends the scan: keep draining, or the server would block on its own log.
	_, _ = io.Copy(io.Discard, r)
}

func (t *tailLog) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port on 127.0.0.1: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("find a free port on 127.0.0.1: %w", err)
	}
	return port, nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// lastLines returns the last n lines of text as one.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// serverEnv is all that the server and its tools see of our environment, which holds secrets.
func serverEnv() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "LANG=C", "TZ=UTC", "HOME=/"}
}

// writeFile writes a file that only its owner reads, and makes sure that it is on the disk.
func writeFile(name string, data []byte) (err error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}
