package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/cli"
)

// server is what a watch talks to: a script for each connection, one after the other.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	scripts []func(t *testing.T, conn *websocket.Conn)
	calls   []string
	runs    map[string]string
}

func newServer(t *testing.T, scripts ...func(*testing.T, *websocket.Conn)) *server {
	t.Helper()
	s := &server{scripts: scripts, runs: map[string]string{}}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("POST /api/auth/{what}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("what") == "logout" && r.ContentLength != 0 {
			answer(w, 422, map[string]any{"code": "request.invalid", "detail": "No body.", "status": 422})
			return
		}
		var body map[string]string
		_ = json.NewDecoder(r.Body).Decode(&body)
		s.note(r.PathValue("what"))
		if r.PathValue("what") == "login" && body["password"] != "right" {
			answer(w, 401, map[string]any{"code": "auth.refused", "detail": "No.", "status": 401, "requestId": "r1"})
			return
		}
		answer(w, 200, map[string]string{"accessToken": "access-" + r.PathValue("what"), "refreshToken": "refresh"})
	})
	mux.HandleFunc("GET /api/projects", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"items": []map[string]string{{"id": "p1"}, {"id": "p2"}}})
	})
	mux.HandleFunc("GET /api/runs/{id}", func(w http.ResponseWriter, r *http.Request) {
		if status, ok := s.runs[r.PathValue("id")]; ok {
			answer(w, 200, map[string]string{"status": status})
			return
		}
		answer(w, 404, map[string]any{"code": "run.not_found", "detail": "There is no such run.", "status": 404, "requestId": "r2"})
	})
	mux.HandleFunc("GET /api/live", func(w http.ResponseWriter, r *http.Request) {
		s.note("live " + r.Header.Get("Authorization"))
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"testflow.v1"}})
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		s.mu.Lock()
		var script func(*testing.T, *websocket.Conn)
		if len(s.scripts) > 0 {
			script, s.scripts = s.scripts[0], s.scripts[1:]
		}
		s.mu.Unlock()
		if script != nil {
			script(t, conn)
		}
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *server) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

// hears reads a frame and compares it.
func hears(t *testing.T, conn *websocket.Conn, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, b, err := conn.Read(ctx)
	if err != nil {
		t.Errorf("no frame: %v", err)
		return
	}
	if want != string(b) {
		t.Errorf("the frame is %s instead of %s", b, want)
	}
}

func says(t *testing.T, conn *websocket.Conn, frames ...string) {
	t.Helper()
	for _, f := range frames {
		if err := conn.Write(context.Background(), websocket.MessageText, []byte(f)); err != nil {
			t.Errorf("write: %v", err)
		}
	}
}

func frame(from, to string, events ...string) string {
	return fmt.Sprintf(`{"type":"events","from":%q,"to":%q,"events":[%s]}`, from, to, strings.Join(events, ","))
}

func runEvent(n int, kind, data string) string {
	return fmt.Sprintf(`{"id":"r.%d","type":%q,"position":%d,"recordedAt":"2026-11-22T10:00:00.123Z","subject":"run/0197aaaa-0000-7000-8000-00000000beef","version":%d,"data":%s}`, n, kind, n, n, data)
}

var (
	requested = runEvent(1, "run.requested", `{"testName":"Read \u001b[31mpets\u0007","trigger":"manual","region":"default"}`)
	started   = runEvent(2, "run.started", `{"attempt":1,"region":"default","worker":"w"}`)
	step      = runEvent(3, "run.step_finished", `{"attempt":1,"step":0,"name":"get","status":"passed","request":{"method":"GET","url":"http://t/pets"},"response":{"status":200,"size":512},"durationMs":12.3}`)
	held      = runEvent(4, "run.assertion_evaluated", `{"attempt":1,"step":0,"source":"status","operator":"equals","expected":200,"actual":200,"pass":true,"severity":"hard"}`)
	broken    = runEvent(5, "run.assertion_evaluated", `{"attempt":1,"step":0,"source":"jsonpath","property":"$.id","operator":"equals","expected":1,"actual":2,"pass":false,"severity":"hard"}`)
	failed    = runEvent(6, "run.finished", `{"status":"failed","region":"default","attempts":1,"counts":{"steps":1,"assertions":2,"assertionsFailed":1},"durationMs":45}`)
	passed    = runEvent(6, "run.finished", `{"status":"passed","region":"default","attempts":1,"counts":{"steps":1,"assertions":2},"durationMs":45}`)
)

const run = "0197aaaa-0000-7000-8000-00000000beef"

