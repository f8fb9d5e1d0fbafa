package realtime_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/realtime"
	"github.com/testflow/testflow/internal/realtime/livetest"
)

func TestStream_topicsCarryWhatBelongsToThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org, project, test := newID(), newID(), newID()
	admin, _ := w.people.add(org, auth.Admin)
	viewer, _ := w.people.add(org, auth.Viewer)
	run := requested(org, project, test, 1)
	runTopic := w.thing(org, "run", run.RunID)
	projectTopic, testTopic := w.thing(org, "project", project), w.thing(org, "test", test)

	listeners := map[string]*livetest.Client{
		"organization as admin":  w.subscribed(t, admin, "", "organization"),
		"organization as viewer": w.subscribed(t, viewer, "", "organization"),
		"run":                    w.subscribed(t, viewer, "", runTopic),
		"project":                w.subscribed(t, viewer, "", projectTopic),
		"test":                   w.subscribed(t, viewer, "", testTopic),
		"incidents":              w.subscribed(t, viewer, "", "incidents"),
		"all of them":            w.subscribed(t, viewer, "", "organization", runTopic, projectTopic, testTopic, "incidents"),
	}

	step := run
	step.Version, step.Data = eventstore.AttemptSpan+1, payload{name: "run.step", N: 2}
	end := run
	end.Version, end.Data = eventstore.VersionFinished, payload{name: "run.finished", N: 3}
	other := requested(org, newID(), newID(), 4)
	ids := w.runs(t, run, step, end, other)
	renamed := w.ledger(t, org, project, "project", payload{name: "project.renamed"})
	environment := w.ledger(t, org, newID(), "environment", payload{name: "project.renamed", ProjectID: project})
	incident := w.ledger(t, org, newID(), "incident", payload{name: "incident.opened"})
	removed := w.ledger(t, org, org, "org", payload{name: "org.member_removed"})
	w.ledger(t, org, newID(), "account", payload{name: "account.signed_in"})
	last := w.runs(t, requested(org, project, test, 5))[0]

	want := map[string][]string{
		"organization as admin":  {ids[0], ids[2], ids[3], renamed, environment, incident, removed, last},
		"organization as viewer": {ids[0], ids[2], ids[3], renamed, environment, incident, last},
		"run":                    {ids[0], ids[1], ids[2]},
		"project":                {ids[0], ids[1], ids[2], renamed, environment, last},
		"test":                   {ids[0], ids[1], ids[2], last},
		"incidents":              {incident},
		"all of them":            {ids[0], ids[1], ids[2], ids[3], renamed, environment, incident, last},
	}
	require.NoError(t, w.feed.Wait(t.Context(), w.feed.Position()))
	for name, c := range listeners {
		require.Equal(t, want[name], collect(t, c, len(want[name])), name)
		require.Empty(t, pong(t, c), name)
	}
}

func TestStream_eventSaysWhatApiPromises(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org, project, test := newID(), newID(), newID()
	token, _ := w.people.add(org, auth.Viewer)
	c := w.subscribed(t, token, "", "organization")
	run := requested(org, project, test, 7)
	id := w.runs(t, run)[0]
	f := next(t, c)
	require.Len(t, f.Events, 1)
	e := f.Events[0]
	require.Equal(t, id, e.ID)
	require.Equal(t, "run.requested", e.Type)
	require.Equal(t, "run/"+run.RunID.String(), e.Subject)
	require.Equal(t, project.String(), e.ProjectID)
	require.Equal(t, test.String(), e.TestID)
	require.Positive(t, e.Position)
	require.WithinDuration(t, time.Now(), e.RecordedAt, time.Minute)
	require.Equal(t, 7, decode[payload](t, e.Data).N)
}

