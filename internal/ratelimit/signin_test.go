package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/ratelimit"
)

var signIns = ratelimit.SignInLimits{
	Pair:    ratelimit.Limit{Name: "authentication", Max: 5, Window: 15 * time.Minute},
	Address: ratelimit.Limit{Name: "authentication-address", Max: 50, Window: 15 * time.Minute},
	Account: ratelimit.Limit{Name: "authentication-account", Max: 50, Window: 15 * time.Minute},
}

func guess(account, address string) ratelimit.SignIn {
	return ratelimit.SignIn{Operation: "login", Account: account, Address: address}
}

func try(t *testing.T, l *ratelimit.Limiter, s ratelimit.SignIn) ratelimit.Attempt {
	t.Helper()
	a, err := l.TakeSignIn(context.Background(), signIns, s)
	require.NoError(t, err)
	return a
}

func TestSignIn_fiveForAnAccountAtAnAddress(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, pgtest.New(t), time.Now)
	for i := range 5 {
		a := try(t, l, guess("ada@example.com", "192.0.2.1"))
		require.True(t, a.Admitted)
		require.Equal(t, 4-i, a.Shown[0].Left)
		require.Len(t, a.Shown, 2, "what others do with the account isn't told")
	}
	a := try(t, l, guess("ada@example.com", "192.0.2.1"))
	assert.False(t, a.Admitted)
	assert.True(t, a.First)
	assert.Equal(t, signIns.Pair, a.Refused.Limit)
	assert.InDelta(t, (15 * time.Minute).Seconds(), a.Refused.Reset.Seconds(), 5)
	assert.False(t, try(t, l, guess("ada@example.com", "192.0.2.1")).First, "once a window")

	assert.True(t, try(t, l, guess("bob@example.com", "192.0.2.1")).Admitted, "another account")
	assert.True(t, try(t, l, guess("ada@example.com", "192.0.2.2")).Admitted, "another address")
	other := guess("ada@example.com", "192.0.2.1")
	other.Operation = "forgotPassword"
	assert.True(t, try(t, l, other).Admitted, "another operation: who can't guess may still ask for a mail")
}

// 300 guesses at once over two nodes try five passwords.
func TestSignIn_bruteForceOverTwoNodes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	nodes := []*ratelimit.Limiter{newLimiter(t, db, time.Now), newLimiter(t, db, time.Now)}
	var admitted, first atomic.Int64
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			a, err := nodes[i%2].TakeSignIn(context.Background(), signIns, guess("ada@example.com", "192.0.2.1"))
			if err != nil {
				t.Error(err)
			}
			if a.Admitted {
				admitted.Add(1)
			}
			if a.First {
				first.Add(1)
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, 5, admitted.Load())
	assert.EqualValues(t, 1, first.Load(), "one of them tells of it")
}

// The addresses of one machine's IPv6 network are one, and so are the spellings of an IPv4 address.
func TestSignIn_movingInANetworkDoesNotHelp(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, pgtest.New(t), time.Now)
	var admitted int
	for i := range 20 {
		if try(t, l, guess("ada@example.com", fmt.Sprintf("2001:db8::%x:%x", i, i))).Admitted {
			admitted++
		}
	}
	assert.Equal(t, 5, admitted)
	for range 3 {
		try(t, l, guess("ada@example.com", "192.0.2.1"))
		try(t, l, guess("ada@example.com", "::ffff:192.0.2.1"))
	}
	assert.False(t, try(t, l, guess("ada@example.com", "192.0.2.1")).Admitted)
}

// An address that tries account after account is stopped at its own limit, and doesn't stop others.
func TestSignIn_sprayingFromOneAddress(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, pgtest.New(t), time.Now)
	var admitted int
	for i := range 60 {
		if try(t, l, guess(fmt.Sprintf("p%d@example.com", i), "192.0.2.1")).Admitted {
			admitted++
		}
	}
	assert.Equal(t, 50, admitted)
	assert.True(t, try(t, l, guess("p1@example.com", "192.0.2.2")).Admitted)
	assert.False(t, try(t, l, ratelimit.SignIn{Operation: "resetPassword", Address: "192.0.2.1"}).Admitted, "other proofs count with it")
}

