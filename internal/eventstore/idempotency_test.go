package eventstore_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
)

func key(org uuid.UUID, name, body string) eventstore.Key {
	return eventstore.Key{OrgID: org, Principal: "user:1", Route: "POST /api/projects", Key: name, BodyHash: []byte(body)}
}

// command appends a note and answers, as a slice does: it joins the transaction of its key.
func (f *fixture) command(org uuid.UUID, answer eventstore.Answer) func(context.Context) (eventstore.Answer, error) {
	return func(ctx context.Context) (eventstore.Answer, error) {
		_, err := f.note(ctx, org, newID(), 0, "done")
		return answer, err
	}
}

func (f *fixture) notes(tb testing.TB, org uuid.UUID) (n int) {
	tb.Helper()
	require.NoError(tb, f.System.QueryRow(context.Background(), `SELECT count(*) FROM es.ledger_event WHERE org_id = $1`, org).Scan(&n))
	return n
}

func TestIdempotency_again_givesTheFirstAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	idem := eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: f.DB.DB, Now: time.Now})
	want := eventstore.Answer{Status: 201, Header: map[string]string{"Location": "/x"}, Body: []byte(`{"id":1}`)}
	got, replayed, err := idem.Do(ctx, key(org, "k", "body"), f.command(org, want))
	require.NoError(t, err)
	require.False(t, replayed)
	require.Equal(t, want, got)
	got, replayed, err = idem.Do(ctx, key(org, "k", "body"), f.command(org, eventstore.Answer{Status: 500}))
	require.NoError(t, err)
	require.True(t, replayed)
	require.Equal(t, want, got)
	require.Equal(t, 1, f.notes(t, org))

	_, _, err = idem.Do(ctx, key(org, "k", "other body"), f.command(org, want))
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	// Another principal's, route's and organization's key is another key; without a key nothing is recorded.
	for _, k := range []eventstore.Key{
		{OrgID: org, Principal: "user:2", Route: "POST /api/projects", Key: "k"},
		{OrgID: org, Principal: "user:1", Route: "POST /api/tests", Key: "k"},
		{OrgID: newID(), Principal: "user:1", Route: "POST /api/projects", Key: "k"},
		{OrgID: org},
		{OrgID: org},
	} {
		k.BodyHash = []byte("x")
		_, replayed, err := idem.Do(ctx, k, f.command(k.OrgID, want))
		require.NoError(t, err)
		require.False(t, replayed)
	}
	require.Equal(t, 5, f.notes(t, org))
}

// The answer is there exactly when the command happened: an error leaves neither.
func TestIdempotency_failedCommand_leavesTheKeyFree(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	idem := eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: f.DB.DB, Now: time.Now})
	_, _, err := idem.Do(ctx, key(org, "k", "b"), func(ctx context.Context) (eventstore.Answer, error) {
		_, err := f.note(ctx, org, newID(), 0, "half")
		require.NoError(t, err)
		return eventstore.Answer{}, errors.New("no")
	})
	require.Error(t, err)
	require.Zero(t, f.notes(t, org))
	_, replayed, err := idem.Do(ctx, key(org, "k", "b"), f.command(org, eventstore.Answer{Status: 201}))
	require.NoError(t, err)
	require.False(t, replayed)
}

// I3: of many at once one runs; the others are told that it still does, or get its answer.
func TestIdempotency_atOnce_runsOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org := newID()
	idem := eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: f.DB.DB, Now: time.Now})
	var ran, busy, replays atomic.Int64
	inside, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := idem.Do(t.Context(), key(org, "k", "b"), func(ctx context.Context) (eventstore.Answer, error) {
			close(inside)
			<-release
			ran.Add(1)
			return f.command(org, eventstore.Answer{Status: 201})(ctx)
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-inside
	_, _, err := idem.Do(t.Context(), key(org, "k", "b"), f.command(org, eventstore.Answer{}))
	require.Equal(t, fault.Conflict, fault.KindOf(err), "still running")
	close(release)
	for range 20 {
		wg.Go(func() {
			a, replayed, err := idem.Do(t.Context(), key(org, "k", "b"), func(ctx context.Context) (eventstore.Answer, error) {
				ran.Add(1)
				return f.command(org, eventstore.Answer{Status: 201})(ctx)
			})
			switch {
			case fault.KindOf(err) == fault.Conflict:
				busy.Add(1)
			case err != nil || a.Status != 201:
				t.Errorf("%v %v", a, err)
			case replayed:
				replays.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, ran.Load())
	require.Equal(t, 1, f.notes(t, org))
	require.EqualValues(t, 20, busy.Load()+replays.Load())
}

func TestIdempotency_secretAnswer_isKeptSealed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	flip := func(_ context.Context, _ uuid.UUID, b []byte) ([]byte, error) {
		out := make([]byte, len(b))
		for i := range b {
			out[i] = b[i] ^ 0x5a
		}
		return out, nil
	}
	idem := eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: f.DB.DB, Now: time.Now, Seal: flip, Open: flip})
	want := eventstore.Answer{Status: 201, Body: []byte("TFCANARY-key"), Secret: true}
	for range 2 {
		got, _, err := idem.Do(ctx, key(org, "k", "b"), f.command(org, want))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	var stored []byte
	require.NoError(t, f.System.QueryRow(ctx, `SELECT body FROM es.idempotency_answers`).Scan(&stored))
	require.False(t, bytes.Contains(stored, []byte("TFCANARY")))
	_, _, err := eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: f.DB.DB, Now: time.Now}).Do(ctx, key(org, "k2", "b"), f.command(org, want))
	require.Error(t, err, "nothing seals it")
	require.Equal(t, 1, f.notes(t, org))
}

func TestIdempotency_afterADay_isForgotten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	now := time.Now()
	idem := eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: f.DB.DB, Now: func() time.Time { return now }})
	for range 2 {
		_, replayed, err := idem.Do(ctx, key(org, "k", "b"), f.command(org, eventstore.Answer{Status: 201}))
		require.NoError(t, err)
		require.False(t, replayed)
		now = now.Add(24 * time.Hour)
	}
	n, err := idem.Prune(ctx)
	require.NoError(t, err)
	require.Zero(t, n, "the newer one is just at its age")
	now = now.Add(time.Second)
	n, err = idem.Prune(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}
