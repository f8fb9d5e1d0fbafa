package executor

import (
	"bufio"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/testflow/testflow/internal/limits"
)

// tooLargeError is a body over a cap; its text is a sentence.
type tooLargeError struct{ message string }

func (e *tooLargeError) Error() string { return e.message }

// encodingError is a body that cannot be decoded.
type encodingError struct{ message string }

func (e *encodingError) Error() string { return e.message }

// received is a body as far as it could be read.
type received struct {
	body []byte
	wire int64
}

// wireReader counts what came off the wire and stops above a limit.
type wireReader struct {
	r     io.Reader
	n     int64
	limit int64
	err   error // the first that is not io.EOF: a decoder would hide it
}

func (w *wireReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.n += int64(n)
	if w.n > w.limit {
		err = &tooLargeError{fmt.Sprintf("The response's body is larger than %d bytes.", w.limit)}
	}
	if err != nil && !errors.Is(err, io.EOF) && w.err == nil {
		w.err = err
	}
	return n, err
}

// readBody reads and decodes resp's body; what was read until an error is returned with it.
func readBody(resp *http.Response, method string, limit int64) (received, error) {
	return readBodyUnder(resp, method, limit, limits.MaxDecompressionRatio)
}

// readBodyUnder is readBody with another ratio than the most.
func readBodyUnder(resp *http.Response, method string, limit, ratio int64) (received, error) {
	if method == http.MethodHead || resp.Body == http.NoBody {
		return received{}, nil
	}
	wire := &wireReader{r: resp.Body, limit: limit}
	encodings, err := contentEncodings(resp.Header)
	if err != nil {
		return received{}, err
	}
	var src io.Reader = wire
	if len(encodings) > 0 {
		// A body of no bytes is empty in every encoding; many servers label it all the same.
		buffered := bufio.NewReader(wire)
		if _, err := buffered.Peek(1); err != nil {
			if wire.err != nil {
				err = wire.err
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return received{wire: wire.n}, err
		}
		src = buffered
	}
	var closers []func()
	defer func() {
		for _, c := range closers {
			c()
		}
	}()
	for i := len(encodings) - 1; i >= 0; i-- { // the last one applied comes off first
		next, closer, err := decoder(encodings[i], src)
		if err != nil {
			return received{wire: wire.n}, pick(wire.err, encodings[i], err)
		}
		if closer != nil {
			closers = append(closers, closer)
		}
		src = next
	}
	body, err := readCapped(src, wire, sizeHint(resp, len(encodings) > 0), limit, ratio)
	switch {
	case err != nil && len(encodings) > 0:
		err = pick(wire.err, encodings[0], err)
	case err == nil && len(encodings) == 0 && resp.ContentLength > wire.n:
		err = io.ErrUnexpectedEOF // HTTP/3 doesn't look
	}
	return received{body: body, wire: wire.n}, err
}

// pick prefers an error of the connection, or a cap's, over the decoder's complaint about it.
func pick(wireErr error, encoding string, err error) error {
	var large *tooLargeError
	switch {
	case errors.As(err, &large):
		return err
	case wireErr != nil:
		return wireErr
	default:
		return &encodingError{"The response's body cannot be decoded as " + encoding + "."}
	}
}

func sizeHint(resp *http.Response, encoded bool) int {
	const most = 64 << 10 // a lying Content-Length costs no more
	switch {
	case encoded || resp.ContentLength < 0:
		return 4 << 10
	case resp.ContentLength > most:
		return most
	default:
		return int(resp.ContentLength) + 1 // one more, so that the end is seen without growing
	}
}

// readCapped reads src to its end, at most limit bytes, and no more than ratio times what came off the
// wire.
func readCapped(src io.Reader, wire *wireReader, hint int, limit, ratio int64) ([]byte, error) {
	b := make([]byte, 0, hint)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := src.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		size := int64(len(b))
		if size > limit {
			return b[:limit], &tooLargeError{fmt.Sprintf("The response's body is larger than %d bytes.", limit)}
		}
		if size > limits.DecompressionFreeBytes && size > wire.n*ratio {
			return b, &tooLargeError{fmt.Sprintf("The response's body unpacks to more than %d times its size.", ratio)}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return b, nil
			}
			return b, err //nolint:wrapcheck // classify looks at it
		}
	}
}

// contentEncodings returns the codings in the order in which they were applied, identity left out.
func contentEncodings(h http.Header) ([]string, error) {
	var list []string
	for _, line := range h["Content-Encoding"] {
		for _, e := range strings.Split(line, ",") {
			e = strings.ToLower(strings.TrimSpace(e))
			switch e {
			case "", "identity":
				continue
			case "gzip", "x-gzip", "deflate", "br", "zstd":
			default:
				return nil, &encodingError{"The response's body has a content encoding other than gzip, deflate, br and zstd."}
			}
			if list = append(list, e); len(list) > limits.MaxContentEncodings {
				return nil, &encodingError{fmt.Sprintf("The response's body has more than %d content encodings.", limits.MaxContentEncodings)}
			}
		}
	}
	return list, nil
}

func decoder(encoding string, src io.Reader) (io.Reader, func(), error) {
	switch encoding {
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(src)
		return r, nil, err //nolint:wrapcheck // pick words it
	case "deflate":
		return inflater(src)
	case "br":
		return brotli.NewReader(src), nil, nil
	default:
		r, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(limits.MaxZstdWindow), zstd.WithDecoderMaxMemory(limits.MaxResponseBytes+limits.MaxZstdWindow))
		if err != nil {
			return nil, nil, err //nolint:wrapcheck // pick words it
		}
		return r, r.Close, nil
	}
}

// inflater reads "deflate", which RFC 9110 defines as zlib and which some servers send without zlib's header.
func inflater(src io.Reader) (io.Reader, func(), error) {
	buffered := bufio.NewReader(src)
	head, err := buffered.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (uint16(head[0])<<8|uint16(head[1]))%31 == 0 {
		r, err := zlib.NewReader(buffered)
		return r, nil, err //nolint:wrapcheck // pick words it
	}
	return flate.NewReader(buffered), nil, nil
}
