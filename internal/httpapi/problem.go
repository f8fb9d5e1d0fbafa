package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/fault"
)

// Problem is an RFC 9457 problem document.
type Problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail,omitempty"`
	Code      string         `json:"code"`
	RequestID string         `json:"requestId"`
	Errors    []ProblemField `json:"errors,omitempty"`
}

// ProblemField names one place of bad input.
type ProblemField struct {
	Pointer   *string `json:"pointer,omitempty"` // set and empty for the whole body
	Parameter string  `json:"parameter,omitempty"`
	Detail    string  `json:"detail"`
}

const (
	problemType = "application/problem+json"
	jsonType    = "application/json"

	codeInternal  = "internal"
	codeInvalid   = "request.invalid"
	codeMalformed = "request.malformed"
)

var statuses = map[fault.Kind]int{
	fault.Malformed:       http.StatusBadRequest,
	fault.Invalid:         http.StatusUnprocessableEntity,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Forbidden:       http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Conflict:        http.StatusConflict,
	fault.Precondition:    http.StatusPreconditionFailed,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.RateLimited:     http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
	fault.Internal:        http.StatusInternalServerError,
}

// httpFault is an answer that only HTTP knows: no route, no such method, not that media type.
type httpFault struct {
	status       int
	code, detail string
}

func (e *httpFault) Error() string { return e.code + ": " + e.detail }

// problemOf is the one place where an error becomes an answer. What it does not know becomes 500 with no detail.
func problemOf(err error) (p Problem, retryAfter time.Duration) {
	var f *fault.Error
	var h *httpFault
	var e *echo.HTTPError
	p = Problem{Type: "about:blank", Status: http.StatusInternalServerError, Code: codeInternal}
	switch {
	case errors.As(err, &f) && f.Kind != fault.Internal && statuses[f.Kind] != 0:
		p.Status, p.Code, p.Detail, p.Errors = statuses[f.Kind], f.Code, f.Message, problemFields(f.Fields)
		retryAfter = f.RetryAfter
		if retryAfter == 0 && (f.Kind == fault.Unavailable || f.Kind == fault.RateLimited) {
			retryAfter = time.Second
		}
	case errors.As(err, &h):
		p.Status, p.Code, p.Detail = h.status, h.code, h.detail
	case errors.As(err, &e):
		p = echoProblem(p, e)
	case errors.Is(err, context.DeadlineExceeded):
		p.Status, p.Code, p.Detail = http.StatusServiceUnavailable, "server.timeout", "The answer took too long; try again."
		retryAfter = time.Second
	}
	p.Title = http.StatusText(p.Status)
	return p, retryAfter
}

// echoProblem is for what Echo itself refuses; its texts are not passed on.
func echoProblem(p Problem, e *echo.HTTPError) Problem {
	switch e.Code {
	case http.StatusNotFound:
		p.Status, p.Code, p.Detail = e.Code, "request.route", "There is nothing at this address."
	case http.StatusMethodNotAllowed:
		p.Status, p.Code, p.Detail = e.Code, "request.method", "This address doesn't take that method."
	case http.StatusRequestEntityTooLarge:
		p.Status, p.Code, p.Detail = e.Code, "request.too_large", "The body is too large."
	case http.StatusUnsupportedMediaType:
		p.Status, p.Code, p.Detail = e.Code, "request.media_type", "Send the body as application/json."
	case http.StatusBadRequest:
		p.Status, p.Code, p.Detail = e.Code, codeMalformed, "The request doesn't parse."
	}
	return p
}

func problemFields(fields []fault.Field) []ProblemField {
	out := make([]ProblemField, 0, len(fields))
	for _, f := range fields {
		one := ProblemField{Parameter: f.Parameter, Detail: f.Detail}
		if f.Parameter == "" {
			one.Pointer = &f.Pointer
		}
		out = append(out, one)
	}
	return out
}

// writeError answers err as a problem document. It is Echo's error handler, so nothing else writes errors.
func (s *Server) writeError(err error, c echo.Context) {
	r := c.Request()
	p, retryAfter := problemOf(err)
	p.RequestID = c.Response().Header().Get(headerRequestID)
	switch {
	case errors.Is(r.Context().Err(), context.Canceled) && p.Status >= http.StatusInternalServerError:
		// The client went away and nobody reads the answer.
		p.Status, p.Code, p.Detail, p.Title = http.StatusServiceUnavailable, "request.canceled", "", http.StatusText(http.StatusServiceUnavailable)
		s.log.DebugContext(r.Context(), "request was given up by its client", slog.String("request_id", p.RequestID))
	case p.Status == http.StatusInternalServerError:
		s.log.ErrorContext(r.Context(), "request failed", slog.String("request_id", p.RequestID),
			slog.String("method", r.Method), slog.String("route", c.Path()), slog.Any("err", err))
	}
	if c.Response().Committed {
		return
	}
	h := c.Response().Header()
	for _, name := range []string{"ETag", "Location", "Link", "Cache-Control"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	if retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(retryAfter.Seconds()))))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", wwwAuthenticate(p.Code))
	}
	body, err := json.Marshal(p)
	if err != nil {
		s.log.ErrorContext(r.Context(), "problem document could not be written", slog.Any("err", err))
		return
	}
	if err := c.Blob(p.Status, problemType, body); err != nil {
		s.log.DebugContext(r.Context(), "answer was not read", slog.String("request_id", p.RequestID), slog.Any("err", err))
	}
}

// Refuse answers err as a problem document, for handlers that the door was given.
func (s *Server) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.writeError(err, s.echo.NewContext(r, w))
}

func wwwAuthenticate(code string) string {
	if code == "auth.required" {
		return `Bearer realm="testflow"`
	}
	return `Bearer realm="testflow", error="invalid_token"`
}

// invalid returns the one answer to bad input with all its faults: 422, or 400 when something didn't parse.
func invalid(fields []fault.Field) *fault.Error {
	e := fault.New(fault.Invalid, codeInvalid, "%s", countFaults(len(fields)))
	e.Fields = fields
	return e
}

func countFaults(n int) string {
	if n == 1 {
		return "The request has a fault."
	}
	return fmt.Sprintf("The request has %d faults.", n)
}
