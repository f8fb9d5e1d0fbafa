package httpapi

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/fault"
)

// neverVersion is the version that no resource has: a well-formed ETag that isn't one of ours matches nothing.
const neverVersion = math.MaxInt32

// etag writes a version as a strong ETag.
func etag(version int) string { return `"` + strconv.Itoa(version) + `"` }

// expected reads If-Match into the version that a command must find: nil when there is none or `*`. A weak ETag never
// matches, since If-Match compares strongly (RFC 9110).
func expected(header *string) (*int, error) {
	if header == nil || strings.TrimSpace(*header) == "*" {
		return nil, nil //nolint:nilnil // unconditional, and that is no error
	}
	tags, ok := parseETags(*header)
	if !ok || len(tags) != 1 {
		e := fault.New(fault.Malformed, "precondition.malformed", `If-Match must hold one ETag such as "3", or *.`)
		e.Fields = []fault.Field{{Parameter: "If-Match", Detail: `must be one ETag such as "3", or *`}}
		return nil, e
	}
	version := neverVersion
	if n, err := strconv.Atoi(tags[0].value); err == nil && n >= 0 && n < neverVersion && !tags[0].weak && strconv.Itoa(n) == tags[0].value {
		version = n
	}
	return &version, nil
}

type entityTag struct {
	value string
	weak  bool
}

// parseETags reads a list of entity tags of RFC 9110.
func parseETags(s string) (tags []entityTag, ok bool) {
	for {
		s = strings.TrimLeft(s, " \t")
		var tag entityTag
		s, tag.weak = strings.CutPrefix(s, "W/")
		rest, quoted := strings.CutPrefix(s, `"`)
		end := strings.IndexByte(rest, '"')
		if !quoted || end < 0 || strings.ContainsFunc(rest[:end], func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, false
		}
		tag.value = rest[:end]
		tags = append(tags, tag)
		s = strings.TrimLeft(rest[end+1:], " \t")
		if s == "" {
			return tags, true
		}
		if s, ok = strings.CutPrefix(s, ","); !ok {
			return nil, false
		}
	}
}

// conditional answers 304 to a GET whose If-None-Match names the ETag of the answer.
func (s *Server) conditional(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := requestOf(c.Request().Context())
		header := c.Request().Header.Get("If-None-Match")
		if r.op == nil || r.op.command() || header == "" {
			return next(c)
		}
		tags, ok := parseETags(header)
		if !ok && strings.TrimSpace(header) != "*" {
			return next(c) // RFC 9110: a condition that doesn't parse is no condition
		}
		plain := c.Response().Writer
		c.Response().Writer = &notModifiedWriter{ResponseWriter: plain, tags: tags, any: !ok}
		defer func() { c.Response().Writer = plain }()
		return next(c)
	}
}

// notModifiedWriter turns a 200 whose ETag the client has into a 304.
type notModifiedWriter struct {
	http.ResponseWriter
	tags   []entityTag
	any    bool
	silent bool
}

// WriteHeader looks at the ETag before the status goes out.
func (w *notModifiedWriter) WriteHeader(status int) {
	tag := w.Header().Get("ETag")
	if status == http.StatusOK && tag != "" && w.matches(strings.Trim(tag, `"`)) {
		w.silent, status = true, http.StatusNotModified
		w.Header().Del("Content-Type")
		w.Header().Del("Content-Length")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *notModifiedWriter) matches(value string) bool {
	for _, t := range w.tags {
		if t.value == value {
			return true
		}
	}
	return w.any
}

// Write drops the body of a 304.
func (w *notModifiedWriter) Write(b []byte) (int, error) {
	if w.silent {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *notModifiedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// View is what a GET reads, and so what its position has to reach.
type View string

// The views.
const (
	ViewLog       View = "log"       // inline read models and the log itself
	ViewAnalytics View = "analytics" // the projections behind /api/analytics
)

// Positions tells when what was written up to a position can be read.
type Positions interface {
	// Wait returns when view shows every event of org up to position, at once when it does so already, or the
	// error of ctx.
	Wait(ctx context.Context, view View, position int64) error
}

// position makes a GET wait for the write that it asks to see.
func (s *Server) position(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		r := requestOf(ctx)
		if r.op == nil || r.op.command() {
			return next(c)
		}
		var least int64
		for _, v := range append(r.query["minPosition"], c.Request().Header.Values("X-Min-Position")...) {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil { // checkInput has refused all else
				least = max(least, n)
			}
		}
		if least == 0 {
			return next(c)
		}
		view := ViewLog
		if r.op.analytics() {
			view = ViewAnalytics
		}
		waiting, cancel := context.WithTimeout(ctx, s.deps.Limits.PositionWait)
		defer cancel()
		if err := s.deps.Positions.Wait(waiting, view, least); err != nil {
			if waiting.Err() == nil || ctx.Err() != nil {
				return err
			}
			return fault.New(fault.Unavailable, "position.not_reached", "Position %d isn't readable yet.", least).Because(err)
		}
		return next(c)
	}
}