func TestStream_otherOrganization_isNeverHeard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ours, theirs := newID(), newID()
	token, _ := w.people.add(ours, auth.Admin)
	foreign, _ := w.people.add(theirs, auth.Admin)
	project := newID() // both organizations have things with ids of their own; this one is theirs
	topic := w.thing(theirs, "project", project)

	c := w.subscribed(t, token, "", "organization", "incidents")
	require.NoError(t, c.Subscribe(t.Context(), "", topic))
	f := next(t, c)
	require.Equal(t, "error", f.Type)
	require.Equal(t, "not_found", f.ErrorCode())
	require.Equal(t, []string{topic}, f.Topics)
	require.NoError(t, c.Subscribe(t.Context(), "", "run:"+newID().String()))
	require.Equal(t, "not_found", next(t, c).ErrorCode(), "what doesn't exist looks the same")

	listening := w.subscribed(t, foreign, "", "organization")
	theirCursor := listening.Cursor
	want := w.runs(t, requested(theirs, project, newID(), 1), requested(theirs, project, newID(), 2))
	require.Equal(t, want, collect(t, listening, 2))
	own := w.runs(t, requested(ours, project, newID(), 3)) // the same project id, as a forger would choose it
	require.Equal(t, own, collect(t, c, 1))
	require.Empty(t, pong(t, c))

	require.NoError(t, c.Subscribe(t.Context(), theirCursor, "incidents"))
	require.Equal(t, "invalid_cursor", next(t, c).ErrorCode())

	// Nor when it is read from the log, and nor from memory.
	for _, after := range []string{testCursors().Encode(ours, 0)} {
		again := w.subscribed(t, token, after, "organization")
		require.Equal(t, own, collect(t, again, 1))
		require.Empty(t, pong(t, again))
	}
}

func TestStream_forgedCursors_areRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	good := w.subscribed(t, token, "", "organization").Cursor
	flipped := []byte(good)
	flipped[12] ^= 1
	otherKey := realtime.NewCursors([]byte("another key of thirty-two bytes!"), 1).Encode(org, 1)
	for _, forged := range []string{"", "1", "AAAA", string(flipped), good + "A", good[:len(good)-2], otherKey, good + "="} {
		c := w.client(t, token)
		require.NoError(t, c.Send(t.Context(), map[string]any{"type": "subscribe", "topics": []string{"organization"}, "after": forged}))
		f := next(t, c)
		require.Equal(t, "error", f.Type)
		require.Equal(t, "invalid_cursor", f.ErrorCode(), forged)
	}
}

func TestStream_pastTheWindow_isAGapWithACursorThatWorks(t *testing.T) {
	t.Parallel()
	var oldest int64
	w := newWorld(t, func(c *realtime.Config) {
		c.Oldest = func(_ context.Context) (int64, error) { return oldest, nil }
	})
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	first := w.subscribed(t, token, "", "organization")
	early := first.Cursor
	ids := w.runs(t, requested(org, newID(), newID(), 1), requested(org, newID(), newID(), 2))
	collect(t, first, 2)
	oldest = w.feed.Position() - 1 // the first event was dropped

	c := w.client(t, token)
	require.NoError(t, c.Subscribe(t.Context(), early, "organization"))
	gap := next(t, c)
	require.Equal(t, "gap", gap.Type)
	require.Equal(t, "retention", gap.Reason)
	require.NoError(t, c.Subscribe(t.Context(), gap.Cursor, "organization"))
	require.Equal(t, "subscribed", next(t, c).Type)
	require.Equal(t, ids[1:], collect(t, c, 1))

	otherEpoch := realtime.NewCursors([]byte("0123456789abcdef0123456789abcdef"), 2).Encode(org, 1)
	c = w.client(t, token)
	require.NoError(t, c.Subscribe(t.Context(), otherEpoch, "organization"))
	gap = next(t, c)
	require.Equal(t, "epoch", gap.Reason)
	require.NoError(t, c.Subscribe(t.Context(), gap.Cursor, "organization"))
	require.Equal(t, "subscribed", next(t, c).Type)
	require.Empty(t, pong(t, c))
}

func TestStream_idleFramesAdvanceTheCursor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	c := w.subscribed(t, token, "", "organization")
	before := c.Cursor
	w.runs(t, requested(newID(), newID(), newID(), 1)) // somebody else's
	f := next(t, c)
	require.Equal(t, "events", f.Type)
	require.Empty(t, f.Events)
	require.NotEqual(t, before, f.To)
	again := w.subscribed(t, token, f.To, "organization")
	id := w.runs(t, requested(org, newID(), newID(), 1))
	require.Equal(t, id, collect(t, again, 1))
}

func TestStream_topicsChangeOnAnOpenConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org, project := newID(), newID()
	token, _ := w.people.add(org, auth.Viewer)
	topic := w.thing(org, "project", project)
	step := func(n int) eventstore.RunEvent {
		r := requested(org, project, newID(), n)
		r.Version, r.Data = eventstore.AttemptSpan+1, payload{name: "run.step", N: n}
		return r
	}
	c := w.subscribed(t, token, "", "organization")
	w.runs(t, step(1))
	require.NoError(t, w.feed.Wait(t.Context(), 1))
	require.NoError(t, c.Subscribe(t.Context(), "", topic))
	_, events, err := c.Until(t.Context(), "subscribed")
	require.NoError(t, err)
	require.Empty(t, events)
	id := w.runs(t, step(2))
	require.Equal(t, id, collect(t, c, 1))

	require.NoError(t, c.Send(t.Context(), map[string]any{"type": "unsubscribe", "topics": []string{topic}}))
	f, _, err := c.Until(t.Context(), "unsubscribed")
	require.NoError(t, err)
	require.Equal(t, []string{"organization"}, f.Topics)
	w.runs(t, step(3))
	id = w.runs(t, requested(org, project, newID(), 4))
	require.Equal(t, id, collect(t, c, 1))

	require.NoError(t, c.Send(t.Context(), map[string]any{"type": "unsubscribe", "topics": []string{"organization"}}))
	f, _, err = c.Until(t.Context(), "unsubscribed")
	require.NoError(t, err)
	require.Empty(t, f.Topics)
	w.runs(t, requested(org, project, newID(), 5))
	require.Empty(t, pong(t, c))

	// Going back on the same connection would double events; from its own place on it may.
	require.NoError(t, c.Subscribe(t.Context(), testCursors().Encode(org, 1), "organization"))
	require.Equal(t, "cursor_behind", next(t, c).ErrorCode())
	require.NoError(t, c.Subscribe(t.Context(), c.Cursor, "organization"))
	require.Equal(t, "subscribed", next(t, c).Type)
	require.Len(t, collect(t, c, 1), 1, "what came while it listened to nothing")
}

func TestStream_system_isForTheOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) {
		c.Metrics = func() any { return map[string]any{"goroutines": 12} }
		c.Limits.Idle = 20 * time.Millisecond
	})
	org := newID()
	token, _ := w.people.add(org, auth.Admin)
	c := w.client(t, token)
	require.NoError(t, c.Subscribe(t.Context(), "", "system"))
	require.Equal(t, "forbidden", next(t, c).ErrorCode())

	operator, who := w.people.add(org, auth.Admin)
	who.Operator = true
	w.people.tokens[operator] = who
	c = w.client(t, operator)
	require.NoError(t, c.Subscribe(t.Context(), "", "system"))
	require.Equal(t, []string{"system"}, next(t, c).Topics)
	for range 2 {
		f := next(t, c)
		require.Equal(t, "metrics", f.Type)
		require.Equal(t, map[string]int{"goroutines": 12}, decode[map[string]int](t, f.Data))
	}
}

func TestStream_removedMember_isCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.Recheck = time.Hour }) // only the event can tell
	org := newID()
	token, who := w.people.add(org, auth.Developer)
	stays, _ := w.people.add(org, auth.Developer)
	c, other := w.subscribed(t, token, "", "organization"), w.subscribed(t, stays, "", "organization")

	w.people.mu.Lock()
	w.people.gone[who.AccountID] = fault.New(fault.NotFound, "org.not_found", "There is no such organization.")
	w.people.mu.Unlock()
	began := time.Now()
	w.ledger(t, org, org, "org", payload{name: "org.member_removed", AccountID: who.AccountID})
	code, bye := closedWith(t, c)
	require.Equal(t, realtime.CloseRemoved, code)
	require.Equal(t, "removed", bye.Reason)
	require.Less(t, time.Since(began), 5*time.Second)
	require.Equal(t, 1, w.people.checks, "nobody else is asked about")
	id := w.runs(t, requested(org, newID(), newID(), 1))
	require.Equal(t, id, collect(t, other, 1))
}

