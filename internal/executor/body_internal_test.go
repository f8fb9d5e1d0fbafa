package executor

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/testspec"
)

func response(encoding string, body []byte) *http.Response {
	return &http.Response{
		Header: http.Header{"Content-Encoding": {encoding}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
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
		got, err := readBody(response(coding, body), http.MethodGet, 1000)
		if err != nil || !bytes.Equal(got.body, text) || got.wire != int64(len(body)) {
			t.Errorf("%q: %v, %d bytes, %d of %d off the wire", coding, err, len(got.body), got.wire, len(body))
		}
		got, err = readBody(response(coding, body), http.MethodGet, 999)
		if err == nil || len(got.body) > 999 {
			t.Errorf("%q: one byte over the limit: %v, %d bytes", coding, err, len(got.body))
		}
	}
	zeros := make([]byte, 4*testspec.DecompressionFreeBytes)
	got, err := readBody(response("gzip", targettest.Encode("gzip", zeros)), http.MethodGet, testspec.MaxResponseBytes)
	if err == nil || !strings.Contains(err.Error(), "200 times") || len(got.body) > 2*testspec.DecompressionFreeBytes {
		t.Errorf("ratio: %v, %d bytes", err, len(got.body))
	}
}

// FuzzReadBody: nothing that a target sends as a body makes a decoder panic, and the caps hold.
func FuzzReadBody(f *testing.F) {
	for _, coding := range []string{"gzip", "deflate", "raw-deflate", "br", "zstd"} {
		f.Add(strings.TrimPrefix(coding, "raw-"), targettest.Encode(coding, []byte(targettest.Pet)))
	}
	f.Add("gzip, gzip", targettest.Encode("gzip", targettest.Encode("gzip", []byte("x"))))
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		const limit = 64 << 10
		got, err := readBody(response(encoding, body), http.MethodGet, limit)
		if len(got.body) > limit || got.wire > int64(len(body)) {
			t.Fatalf("%d bytes of %d: %v", len(got.body), got.wire, err)
		}
		if err != nil {
			if e := classify(t.Context(), err, PhaseDownload); e.Code != CodeProtocol && e.Code != CodeTooLarge {
				t.Fatalf("%v is %v", err, e)
			}
		}
	})
}
