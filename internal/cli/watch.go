package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Watch is `testflow watch`: the live stream in a terminal.
type Watch struct {
	Server

	Topic []string `help:"What to listen to: organization, incidents, system, project:ID, test:ID, run:ID. Without it: the organization and, unless --brief, every project with its steps and assertions." placeholder:"TOPIC" short:"t"`
	Brief bool     `help:"Runs and changes only, without steps and assertions." short:"b"`
	After string   `help:"Begin behind this cursor, as an earlier watch printed it at its end." placeholder:"CURSOR"`
	JSON  bool     `help:"One event a line, as JSON, for other programs."`
	Run_  string   `help:"Watch one run until it ends; exit 0 if it passed and 1 if it didn't." name:"run" placeholder:"ID"` //nolint:revive // Run is the command's method
}

// Help is the longer text of --help.
func (w *Watch) Help() string {
	return "A connection that breaks is taken up again where it ended: nothing is missed and nothing comes twice. Ctrl-C ends it."
}

const (
	// frameLimit is more than any frame of a server has.
	frameLimit = 16 << 20
	pingEvery  = 15 * time.Second
	// silence is after how long without any frame a connection counts as dead; each ping is answered.
	silence    = 40 * time.Second
	firstPause = 500 * time.Millisecond
	maxPause   = 10 * time.Second
	// maxProjects leaves room for the organization among a connection's 100 topics.
	maxProjects = 98
)

// liveFrame is any frame of the live stream.
type liveFrame struct {
	Type         string            `json:"type"`
	To           string            `json:"to"`
	Events       []json.RawMessage `json:"events"`
	Topics       []string          `json:"topics"`
	Cursor       string            `json:"cursor"`
	Reason       string            `json:"reason"`
	Code         json.RawMessage   `json:"code"`
	Message      string            `json:"message"`
	RetryAfterMs int64             `json:"retryAfterMs"`
	Data         json.RawMessage   `json:"data"`
}

// watching is a watch under way, over any number of connections.
type watching struct {
	*Watch
	env     Env
	session *session
	lines   *printer
	topics  []string
	cursor  string
	pause   time.Duration // before the next connection
	least   time.Duration // that the server asked for
	was     bool          // connected before
	lost    bool          // and the connection was lost since
}

// errOver ends a watch that has seen what it wanted; the exit code is its own.
var errOver = errors.New("over")

// Run watches until ctx ends or the watched run does.
func (w *Watch) Run(ctx context.Context, env Env) error {
	s, err := w.signIn(ctx, env)
	if err != nil {
		return interrupted(ctx, err)
	}
	l := &watching{Watch: w, env: env, session: s, cursor: w.After, pause: firstPause, lines: newPrinter(env, w.JSON)}
	defer func() { // the sign-in was made for this watch alone
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := s.signOut(end); err != nil {
			l.note("could not sign out: %v", err)
		}
	}()
	if l.topics, err = w.choose(ctx, s); err != nil {
		return interrupted(ctx, err)
	}
	for {
		err := l.connect(ctx)
		switch exit, isExit := errors.AsType[*Exit](err); {
		case errors.Is(err, errOver):
			return l.verdict()
		case ctx.Err() != nil:
			if l.cursor != "" {
				l.note("to go on from here: --after %s", l.cursor)
			}
			return &Exit{Code: ExitInterrupted}
		case isExit:
			return exit
		}
		l.lost = l.was
		wait := max(l.least, l.pause/2+rand.N(l.pause/2+1))
		l.note("connection lost (%v); again in %.1f s", err, wait.Seconds())
		l.pause, l.least = min(2*l.pause, maxPause), 0
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &Exit{Code: ExitInterrupted}
	}
	return err
}

// choose returns the topics.
func (w *Watch) choose(ctx context.Context, s *session) ([]string, error) {
	switch {
	case w.Run_ != "" && len(w.Topic) > 0:
		return nil, usage("--run and --topic don't go together")
	case w.Run_ != "":
		return []string{"run:" + w.Run_}, nil
	case len(w.Topic) > 0:
		return w.Topic, nil
	case w.Brief:
		return []string{"organization"}, nil
	}
	var projects struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	if err := s.call(ctx, http.MethodGet, "/api/projects?limit="+strconv.Itoa(maxProjects), nil, &projects); err != nil {
		return nil, err
	}
	topics := []string{"organization"}
	for _, p := range projects.Items {
		topics = append(topics, "project:"+p.ID)
	}
	return topics, nil
}

