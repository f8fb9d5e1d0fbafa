package httpapi_test

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/vault"
)

// TestAttack_enumeration_byTheHash compares the time of checking a password where there is an account and where there is
// none, without the least time that hides it at the door: a server that is too busy for that one still doesn't tell.
func TestAttack_enumeration_byTheHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	known := w.someAddresses()
	compareTimes(t, 24, 1.25, func(i int, there bool) {
		_, failure, ok, err := w.accounts.Authenticate(t.Context(), pick(known, i, there), vault.NewSecret("not the right one"))
		require.NoError(t, err)
		require.False(t, ok)
		require.Equal(t, there, failure.Known)
	})
}

// TestAttack_enumeration_byStatistics asks at the door, by turns, about addresses that have an account and ones that
// haven't, and compares the times as an attacker would.
func TestAttack_enumeration_byStatistics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.base.orgs.Policy = org.Confirmed
	w.accounts.LeastTime = 500 * time.Millisecond
	known := w.someAddresses()
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"login":    {"/api/auth/login", `{"email":"ADDRESS","password":"not the right one"}`, http.StatusUnauthorized},
		"forgot":   {"/api/auth/password/forgot", `{"email":"ADDRESS"}`, http.StatusAccepted},
		"register": {"/api/auth/register", `{"email":"ADDRESS","password":"seven brave otters swim","name":"X"}`, http.StatusAccepted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compareTimes(t, 12, 1.1, func(i int, there bool) {
				got := w.do(call{method: "POST", path: c.path, body: strings.ReplaceAll(c.body, "ADDRESS", pick(known, i, there))})
				require.Equal(t, c.status, got.status, got.text)
			})
		})
	}
}

// someAddresses are those of the world's accounts.
func (w *world) someAddresses() (all []string) {
	for _, who := range slices.Sorted(maps.Keys(w.users)) {
		all = append(all, who+"@example.com")
	}
	require.NotEmpty(w.t, all)
	return all
}

// pick returns the i-th address that has an account, round and round, or one of its own that hasn't.
func pick(known []string, i int, there bool) string {
	if there {
		return known[i%len(known)]
	}
	return fmt.Sprintf("nobody-%d@example.com", i)
}

// compareTimes asks n times about each of two kinds, by turns and in changing order, so that whatever else the machine
// does hits both. The kinds tell when nearly every time of one is above the other's (by their ranks, at 3.9 sigma: once in
// 10 000 comparisons of equals) and their medians are further apart than ratio. A busy machine alone does neither.
func compareTimes(t *testing.T, n int, ratio float64, ask func(i int, there bool)) {
	t.Helper()
	took := map[bool][]time.Duration{}
	for i := range n + 1 {
		for _, there := range []bool{i%2 == 0, i%2 != 0} {
			start := time.Now()
			ask(i, there)
			if i > 0 { // the first warms caches and connections
				took[there] = append(took[there], time.Since(start))
			}
		}
	}
	z := rankZ(took[true], took[false])
	apart := float64(median(took[true])) / float64(median(took[false]))
	t.Logf("known %v, unknown %v: z = %.2f, medians 1:%.3f", median(took[true]), median(took[false]), z, apart)
	assert.False(t, math.Abs(z) > 3.9 && max(apart, 1/apart) > ratio,
		"the time tells who has an account: z = %.2f, medians 1:%.3f\nknown   %v\nunknown %v", z, apart, took[true], took[false])
}

// rankZ is the Mann-Whitney U of two samples in standard deviations from where equals have it; > 0 when a's are greater.
func rankZ(a, b []time.Duration) float64 {
	var u float64
	for _, x := range a {
		for _, y := range b {
			switch {
			case x > y:
				u++
			case x == y:
				u += 0.5
			}
		}
	}
	n, m := float64(len(a)), float64(len(b))
	return (u - n*m/2) / math.Sqrt(n*m*(n+m+1)/12)
}

func median(of []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

func TestRankZ(t *testing.T) {
	t.Parallel()
	var low, high, even, odd []time.Duration
	for i := range time.Duration(12) {
		low, high, even, odd = append(low, i), append(high, 100+i), append(even, 2*i), append(odd, 2*i+1)
	}
	assert.InDelta(t, 4.157, rankZ(high, low), 0.001)
	assert.InDelta(t, -4.157, rankZ(low, high), 0.001)
	assert.Zero(t, rankZ(low, low))
	assert.InDelta(t, -0.346, rankZ(even, odd), 0.001)
	assert.Equal(t, time.Duration(6), median([]time.Duration{9, 2, 6}))
}
