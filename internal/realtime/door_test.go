package realtime_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/realtime"
	"github.com/testflow/testflow/internal/realtime/livetest"
)

func TestDoor_handshake(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Origins = []string{"https://app.example.com"} })
	own := w.http.URL
	origin := func(o ...string) http.Header { return http.Header{"Origin": o} }
	for name, tc := range map[string]struct {
		target string
		header http.Header
		want   int
	}{
		"no origin":                {"/api/live", nil, 101},
		"own origin":               {"/api/live", origin(own), 101},
		"origin on the list":       {"/api/live", origin("https://app.example.com"), 101},
		"another origin":           {"/api/live", origin("https://evil.example.com"), 403},
		"a longer origin":          {"/api/live", origin("https://app.example.com.evil.org"), 403},
		"own host in another's":    {"/api/live", origin("https://evil.example.com/" + strings.TrimPrefix(own, "http://")), 403},
		"null":                     {"/api/live", origin("null"), 403},
		"two origins":              {"/api/live", origin(own, "https://evil.example.com"), 403},
		"an app of another scheme": {"/api/live", origin("chrome-extension://" + strings.TrimPrefix(own, "http://")), 403},
		"a token in the address":   {"/api/live?token=x", nil, 400},
		"another name for it":      {"/api/live?Access_Token=x", nil, 400},
		"an unknown subprotocol":   {"/api/live", http.Header{"Sec-Websocket-Protocol": {"graphql-ws"}}, 400},
		"only a bearer":            {"/api/live", http.Header{"Sec-Websocket-Protocol": {"bearer.x"}}, 400},
		"no organization":          {"/api/live", http.Header{"X-Organization-Id": {"mine"}}, 400},
	} {
		require.Equal(t, tc.want, refused(t, w, tc.target, tc.header), name)
	}
	resp, err := http.Get(own + "/api/live")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 400, resp.StatusCode, "not a WebSocket")
}

// A page's owner decides where its name leads, so a name in Host that is the page's own is no proof that the page is ours
// (DNS rebinding): an address and localhost are, and what the operator named.
func TestDoor_aNameInHostProvesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Origins = []string{"https://testflow.example.com"} })
	for _, tc := range []struct {
		host, origin string
		want         int
	}{
		{"rebound.evil.example", "http://rebound.evil.example", 403},
		{"rebound.evil.example:3000", "http://rebound.evil.example:3000", 403},
		{"localhost.evil.example", "http://localhost.evil.example", 403},
		{"127.0.0.1.evil.example", "http://127.0.0.1.evil.example", 403},
		{"127.0.0.1:3000", "http://127.0.0.1:3000", 101},
		{"localhost:3000", "http://localhost:3000", 101},
		{"[::1]:3000", "http://[::1]:3000", 101},
		{"127.0.0.1:3000", "http://127.0.0.1:4000", 403},
		{"testflow.example.com", "https://testflow.example.com", 101},
		{"testflow.example.com", "http://testflow.example.com", 403},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.http.URL+"/api/live", nil)
		require.NoError(t, err)
		r.Host = tc.host
		for name, value := range map[string]string{"Origin": tc.origin, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="} {
			r.Header.Set(name, value)
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, tc.want, resp.StatusCode, "%s at %s", tc.origin, tc.host)
	}
}

func TestDoor_signsIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	for name, o := range map[string]livetest.Options{
		"first frame": {Token: token},
		"subprotocol": {Subprotocols: []string{"testflow.v1", "bearer." + token}},
		"header":      {Header: http.Header{"Authorization": {"Bearer " + token}}},
		"API key":     {Header: http.Header{"X-Api-Key": {token}}},
		"with its organization": {
			Header: http.Header{"Authorization": {"Bearer " + token}, "X-Organization-Id": {org.String()}},
		},
	} {
		c, err := livetest.Dial(t.Context(), w.http.URL, o)
		require.NoError(t, err, name)
		if len(o.Subprotocols) > 0 {
			require.Equal(t, "testflow.v1", c.Conn.Subprotocol(), "the token is never echoed")
		}
		require.NoError(t, c.Subscribe(t.Context(), "", "organization"))
		require.Equal(t, "subscribed", next(t, c).Type, name)
		c.Close()
	}
	for name, o := range map[string]livetest.Options{
		"first frame":            {Token: "forged"},
		"subprotocol":            {Subprotocols: []string{"testflow.v1", "bearer.forged"}},
		"header":                 {Header: http.Header{"Authorization": {"Bearer forged"}}},
		"another's organization": {Header: http.Header{"Authorization": {"Bearer " + token}, "X-Organization-Id": {newID().String()}}},
	} {
		c, err := livetest.Dial(t.Context(), w.http.URL, o)
		require.NoError(t, err, name)
		code, _ := closedWith(t, c)
		want := realtime.CloseSignedOut
		if name == "another's organization" {
			want = realtime.CloseRemoved
		}
		require.Equal(t, want, code, name)
	}
}

