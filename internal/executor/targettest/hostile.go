package targettest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// HostileOrigin is a place that does one thing to a client.
type HostileOrigin struct {
	URL  string
	Code string // that a GET with a timeout of some hundred milliseconds ends in
	Body bool   // it takes a request with a body to see it
}

// Hostile lists the hostile routes, each with the code of the result it must end in under a spec of one GET with a
// timeout of some hundred milliseconds, "" when the run passes.
func Hostile() map[string]string {
	return map[string]string{
		"/hostile/hang":             "timeout",
		"/hostile/drip-body":        "timeout",
		"/hostile/drip-headers":     "timeout",
		"/hostile/endless":          "tooLarge",
		"/hostile/endless-chunks":   "tooLarge",
		"/hostile/bomb/gzip":        "tooLarge",
		"/hostile/bomb/deflate":     "tooLarge",
		"/hostile/bomb/br":          "tooLarge",
		"/hostile/bomb/zstd":        "tooLarge",
		"/hostile/bomb/nested":      "tooLarge",
		"/hostile/header-flood":     "tooLarge",
		"/hostile/long-header":      "tooLarge",
		"/hostile/flood-103":        "tooLarge",
		"/hostile/loop":             "redirects",
		"/hostile/loop-other":       "redirects",
		"/hostile/to-file":          "redirects",
		"/hostile/to-garbage":       "redirects",
		"/hostile/to-password":      "redirects",
		"/hostile/to-number":        "redirects",
		"/hostile/40k-header":       "tooLarge",
		"/hostile/to-metadata":      "blocked",
		"/hostile/to-mapped":        "blocked",
		"/hostile/long-length":      "protocol",
		"/hostile/short-length":     "",
		"/hostile/two-lengths":      "protocol",
		"/hostile/negative-length":  "protocol",
		"/hostile/bad-chunk":        "protocol",
		"/hostile/chunk-extensions": "protocol",
		"/hostile/reset":            "protocol",
		"/hostile/close":            "protocol",
		"/hostile/half-header":      "protocol",
		"/hostile/not-http":         "protocol",
		"/hostile/nul-header":       "protocol",
		"/hostile/bad-status":       "protocol",
		"/hostile/broken-gzip":      "protocol",
		"/hostile/cut-gzip":         "protocol",
		"/hostile/not-gzip":         "protocol",
		"/hostile/unknown-coding":   "protocol",
		"/hostile/many-codings":     "protocol",
		"/hostile/cookie-flood":     "",
		"/hostile/trailers":         "",
		"/hostile/trailer-flood":    "tooLarge",
		"/hostile/trailer-garbage":  "protocol",
		"/hostile/flood-100":        "tooLarge",
		"/hostile/switches":         "protocol",
		"/hostile/space-in-header":  "",
		"/hostile/http-0.9":         "protocol",
		"/hostile/http-3.0":         "",
		"/hostile/both-lengths":     "",
		"/hostile/odd-coding":       "protocol",
		"/hostile/204-with-body":    "",
		"/hostile/huge-chunk":       "tooLarge",
		"/hostile/loop-growing":     "redirects",
		"/hostile/deep-json":        "",
		"/hostile/bad-utf8":         "",
	}
}

// Arm makes the bombs, which takes a second, so that no client's deadline pays for it.
func Arm() {
	for _, make := range bombs {
		make()
	}
}

// bombs are 64 MiB of zeros, made once.
var bombs = map[string]func() []byte{
	"gzip":    sync.OnceValue(func() []byte { return Encode("gzip", zeros()) }),
	"deflate": sync.OnceValue(func() []byte { return Encode("deflate", zeros()) }),
	"br":      sync.OnceValue(func() []byte { return Encode("br", zeros()) }),
	"zstd":    sync.OnceValue(func() []byte { return Encode("zstd", zeros()) }),
	"nested":  sync.OnceValue(func() []byte { return Encode("gzip", Encode("gzip", zeros())) }),
}

func zeros() []byte { return make([]byte, 64<<20) }

