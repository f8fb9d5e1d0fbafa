package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An answer that is streamed has no deadline as a whole, but each part of it: a client that stops reading is cut, one that
// reads slowly isn't.
func TestSlowClients_ofAStream(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2)
	const parts = 40
	s := shell(t, func(d *Deps) {
		d.Limits.RequestTimeout, d.Limits.SlowClient = 200*time.Millisecond, 400*time.Millisecond
		d.Live = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			part := make([]byte, 1<<20)
			for range parts {
				if _, err := w.Write(part); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		})
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		assert.NoError(t, s.Shutdown(ctx))
		assert.NoError(t, <-served)
	})
	ask := func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() }) // it may have been cut
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(64<<10))
		_, err = io.WriteString(conn, "GET /api/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		return conn
	}
	wait := func() error {
		select {
		case err := <-ended:
			return err
		case <-time.After(10 * time.Second):
			t.Fatal("the server still waits for a client that doesn't read")
			return nil
		}
	}
	ask()
	require.Error(t, wait())

	// Slowly, and longer than any one part may take.
	conn, read, start := ask(), int64(0), time.Now()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for err = nil; err == nil; {
		var n int64
		n, err = io.CopyN(io.Discard, conn, 1<<20)
		read += n
		<-tick.C
	}
	require.NoError(t, wait())
	assert.Greater(t, read, int64(parts<<20), "cut off")
	assert.Greater(t, time.Since(start), 600*time.Millisecond, "it was not slow, so this shows nothing")
}