// An account that is guessed at from everywhere takes only those who were there before: nobody locks another out.
func TestSignIn_nobodyLocksAnotherOut(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, pgtest.New(t), time.Now)
	for i := range 50 {
		require.True(t, try(t, l, guess("ada@example.com", fmt.Sprintf("198.51.100.%d", i))).Admitted)
	}
	stranger, home := guess("ada@example.com", "203.0.113.9"), guess("ada@example.com", "192.0.2.1")
	stranger.Known = func(context.Context) (bool, error) { return false, nil }
	home.Known = func(context.Context) (bool, error) { return true, nil }
	a := try(t, l, stranger)
	assert.False(t, a.Admitted)
	assert.Equal(t, signIns.Account, a.Refused.Limit)
	var admitted int
	for range 10 {
		if try(t, l, home).Admitted {
			admitted++
		}
	}
	assert.Equal(t, 5, admitted, "also from home five guesses are all")
	home.Known = func(context.Context) (bool, error) { return false, errors.New("away") }
	_, err := l.TakeSignIn(t.Context(), signIns, ratelimit.SignIn{Operation: "login", Account: "ada@example.com", Address: "192.0.2.77", Known: home.Known})
	assert.Equal(t, fault.Unavailable, fault.KindOf(err), "who can't be asked for proof isn't let in")
}

// A right password costs nothing, and wipes nothing: with an account of their own nobody makes room for more guesses.
func TestSignIn_aRightOneGivesBackItsOwn(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, pgtest.New(t), time.Now)
	for range 20 {
		a := try(t, l, guess("eve@example.com", "192.0.2.1"))
		require.True(t, a.Admitted)
		l.GiveBack(t.Context(), a)
	}
	var admitted int
	for i := range 80 {
		if try(t, l, guess(fmt.Sprintf("victim%d@example.com", i), "192.0.2.1")).Admitted {
			admitted++
		}
		if own := try(t, l, guess("eve@example.com", "192.0.2.1")); own.Admitted {
			l.GiveBack(t.Context(), own)
		}
	}
	assert.Equal(t, 50, admitted)
	l.GiveBack(t.Context(), ratelimit.Attempt{}) // nothing was taken
}

// Those who take and those who give back wait for each other in one order.
func TestSignIn_takingAndGivingBackAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	l := newLimiter(t, db, time.Now)
	limits := signIns
	limits.Pair.Max, limits.Address.Max, limits.Account.Max = 1000, 1000, 1000
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 20 {
				a, err := l.TakeSignIn(context.Background(), limits, guess(fmt.Sprintf("p%d@example.com", (i+j)%3), fmt.Sprintf("192.0.2.%d", (i*j)%3)))
				if err != nil {
					t.Error(err)
				}
				l.GiveBack(context.Background(), a)
			}
		})
	}
	all.Wait()
	var left int
	require.NoError(t, db.System.QueryRow(t.Context(), `SELECT coalesce(sum(taken), 0) FROM sign_in_counters`).Scan(&left))
	assert.Zero(t, left)
}

// The counters of sign-ins are written like everything that may not be lost; those of other limits needn't be.
func TestCounters_ofSignInsSurviveACrash(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	persistence := map[string]string{}
	for _, table := range []string{"rate_counters", "sign_in_counters"} {
		var p string
		require.NoError(t, db.System.QueryRow(t.Context(), `SELECT relpersistence::text FROM pg_class WHERE oid = $1::regclass`, table).Scan(&p))
		persistence[table] = p
	}
	assert.Equal(t, map[string]string{"rate_counters": "u", "sign_in_counters": "p"}, persistence)
}

// Who reads the table learns neither who was there nor whose addresses were tried.
func TestCounters_tellNobody(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	l := newLimiter(t, db, time.Now)
	try(t, l, guess("ada@example.com", "192.0.2.1"))
	var rows string
	require.NoError(t, db.System.QueryRow(t.Context(), `SELECT string_agg(r::text || convert_from(decode(encode(counter, 'hex'), 'escape'), 'latin1'), ' ') FROM sign_in_counters r`).Scan(&rows))
	assert.NotContains(t, rows, "ada")
	assert.NotContains(t, rows, "192")
}
