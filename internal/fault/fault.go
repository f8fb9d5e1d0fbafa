// Package fault holds the errors that a caller can act on.
//
// A room returns a *fault.Error when the person at the other end can do something about it; every other error is a
// plain wrapped error and ends as "internal" at the door. httpapi alone turns a Kind into an HTTP status. The package
// logs nothing and knows no transport.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what the caller can do about the error.
type Kind string

// The kinds, and what the person at the other end can do.
const (
	Malformed       Kind = "malformed"       // it does not parse: send well-formed input
	Invalid         Kind = "invalid"         // it parses but is not allowed: mend the named places
	Unauthenticated Kind = "unauthenticated" // sign in
	Forbidden       Kind = "forbidden"       // ask for a role
	NotFound        Kind = "not_found"       // it isn't there, or is another organization's
	Conflict        Kind = "conflict"        // read again and decide anew
	Precondition    Kind = "precondition"    // If-Match named another version
	TooLarge        Kind = "too_large"       // send less
	RateLimited     Kind = "rate_limited"    // wait RetryAfter
	Unavailable     Kind = "unavailable"     // try again later
	Internal        Kind = "internal"        // nothing: somebody must look at the log
)

// Field names one place of bad input. Exactly one of Pointer and Parameter is set.
type Field struct {
	Pointer   string // JSON Pointer (RFC 6901) into the request body, "" being the whole body
	Parameter string // name of a query, path or header parameter
	Detail    string // what is wrong and what would be right, one sentence, without the submitted value
}

// Error is what a room returns when the person at the other end can act.
type Error struct {
	Kind       Kind
	Code       string        // stable, machine-read, e.g. "org.slug_taken"
	Message    string        // one sentence for a person; holds no secret
	Fields     []Field       // the places, for bad input; all of them, not the first
	RetryAfter time.Duration // for RateLimited and Unavailable; 0 = unknown
	Err        error         // the cause, logged and never sent
}

// Error returns code, message and cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Code + ": " + e.Message + ": " + e.Err.Error()
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns an Error of the given kind.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// At returns e with one more named place in the body; pointer is a JSON Pointer.
func (e *Error) At(pointer, format string, args ...any) *Error {
	e.Fields = append(e.Fields, Field{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	return e
}

// Because returns e with its cause, which is logged and never sent.
func (e *Error) Because(err error) *Error { e.Err = err; return e }

// KindOf returns the kind of err, and Internal for an error that is not ours.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
