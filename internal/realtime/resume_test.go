package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/realtime"
	"github.com/testflow/testflow/internal/realtime/livetest"
)

// TestResume_cutSockets_noGapNoDoubleInOrder is invariant I5: the frames over all reconnects are the scan of the log for
// that user. Writers append to two organizations (with a rollback now and then) while watchers with different views are
// cut at random, some right after they subscribed, and come
// back with their last cursor, to this node or another.
func TestResume_cutSockets_noGapNoDoubleInOrder(t *testing.T) {
	t.Parallel()
	small := func(c *realtime.Config) { c.Limits.RecentEvents, c.Limits.Page = 400, 100 } // memory, log and pages all have their turn
	w := newWorld(t, small)
	otherNode := eventstore.NewFeed(eventstore.FeedConfig{Store: w.store, DB: w.db.DB}) // sometimes ahead, sometimes behind
	follow(t, otherNode)
	_, second := w.node(t, small, func(c *realtime.Config) { c.Feed = otherNode })
	ours, theirs, project := newID(), newID(), newID()
	viewer, _ := w.people.add(ours, auth.Viewer)
	admin, _ := w.people.add(ours, auth.Admin)
	foreign, _ := w.people.add(theirs, auth.Admin)
	projectTopic := w.thing(ours, "project", project)

	const writers, rounds = 6, 150
	watchers := []*watcher{
		{token: viewer, topics: []string{"organization"}},
		{token: viewer, topics: []string{"organization"}},
		{token: admin, topics: []string{"organization", projectTopic}},
		{token: viewer, topics: []string{projectTopic}},
		{token: foreign, topics: []string{"organization"}},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	last := requested(ours, project, newID(), -1)
	lastTheirs := requested(theirs, newID(), newID(), -1)
	var reading, writing sync.WaitGroup
	for i, wa := range watchers {
		wa.last = fmt.Sprintf("%s.%d", last.RunID, last.Version)
		if wa.token == foreign {
			wa.last = fmt.Sprintf("%s.%d", lastTheirs.RunID, lastTheirs.Version)
		}
		wa.nodes = []string{w.http.URL, second.URL}
		wa.rand = rand.New(rand.NewPCG(uint64(i), 7))
		began := make(chan struct{})
		reading.Go(func() { wa.err = wa.run(ctx, w, began) })
		select {
		case <-began:
		case <-ctx.Done():
			t.Fatal("no watcher began")
		}
	}
	for n := range writers {
		writing.Go(func() {
			for i := range rounds {
				if err := writeSome(ctx, w, n*rounds+i, project, ours, theirs); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writing.Wait()
	w.runs(t, last, lastTheirs)
	reading.Wait()

	total := 0
	for i, wa := range watchers {
		require.NoError(t, wa.err, "watcher %d", i)
		want := w.scan(t, wa)
		require.Equal(t, want, wa.got, "watcher %d", i)
		require.Greater(t, wa.cuts, 5, "watcher %d was cut too seldom to show anything", i)
		total += len(wa.got)
		t.Logf("watcher %d %v: %d events over %d connections", i, wa.topics, len(wa.got), wa.cuts+1)
	}
	require.Greater(t, total, 5000)
	t.Logf("%d events; %+v", total, w.server.Stats())
}

// writeSome appends a run of one of the organizations, one project or another, and rolls back now and then.
func writeSome(ctx context.Context, w *world, n int, project, ours, theirs uuid.UUID) error {
	org, in := ours, project
	if n%5 == 0 {
		org, in = theirs, newID()
	} else if n%3 == 0 {
		in = newID()
	}
	r := requested(org, in, newID(), n)
	step, end := r, r
	step.Version, step.Data = eventstore.AttemptSpan+1, payload{name: "run.step", N: n, Text: "<&>"}
	end.Version, end.Data = eventstore.VersionFinished, payload{name: "run.finished", N: n}
	if n%7 == 0 {
		err := w.db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			if _, err := w.store.AppendRuns(ctx, tx, []eventstore.RunEvent{requested(org, in, newID(), n)}); err != nil {
				return err
			}
			return errRollback
		})
		if !errors.Is(err, errRollback) {
			return err
		}
	}
	if _, err := w.appendRuns(ctx, r); err != nil {
		return err
	}
	_, err := w.appendRuns(ctx, step, end)
	return err
}

var errRollback = errors.New("rolled back on purpose")

// watcher is a user who is cut again and again.
type watcher struct {
	nodes  []string // it comes back to any of them
	token  string
	topics []string
	last   string // id of the event that ends the test
	rand   *rand.Rand

	start  string // the first cursor
	cursor string
	got    []string
	cuts   int
	err    error
}

// run watches until the last event, over as many connections as it takes.
func (wa *watcher) run(ctx context.Context, w *world, began chan<- struct{}) error {
	for {
		c, err := livetest.Dial(ctx, wa.nodes[wa.rand.IntN(len(wa.nodes))], livetest.Options{Token: wa.token, Check: honours})
		if err != nil {
			return err
		}
		finished, err := wa.watch(ctx, c, began)
		c.Close()
		began = nil
		if finished || err != nil {
			return err
		}
		wa.cuts++
	}
}

// watch reads a few frames, seldom many, and then lets the connection be cut.
func (wa *watcher) watch(ctx context.Context, c *livetest.Client, began chan<- struct{}) (finished bool, err error) {
	if err := c.Subscribe(ctx, wa.cursor, wa.topics...); err != nil {
		return false, err
	}
	frames := 1 + wa.rand.IntN(12)
	for range frames {
		f, err := c.Next(ctx)
		if err != nil {
			return false, err
		}
		switch f.Type {
		case "subscribed":
			if wa.start == "" {
				wa.start = f.Cursor
				close(began)
			} else if f.Cursor != wa.cursor {
				return false, fmt.Errorf("resumed at %s instead of %s", f.Cursor, wa.cursor)
			}
		case "events":
			for _, e := range f.Events {
				wa.got = append(wa.got, e.ID)
				finished = finished || e.ID == wa.last
			}
		case "gap":
		default:
			return false, fmt.Errorf("a frame %s: %s %s", f.Type, f.ErrorCode(), f.Message)
		}
		wa.cursor = c.Cursor
		if finished {
			return true, nil
		}
		if f.Type == "gap" {
			return false, nil
		}
	}
	return false, nil
}

// scan is what the watcher must have got, by the log itself.
func (w *world) scan(tb testing.TB, wa *watcher) []string {
	tb.Helper()
	who := w.people.tokens[wa.token]
	from, _, err := testCursors().Decode(who.OrgID, wa.start)
	require.NoError(tb, err)
	var want []string
	for after := from; ; {
		b, err := w.store.ReadAll(tb.Context(), after, 1000)
		require.NoError(tb, err)
		for _, e := range b.Events {
			if e.OrgID != who.OrgID {
				continue
			}
			in := false
			for _, t := range wa.topics {
				in = in || t == "organization" && w.visibility(e.Type) == eventstore.VisibleOrganization || t == "project:"+e.ProjectID.String()
			}
			if in {
				want = append(want, e.ID())
			}
		}
		if len(b.Events) < 1000 {
			return want
		}
		after = b.To
	}
}

// TestResume_longAbsence_isReadFromTheLogAndJoins reads far more than memory holds while events keep coming.
func TestResume_longAbsence_isReadFromTheLogAndJoins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.RecentEvents = 100 })
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	start := w.subscribed(t, token, "", "organization").Cursor
	var want []string
	for range 20 {
		var batch []eventstore.RunEvent
		for i := range 250 {
			batch = append(batch, requested(org, newID(), newID(), i))
		}
		want = append(want, w.runs(t, batch...)...)
	}
	c := w.subscribed(t, token, start, "organization")
	for range 20 {
		want = append(want, w.runs(t, requested(org, newID(), newID(), 1))...)
	}
	require.Equal(t, want, collect(t, c, len(want)))
	require.Empty(t, pong(t, c))
}