// watch runs the command as it is typed and returns what it wrote, and its exit code.
func watch(ctx context.Context, t *testing.T, getenv map[string]string, color bool, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	for k, v := range getenv {
		t.Setenv(k, v)
	}
	var grammar struct {
		Watch cli.Watch `cmd:""`
	}
	var out, errs bytes.Buffer
	parser, err := kong.New(&grammar, kong.Exit(func(int) { t.Fatal("kong exits") }))
	require.NoError(t, err)
	parsed, err := parser.Parse(append([]string{"watch"}, args...))
	require.NoError(t, err)
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(cli.Env{Stdout: &out, Stderr: &errs, Color: color, Now: time.Now, Getenv: func(k string) string { return getenv[k] }})
	if err != nil {
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), cli.ExitCodeOf(err)
}

func TestWatch_run_untilItsEnd(t *testing.T) {
	s := newServer(t, func(t *testing.T, conn *websocket.Conn) {
		t.Helper()
		hears(t, conn, `{"topics":["run:`+run+`"],"type":"subscribe"}`)
		says(t, conn, `{"type":"subscribed","topics":["run:`+run+`"],"cursor":"c0"}`, frame("c0", "c1", requested, started, step), frame("c1", "c2", held, broken, failed))
	})
	s.runs[run] = "running"
	stdout, stderr, code := watch(t.Context(), t, nil, false, "--url", s.URL, "--token", "secret-token", "--run", run)
	require.Equal(t, cli.ExitFailed, code, stderr)
	require.Equal(t, []string{
		"2026-11-22T10:00:00.123Z 0000beef ○ Read [31mpets requested (manual, default)",
		"2026-11-22T10:00:00.123Z 0000beef ● Read [31mpets started in default",
		"2026-11-22T10:00:00.123Z 0000beef   ✓ step 1 get  GET http://t/pets  200  512 B  12 ms",
		"2026-11-22T10:00:00.123Z 0000beef     ✓ status equals 200",
		"2026-11-22T10:00:00.123Z 0000beef     ✗ jsonpath $.id equals 1  got 2",
		"2026-11-22T10:00:00.123Z 0000beef ✗ Read [31mpets failed  1 of 2 assertions hold  45 ms",
	}, strings.Split(strings.TrimRight(stdout, "\n"), "\n"), "and nothing of a target's escape codes")
	require.Contains(t, stderr, "the run ended failed")
	require.NotContains(t, stderr, "secret-token")
}

func TestWatch_run_thatHadEnded(t *testing.T) {
	subscribed := func(t *testing.T, conn *websocket.Conn) {
		t.Helper()
		says(t, conn, `{"type":"subscribed","topics":[],"cursor":"c0"}`)
		_, _, _ = conn.Read(context.Background())
		_, _, _ = conn.Read(context.Background())
	}
	s := newServer(t, subscribed, subscribed)
	s.runs[run] = "passed"
	_, stderr, code := watch(t.Context(), t, nil, false, "--url", s.URL, "--token", "x", "--run", run)
	require.Equal(t, cli.ExitOK, code, stderr)
	_, stderr, code = watch(t.Context(), t, nil, false, "--url", s.URL, "--token", "x", "--run", "0197aaaa-0000-7000-8000-000000000000")
	require.Equal(t, cli.ExitCouldNot, code)
	require.Contains(t, stderr, "There is no such run. (run.not_found, request r2)")
}

func TestWatch_resumesWithItsCursor(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newServer(t,
		func(t *testing.T, conn *websocket.Conn) {
			t.Helper()
			hears(t, conn, `{"topics":["organization","project:p1","project:p2"],"type":"subscribe"}`)
			says(t, conn, `{"type":"subscribed","topics":["organization"],"cursor":"c0"}`, frame("c0", "c1", requested))
			_ = conn.CloseNow() // the network breaks
		},
		func(t *testing.T, conn *websocket.Conn) {
			t.Helper()
			hears(t, conn, `{"after":"c1","topics":["organization","project:p1","project:p2"],"type":"subscribe"}`)
			says(t, conn, `{"type":"error","code":"not_found","message":"No.","topics":["project:p2"]}`)
			hears(t, conn, `{"after":"c1","topics":["organization","project:p1"],"type":"subscribe"}`)
			says(t, conn, `{"type":"subscribed","topics":["organization"],"cursor":"c1"}`, frame("c1", "c2", started),
				`{"type":"gap","reason":"slow","cursor":"c2"}`)
			hears(t, conn, `{"after":"c2","topics":["organization","project:p1"],"type":"subscribe"}`)
			says(t, conn, `{"type":"subscribed","topics":["organization"],"cursor":"c2"}`,
				frame("c2", "c3", strings.ReplaceAll(runEvent(7, "project.created", `{"name":"n"}`), "run/0197", "project/0197")))
			hears(t, conn, `{"topics":["project:`+run+`"],"type":"subscribe"}`)
			says(t, conn, `{"type":"bye","code":1012,"retryAfterMs":10}`)
			_ = conn.Close(1012, "draining")
		},
		func(t *testing.T, conn *websocket.Conn) {
			t.Helper()
			hears(t, conn, `{"after":"c3","topics":["organization","project:p1","project:`+run+`"],"type":"subscribe"}`)
			says(t, conn, frame("c3", "c4", passed))
			cancel()
			_, _, _ = conn.Read(context.Background())
		})
	stdout, stderr, code := watch(ctx, t, nil, false, "--url", s.URL, "--token", "x")
	require.Equal(t, cli.ExitInterrupted, code, stderr)
	require.Contains(t, stdout, "requested")
	require.Contains(t, stdout, "started")
	require.Contains(t, stdout, "project.created")
	require.Contains(t, stderr, "connection lost")
	require.Contains(t, stderr, "connected again")
}

