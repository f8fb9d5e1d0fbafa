package executor

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/limits"
)

// readEncoded reads body as a response of that encoding.
func readEncoded(encoding string, body []byte, limit int64) (received, error) {
	resp := &http.Response{
		Header: http.Header{"Content-Encoding": {encoding}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	defer func() { _ = resp.Body.Close() }()
	return readBody(resp, http.MethodGet, limit)
}

// TestReadBody_caps: as received, and again after decompression, by size and by ratio.
func TestReadBody_caps(t *testing.T) {
	text := []byte(strings.Repeat("0123456789", 100))
	for _, coding := range []string{"", "gzip", "deflate", "br", "zstd", "gzip, br"} {
		var body []byte
		if coding == "gzip, br" {
			body = targettest.Encode("br", targettest.Encode("gzip", text))
		} else {
			body = targettest.Encode(coding, text)
		}
		got, err := readEncoded(coding, body, 1000)
		if err != nil || !bytes.Equal(got.body, text) || got.wire != int64(len(body)) {
			t.Errorf("%q: %v, %d bytes, %d of %d off the wire", coding, err, len(got.body), got.wire, len(body))
		}
		got, err = readEncoded(coding, body, 999)
		if err == nil || len(got.body) > 999 {
			t.Errorf("%q: one byte over the limit: %v, %d bytes", coding, err, len(got.body))
		}
	}
	empty := bytes.Repeat(targettest.Encode("gzip", nil), 100)
	if got, err := readEncoded("gzip", empty, 1000); err == nil || got.wire > 2*4096 {
		t.Errorf("much that unpacks to nothing: %v, %d off the wire", err, got.wire)
	}
	zeros := make([]byte, 4*limits.DecompressionFreeBytes)
	got, err := readEncoded("gzip", targettest.Encode("gzip", zeros), limits.MaxResponseBytes)
	if err == nil || !strings.Contains(err.Error(), "200 times") || len(got.body) > 2*limits.DecompressionFreeBytes {
		t.Errorf("ratio: %v, %d bytes", err, len(got.body))
	}
}

// TestTracer_oneConnectionForAnother: a dial that was begun for a request which then got a kept connection is not part of
// its time.
func TestTracer_oneConnectionForAnother(t *testing.T) {
	clock := time.Unix(0, 0)
	tr := newTracer(func() time.Time { return clock })
	trace := httptrace.ContextClientTrace(tr.attach(t.Context()))
	trace.DNSStart(httptrace.DNSStartInfo{})
	clock = clock.Add(time.Second)
	trace.ConnectStart("tcp", "")
	clock = clock.Add(time.Second)
	trace.GotConn(httptrace.GotConnInfo{Reused: true})
	clock = clock.Add(time.Second)
	trace.GotFirstResponseByte()
	got := tr.finish(clock)
	if want := (Timings{FirstByte: time.Second}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	// The dial ends later: nobody is listening any more.
	trace.ConnectDone("tcp", "", nil)
	if again := tr.finish(clock); again != got {
		t.Errorf("%+v, then %+v", got, again)
	}
}
