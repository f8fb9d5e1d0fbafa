package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/ratelimit"
)

// RateLimits say how many requests may come, by what the document calls x-rate-limit. A request counts against one limit.
type RateLimits struct {
	Limiter   *ratelimit.Limiter // nil = nothing is limited
	General   ratelimit.Limit    // of a user, and of an address without a good credential
	Execution ratelimit.Limit    // of a member of an organization
	APIKey    ratelimit.Limit    // of a key, whatever it does
	Refresh   ratelimit.Limit    // of an address
	SignIn    ratelimit.SignInLimits
}

// rateClass is x-rate-limit of an operation.
type rateClass string

const (
	rateNone           rateClass = "none"
	rateGeneral        rateClass = "general"
	rateExecution      rateClass = "execution"      // starts runs
	rateAuthentication rateClass = "authentication" // proves who somebody is, or redeems what only they were sent
	rateRefresh        rateClass = "refresh"
)

func (r rateClass) known() bool {
	switch r {
	case rateNone, rateGeneral, rateExecution, rateAuthentication, rateRefresh:
		return true
	}
	return false
}

// Stranger counts a request of somebody who could not say who they are. It is for every door: a guessed token costs the
// same wherever it is shown.
func (r RateLimits) Stranger(ctx context.Context, address string) ratelimit.Verdict {
	if r.Limiter == nil {
		return ratelimit.Verdict{Admitted: true}
	}
	return r.Limiter.Take(ctx, r.General, "address:"+ratelimit.Network(address))
}

// Refusal is the fault for a request that a limit doesn't admit.
func Refusal(v ratelimit.Verdict) *fault.Error {
	f := fault.New(fault.RateLimited, "rate.limited", "That was more than %s in %s. Wait for %s.", requests(v.Limit.Max), plain(v.Limit.Window), plain(v.Reset))
	f.RetryAfter = v.Reset
	return f
}

func requests(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// bounded says what a limit of sign-ins counts. An account is what somebody says they are: that it is counted tells nothing
// of whether there is one.
func (r RateLimits) bounded(reached ratelimit.Limit) string {
	switch reached.Name {
	case r.SignIn.Pair.Name:
		return "for this account from this address"
	case r.SignIn.Address.Name:
		return "from this address, whichever the account"
	}
	return "for this account, from all addresses together"
}

// plain writes a duration for people: 15m, 40s.
func plain(d time.Duration) string {
	text := max(time.Second, time.Duration(math.Ceil(d.Seconds()))*time.Second).String()
	return strings.TrimSuffix(strings.TrimSuffix(text, "0s"), "0m")
}

// limitStrangers counts what was refused before anybody knew who asked, by address: guessed tokens and keys, sign-ins that
// make no sense. A good credential passes from there all the same, so that nobody locks the neighbours out.
func (s *Server) limitStrangers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := requestOf(c.Request().Context())
		if r.op == nil || r.op.rate == rateNone || s.deps.Rates.Limiter == nil {
			return next(c)
		}
		err := next(c)
		if err == nil || r.counted {
			return err
		}
		if p, _ := problemOf(err); p.Status >= http.StatusInternalServerError {
			return err
		}
		v := s.deps.Rates.Stranger(c.Request().Context(), c.RealIP())
		if rateHeaders(c.Response().Header(), v); !v.Admitted {
			return Refusal(v)
		}
		return err
	}
}

// limit counts a request against the limit of who asks.
func (s *Server) limit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		r, who := requestOf(ctx), auth.From(ctx)
		later := r.op != nil && r.op.rate == rateAuthentication && who.Kind != auth.APIKey
		if r.op == nil || r.op.rate == rateNone || later || s.deps.Rates.Limiter == nil {
			return next(c)
		}
		limit, name := s.deps.Rates.of(r.op.rate, who)
		v := s.deps.Rates.Limiter.Take(ctx, limit, name)
		r.counted = true
		if rateHeaders(c.Response().Header(), v); !v.Admitted {
			return Refusal(v)
		}
		return next(c)
	}
}