// connect watches over one connection until it breaks. An *Exit ends the watch.
func (l *watching) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := l.session
	header := http.Header{}
	if s.flags.Organization != "" {
		header.Set("X-Organization-Id", s.flags.Organization)
	}
	header.Set("Authorization", "Bearer "+s.access)
	dialing, done := context.WithTimeout(ctx, callTimeout)
	conn, resp, err := websocket.Dial(dialing, "ws"+strings.TrimPrefix(s.flags.URL, "http")+"/api/live",
		&websocket.DialOptions{HTTPHeader: header, Subprotocols: []string{"testflow.v1"}})
	done()
	if err != nil {
		return l.notConnected(resp, err)
	}
	defer func() { _ = conn.CloseNow() }() // it is over either way
	conn.SetReadLimit(frameLimit)
	if err := l.subscribe(ctx, conn); err != nil {
		return err
	}
	go l.ping(ctx, cancel, conn)
	for {
		f, err := read(ctx, conn)
		if err != nil {
			return l.closed(ctx, err)
		}
		if err := l.frame(ctx, conn, f); err != nil {
			return err
		}
	}
}

// subscribe asks for all topics, from where the watch is.
func (l *watching) subscribe(ctx context.Context, conn *websocket.Conn) error {
	m := map[string]any{"type": "subscribe", "topics": l.topics}
	if l.cursor != "" {
		m["after"] = l.cursor
	}
	return send(ctx, conn, m)
}

// ended looks whether the watched run had ended before the subscription held.
func (l *watching) ended(ctx context.Context) error {
	var run struct {
		Status string `json:"status"`
	}
	if err := l.session.call(ctx, http.MethodGet, "/api/runs/"+url.PathEscape(l.Run_), nil, &run); err != nil {
		return err
	}
	switch run.Status {
	case "queued", "running":
		return nil
	}
	l.lines.status = run.Status
	return errOver
}

// ping keeps the connection in use, so that a dead one is noticed.
func (l *watching) ping(ctx context.Context, cancel context.CancelFunc, conn *websocket.Conn) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if send(ctx, conn, map[string]any{"type": "ping"}) != nil {
				cancel()
				return
			}
		}
	}
}

func send(ctx context.Context, conn *websocket.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, b)
}

func read(ctx context.Context, conn *websocket.Conn) (f liveFrame, err error) {
	reading, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	_, b, err := conn.Read(reading)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, couldNot("the server sends frames that are not JSON: %w", err)
	}
	return f, nil
}

// frame handles one frame of the server.
func (l *watching) frame(ctx context.Context, conn *websocket.Conn, f liveFrame) error {
	switch f.Type {
	case "subscribed", "unsubscribed":
		switch {
		case l.lost:
			l.note("connected again; nothing was missed")
		case !l.was && !l.JSON:
			l.note("listening to %s at %s", summary(f.Topics), l.session.flags.URL)
		}
		first := !l.was
		l.lost = false
		l.was, l.pause, l.cursor = true, firstPause, f.Cursor
		if first && l.Run_ != "" && l.After == "" {
			return l.ended(ctx)
		}
	case "events":
		for _, raw := range f.Events {
			e, err := l.lines.event(raw)
			if err != nil {
				return couldNot("print: %w", err) // stdout is closed: nobody reads on
			}
			if err := l.follow(ctx, conn, e); err != nil {
				return err
			}
		}
		l.cursor = f.To
	case "metrics":
		if err := l.lines.metrics(f.Data); err != nil {
			return couldNot("print: %w", err)
		}
	case "gap":
		if f.Reason != "slow" {
			l.note("what happened before is no longer in the live window (%s); going on from there", clean(f.Reason))
		}
		l.cursor = f.Cursor
		return l.subscribe(ctx, conn)
	case "bye":
		l.least = time.Duration(f.RetryAfterMs) * time.Millisecond
	case "error":
		return l.refused(ctx, conn, f)
	}
	return nil
}