func TestWatch_signsInAndOut(t *testing.T) {
	s := newServer(t, func(t *testing.T, conn *websocket.Conn) {
		t.Helper()
		says(t, conn, `{"type":"error","code":"token_expiring","message":"Soon."}`)
		hears(t, conn, `{"topics":["organization"],"type":"subscribe"}`)
		hears(t, conn, `{"token":"access-refresh","type":"auth"}`)
		_ = conn.Close(4403, "removed")
	})
	_, stderr, code := watch(t.Context(), t, map[string]string{"TESTFLOW_PASSWORD": "right"}, false, "--url", s.URL, "--email", "ada@example.com", "--brief")
	require.Equal(t, cli.ExitCouldNot, code)
	require.Contains(t, stderr, "you are no member of this organization")
	require.Equal(t, []string{"login", "live Bearer access-login", "refresh", "logout"}, s.calls)
}

func TestWatch_whatCannotBe_isSaidClearly(t *testing.T) {
	refuses := func(code websocket.StatusCode) func(*testing.T, *websocket.Conn) {
		return func(_ *testing.T, conn *websocket.Conn) { _ = conn.Close(code, "") }
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "http://" + closed.Addr().String()
	require.NoError(t, closed.Close())
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	s := newServer(t, refuses(4401), refuses(4429), func(t *testing.T, conn *websocket.Conn) {
		t.Helper()
		says(t, conn, `{"type":"error","code":"invalid","message":"A topic is this or that.","topics":["x"]}`)
		_, _, _ = conn.Read(context.Background())
	})
	for _, tc := range []struct {
		name, want string
		code       int
		env        map[string]string
		args       []string
	}{
		{"no server", "nothing listens at " + nobody + "; start TestFlow there (testflow up)", cli.ExitCouldNot, nil, []string{"--url", nobody, "--token", "x"}},
		{"another server", "is that a TestFlow server?", cli.ExitCouldNot, nil, []string{"--url", web.URL, "--token", "x"}},
		{"no such host", "there is no host nowhere.invalid", cli.ExitCouldNot, nil, []string{"--url", "http://nowhere.invalid", "--token", "x"}},
		{"no address", "is no address", cli.ExitUsage, nil, []string{"--url", "localhost:3000", "--token", "x"}},
		{"no sign-in", "TESTFLOW_TOKEN", cli.ExitUsage, nil, []string{"--url", s.URL}},
		{"no password", "set TESTFLOW_PASSWORD", cli.ExitUsage, nil, []string{"--url", s.URL, "--email", "a@b.c"}},
		{"wrong password", "refuses a@b.c with this password", cli.ExitCouldNot, map[string]string{"TESTFLOW_PASSWORD": "wrong"}, []string{"--url", s.URL, "--email", "a@b.c"}},
		{"no file", "TESTFLOW_TOKEN_FILE cannot be read", cli.ExitUsage, map[string]string{"TESTFLOW_TOKEN_FILE": "/nowhere"}, []string{"--url", s.URL, "--brief"}},
		{"refused token", "refuses this token", cli.ExitCouldNot, nil, []string{"--url", s.URL, "--token", "x", "--brief"}},
		{"too many", "limit of live connections", cli.ExitCouldNot, nil, []string{"--url", s.URL, "--token", "x", "--brief"}},
		{"wrong topic", "A topic is this or that. (x)", cli.ExitUsage, nil, []string{"--url", s.URL, "--token", "x", "--topic", "x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, stderr, code := watch(t.Context(), t, tc.env, false, tc.args...)
			require.Empty(t, stdout)
			require.Contains(t, stderr, tc.want)
			require.Equal(t, tc.code, code, stderr)
		})
	}
}

func TestWatch_json_andColors(t *testing.T) {
	script := func(t *testing.T, conn *websocket.Conn) {
		t.Helper()
		says(t, conn, frame("c0", "c1", requested, passed))
		_, _, _ = conn.Read(context.Background())
	}
	s := newServer(t, script, script)
	stdout, _, code := watch(t.Context(), t, nil, true, "--url", s.URL, "--token", "x", "--run", run, "--json")
	require.Equal(t, cli.ExitOK, code)
	require.Equal(t, requested+"\n"+passed+"\n", stdout)
	stdout, _, _ = watch(t.Context(), t, nil, true, "--url", s.URL, "--token", "x", "--run", run)
	require.Contains(t, stdout, "\x1b[32m✓\x1b[0m")
}
