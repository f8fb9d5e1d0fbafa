package postgres

import (
	"bufio"
	"context"
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
	// DockerImage is what runs where neither a server is found nor one can be had; "" = postgres:17.
	DockerImage string
	// Say is told, in one line, of what may take minutes: see EnsureBinaries; nil = nobody.
	Say    func(line string)
	Logger *slog.Logger
}

// Server is a running Postgres that this process owns. It listens on 127.0.0.1 only, on a port of its own each time,
// and ends with this process, however that ends. While it runs, <DataDir>/database.url holds its address, readable by
// this user alone; after a kill a stale one stays until the next start.
type Server struct {
	URL     string // of the database, as a superuser; holds the password
	Version int    // major
	BinDir  string
	PID     int

	cfg     ServerConfig
	acct    account
	pg      string // the cluster's directory
	lock    *os.File
	get     *ensurer                        // finds and gets binaries
	command func(port int) *exec.Cmd        // what is run: postgres, or a docker client
	cleanup func(ctx context.Context) error // after the process has gone; nil = nothing
	tail    *tailLog
	done    chan struct{}
	err     error // of the process, once done is closed
	stop    sync.Once
	quit    bool
	mu      sync.Mutex
}

// StartServer starts Postgres on cfg.DataDir, making the cluster on first use, and returns when it takes connections.
// Where no PostgreSQL is found it gets one as EnsureBinaries does, or else runs one in Docker. What is left of a killed
// predecessor, a running orphan too, is stopped and recovered from. Each error is one line that says what to do. The
// caller stops the server.
func StartServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	return startServer(ctx, cfg, binPatterns, true)
}

// startServer is StartServer with the places to look into, and whether apt-get may be used.
func startServer(ctx context.Context, cfg ServerConfig, patterns []string, apt bool) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Say == nil {
		cfg.Say = func(string) {}
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
	s.get = &ensurer{EnsureConfig: EnsureConfig{BinDir: cfg.BinDir, CacheDir: cfg.CacheDir, Say: cfg.Say}, patterns: patterns, apt: apt}
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
	password, err := s.prepare(ctx)
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

// prepare decides what to run, sees that there is a cluster, and returns the superuser's password.
func (s *Server) prepare(ctx context.Context) (password string, err error) {
	err = s.get.run(ctx)
	if errors.Is(err, ErrNoBinaries) {
		password, errDocker := s.useDocker(ctx)
		if errDocker != nil {
			return "", fmt.Errorf("%w (docker: %s)", err, errDocker.Error())
		}
		return password, nil
	}
	if err == nil {
		err = s.chooseBinaries()
	}
	if err != nil {
		return "", err
	}
	if err := stopOrphans(ctx, s.pg, s.cfg.Logger); err != nil {
		return "", err
	}
	s.command = s.postgresCommand
	return s.ensureCluster(ctx)
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
	return fmt.Errorf("postgres ended by itself (%w): %s", s.err, lastLines(s.tail.text(), 3))
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
			return s.afterEnd(ctx)
		case <-time.After(stopTimeout):
			s.cfg.Logger.WarnContext(ctx, "postgres does not stop", slog.String("signal", sig.String()))
		}
	}
	<-s.done
	return s.afterEnd(ctx)
}

func (s *Server) afterEnd(ctx context.Context) error {
	if s.cleanup == nil {
		return nil
	}
	return s.cleanup(ctx)
}

// settings are what the server runs with: sized for a small machine that also runs us.
func (s *Server) settings(port int) map[string]string {
	set := map[string]string{
		"listen_addresses":           "127.0.0.1",
		"unix_socket_directories":    "",
		"port":                       strconv.Itoa(port),
		"max_connections":            "200",
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

// postgresCommand runs postgres itself: no pg_ctl, no shell.
func (s *Server) postgresCommand(port int) *exec.Cmd {
	args := []string{"-D", s.pg}
	set := s.settings(port)
	for _, k := range sortedKeys(set) {
		args = append(args, "-c", k+"="+set[k])
	}
	// Not CommandContext: the server ends by Stop, in order, and not with the context that started it.
	cmd := exec.Command(filepath.Join(s.BinDir, "postgres"), args...) //nolint:noctx,gosec // see above; our own arguments
	cmd.Dir, cmd.Env = s.pg, serverEnv()
	cmd.SysProcAttr = s.acct.procAttr()
	return cmd
}

// launch starts the command and waits until it says that it takes connections.
func (s *Server) launch(ctx context.Context, port int) error {
	cmd := s.command(port)
	logs, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	cmd.Stdout, cmd.Stderr = w, w

	s.done = make(chan struct{})
	s.tail = &tailLog{log: s.cfg.Logger.With(slog.String("room", "postgres")), ready: make(chan struct{}), end: make(chan struct{})}
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
	go s.tail.follow(ctx, logs)

	wait := time.NewTimer(startTimeout)
	defer wait.Stop()
	select {
	case <-s.tail.ready:
		return nil
	case <-s.done:
		<-s.tail.end // its last words may still be in the pipe
		text := s.tail.text()
		if strings.Contains(text, "Address already in use") || strings.Contains(text, "port is already allocated") {
			return errPortTaken
		}
		return fmt.Errorf("postgres did not start on %s (%w): %s; restore the directory from a backup, or move it away to start afresh", s.pg, s.err, lastLines(text, 4))
	case <-ctx.Done():
		err = ctx.Err()
	case <-wait.C:
		err = fmt.Errorf("no answer in %s", startTimeout)
	}
	return errors.Join(fmt.Errorf("postgres did not start on %s: %w: %s", s.pg, err, lastLines(s.tail.text(), 4)), s.end(ctx))
}

// ensureDatabase makes the database on first use.
func (s *Server) ensureDatabase(ctx context.Context) error {
	if s.cleanup != nil { // in a container: what said that it is ready may have been its first, temporary server
		if err := s.awaitConnection(ctx); err != nil {
			return err
		}
	}
	conn, err := connect(ctx, s.adminURL())
	if err != nil {
		return fmt.Errorf("our own postgres: %w", err)
	}
	defer closeConn(ctx, conn)
	var num int
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int / 10000`).Scan(&num); err != nil {
		return fmt.Errorf("ask postgres for its version: %w", err)
	}
	s.Version = num
	todo, err := missingDatabase(ctx, conn, s.URL)
	if err != nil {
		return err
	}
	return execAll(ctx, conn, todo)
}

// adminURL is the address of the database that every server has.
func (s *Server) adminURL() string {
	return strings.Replace(s.URL, "/"+s.cfg.Database+"?", "/postgres?", 1)
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
