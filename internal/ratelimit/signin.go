package ratelimit

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/testflow/testflow/internal/fault"
)

// SignInLimits bound guesses at what proves who somebody is. They share one window.
type SignInLimits struct {
	Pair    Limit // one account from one network
	Address Limit // one network, whichever accounts
	Account Limit // one account, from wherever; who was there before passes
}

// SignIn is somebody who is about to prove who they are.
type SignIn struct {
	Operation string // each has counters of its own for accounts, and all share those of addresses
	Address   string
	Account   string // what they say they are, normalized, whether it exists or not; empty = they don't say
	// Known reports whether the account was used from that network before. It is asked when the account's limit is reached
	// from elsewhere: so nobody can lock another out by guessing. nil = it never was.
	Known func(ctx context.Context) (bool, error)
}

// Attempt is what a sign-in took, or could not.
type Attempt struct {
	Admitted bool
	Shown    []Verdict // of the pair and the address; what others do with the account isn't told
	Refused  Verdict   // of the limit that was reached
	// First says that this is the first refusal of the window by that limit, on whichever node.
	First bool

	taken []counter
}

// TakeSignIn takes one of each limit that holds for s, or of none. The counters survive restarts and crashes. When they
// cannot be asked the error is fault.Unavailable, and nobody signs in.
func (l *Limiter) TakeSignIn(ctx context.Context, limits SignInLimits, s SignIn) (Attempt, error) {
	network := Network(s.Address)
	var asked []ask
	add := func(limit Limit, shown bool, parts ...string) {
		if limit.Max > 0 {
			asked = append(asked, ask{limit, l.counter(append([]string{limit.Name}, parts...)...), shown})
		}
	}
	if s.Account != "" {
		add(limits.Pair, true, s.Operation, s.Account, network)
	}
	add(limits.Address, true, network)
	others := len(asked)
	if s.Account != "" {
		add(limits.Account, false, s.Operation, s.Account)
	}
	a, err := l.takeAll(ctx, asked)
	if err == nil && !a.Admitted && a.Refused.Limit.Name == limits.Account.Name && s.Known != nil {
		var known bool
		if known, err = s.Known(ctx); err == nil && known {
			a, err = l.takeAll(ctx, asked[:others])
		}
	}
	if err != nil {
		f := fault.New(fault.Unavailable, "rate.unavailable", "Sign-ins can't be counted at the moment, so nobody is let in; try again.")
		f.RetryAfter = time.Second
		return Attempt{}, f.Because(err)
	}
	return a, nil
}

type ask struct {
	limit Limit
	counter
	shown bool
}

func (l *Limiter) takeAll(ctx context.Context, asked []ask) (Attempt, error) {
	if len(asked) == 0 {
		return Attempt{Admitted: true}, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*askTime)
	defer cancel()
	var (
		counters [][]byte
		most     []int
		fullAt   int
		told     bool
		left     []int
		resets   []int64
	)
	for _, a := range asked {
		counters, most = append(counters, a.counter[:]), append(most, a.limit.Max)
	}
	err := l.cfg.DB.System.QueryRow(ctx, `SELECT full_at, told, left_over, resets_in_ms FROM take_sign_in($1, $2, $3)`, counters, most, asked[0].limit.Window).
		Scan(&fullAt, &told, &left, &resets)
	if err != nil {
		return Attempt{}, fmt.Errorf("count a sign-in: %w", err)
	}
	out := Attempt{Admitted: fullAt == 0}
	for i, a := range asked {
		v := Verdict{Limit: a.limit, Admitted: fullAt != i+1, Left: left[i], Reset: max(time.Duration(resets[i])*time.Millisecond, time.Millisecond)}
		if a.shown {
			out.Shown = append(out.Shown, v)
		}
		if fullAt == i+1 {
			out.Refused = v
		}
		if fullAt == 0 {
			out.taken = append(out.taken, a.counter)
		}
	}
	if fullAt > 0 && !told {
		tag, err := l.cfg.DB.System.Exec(ctx, `UPDATE sign_in_counters SET told = true WHERE counter = $1 AND NOT told AND ends_at > clock_timestamp()`, counters[fullAt-1])
		if err != nil {
			return Attempt{}, fmt.Errorf("mark a full window: %w", err)
		}
		out.First = tag.RowsAffected() == 1
	}
	return out, nil
}

// GiveBack returns what the attempt took: the proof was right, and only wrong ones count. It wipes nothing else, so that
// somebody with an account of their own can't make room for more guesses at others.
func (l *Limiter) GiveBack(ctx context.Context, a Attempt) {
	if len(a.taken) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	counters := make([][]byte, 0, len(a.taken))
	for _, c := range a.taken {
		counters = append(counters, c[:])
	}
	// Locked in one order, as in take_sign_in.
	_, err := l.cfg.DB.System.Exec(ctx, `UPDATE sign_in_counters r SET taken = r.taken - 1
		FROM (SELECT counter FROM sign_in_counters WHERE counter = ANY($1) ORDER BY counter FOR UPDATE) mine
		WHERE r.counter = mine.counter AND r.taken > 0 AND r.ends_at > clock_timestamp()`, counters)
	if err != nil { // the sign-in stands; it only counts as if it had been wrong
		l.cfg.Log.WarnContext(ctx, "a right sign-in counts as a wrong one", slog.Any("err", err))
	}
}
