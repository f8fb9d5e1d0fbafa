package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/run"
)

// wait upgrades the 202 of an execution to 200 with the ended runs, when the client prefers to wait (RFC 7240). It
// stands around the unit of work, so that what it waits for is committed. After the time it answers 202 with the runs
// as they are.
func (s *Server) wait(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		r := requestOf(ctx)
		if r.op == nil || !r.op.waits {
			return next(c)
		}
		limit, ok := preferredWait(c.Request().Header.Values("Prefer"), s.deps.Limits.Wait)
		if !ok || !auth.From(ctx).May(auth.RunRead) { // an API key that may execute and not read: a preference, so it is left out
			return next(c)
		}
		outer := c.Response()
		rec := &recorder{header: maps.Clone(outer.Header())}
		c.SetResponse(echo.NewResponse(rec, c.Echo()))
		err := next(c)
		c.SetResponse(outer)
		if err != nil {
			return err
		}
		if rec.status == http.StatusAccepted {
			if err := s.upgrade(ctx, rec, limit); err != nil {
				return err
			}
		}
		clear(outer.Header())
		maps.Copy(outer.Header(), rec.header)
		outer.WriteHeader(rec.status)
		_, err = outer.Write(rec.body.Bytes())
		return err
	}
}

// preferredWait reads wait=N from Prefer, N seconds or as long as is allowed. Preferences that it doesn't know are ignored,
// as RFC 7240 says, and the first of several counts.
func preferredWait(headers []string, most time.Duration) (wait time.Duration, ok bool) {
	for part := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		preference, _, _ := strings.Cut(part, ";")
		name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange) || err == nil && n >= uint64(max(most/time.Second, 0)):
			return most, true
		case err == nil && n > 0:
			return time.Duration(n) * time.Second, true //nolint:gosec // less than most
		}
		return 0, false
	}
	return 0, false
}

// started is what every answer that starts runs has in common; the other members of it stay as they are.
type started struct {
	Runs []struct {
		ID uuid.UUID `json:"id"`
	} `json:"runs"`
}

// upgrade waits for the runs of a 202 and writes them into the answer as they are then.
func (s *Server) upgrade(ctx context.Context, rec *recorder, limit time.Duration) error {
	var members map[string]json.RawMessage
	var of started
	if err := json.Unmarshal(rec.body.Bytes(), &members); err != nil {
		return fmt.Errorf("read own answer: %w", err)
	}
	if err := json.Unmarshal(rec.body.Bytes(), &of); err != nil {
		return fmt.Errorf("read own answer: %w", err)
	}
	ids := make([]uuid.UUID, 0, len(of.Runs))
	for _, r := range of.Runs {
		ids = append(ids, r.ID)
	}
	runs, allEnded, err := s.awaitRuns(ctx, ids, limit)
	if err != nil {
		return err
	}
	if members["runs"], err = json.Marshal(each(runs, runView)); err != nil {
		return fmt.Errorf("write runs: %w", err)
	}
	if _, suite := members["verdict"]; suite {
		if members["verdict"], err = json.Marshal(run.Verdict(runs)); err != nil {
			return fmt.Errorf("write verdict: %w", err)
		}
	}
	body, err := json.Marshal(members)
	if err != nil {
		return fmt.Errorf("write runs: %w", err)
	}
	rec.body.Reset()
	rec.body.Write(append(body, '\n'))
	rec.header.Set("Preference-Applied", "wait="+strconv.FormatFloat(limit.Seconds(), 'f', -1, 64))
	if allEnded {
		rec.status = http.StatusOK
		rec.header.Del("Location")
	}
	return nil
}