func TestDoor_strangers_getNoTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.AuthTime = 100 * time.Millisecond })
	silent := w.client(t, "")
	code, bye := closedWith(t, silent)
	require.Equal(t, realtime.CloseSignedOut, code)
	require.Equal(t, "unauthenticated", bye.Reason)

	for _, frame := range []string{`{"type":"subscribe","topics":["organization"]}`, `{"type":"ping"}`, `garbage`, `{"type":"auth"}`, `[]`} {
		c := w.client(t, "")
		require.NoError(t, c.Conn.Write(t.Context(), websocket.MessageText, []byte(frame)))
		code, _ = closedWith(t, c)
		require.Equal(t, realtime.CloseSignedOut, code, frame)
	}
	c := w.client(t, "")
	require.NoError(t, c.Conn.Write(t.Context(), websocket.MessageBinary, []byte{1, 2, 3}))
	code, _ = closedWith(t, c)
	require.Equal(t, realtime.CloseSignedOut, code)
}

func TestDoor_largeFrames_areRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, _ := w.people.add(newID(), auth.Viewer)
	large := func(n int) []byte { return []byte(`{"type":"ping","token":"` + strings.Repeat("x", n) + `"}`) }

	stranger := w.client(t, "")
	require.NoError(t, stranger.Conn.Write(t.Context(), websocket.MessageText, large(1100)))
	code, _ := closedWith(t, stranger)
	require.Equal(t, realtime.CloseTooLarge, code)

	for _, o := range []livetest.Options{{Token: token}, {Subprotocols: []string{"testflow.v1", "bearer." + token}}} {
		c, err := livetest.Dial(t.Context(), w.http.URL, o)
		require.NoError(t, err)
		require.NoError(t, c.Conn.Write(t.Context(), websocket.MessageText, large(15<<10)))
		require.Equal(t, "pong", next(t, c).Type, "large and allowed")
		require.NoError(t, c.Conn.Write(t.Context(), websocket.MessageText, large(17<<10)))
		code, _ = closedWith(t, c)
		require.Equal(t, realtime.CloseTooLarge, code)
	}
	huge := w.client(t, token)
	// The server hangs up in the middle, so that the write may fail; the close code must arrive all the same.
	_ = huge.Conn.Write(t.Context(), websocket.MessageText, large(2<<20))
	code, _ = closedWith(t, huge)
	require.Equal(t, realtime.CloseTooLarge, code)
}

func TestDoor_garbage_isToldAndThenCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	c := w.client(t, token)
	for frame, code := range map[string]string{
		`{"type":`:                                     "malformed",
		`{"type":"ping"}{"type":"ping"}`:               "malformed",
		`{"type":"ping","secret":1}`:                   "malformed",
		`{"type":"dance"}`:                             "unknown_type",
		`{"type":"subscribe"}`:                         "invalid",
		`{"type":"subscribe","topics":["everything"]}`: "invalid",
		`{"type":"subscribe","topics":["run:1"]}`:      "invalid",
		`{"type":"subscribe","topics":["organization:01981a52-6a7e-7cc1-9df0-3fb7e25c0a11"]}`: "invalid",
	} {
		require.NoError(t, c.Conn.Write(t.Context(), websocket.MessageText, []byte(frame)))
		f := next(t, c)
		require.Equal(t, "error", f.Type, frame)
		require.Equal(t, code, f.ErrorCode(), frame)
	}
	require.Empty(t, pong(t, c), "still there")
	for range 2 {
		require.NoError(t, c.Conn.Write(t.Context(), websocket.MessageBinary, []byte{0}))
	}
	code, _ := closedWith(t, c)
	require.Equal(t, realtime.CloseLimit, code)
}