// TestSlow_client_isToldOfTheGapAndLosesNothing lets a client stop reading until its queue is full.
func TestSlow_client_isToldOfTheGapAndLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.QueueBytes, c.Limits.WriteTimeout = 64<<10, 30*time.Second })
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	slow, quick := w.subscribed(t, token, "", "organization"), w.subscribed(t, token, "", "organization")
	slow.Conn.SetReadLimit(-1)

	var want []string
	for w.server.Stats().Gaps == 0 {
		var batch []eventstore.RunEvent
		for i := range 20 {
			r := requested(org, newID(), newID(), i)
			r.Data = payload{name: "run.requested", N: i, Text: filler}
			batch = append(batch, r)
		}
		ids := w.runs(t, batch...)
		want = append(want, ids...)
		require.Equal(t, ids, collect(t, quick, len(ids)), "the quick one is not held up")
		require.Less(t, len(want), 20000, "the slow one was never found slow")
	}
	gap, events, err := slow.Until(t.Context(), "gap")
	require.NoError(t, err)
	require.Equal(t, "slow", gap.Reason)
	got := idsOf(events)
	require.NotEmpty(t, got)
	require.Less(t, len(got), len(want))
	require.Equal(t, want[:len(got)], got)
	require.NoError(t, slow.Subscribe(t.Context(), gap.Cursor, "organization"))
	require.Equal(t, "subscribed", next(t, slow).Type)
	require.Equal(t, want[len(got):], collect(t, slow, len(want)-len(got)))
	require.Empty(t, pong(t, slow))
}

