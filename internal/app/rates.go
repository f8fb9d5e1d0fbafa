package app

import (
	"context"
	"time"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi"
	"github.com/testflow/testflow/internal/ratelimit"
)

// buildLimits makes what counts requests, with the numbers of the environment.
func (p *platform) buildLimits() error {
	key, err := p.derived("rate limits")
	if err != nil {
		return err
	}
	limiter, err := ratelimit.New(ratelimit.Config{DB: p.db.main, Key: key, Now: time.Now, Log: p.room("ratelimit")})
	if err != nil {
		return err
	}
	l := p.cfg.Limits
	p.rates = httpapi.RateLimits{
		Limiter:   limiter,
		General:   ratelimit.Limit{Name: "general", Max: l.RateRequests, Window: l.RateWindow},
		Execution: ratelimit.Limit{Name: "execution", Max: l.RateRuns, Window: l.RateRunWindow},
		APIKey:    ratelimit.Limit{Name: "api-key", Max: l.RateKeys, Window: l.RateKeyWindow},
		Refresh:   ratelimit.Limit{Name: "refresh", Max: l.RateRefreshes, Window: l.RateAuth},
		SignIn: ratelimit.SignInLimits{
			Pair:    ratelimit.Limit{Name: "authentication", Max: l.RateSignIns, Window: l.RateAuth},
			Address: ratelimit.Limit{Name: "authentication-address", Max: l.RateAddress, Window: l.RateAuth},
			Account: ratelimit.Limit{Name: "authentication-account", Max: l.RateAccount, Window: l.RateAuth},
		},
	}
	return nil
}

// strangerAtTheStream counts a token that the live stream refuses, as the API does: a guess costs the same at both doors.
func (p *platform) strangerAtTheStream(ctx context.Context, refused error) error {
	if fault.KindOf(refused) != fault.Unauthenticated {
		return refused
	}
	if v := p.rates.Stranger(ctx, auth.From(ctx).Address); !v.Admitted {
		return httpapi.Refusal(v)
	}
	return refused
}