func (s *Server) hostile(mux *http.ServeMux) {
	mux.HandleFunc("/hostile/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/hostile/drip-body", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			wait(r, 5*time.Millisecond)
		}
	})
	mux.HandleFunc("/hostile/endless", func(w http.ResponseWriter, r *http.Request) {
		block := bytes.Repeat([]byte("endless "), 8<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/hostile/bomb/{coding}", func(w http.ResponseWriter, r *http.Request) {
		coding := r.PathValue("coding")
		make, ok := bombs[coding]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Encoding", strings.Replace(coding, "nested", "gzip, gzip", 1))
		_, _ = w.Write(make())
	})
	mux.HandleFunc("/hostile/loop", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/hostile/loop", http.StatusFound)
	})
	mux.HandleFunc("/hostile/loop-growing", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/hostile/loop-growing?"+r.URL.RawQuery+strings.Repeat("x", 3000))
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/hostile/loop-other", func(w http.ResponseWriter, r *http.Request) {
		to := s.OtherURL
		if "http://"+r.Host == to {
			to = s.URL
		}
		http.Redirect(w, r, to+"/hostile/loop-other", http.StatusTemporaryRedirect)
	})
	for name, to := range map[string]string{
		"to-file": "file:///etc/passwd", "to-garbage": "http://%zz/", "to-password": "http://u:p@127.0.0.1/", "to-number": "http://2130706433/", "to-metadata": "http://169.254.169.254/latest/meta-data/",
		"to-mapped": "http://[::ffff:169.254.169.254]/",
	} {
		mux.HandleFunc("/hostile/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		})
	}
	mux.HandleFunc("/hostile/cookie-flood", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 300 {
			w.Header().Add("Set-Cookie", fmt.Sprintf("c%d=%s", i, strings.Repeat("v", 60)))
		}
	})
	mux.HandleFunc("/hostile/40k-header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", 40<<10))
	})
	mux.HandleFunc("/hostile/deep-json", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("[", 1<<20))
	})
	mux.HandleFunc("/hostile/bad-utf8", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Bad", "a\xffb")
		_, _ = io.WriteString(w, "\"\xff\x00\xfe\"")
	})
	encoded := func(name, coding string, body []byte) {
		mux.HandleFunc("/hostile/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", coding)
			_, _ = w.Write(body)
		})
	}
	whole := Encode("gzip", []byte(strings.Repeat("some text ", 1000)))
	broken := bytes.Clone(whole)
	broken[len(broken)/2] ^= 0xff
	encoded("broken-gzip", "gzip", broken)
	encoded("cut-gzip", "gzip", whole[:len(whole)/2])
	encoded("not-gzip", "gzip", []byte("this is plain text"))
	encoded("unknown-coding", "lzma", []byte("x"))
	encoded("many-codings", "gzip, gzip, gzip", whole)
	hostileRaw(mux)
}

// hostileRaw adds the routes that write to the connection themselves.
func hostileRaw(mux *http.ServeMux) {
	answers := map[string]string{
		"long-length":     "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
		"short-length":    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more that does not belong here",
		"two-lengths":     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
		"negative-length": "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
		"bad-chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
		"half-header":     "HTTP/1.1 200 OK\r\nContent-Le",
		"not-http":        "SSH-2.0-OpenSSH_9.2\r\n",
		"nul-header":      "HTTP/1.1 200 OK\r\nX-Nul: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"bad-status":      "HTTP/1.1 two-hundred OK\r\n\r\n",
		"close":           "",
		"trailers":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n",
		"trailer-flood":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + strings.Repeat("X-Flood: flood\r\n", 10_000) + "\r\n",
		"trailer-garbage": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nno trailer at all\r\n\r\n",
		"switches":        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
		"space-in-header": "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
		"http-0.9":        "<html>no head at all</html>",
		"http-3.0":        "HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"both-lengths":    "HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"odd-coding":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"204-with-body":   "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
	}
	for name, text := range answers {
		mux.HandleFunc("/hostile/"+name, func(w http.ResponseWriter, _ *http.Request) {
			raw(w, func(c net.Conn) { _, _ = io.WriteString(c, text) })
		})
	}
	repeat := func(name, head, block string) {
		mux.HandleFunc("/hostile/"+name, func(w http.ResponseWriter, _ *http.Request) {
			raw(w, func(c net.Conn) {
				_, err := io.WriteString(c, head)
				for err == nil {
					_, err = io.WriteString(c, block)
				}
			})
		})
	}
	repeat("header-flood", "HTTP/1.1 200 OK\r\n", strings.Repeat("X-Flood: flood\r\n", 100))
	repeat("long-header", "HTTP/1.1 200 OK\r\nX-Long: ", strings.Repeat("x", 4096))
	repeat("flood-100", "", "HTTP/1.1 100 Continue\r\n\r\n")
	repeat("huge-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n", strings.Repeat("x", 64<<10))
	repeat("flood-103", "", "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
	repeat("endless-chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("10\r\n0123456789abcdef\r\n", 256))
	repeat("chunk-extensions", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1;"+strings.Repeat("e", 2000)+"\r\nx\r\n")
	mux.HandleFunc("/hostile/drip-headers", func(w http.ResponseWriter, r *http.Request) {
		raw(w, func(c net.Conn) {
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Drip: ")
			for err == nil {
				_, err = io.WriteString(c, "x")
				wait(r, 5*time.Millisecond)
			}
		})
	})
	mux.HandleFunc("/hostile/reset", func(w http.ResponseWriter, _ *http.Request) {
		raw(w, func(c net.Conn) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		})
	})
}