// follow listens to a new project too, and ends when the watched run does.
func (l *watching) follow(ctx context.Context, conn *websocket.Conn, e event) error {
	if l.Run_ != "" && e.Type == "run.finished" {
		return errOver
	}
	id, isProject := strings.CutPrefix(e.Subject, "project/")
	if e.Type != "project.created" || !isProject || l.Brief || len(l.Topic) > 0 || len(l.topics) > maxProjects {
		return nil
	}
	topic := "project:" + id
	l.topics = append(l.topics, topic)
	return send(ctx, conn, map[string]any{"type": "subscribe", "topics": []string{topic}})
}

// refused handles an error frame.
func (l *watching) refused(ctx context.Context, conn *websocket.Conn, f liveFrame) error {
	code := strings.Trim(string(f.Code), `"`)
	switch code {
	case "token_expiring":
		ok, err := l.session.renew(ctx)
		if err != nil {
			return err
		}
		if !ok {
			l.note("the access token ends soon, and with it this watch; sign in with --email for longer ones")
			return nil
		}
		return send(ctx, conn, map[string]any{"type": "auth", "token": l.session.access})
	case "unavailable", "rate_limited":
		return errors.New(clean(f.Message))
	}
	text := clean(f.Message)
	if code == "not_found" && len(l.Topic) == 0 && l.Run_ == "" { // a project that was deleted while the connection was lost
		l.topics = slices.DeleteFunc(l.topics, func(t string) bool { return slices.Contains(f.Topics, t) })
		return l.subscribe(ctx, conn)
	}
	if len(f.Topics) > 0 {
		text += " (" + clean(strings.Join(f.Topics, ", ")) + ")"
	}
	return usage("%s", text)
}

// notConnected turns a handshake that failed into what to do about it. Once connected, everything but a refusal is
// tried again.
func (l *watching) notConnected(resp *http.Response, err error) error {
	if resp == nil || resp.StatusCode == 0 {
		if l.was || errors.Is(err, context.Canceled) {
			return fmt.Errorf("cannot reach %s", l.session.flags.URL)
		}
		return l.session.unreachable(err)
	}
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable:
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
			l.least = time.Duration(s) * time.Second
		}
		return errors.New("the server is not ready")
	case resp.StatusCode >= 500 && l.was:
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return couldNot("%s answered %s instead of opening the live stream; is that a TestFlow server?", l.session.flags.URL, resp.Status)
}

// closed turns the end of a connection into what to do about it.
func (l *watching) closed(ctx context.Context, err error) error {
	if exit, ok := errors.AsType[*Exit](err); ok {
		return exit
	}
	switch code := websocket.CloseStatus(err); code {
	case 4401:
		ok, err := l.session.renew(ctx)
		switch {
		case err != nil:
			return err
		case ok:
			return errors.New("the sign-in ended")
		case l.was:
			return couldNot("the sign-in ended; get a new token and go on with --after %s", l.cursor)
		}
		return couldNot("%s refuses this token", l.session.flags.URL)
	case 4403:
		return couldNot("you are no member of this organization")
	case 4413:
		return couldNot("too many topics for one frame; name fewer")
	case 4429:
		if !l.was {
			return couldNot("the server's limit of live connections or tries is reached; close others, or wait")
		}
		return errors.New("the server's limit is reached")
	case -1:
		return errors.New("the server went silent or hung up")
	default:
		return fmt.Errorf("the server closed it with %d", code)
	}
}

// verdict is the exit of a watch over one run.
func (l *watching) verdict() error {
	if l.lines.status == "passed" {
		return nil
	}
	code := ExitFailed
	if l.lines.status == "inconclusive" {
		code = ExitCouldNot
	}
	return &Exit{Code: code, Err: fmt.Errorf("the run ended %s", clean(l.lines.status))}
}

// note prints a line about the connection, for people.
func (l *watching) note(format string, args ...any) {
	_, _ = fmt.Fprintf(l.env.Stderr, "testflow: "+format+"\n", args...) // nobody could be told that stderr is closed
}

// summary names the topics in a line.
func summary(topics []string) string {
	const most = 3
	if len(topics) <= most {
		return strings.Join(topics, ", ")
	}
	return strings.Join(topics[:most], ", ") + fmt.Sprintf(" and %d more", len(topics)-most)
}
