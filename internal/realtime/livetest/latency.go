package livetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// LatencyConfig says what to measure.
type LatencyConfig struct {
	URL      string // of the server, http://host:port
	Token    string // for each of the watchers
	Topics   []string
	Watchers int // connections, each of which must hear every event
	Rate     int // commits a second
	Duration time.Duration
	// Commit appends the n-th event, returns when it is committed, and names it. The topics must carry it.
	Commit func(ctx context.Context, n int) (eventID string, err error)
	// Tokens, when it isn't nil, gives each watcher its own (a user has a limited number of sockets).
	Tokens func(watcher int) string
}

// LatencyReport says how long it took from a commit's return to the event's frame being read, over all watchers.
type LatencyReport struct {
	Watchers, Events    int
	Received            int // Watchers × Events when nothing was lost
	P50, P95, P99, Max  time.Duration
	CommitP50           time.Duration // of Commit itself, for comparison
	Behind              int           // commits that began later than their time: the machine is the limit
	FramesPerConnection float64
}

// String prints the report in one line.
func (r LatencyReport) String() string {
	return fmt.Sprintf("%d watchers, %d events: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms, max %.1f ms (commit p50 %.1f ms, %.1f frames a connection, %d late)",
		r.Watchers, r.Events, ms(r.P50), ms(r.P95), ms(r.P99), ms(r.Max), ms(r.CommitP50), r.FramesPerConnection, r.Behind)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

type receipt struct {
	id string
	at time.Time
}

// Latency commits events at a constant rate and measures when each watcher has them. It returns an error when a watcher
// misses one.
func Latency(ctx context.Context, cfg LatencyConfig) (LatencyReport, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	total := int(cfg.Duration.Seconds() * float64(cfg.Rate))
	received := make([][]receipt, cfg.Watchers)
	frames := make([]int, cfg.Watchers)
	failed := make(chan error, cfg.Watchers)
	var readers sync.WaitGroup
	for i := range cfg.Watchers {
		token := cfg.Token
		if cfg.Tokens != nil {
			token = cfg.Tokens(i)
		}
		c, err := Dial(ctx, cfg.URL, Options{Token: token})
		if err != nil {
			return LatencyReport{}, fmt.Errorf("watcher %d: %w", i, err)
		}
		defer c.Close()
		if err := c.Subscribe(ctx, "", cfg.Topics...); err != nil {
			return LatencyReport{}, fmt.Errorf("watcher %d: %w", i, err)
		}
		if _, _, err := c.Until(ctx, "subscribed"); err != nil {
			return LatencyReport{}, fmt.Errorf("watcher %d: %w", i, err)
		}
		readers.Go(func() {
			for len(received[i]) < total {
				f, err := c.Next(ctx)
				if err == nil && (f.Type == "gap" || f.Type == "bye") {
					err = fmt.Errorf("the server sent %s", f.Type)
				}
				if err != nil {
					failed <- fmt.Errorf("watcher %d after %d events: %w", i, len(received[i]), err)
					return
				}
				frames[i]++
				for _, e := range f.Events {
					received[i] = append(received[i], receipt{e.ID, f.Received})
				}
			}
		})
	}
	report := LatencyReport{Watchers: cfg.Watchers, Events: total}
	committed, err := commitAll(ctx, cfg, total, &report)
	if err != nil {
		return report, err
	}
	done := make(chan struct{})
	go func() { readers.Wait(); close(done) }()
	select {
	case <-done:
	case err := <-failed:
		return report, err
	case <-time.After(10 * time.Second):
		cancel()
		<-done
		return report, errors.Join(errors.New("events are missing"), <-failed)
	}
	report.sum(received, frames, committed)
	return report, nil
}

// commitAll commits at the rate and returns when each event was committed.
func commitAll(ctx context.Context, cfg LatencyConfig, total int, report *LatencyReport) (map[string]time.Time, error) {
	committed := make(map[string]time.Time, total)
	took := make([]time.Duration, 0, total)
	step := time.Second / time.Duration(cfg.Rate)
	start := time.Now()
	for n := range total {
		due := start.Add(time.Duration(n) * step)
		if wait := time.Until(due); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil, ctx.Err()
			case <-timer.C:
			}
		} else if wait < -step {
			report.Behind++
		}
		before := time.Now()
		id, err := cfg.Commit(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("commit %d: %w", n, err)
		}
		now := time.Now()
		committed[id] = now
		took = append(took, now.Sub(before))
	}
	report.CommitP50 = rank(took, 50)
	return committed, nil
}

func (r *LatencyReport) sum(received [][]receipt, frames []int, committed map[string]time.Time) {
	var all []time.Duration
	for _, list := range received {
		for _, one := range list {
			at, ours := committed[one.id]
			if !ours {
				continue
			}
			all = append(all, max(0, one.at.Sub(at)))
		}
	}
	for _, n := range frames {
		r.FramesPerConnection += float64(n) / float64(len(frames))
	}
	r.Received = len(all)
	r.P50, r.P95, r.P99, r.Max = rank(all, 50), rank(all, 95), rank(all, 99), rank(all, 100)
}

// rank returns the value at a rank between 0 and 100.
func rank(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*p/100)]
}
