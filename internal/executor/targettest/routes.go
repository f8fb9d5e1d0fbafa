package targettest

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// routes are the well-behaved ones; hostile.go adds the others.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/pets/1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", `"v1"`)
		_, _ = io.WriteString(w, Pet)
	})
	mux.HandleFunc("POST /pets", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":1,"url":"/pets/1"}`)
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 999 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/host", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	mux.HandleFunc("/text", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, r.URL.Query().Get("s"))
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-One", "one")
		w.Header().Add("X-Two", "a")
		w.Header().Add("X-Two", "b")
		w.Header().Set("X-Count", "42")
		w.Header().Set("X-Empty", "")
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.URL.Query().Get("for"))
		if err != nil {
			d = 20 * time.Millisecond
		}
		wait(r, d)
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("/cookies/set", func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.URL.Query() {
			http.SetCookie(w, &http.Cookie{Name: name, Value: values[0], Path: "/"})
		}
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil {
			code = http.StatusFound
		}
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(code)
	})
	mux.HandleFunc("/hops/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || n <= 0 {
			_, _ = io.WriteString(w, "arrived")
			return
		}
		http.Redirect(w, r, "/hops/"+strconv.Itoa(n-1), http.StatusFound)
	})
	mux.HandleFunc("/encoded/{coding}", func(w http.ResponseWriter, r *http.Request) {
		coding := r.PathValue("coding")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", strings.TrimPrefix(coding, "raw-"))
		_, _ = w.Write(Encode(coding, []byte(Pet)))
	})
	s.auth(mux)
	s.hostile(mux)
	return mux
}

// Pet is what /pets/1 answers.
const Pet = `{"id":1,"name":"Rex","tags":["good","dog"],"weight":12.50,"big":9007199254740993,"owner":null,"vaccinated":true,"chip":{"uuid":"0192f0c1-7d3a-7a4e-8b55-2f4c1f3f9d11","ip":"192.0.2.1","date":"2026-11-22T10:00:00Z"}}`

// echo tells what was sent.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, " | ")
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"method": r.Method, "uri": r.RequestURI, "proto": r.Proto, "headers": headers, "body": string(body),
		"length": r.ContentLength,
	})
}

// wait waits for d or until the client is gone.
func wait(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

// Encode encodes data: gzip, deflate (zlib), raw-deflate, br, zstd; anything else leaves it.
func Encode(coding string, data []byte) []byte {
	var buf bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&buf)
	case "deflate":
		w = zlib.NewWriter(&buf)
	case "raw-deflate":
		w, _ = flate.NewWriter(&buf, flate.DefaultCompression)
	case "br":
		w = brotli.NewWriter(&buf)
	case "zstd":
		w, _ = zstd.NewWriter(&buf)
	default:
		return data
	}
	if _, err := w.Write(data); err != nil {
		panic(fmt.Sprintf("encode %s: %v", coding, err)) // into memory: cannot fail
	}
	if err := w.Close(); err != nil {
		panic(fmt.Sprintf("encode %s: %v", coding, err))
	}
	return buf.Bytes()
}

// raw takes the connection over and lets fn write to it; it is closed afterwards.
func raw(w http.ResponseWriter, fn func(c net.Conn)) {
	h, ok := w.(http.Hijacker)
	if !ok { // HTTP/2
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	c, _, err := h.Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	fn(c)
}