// A field is written as it is documented and stands once, as in the bodies of the API: encoding/json alone would take the
// last of two, and ROLE for role.
func TestFrames_withAFieldTwice_areRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	c := w.client(t, token)
	for _, frame := range []string{
		`{"type":"ping","type":"subscribe","topics":["organization"]}`,
		`{"type":"subscribe","topics":["incidents"],"topics":["organization"]}`,
		`{"type":"ping","TYPE":"subscribe","Topics":["organization"]}`,
		`{"type":"ping","ty\u0070e":"ping"}`,
		`["ping"]`, `"ping"`, `null`,
	} {
		require.NoError(t, c.Conn.Write(t.Context(), websocket.MessageText, []byte(frame)))
		f := next(t, c)
		require.Equal(t, "error", f.Type, frame)
		require.Equal(t, "malformed", f.ErrorCode(), frame)
	}
	require.Empty(t, pong(t, c), "still there")
}

func TestDoor_flood_isCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, _ := w.people.add(newID(), auth.Viewer)
	c := w.client(t, token)
	go func() {
		for range 200 {
			if c.Send(context.Background(), map[string]any{"type": "ping"}) != nil {
				return
			}
		}
	}()
	code, bye := closedWith(t, c)
	require.Equal(t, realtime.CloseLimit, code)
	require.Equal(t, "limit", bye.Reason)
}

func TestDoor_socketsOfAUser_areCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.SocketsPerUser, c.Limits.Sockets = 3, 5 })
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	other, _ := w.people.add(org, auth.Viewer)
	mine := []*livetest.Client{}
	for range 3 {
		mine = append(mine, w.subscribed(t, token, "", "organization"))
	}
	tooMany := w.client(t, token)
	code, _ := closedWith(t, tooMany)
	require.Equal(t, realtime.CloseLimit, code)
	w.subscribed(t, other, "", "organization")
	mine[0].Close()
	require.Eventually(t, func() bool {
		c, err := livetest.Dial(t.Context(), w.http.URL, livetest.Options{Token: token, Check: honours})
		if err != nil {
			return false
		}
		t.Cleanup(c.Close)
		if c.Subscribe(t.Context(), "", "organization") != nil {
			return false
		}
		f, err := c.Next(t.Context())
		return err == nil && f.Type == "subscribed"
	}, 5*time.Second, 20*time.Millisecond, "a place is free again")
	require.Eventually(t, func() bool { // those that were turned down may still be closing
		c, err := livetest.Dial(t.Context(), w.http.URL, livetest.Options{Token: other, Check: honours})
		if err == nil {
			t.Cleanup(c.Close)
		}
		return err == nil
	}, 5*time.Second, 20*time.Millisecond, "the last place is free")
	require.Equal(t, 503, refused(t, w, "/api/live", nil), "the node is full")
}

func TestDoor_topics_areCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.Topics = 5 })
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	c := w.client(t, token)
	var names []string
	for range 5 {
		names = append(names, w.thing(org, "run", newID()))
	}
	require.NoError(t, c.Subscribe(t.Context(), "", names...))
	require.Len(t, next(t, c).Topics, 5)
	require.NoError(t, c.Subscribe(t.Context(), "", "organization"))
	require.Equal(t, "too_many_topics", next(t, c).ErrorCode())
	require.NoError(t, c.Subscribe(t.Context(), "", append(names, "organization")...))
	require.Equal(t, "invalid", next(t, c).ErrorCode())
	require.NoError(t, c.Send(t.Context(), map[string]any{"type": "unsubscribe", "topics": names[:1]}))
	require.Len(t, next(t, c).Topics, 4)
	require.NoError(t, c.Subscribe(t.Context(), "", "organization"))
	require.Len(t, next(t, c).Topics, 5)
}
