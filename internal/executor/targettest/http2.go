package targettest

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An http2Conn is the server's side of an HTTP/2 connection, by the frame.
type http2Conn struct {
	*http2.Framer
	net.Conn
	stream uint32 // of the first request
}

// startHTTP2 listens for HTTP/2 over TLS. do gets each connection once its first request is there, and what the client
// sends from then on is read and thrown away, so that no flood ends for want of reading. settings are sent at first.
func (s *Server) startHTTP2(tb testing.TB, cert tls.Certificate, settings []http2.Setting, do func(c *http2Conn)) string {
	tb.Helper()
	return s.startRaw(tb, func(raw net.Conn) {
		c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
		if c.HandshakeContext(tb.Context()) != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
			return
		}
		h := &http2Conn{Framer: http2.NewFramer(c, c), Conn: c}
		if h.WriteSettings(settings...) != nil {
			return
		}
		for h.stream == 0 {
			f, err := h.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() && h.WriteSettingsAck() != nil {
					return
				}
			case *http2.HeadersFrame:
				h.stream = f.StreamID
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(io.Discard, c)
		}()
		do(h)
		<-done // the client hangs up, or the test ends
	})
}

// block encodes header fields, given as name, value, name, value, …
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes everything
	}
	return b.Bytes()
}

func (c *http2Conn) headers(end bool, fields ...string) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: block(fields...), EndHeaders: true, EndStream: end}) //nolint:wrapcheck // only whether
}

// until repeats what until it fails.
func until(what func() error) {
	for what() == nil {
		continue
	}
}

// hostileHTTP2 are the origins that are hostile by HTTP/2.
func (s *Server) hostileHTTP2(tb testing.TB) {
	tb.Helper()
	cert := s.goodCertificate(tb)
	add := func(name, code string, do func(c *http2Conn)) {
		s.Origins["h2-"+name] = HostileOrigin{URL: s.startHTTP2(tb, cert, nil, do), Code: code}
	}
	add("hang", "timeout", func(*http2Conn) {})
	add("reset", "protocol", func(c *http2Conn) { _ = c.WriteRSTStream(c.stream, http2.ErrCodeInternal) })
	// net/http asks again and again for what is refused like this, until the time is up.
	add("refused", "timeout", func(c *http2Conn) { _ = c.WriteRSTStream(c.stream, http2.ErrCodeProtocol) })
	add("rst-flood", "timeout", func(c *http2Conn) {
		_ = c.headers(false, ":status", "200")
		// Of streams that the client has opened and ended: those of others are an error at once.
		until(func() error { return c.WriteRSTStream(c.stream+2, http2.ErrCodeCancel) })
	})
	add("continuation-flood", "protocol", func(c *http2Conn) {
		fragment := block("x-flood", string(bytes.Repeat([]byte("x"), 1000)))
		err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: block(":status", "200")})
		until(func() error {
			if err == nil {
				err = c.WriteContinuation(c.stream, false, fragment)
			}
			return err
		})
	})
	add("empty-continuations", "timeout", func(c *http2Conn) {
		err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: block(":status", "200")})
		until(func() error {
			if err == nil {
				err = c.WriteContinuation(c.stream, false, nil)
			}
			return err
		})
	})
	add("headers-flood", "tooLarge", func(c *http2Conn) {
		until(func() error { return c.headers(false, ":status", "103", "link", "</a.css>; rel=preload") })
	})
	add("large-trailers", "protocol", func(c *http2Conn) {
		_ = c.headers(false, ":status", "200")
		_ = c.WriteData(c.stream, false, []byte("body"))
		err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, EndStream: true})
		fragment := block("x-trailer", string(bytes.Repeat([]byte("~"), 5<<10))) // a character that packs badly
		for range 20 {
			if err == nil {
				err = c.WriteContinuation(c.stream, false, fragment)
			}
		}
		if err == nil {
			_ = c.WriteContinuation(c.stream, true, fragment)
		}
	})
	add("settings-flood", "timeout", func(c *http2Conn) { until(func() error { return c.WriteSettings() }) })
	add("huge-settings", "timeout", func(c *http2Conn) {
		until(func() error { return c.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 6*2700)) })
	})
	add("ping-flood", "timeout", func(c *http2Conn) { until(func() error { return c.WritePing(false, [8]byte{1}) }) })
	add("empty-data-flood", "timeout", func(c *http2Conn) {
		_ = c.headers(false, ":status", "200")
		until(func() error { return c.WriteData(c.stream, false, nil) })
	})
	add("window-update-flood", "protocol", func(c *http2Conn) { until(func() error { return c.WriteWindowUpdate(0, 1<<31-1) }) })
	add("goaway", "protocol", func(c *http2Conn) {
		_ = c.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("go away"))
		_ = c.Close()
	})
	add("push", "protocol", func(c *http2Conn) {
		_ = c.WritePushPromise(http2.PushPromiseParam{StreamID: c.stream, PromiseID: 2, BlockFragment: block(":method", "GET"), EndHeaders: true})
	})
	add("data-without-headers", "protocol", func(c *http2Conn) { _ = c.WriteData(c.stream, true, []byte("x")) })
	add("data-beyond-length", "protocol", func(c *http2Conn) {
		_ = c.headers(false, ":status", "200", "content-length", "2")
		_ = c.WriteData(c.stream, true, []byte("more than two"))
	})
	add("data-short-of-length", "protocol", func(c *http2Conn) {
		_ = c.headers(false, ":status", "200", "content-length", "200")
		_ = c.WriteData(c.stream, true, []byte("less"))
	})
	add("data-of-others", "protocol", func(c *http2Conn) { _ = c.WriteData(c.stream+100, true, []byte("x")) })
	add("not-a-frame", "protocol", func(c *http2Conn) { _, _ = io.WriteString(c.Conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	add("no-status", "protocol", func(c *http2Conn) { _ = c.headers(true, "x-a", "b") })
	add("broken-headers", "tooLarge", func(c *http2Conn) {
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true, EndStream: true})
	})
	add("over-window", "protocol", func(c *http2Conn) {
		_ = c.headers(false, ":status", "200")
		until(func() error { return c.WriteData(c.stream, false, make([]byte, 16<<10)) })
	})
	// The client may send no body at all: its window is shut and stays so.
	s.Origins["h2-window-zero"] = HostileOrigin{
		URL: s.startHTTP2(tb, cert, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(*http2Conn) {}), Code: "timeout", Body: true,
	}
}
