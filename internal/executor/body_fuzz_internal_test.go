package executor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/limits"
)

// How FuzzReadBody frames what it sends.
const (
	untilClose  = iota // the body ends with the connection
	inChunks           // chunks of ours
	rawChunks          // the bytes are the chunks too
	saidLength         // Content-Length is right
	lyingLength        // Content-Length is too large
	roundTrip          // the bytes are encoded first, and must come out again
	framings
)

// FuzzReadBody reads bodies in every encoding and framing: no panic, never over the caps, soon at an end, and each error
// one of ours.
func FuzzReadBody(f *testing.F) {
	pet := []byte(targettest.Pet)
	for _, e := range []string{"gzip", "deflate", "raw-deflate", "br", "zstd", "identity"} {
		encoded := targettest.Encode(e, pet)
		for framing := range framings {
			f.Add(strings.TrimPrefix(e, "raw-"), uint8(framing), encoded)
		}
		f.Add(strings.TrimPrefix(e, "raw-"), uint8(untilClose), encoded[:len(encoded)/2])
	}
	f.Add("gzip, br", uint8(untilClose), targettest.Encode("br", targettest.Encode("gzip", pet)))
	f.Add("zstd,zstd", uint8(untilClose), targettest.Encode("zstd", targettest.Encode("zstd", make([]byte, 3<<20))))
	f.Add("gzip", uint8(untilClose), targettest.Encode("gzip", make([]byte, 3<<20)))
	f.Add("", uint8(rawChunks), []byte("5;ext=\"x\"\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"))
	f.Add("gzip,gzip,gzip", uint8(untilClose), pet)
	f.Add("x-what", uint8(untilClose), pet)
	f.Fuzz(func(t *testing.T, encodings string, framing uint8, data []byte) {
		const limit = 2 << 20
		if len(encodings) > 100 || strings.ContainsAny(encodings, "\r\n") || len(data) > 1<<20 {
			return // more than one answer's worth
		}
		started := time.Now()
		sent := data
		list, listErr := contentEncodings(http.Header{"Content-Encoding": {encodings}})
		if framing%framings == roundTrip && listErr == nil {
			for _, e := range list {
				sent = targettest.Encode(strings.TrimPrefix(e, "x-"), sent)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(framed(encodings, framing%framings, sent))), nil)
		if err != nil {
			return // classify's, before there is a body
		}
		got, err := readBody(resp, http.MethodGet, limit)
		_ = resp.Body.Close() // of a body in memory
		if len(got.body) > limit {
			t.Errorf("%d bytes, over the cap", len(got.body))
		}
		if most := max(limits.DecompressionFreeBytes, got.wire*limits.MaxDecompressionRatio); int64(len(got.body)) > most+256<<10 {
			t.Errorf("%d bytes out of %d", len(got.body), got.wire)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		if err != nil {
			if c := classify(context.Background(), err, PhaseDownload); c.Code != CodeProtocol && c.Code != CodeTooLarge {
				t.Errorf("%v is told as %v", err, c)
			}
			if framing%framings == roundTrip && listErr == nil && int64(len(data)) <= limits.DecompressionFreeBytes && len(sent) <= limit {
				t.Errorf("%v of what was encoded well", err)
			}
			return
		}
		if framing%framings == roundTrip && !bytes.Equal(got.body, data) {
			t.Errorf("%d bytes came out otherwise than the %d that went in", len(got.body), len(data))
		}
	})
}

// framed is an answer with a body.
func framed(encodings string, framing uint8, body []byte) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Encoding: " + encodings + "\r\n")
	switch framing {
	case inChunks, roundTrip:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for size := 1; len(body) > 0; size = size*3 + 1 {
			n := min(size, len(body))
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		b.WriteString("0\r\n\r\n")
		return b.Bytes()
	case rawChunks:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	case saidLength:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(body))
	case lyingLength:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(body)+1)
	default:
		b.WriteString("\r\n")
	}
	b.Write(body)
	return b.Bytes()
}

// FuzzChallenges reads what a target says of Digest: no panic, and whatever is answered stays in its line.
func FuzzChallenges(f *testing.F) {
	f.Add(`Digest realm="a\"b", nonce="n", qop="auth,auth-int", algorithm=SHA-256-sess, userhash=true, opaque="", stale=TRUE`)
	f.Add(`Negotiate abc==, Basic realm="a, b", Digest nonce = "x"`)
	f.Add(`nextnonce="x", qop=auth, rspauth="0"`)
	f.Add(`Digest nonce="`)
	f.Add(",,=,\"\\")
	f.Fuzz(func(t *testing.T, line string) {
		nextNonce(http.Header{"Authentication-Info": {line}})
		c, ok := findDigest(http.Header{"Www-Authenticate": {line}})
		if !ok {
			return
		}
		d := &digest{username: "ada", password: "p"}
		if _, answer := c.answer(d, "GET", "/", nil, 1, "c"); strings.ContainsAny(answer, "\r\n\x00") {
			t.Errorf("%q", answer)
		}
	})
}

// FuzzReadToken reads what a token endpoint answers: a token that can stand in a header, or an error of ours without the
// endpoint's words.
func FuzzReadToken(f *testing.F) {
	f.Add(200, []byte(`{"access_token":"a","token_type":"Bearer","expires_in":3600}`))
	f.Add(200, []byte(`{"access_token":"a b","expires_in":"12"}`))
	f.Add(200, []byte(`{"access_token":"a","expires_in":1e400}`))
	f.Add(200, []byte(`{"access_token":"a","expires_in":-1}`))
	f.Add(400, []byte(`{"error":"invalid_grant"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		now := time.Now()
		got, err := readToken(status, body, now)
		switch {
		case err != nil && (err.Code != CodeAuth || got != nil):
			t.Errorf("%v %v", got, err)
		case err == nil && (got.value == "" || strings.ContainsAny(got.value, " \r\n\x00")):
			t.Errorf("%q", got.value)
		case err == nil && (got.until.Before(now) || got.until.After(now.Add(limits.MaxTokenLife))):
			t.Errorf("until %s", got.until)
		}
	})
}