// TestSlow_clientThatNeverReads_isCut: what it was sent stays unread, so the connection goes.
func TestSlow_clientThatNeverReads_isCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.QueueBytes, c.Limits.WriteTimeout = 64<<10, 500*time.Millisecond })
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	dead := w.subscribed(t, token, "", "organization")
	quick := w.subscribed(t, token, "", "organization")
	began := time.Now()
	for w.server.Stats().Sockets == 2 {
		var batch []eventstore.RunEvent
		for i := range 20 {
			r := requested(org, newID(), newID(), i)
			r.Data = payload{name: "run.requested", N: i, Text: filler}
			batch = append(batch, r)
		}
		require.Len(t, collect(t, quick, len(w.runs(t, batch...))), len(batch))
		require.Less(t, time.Since(began), 30*time.Second, "it was never cut")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		if _, err := dead.Next(ctx); err != nil {
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			var closed websocket.CloseError
			if errors.As(err, &closed) {
				require.EqualValues(t, realtime.CloseResume, closed.Code)
			}
			return
		}
	}
}

func idsOf(events []livetest.Event) []string {
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	return ids
}

// follow runs a feed until the test ends.
func follow(t *testing.T, feed *eventstore.Feed) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- feed.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	require.NoError(t, feed.Wait(t.Context(), 0))
}

// holedFeed loses batches on the way, as a feed does that is started anew.
type holedFeed struct {
	realtime.Feed
	lost atomic.Int64 // batches to lose; it counts down
}

func (f *holedFeed) SubscribeData(fn func(eventstore.Batch), wants func() bool) func() {
	return f.Feed.SubscribeData(func(b eventstore.Batch) {
		if f.lost.Load() > 0 {
			f.lost.Add(-1)
			return
		}
		fn(b)
	}, wants)
}

func TestResume_feedWithAHole_isReadFromTheLog(t *testing.T) {
	t.Parallel()
	holed := &holedFeed{}
	w := newWorld(t, func(c *realtime.Config) { holed.Feed = c.Feed; c.Feed = holed })
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	c := w.subscribed(t, token, "", "organization")
	want := w.runs(t, requested(org, newID(), newID(), 1))
	require.Equal(t, want, collect(t, c, 1))
	holed.lost.Store(1)
	want = w.runs(t, requested(org, newID(), newID(), 2))
	require.Eventually(t, func() bool { return holed.lost.Load() == 0 }, 10*time.Second, 5*time.Millisecond)
	want = append(want, w.runs(t, requested(org, newID(), newID(), 3))...)
	require.Equal(t, want, collect(t, c, 2))
}

func TestResume_nodeWhoseFeedHasNotBegun_saysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	idle := eventstore.NewFeed(eventstore.FeedConfig{Store: w.store, DB: w.db.DB})
	_, second := w.node(t, func(c *realtime.Config) { c.Feed = idle })
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	w.runs(t, requested(org, newID(), newID(), 1))
	require.NoError(t, w.feed.Wait(t.Context(), 1))
	c, err := livetest.Dial(t.Context(), second.URL, livetest.Options{Token: token, Check: honours})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Subscribe(t.Context(), "", "organization"))
	require.Equal(t, "unavailable", next(t, c).ErrorCode())

	follow(t, idle)
	require.NoError(t, c.Subscribe(t.Context(), "", "organization"))
	require.Equal(t, "subscribed", next(t, c).Type)
	id := w.runs(t, requested(org, newID(), newID(), 2))
	require.Equal(t, id, collect(t, c, 1), "and nothing of what happened before it")
}
