package realtime_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/realtime/livetest"
)

// TestLoad_hundredWatchers_allHearEverythingInSharedFrames shows that nothing is lost under fan-out and that equal views
// share their frames: what is sent grows with the watchers, what is encoded doesn't.
func TestLoad_hundredWatchers_allHearEverythingInSharedFrames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	const watchers, rounds = 100, 30
	clients := make([]*livetest.Client, watchers)
	for i := range clients {
		clients[i] = w.subscribed(t, token, "", "organization")
	}
	require.Equal(t, 1, w.server.Stats().Views)
	var want []string
	got := make([][]string, watchers)
	errs := make([]error, watchers)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var reading sync.WaitGroup
	for i, c := range clients {
		reading.Go(func() {
			for len(got[i]) < rounds*10 {
				f, err := c.Next(ctx)
				if err != nil || f.Type != "events" {
					errs[i] = fmt.Errorf("a frame %s: %w", f.Type, err)
					return
				}
				got[i] = append(got[i], idsOf(f.Events)...)
			}
		})
	}
	for range rounds {
		var batch []eventstore.RunEvent
		for n := range 10 {
			batch = append(batch, requested(org, newID(), newID(), n))
		}
		want = append(want, w.runs(t, batch...)...)
	}
	reading.Wait()
	for i := range clients {
		require.NoError(t, errs[i])
		require.Equal(t, want, got[i], "watcher %d", i)
	}
	t.Logf("%+v", w.server.Stats())
}

// TestLoad_latency measures commit → socket with TESTFLOW_TEST_LATENCY=1; otherwise it only shows, in a short run, that
// the measurement works.
func TestLoad_latency(t *testing.T) {
	w := newWorld(t)
	org := newID()
	token, _ := w.people.add(org, auth.Viewer)
	duration := time.Second
	if os.Getenv("TESTFLOW_TEST_LATENCY") != "" {
		duration = 10 * time.Second
	}
	for _, watchers := range []int{1, 100} {
		report, err := livetest.Latency(t.Context(), livetest.LatencyConfig{
			URL: w.http.URL, Token: token, Topics: []string{"organization"}, Watchers: watchers, Rate: 100, Duration: duration,
			Commit: func(ctx context.Context, n int) (string, error) {
				ids, err := w.appendRuns(ctx, requested(org, newID(), newID(), n))
				if err != nil {
					return "", err
				}
				return ids[0], nil
			},
		})
		require.NoError(t, err)
		require.Equal(t, report.Watchers*report.Events, report.Received)
		t.Log(report)
	}
}