func TestStream_keyThatEnds_isCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.Recheck = time.Hour }) // only the event can tell
	org := newID()
	token, who := w.people.addKey(org, auth.ScopesOf(auth.Viewer))
	stays, _ := w.people.addKey(org, auth.ScopesOf(auth.Viewer))
	c, other := w.subscribed(t, token, "", "organization"), w.subscribed(t, stays, "", "organization")

	w.people.mu.Lock()
	w.people.gone[who.AccountID] = fault.New(fault.Unauthenticated, "auth.api_key_revoked", "This API key was revoked.")
	w.people.mu.Unlock()
	w.ledger(t, org, who.AccountID, "apiKey", payload{name: "org.api_key_revoked"})
	code, bye := closedWith(t, c)
	require.Equal(t, realtime.CloseSignedOut, code)
	require.Equal(t, "signed_out", bye.Reason)
	require.Equal(t, 1, w.people.checks, "no other key is asked about")
	id := w.runs(t, requested(org, newID(), newID(), 1))
	require.Equal(t, id, collect(t, other, 1))
}

func TestStream_keyWithoutItsScope_isCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.Recheck = 20 * time.Millisecond })
	token, who := w.people.addKey(newID(), auth.NewScopes(auth.EventsRead, auth.RunRead))
	c := w.subscribed(t, token, "", "organization")
	w.people.mu.Lock()
	who.Scopes = auth.NewScopes(auth.RunRead)
	w.people.tokens[token] = who
	w.people.mu.Unlock()
	code, bye := closedWith(t, c)
	require.Equal(t, realtime.CloseRemoved, code)
	require.Equal(t, "removed", bye.Reason)
}

func TestStream_signedOut_isCutWithoutAnEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.Recheck = 50 * time.Millisecond })
	token, who := w.people.add(newID(), auth.Developer)
	c := w.subscribed(t, token, "", "organization")
	w.people.mu.Lock()
	w.people.gone[who.AccountID] = auth.Unauthenticated()
	w.people.mu.Unlock()
	code, bye := closedWith(t, c)
	require.Equal(t, realtime.CloseSignedOut, code)
	require.Equal(t, "signed_out", bye.Reason)
}

func TestStream_roleChanges_changeWhatIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.Recheck = 20 * time.Millisecond })
	org := newID()
	token, who := w.people.add(org, auth.Admin)
	c := w.subscribed(t, token, "", "organization")
	seen := w.ledger(t, org, org, "org", payload{name: "org.member_removed", N: 1})
	require.Equal(t, []string{seen}, collect(t, c, 1))

	who.Role = auth.Viewer
	w.people.mu.Lock()
	w.people.tokens[token] = who
	w.people.mu.Unlock()
	require.Eventually(t, func() bool { // the change holds once an auditor's event no longer comes
		w.ledger(t, org, org, "org", payload{name: "org.member_removed", N: 2})
		id := w.runs(t, requested(org, newID(), newID(), 1))[0]
		for {
			got := collect(t, c, 1)
			if got[0] == id {
				return true
			}
			if got[len(got)-1] == id {
				return false
			}
		}
	}, 5*time.Second, 10*time.Millisecond)
}

func TestStream_checkCannotBeMade_isBelievedForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) {
		c.Limits.Recheck, c.Limits.UnverifiedGrace = 20*time.Millisecond, 300*time.Millisecond
	})
	token, _ := w.people.add(newID(), auth.Viewer)
	c := w.subscribed(t, token, "", "organization")
	w.people.mu.Lock()
	w.people.broken = context.DeadlineExceeded
	w.people.mu.Unlock()
	require.Empty(t, pong(t, c))
	code, _ := closedWith(t, c)
	require.Equal(t, realtime.CloseDraining, code)
}

func TestStream_token_endsAndIsExtended(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.Idle = 20 * time.Millisecond })
	org := newID()
	token, who := w.people.add(org, auth.Viewer)
	w.people.until[token] = time.Now().Add(1500 * time.Millisecond)
	c := w.subscribed(t, token, "", "organization")
	ends := w.subscribed(t, token, "", "organization")
	f := next(t, c)
	require.Equal(t, "token_expiring", f.ErrorCode(), "it is told before")

	fresh := "token-" + newID().String()
	w.people.mu.Lock()
	w.people.tokens[fresh] = who
	w.people.until[fresh] = time.Now().Add(time.Hour)
	w.people.mu.Unlock()
	require.NoError(t, c.Send(t.Context(), map[string]any{"type": "auth", "token": fresh}))
	f = next(t, c)
	require.Equal(t, "authenticated", f.Type)
	require.NotEmpty(t, f.ExpiresAt)

	code, bye := closedWith(t, ends)
	require.Equal(t, realtime.CloseSignedOut, code)
	require.Equal(t, "expired", bye.Reason)
	id := w.runs(t, requested(org, newID(), newID(), 1))
	require.Equal(t, id, collect(t, c, 1), "the extended one lives on")

	stranger, _ := w.people.add(org, auth.Viewer)
	require.NoError(t, c.Send(t.Context(), map[string]any{"type": "auth", "token": stranger}))
	code, _ = closedWith(t, c)
	require.Equal(t, realtime.CloseSignedOut, code, "nobody else's token extends it")
}