// of chooses the limit of a request, and whose it is.
func (r RateLimits) of(class rateClass, who auth.Principal) (limit ratelimit.Limit, name string) {
	address := "address:" + ratelimit.Network(who.Address)
	switch {
	case who.Kind == auth.APIKey:
		limit = r.APIKey
		// A key's own limit lowers the installation's, and holds where that is switched off.
		if who.KeyLimit > 0 && (limit.Max <= 0 || who.KeyLimit < limit.Max) {
			limit.Max = who.KeyLimit
		}
		return limit, "key:" + who.AccountID.String()
	case class == rateRefresh:
		return r.Refresh, address
	case who.Kind != auth.User:
		return r.General, address
	case class == rateExecution:
		return r.Execution, "member:" + who.OrgID.String() + ":" + who.AccountID.String()
	}
	return r.General, "user:" + who.AccountID.String()
}

// limitSignIn counts attempts to prove who one is, once their input makes sense. A right password gives back what it took.
func (s *Server) limitSignIn(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		r := requestOf(ctx)
		if r.op == nil || r.op.rate != rateAuthentication || r.counted || s.deps.Rates.Limiter == nil {
			return next(c)
		}
		wait := s.deps.Orgs.Accounts.Floor()
		claim := claimOf(ctx, r)
		attempt, err := s.deps.Rates.Limiter.TakeSignIn(ctx, s.deps.Rates.SignIn, ratelimit.SignIn{
			Operation: r.op.id, Address: c.RealIP(), Account: claim.Name(),
			Known: func(ctx context.Context) (bool, error) {
				return s.deps.Orgs.Accounts.KnownFrom(ctx, claim, c.RealIP())
			},
		})
		r.counted = true
		if err != nil {
			return err
		}
		rateHeaders(c.Response().Header(), attempt.Shown...)
		if !attempt.Admitted {
			if attempt.First {
				s.tellLimited(ctx, claim, r.op.id, attempt.Refused.Limit)
				wait(ctx) // whether there was anybody to tell about doesn't show
			}
			reached := attempt.Refused.Limit
			f := fault.New(fault.RateLimited, "rate.limited", "That was more than %s in %s %s. Wait for %s.",
				attempts(reached.Max), plain(reached.Window), s.deps.Rates.bounded(reached), plain(attempt.Refused.Reset))
			f.RetryAfter = attempt.Refused.Reset
			return f
		}
		err = next(c)
		if err == nil && r.op.provesPassword() {
			s.deps.Rates.Limiter.GiveBack(ctx, attempt)
		}
		return err
	}
}

// tellLimited records that guesses were stopped: once a window, for the person whose account it is.
func (s *Server) tellLimited(ctx context.Context, claim account.Claim, operation string, reached ratelimit.Limit) {
	from := clientOf(ctx)
	s.log.WarnContext(ctx, "attempts to sign in are refused for now", slog.String("operation", operation),
		slog.String("limit", reached.Name), slog.String("address", from.Address))
	if reached == s.deps.Rates.SignIn.Address {
		return // it says nothing of this account
	}
	event := account.SignInLimited{Operation: operation, Everywhere: reached == s.deps.Rates.SignIn.Account}
	if err := s.deps.Orgs.RecordSignInLimited(ctx, claim, event, from); err != nil {
		s.log.ErrorContext(ctx, "refused sign-ins were not recorded", slog.Any("err", err))
	}
}

// claimOf is who somebody says they are: who has signed in, or the body's e-mail.
func claimOf(ctx context.Context, r *request) account.Claim {
	if who := auth.From(ctx); who.Kind == auth.User {
		return account.Claim{AccountID: who.AccountID}
	}
	var body struct{ Email string }
	if len(r.body) > 0 {
		_ = json.Unmarshal(r.body, &body) // checked before; without an e-mail nothing is claimed
	}
	return account.Claim{Email: body.Email}
}

// rateHeaders writes the RateLimit headers of the IETF draft, one member a limit.
func rateHeaders(h http.Header, verdicts ...ratelimit.Verdict) {
	var policies, states httpsfv.List
	for _, v := range verdicts {
		if v.Limit.Max <= 0 {
			continue
		}
		policy, state := httpsfv.NewItem(v.Limit.Name), httpsfv.NewItem(v.Limit.Name)
		policy.Params.Add("q", int64(v.Limit.Max))
		policy.Params.Add("w", int64(math.Ceil(v.Limit.Window.Seconds())))
		state.Params.Add("r", int64(v.Left))
		state.Params.Add("t", int64(math.Ceil(v.Reset.Seconds())))
		policies, states = append(policies, policy), append(states, state)
	}
	for name, list := range map[string]httpsfv.List{"RateLimit-Policy": policies, "RateLimit": states} {
		if text, err := httpsfv.Marshal(list); err == nil && text != "" { // our names and numbers can be written
			h.Set(name, text)
		}
	}
}
