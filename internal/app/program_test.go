package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres/pgtest"
)

// binaryDir is where binary has built, "" when no test needed it.
var binaryDir string

// binary builds the program once for all tests, with the points at which it can be made to die.
var binary = sync.OnceValues(func() (string, error) {
	var err error
	if binaryDir, err = os.MkdirTemp("", "testflow-program-"); err != nil {
		return "", err
	}
	path := filepath.Join(binaryDir, "testflow")
	build := exec.Command("go", "build", "-tags", "faultpoints", "-o", path, "../../cmd/testflow")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build testflow: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	os.Exit(code)
}

// installation is a database, a data directory and settings, on which one program after the other is started.
type installation struct {
	t       *testing.T
	db      *pgtest.DB
	binary  string
	dataDir string
	environ []string
}

func newInstallation(t *testing.T, environ ...string) *installation {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	db := pgtest.New(t)
	return &installation{t: t, db: db, binary: path, dataDir: t.TempDir(), environ: append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"DATABASE_URL=" + db.URL, "ANALYTICS_DATABASE_URL=" + db.AnalyticsURL, "TESTFLOW_DB_ROLE_PREFIX=" + db.RolePrefix,
		"TESTFLOW_DB_MAX_CONNS=8", "PORT=0", "LOG_LEVEL=warn",
		"RATE_LIMIT_MAX_REQUESTS=0", "RATE_LIMIT_EXECUTION_MAX_REQUESTS=0", // tests of limits set them anew
	}, environ...)}
}

// program is a running testflow.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	errs *lockedBuffer // what it said, banner and log
	done chan struct{} // closed when it has ended
}

// start runs `testflow up` and returns when it says where it is; ok is false when it ended before.
func (i *installation) start(environ ...string) (p *program, ok bool) {
	i.t.Helper()
	return i.launch([]string{"up"}, func(line string) (string, bool) {
		_, at, found := strings.Cut(line, "API and live stream")
		if !found {
			return "", false
		}
		return strings.TrimSuffix(strings.Fields(at)[0], "/api"), true
	}, environ...)
}

// serve and work run the pieces; they say where they are in their log.
func (i *installation) serve(environ ...string) *program {
	i.t.Helper()
	p, ok := i.launch([]string{"serve"}, saysInLog("serving", "url"), append(environ, "LOG_LEVEL=info", "TESTFLOW_HOST=127.0.0.1")...)
	require.True(i.t, ok, "serve ended: %s", p.errs)
	return p
}

func (i *installation) work(environ ...string) *program {
	i.t.Helper()
	p, ok := i.launch([]string{"worker", "--region", "default"}, saysInLog("working", "region"), append(environ, "LOG_LEVEL=info")...)
	require.True(i.t, ok, "worker ended: %s", p.errs)
	return p
}

func saysInLog(msg, field string) func(line string) (string, bool) {
	return func(line string) (string, bool) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) != nil || entry["msg"] != msg {
			return "", false
		}
		value, _ := entry[field].(string)
		return value, true
	}
}

// launch runs a command until it says, in a line of its output or its log, that it is there.
func (i *installation) launch(args []string, says func(line string) (string, bool), environ ...string) (p *program, ok bool) {
	i.t.Helper()
	cmd := exec.Command(i.binary, args...)
	cmd.Env = append(append([]string{"TESTFLOW_DATA_DIR=" + i.dataDir}, i.environ...), environ...)
	p = &program{t: i.t, cmd: cmd, errs: &lockedBuffer{}, done: make(chan struct{})}
	running := make(chan string, 1)
	var readers sync.WaitGroup
	for _, open := range []func() (io.ReadCloser, error){cmd.StdoutPipe, cmd.StderrPipe} {
		from, err := open()
		require.NoError(i.t, err)
		readers.Go(func() {
			for lines := bufio.NewScanner(from); lines.Scan(); {
				if value, found := says(lines.Text()); found {
					running <- value
				}
				_, _ = p.errs.Write(append(lines.Bytes(), '\n'))
			}
		})
	}
	require.NoError(i.t, cmd.Start())
	i.t.Cleanup(p.kill)
	go func() {
		defer close(p.done)
		readers.Wait()
		_ = cmd.Wait() // how it ended is in ProcessState
	}()
	select {
	case p.url = <-running:
		return p, true
	case <-p.done:
		return p, false
	case <-time.After(time.Minute):
		i.t.Fatalf("testflow did not start within a minute:\n%s", p.errs)
		return nil, false
	}
}

// mustStart is start for tests in which it may not fail.
func (i *installation) mustStart(environ ...string) *program {
	i.t.Helper()
	p, ok := i.start(environ...)
	require.True(i.t, ok, "testflow ended: %s", p.errs)
	return p
}

// command runs another command of the program against the same database.
func (i *installation) command(ctx context.Context, args ...string) (out string, code int) {
	i.t.Helper()
	cmd := exec.CommandContext(ctx, i.binary, args...)
	cmd.Env = append([]string{"TESTFLOW_DATA_DIR=" + i.dataDir}, i.environ...)
	raw, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		i.t.Fatalf("run testflow %v: %v", args, err)
	}
	return string(raw), cmd.ProcessState.ExitCode()
}

func (p *program) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended by itself
	<-p.done
}

// stop asks it to stop and returns its exit code.
func (p *program) stop() int {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// user is somebody signed in at a program.
type user struct {
	t     *testing.T
	url   func() string // where the program is now
	token string
	orgID string
}

// answer is what a program said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) into(t *testing.T, v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(a.body, v), "%d %s", a.status, a.body)
}

// do sends a request; the error is the network's.
func (u *user) do(ctx context.Context, method, path string, body any, header ...string) (answer, error) {
	var in io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		in = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.url()+path, in)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, header: res.Header, body: raw}, err
}

// must sends a request whose answer has to have the status, and decodes it.
func (u *user) must(status int, method, path string, body, into any, header ...string) answer {
	u.t.Helper()
	a, err := u.do(u.t.Context(), method, path, body, header...)
	require.NoError(u.t, err)
	require.Equal(u.t, status, a.status, "%s %s: %s", method, path, a.body)
	if into != nil {
		a.into(u.t, into)
	}
	return a
}

// register makes an account with an organization of its own.
func register(t *testing.T, url func() string, name string) *user {
	t.Helper()
	u := &user{t: t, url: url}
	var in struct {
		AccessToken  string
		Organization struct{ ID string }
	}
	u.must(http.StatusCreated, "POST", "/api/auth/register", map[string]any{
		"email": name + "@example.com", "password": "marble otter sunset " + name, "name": name, "organizationName": "Org of " + name,
	}, &in)
	u.token, u.orgID = in.AccessToken, in.Organization.ID
	return u
}

type identified struct{ ID string }

// newTest makes a project, and in it a test with one step.
func (u *user) newTest(project, name string, definition map[string]any) (projectID, testID string) {
	u.t.Helper()
	var p, t identified
	u.must(http.StatusCreated, "POST", "/api/projects", map[string]any{"name": project}, &p)
	definition["projectId"], definition["name"] = p.ID, name
	u.must(http.StatusCreated, "POST", "/api/tests", definition, &t)
	return p.ID, t.ID
}

// lockedBuffer collects what a program writes while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