func TestStream_draining_saysByeAndClosesWith1012(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	a, b := w.subscribed(t, token, "", "organization"), w.client(t, "")
	id := w.runs(t, requested(org, newID(), newID(), 1))
	require.Equal(t, id, collect(t, a, 1))
	done := make(chan struct{})
	go func() { w.server.Drain(t.Context()); close(done) }()
	for _, c := range []*livetest.Client{a, b} {
		code, bye := closedWith(t, c)
		require.Equal(t, realtime.CloseDraining, code)
		require.JSONEq(t, "1012", string(bye.Code))
		require.GreaterOrEqual(t, bye.RetryAfterMs, int64(1000))
	}
	<-done
	require.Equal(t, 503, refused(t, w, "/api/live", nil))
	require.Zero(t, w.server.Stats().Sockets)
}

func TestStream_cursorOfANodeThatIsAhead_waits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	ahead := testCursors().Encode(org, w.feed.Position()+2)
	c := w.subscribed(t, token, ahead, "organization")
	ids := w.runs(t, requested(org, newID(), newID(), 1), requested(org, newID(), newID(), 2), requested(org, newID(), newID(), 3))
	require.Equal(t, ids[2:], collect(t, c, 1))
	require.Empty(t, pong(t, c))
}

func TestStream_securityEvents_areForAuditorsInTheRewindToo(t *testing.T) {
	t.Parallel()
	for name, recent := range map[string]int{"from memory": 1000, "from the log": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *realtime.Config) { c.Limits.RecentEvents = recent })
			org := newID()
			viewer, _ := w.people.add(org, auth.Viewer)
			admin, _ := w.people.add(org, auth.Admin)
			live := w.subscribed(t, admin, "", "organization")
			start := live.Cursor
			removed := w.ledger(t, org, org, "org", payload{name: "org.member_removed"})
			w.ledger(t, org, newID(), "account", payload{name: "account.signed_in"})
			var ids []string
			for i := range 5 {
				ids = append(ids, w.runs(t, requested(org, newID(), newID(), i))...)
			}
			collect(t, live, len(ids)+1) // the node has heard of all of it
			require.Equal(t, ids, collect(t, w.subscribed(t, viewer, start, "organization"), len(ids)))
			require.Equal(t, append([]string{removed}, ids...), collect(t, w.subscribed(t, admin, start, "organization"), len(ids)+1))
		})
	}
}

// TestStream_sameView_fromDifferentPlaces: connections with one view share frames, so they must stand at one cursor, also
// when one of them comes from further on. The client refuses a frame that doesn't begin where the one before ended.
func TestStream_sameView_fromDifferentPlaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *realtime.Config) { c.Limits.Idle = time.Hour })
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	a := w.subscribed(t, token, "", "organization")
	b := w.subscribed(t, token, "", "incidents")
	w.runs(t, requested(newID(), newID(), newID(), 1)) // somebody else's: the position moves, and nobody is told
	require.NoError(t, w.feed.Wait(t.Context(), 1))
	require.NoError(t, b.Subscribe(t.Context(), "", "organization"))
	require.Equal(t, "subscribed", next(t, b).Type)
	require.NoError(t, b.Send(t.Context(), map[string]any{"type": "unsubscribe", "topics": []string{"incidents"}}))
	require.Equal(t, "unsubscribed", next(t, b).Type)
	require.Equal(t, 1, w.server.Stats().Views)
	id := w.runs(t, requested(org, newID(), newID(), 2))
	require.Equal(t, id, collect(t, a, 1))
	require.Equal(t, id, collect(t, b, 1))
	c := w.subscribed(t, token, a.Cursor, "organization")
	id = w.runs(t, requested(org, newID(), newID(), 3))
	for _, one := range []*livetest.Client{a, b, c} {
		require.Equal(t, id, collect(t, one, 1))
	}
}
