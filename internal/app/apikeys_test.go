package app_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keyOf makes an API key and returns it with its id.
func (u *user) keyOf(body map[string]any) (id, key string) {
	u.t.Helper()
	if body["name"] == nil {
		body["name"] = "key"
	}
	var made struct{ ID, Key string }
	u.must(http.StatusCreated, "POST", "/api/api-keys", body, &made)
	return made.ID, made.Key
}

// watching opens the live stream with what sign says, subscribes, and returns how and when it ends.
func watching(t *testing.T, url string, options *websocket.DialOptions, token string) <-chan websocket.StatusCode {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(url, "http")+"/api/live", options)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	if token != "" {
		require.NoError(t, wsjson.Write(t.Context(), conn, map[string]any{"type": "auth", "token": token}))
	}
	require.NoError(t, wsjson.Write(t.Context(), conn, map[string]any{"type": "subscribe", "topics": []string{"organization"}}))
	ended, subscribed := make(chan websocket.StatusCode, 1), make(chan struct{})
	go func() {
		for first := true; ; {
			var f frame
			if err := wsjson.Read(context.WithoutCancel(t.Context()), conn, &f); err != nil {
				var closed websocket.CloseError
				errors.As(err, &closed)
				ended <- closed.Code
				return
			}
			if f.Type == "subscribed" && first {
				first = false
				close(subscribed)
			}
		}
	}()
	select {
	case <-subscribed:
	case code := <-ended:
		t.Fatalf("the live stream closed with %d before it was subscribed", code)
	case <-time.After(10 * time.Second):
		t.Fatal("no answer to the subscription")
	}
	return ended
}

// TestApiKeys_endWithin5sOnEveryNode: whatever ends a key at one node, its sockets at another are closed within 5 s and its
// next request is refused. One process is told; the other one must find out.
func TestApiKeys_endWithin5sOnEveryNode(t *testing.T) {
	t.Parallel()
	in := serving(t)
	first := in.serve()
	u := registerFirst(t, first)
	second := in.serve()
	const signedOut, removed = 4401, 4403
	type keyCase struct {
		ends time.Duration // after it was made; 0 = later than this test
		end  func(id string)
		code websocket.StatusCode
		http int
		by   func(key string) (*websocket.DialOptions, string)
	}
	byFrame := func(key string) (*websocket.DialOptions, string) { return nil, key }
	patch := func(body map[string]any) func(string) {
		return func(id string) { u.must(http.StatusOK, "PATCH", "/api/api-keys/"+id, body, nil) }
	}
	for name, c := range map[string]keyCase{
		"revoked": {
			end:  func(id string) { u.must(http.StatusNoContent, "DELETE", "/api/api-keys/"+id, nil, nil) },
			code: signedOut, http: 401, by: byFrame,
		},
		"rotated": {
			end: func(id string) {
				u.must(http.StatusOK, "POST", "/api/api-keys/"+id+"/rotate", map[string]any{"overlap": "0s"}, nil)
			},
			code: signedOut, http: 401,
			by: func(key string) (*websocket.DialOptions, string) {
				return &websocket.DialOptions{Subprotocols: []string{"testflow.v1", "bearer." + key}}, ""
			},
		},
		"ends by itself": {
			ends: 3 * time.Second, // so that the socket is open by then
			end:  func(string) {}, code: signedOut, http: 401,
			by: func(key string) (*websocket.DialOptions, string) {
				return &websocket.DialOptions{HTTPHeader: http.Header{"X-API-Key": {key}}}, ""
			},
		},
		"loses its scope":    {end: patch(map[string]any{"scopes": []string{"run.read"}}), code: removed, http: 403, by: byFrame},
		"loses its address":  {end: patch(map[string]any{"allowedAddresses": []string{"203.0.113.0/24"}}), code: removed, http: 403, by: byFrame},
		"behind the overlap": {end: func(id string) { overlapIsOver(u, id) }, code: signedOut, http: 401, by: byFrame},
	} {
		t.Run(name, func(t *testing.T) {
			body := map[string]any{"scopes": []string{"read"}}
			if c.ends > 0 {
				body["expiresAt"] = time.Now().Add(c.ends)
			}
			id, key := u.keyOf(body)
			options, token := c.by(key)
			ended := watching(t, second.url, options, token)
			program := user{t: t, token: key, url: func() string { return second.url }}
			program.must(http.StatusOK, "GET", "/api/projects", nil, nil)
			c.end(id)
			start := time.Now()
			select {
			case code := <-ended:
				assert.Equal(t, c.code, code)
				t.Logf("closed after %s", time.Since(start).Round(time.Millisecond))
			case <-time.After(5 * time.Second):
				t.Fatal("the socket was open after 5 s")
			}
			a, err := program.do(t.Context(), "GET", "/api/projects", nil)
			require.NoError(t, err)
			assert.Equal(t, c.http, a.status, string(a.body))
		})
	}
}

// overlapIsOver rotates twice: of the secret that the socket was opened with nothing is left.
func overlapIsOver(u *user, id string) {
	for range 2 {
		u.must(http.StatusOK, "POST", "/api/api-keys/"+id+"/rotate", map[string]any{"overlap": "1h"}, nil)
	}
}

// TestApiKeys_usageSurvivesAStop: what was counted is written when a process ends.
func TestApiKeys_usageSurvivesAStop(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	p := in.mustStart()
	u := register(t, func() string { return p.url }, "counter")
	id, key := u.keyOf(map[string]any{"scopes": []string{"read"}})
	program := user{t: t, token: key, url: u.url}
	const requests = 20
	for range requests {
		program.must(http.StatusOK, "GET", "/api/projects", nil, nil)
	}
	require.Zero(t, p.stop())
	p = in.mustStart()
	var usage struct{ Requests int }
	u.must(http.StatusOK, "GET", "/api/api-keys/"+id+"/usage", nil, &usage)
	assert.Equal(t, requests, usage.Requests)
}
