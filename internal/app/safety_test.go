package app_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOrigins_ofTheLiveStream: the pages of the public address and of the allow-list open it, those of others get a problem
// document, and a guessed token costs the same as at the API.
func TestOrigins_ofTheLiveStream(t *testing.T) {
	t.Parallel()
	in := serving(t, "TESTFLOW_PUBLIC_URL=https://testflow.example.com", "TESTFLOW_ALLOWED_ORIGINS=https://status.example.com", "RATE_LIMIT_MAX_REQUESTS=3")
	server, ok := in.launch([]string{"serve"}, saysInLog("serving", "address"), "LOG_LEVEL=info", "TESTFLOW_HOST=127.0.0.1") // its url is the public one
	require.True(t, ok, "serve ended: %s", server.errs)
	server.url = "http://" + server.url
	u := &user{t: t, url: func() string { return server.url }}
	dial := func(origin string) (*websocket.Conn, *http.Response, error) {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		return websocket.Dial(t.Context(), server.url+"/api/live", &websocket.DialOptions{HTTPHeader: header})
	}
	for origin, want := range map[string]int{
		"": 101, "https://testflow.example.com": 101, "https://status.example.com": 101, server.url: 101,
		"https://evil.example": 403, "https://testflow.example.com.evil.example": 403, "null": 403, "http://testflow.example.com": 403,
	} {
		conn, resp, err := dial(origin) //nolint:bodyclose // the library closes it
		if want == http.StatusSwitchingProtocols {
			require.NoError(t, err, origin)
			require.NoError(t, conn.CloseNow(), origin)
			continue
		}
		require.Error(t, err, origin)
		assert.Equal(t, want, resp.StatusCode, origin)
		assert.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"), origin)
	}
	for _, want := range []websocket.StatusCode{4401, 4401, 4401, 4429, 4429} {
		conn, _, err := dial("") //nolint:bodyclose // the library closes it
		require.NoError(t, err)
		require.NoError(t, wsjson.Write(t.Context(), conn, map[string]string{"type": "auth", "token": "a guess"}))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, _, err = conn.Read(ctx)
		for err == nil {
			_, _, err = conn.Read(ctx)
		}
		cancel()
		assert.Equal(t, want, websocket.CloseStatus(err))
	}
	a, err := u.do(t.Context(), "GET", "/api/projects", nil, "Authorization", "Bearer guess")
	require.NoError(t, err)
	assert.Equal(t, http.StatusTooManyRequests, a.status, "one limit for both doors")
	a, err = u.do(t.Context(), "GET", "/livez", nil)
	require.NoError(t, err)
	assert.Equal(t, "max-age=31536000", a.header.Get("Strict-Transport-Security"))
}
