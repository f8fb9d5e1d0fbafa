package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
)

// Key names one command of one principal, once.
type Key struct {
	OrgID     uuid.UUID // the organization; the account's id for what a person does for themselves
	Principal string    // kind and id of who asks
	Route     string    // method and path
	Key       string    // Idempotency-Key
	BodyHash  []byte    // SHA-256
}

// Answer is what was answered to a command, to be given again.
type Answer struct {
	Status int
	Header map[string]string
	Body   []byte
	Secret bool // it shows a secret and is kept sealed
}

// UnitOfWork makes a command and the memory of its answer one transaction.
type UnitOfWork interface {
	// Do runs fn in a transaction that slices join through the context, stores its answer under key in it, and commits.
	// When the key has an answer already, it returns that, with replayed true, and fn is not run. An error of fn rolls
	// everything back, so that the key is free again. Another body under the key is fault.Invalid with the code
	// idempotency.key_reused; a command still running under it is fault.Conflict with idempotency.in_progress.
	Do(ctx context.Context, key Key, fn func(ctx context.Context) (Answer, error)) (answer Answer, replayed bool, err error)
}

// replayedHeaders are kept with an answer; all others are made anew.
var replayedHeaders = []string{"Content-Type", "Etag", "Location", headerEventPosition}

// idempotent runs commands that carry an Idempotency-Key in a unit of work.
func (s *Server) idempotent(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		r := requestOf(ctx)
		if r.op == nil || !r.op.command() {
			return next(c)
		}
		fault.Hit(fault.PointCommandBeforeTx)
		values := c.Request().Header.Values("Idempotency-Key")
		if !r.op.idempotent || len(values) == 0 {
			return next(c)
		}
		if err := saneKey(values[0]); err != nil {
			return err
		}
		who := auth.From(ctx)
		hash := sha256.Sum256(r.body)
		tenant := who.OrgID
		if r.op.permission == permissionSelf {
			tenant = who.AccountID // what a person does for themselves isn't in any organization
		}
		key := Key{
			OrgID: tenant, Principal: string(who.Kind) + ":" + who.AccountID.String(),
			Route: c.Request().Method + " " + r.path, Key: values[0], BodyHash: hash[:],
		}
		answer, replayed, err := s.deps.UnitOfWork.Do(ctx, key, func(ctx context.Context) (Answer, error) {
			return record(ctx, c, next)
		})
		if err != nil {
			return err
		}
		fault.Hit(fault.PointCommandCommitted)
		h := c.Response().Header()
		for name, value := range answer.Header {
			h.Set(name, value)
		}
		if replayed {
			h.Set("Idempotency-Replayed", "true")
		}
		c.Response().WriteHeader(answer.Status)
		_, err = c.Response().Write(answer.Body)
		return err
	}
}

func saneKey(key string) error {
	if len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' }) {
		return fault.New(fault.Invalid, "idempotency.key_invalid", "An Idempotency-Key has 1 to 255 visible ASCII characters.")
	}
	return nil
}

// record runs the rest of the chain inside the unit of work and keeps its answer instead of sending it.
func record(ctx context.Context, c echo.Context, next echo.HandlerFunc) (Answer, error) {
	r := *requestOf(ctx)
	r.inUnit = true
	ctx = context.WithValue(ctx, operationKey{}, &r)
	outer, outerRequest := c.Response(), c.Request()
	rec := &recorder{header: maps.Clone(outer.Header())}
	c.SetRequest(outerRequest.WithContext(ctx))
	c.SetResponse(echo.NewResponse(rec, c.Echo()))
	err := next(c)
	c.SetResponse(outer)
	c.SetRequest(outerRequest)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Status: rec.status, Header: map[string]string{}, Body: rec.body.Bytes(), Secret: r.op.secret}
	for name, values := range rec.header {
		if slices.Contains(replayedHeaders, name) {
			answer.Header[name] = values[0]
		}
	}
	return answer, nil
}

// recorder keeps an answer in memory.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header returns the header of the answer.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader keeps the status.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write keeps a part of the body.
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// commandPoints marks where the process can be made to die around a command's transaction. Inside a unit of work the
// transaction is still open when the slice returns.
func commandPoints(next oapi.StrictHandlerFunc, _ string) oapi.StrictHandlerFunc {
	return func(c echo.Context, request any) (any, error) {
		response, err := next(c, request)
		if r := requestOf(c.Request().Context()); err == nil && r.op != nil && r.op.command() {
			if r.inUnit {
				fault.Hit(fault.PointCommandInTx)
			} else {
				fault.Hit(fault.PointCommandCommitted)
			}
		}
		return response, err
	}
}
