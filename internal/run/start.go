package run

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
)

const (
	// startBatch bounds how many calls of Start share a transaction, and so how long the last waits for the first.
	startBatch = 64
	// startTime bounds that transaction.
	startTime = 20 * time.Second
)

// Start executes the test's last revision, one run a region, and returns the queued runs. The request and its jobs are
// committed together, so that what was answered will be executed. Calls of one organization that come while a
// transaction is being committed share the next one, which costs a third of one each; a call inside a transaction joins
// that. When ctx ends first the outcome is unknown.
func (s *Service) Start(ctx context.Context, orgID, testID uuid.UUID, in StartInput) ([]Run, error) {
	who, err := auth.Require(ctx, orgID, auth.RunExecute)
	if err != nil {
		return nil, err
	}
	if err := s.check(in.Variables, in.Regions); err != nil {
		return nil, err
	}
	w := &wish{testID: testID, in: in, who: who, template: Requested{Trigger: triggerOf(who, in.Trigger), RequestedBy: byOf(who)}, done: make(chan struct{})}
	if postgres.InTx(ctx) {
		if err := s.grant(ctx, orgID, []*wish{w}); err != nil {
			return nil, err
		}
		return w.runs, w.err
	}
	if s.starts.add(orgID, w) {
		go s.grantAll(context.WithoutCancel(ctx), orgID)
	}
	select {
	case <-w.done:
		return w.runs, w.err
	case <-ctx.Done():
		return nil, fmt.Errorf("start a run: %w", ctx.Err())
	}
}

// wish is one call of Start.
type wish struct {
	testID   uuid.UUID
	in       StartInput
	who      auth.Principal
	template Requested
	runs     []Run
	err      error
	done     chan struct{}
}

// starts are the wishes that wait, by organization. The zero value is ready.
type starts struct {
	mu      sync.Mutex
	waiting map[uuid.UUID][]*wish // an organization is in it while somebody grants its wishes
}

// add queues a wish and returns whether the caller has to see to it that the queue is worked.
func (q *starts) add(orgID uuid.UUID, w *wish) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == nil {
		q.waiting = map[uuid.UUID][]*wish{}
	}
	list, busy := q.waiting[orgID]
	q.waiting[orgID] = append(list, w)
	return !busy
}

// take returns the next wishes of an organization; with none it forgets the organization.
func (q *starts) take(orgID uuid.UUID) []*wish {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.waiting[orgID]
	n := min(len(list), startBatch)
	if n == 0 {
		delete(q.waiting, orgID)
		return nil
	}
	q.waiting[orgID] = list[n:]
	return list[:n]
}

// grantAll works an organization's queue until it is empty.
func (s *Service) grantAll(ctx context.Context, orgID uuid.UUID) {
	for batch := s.starts.take(orgID); batch != nil; batch = s.starts.take(orgID) {
		s.grantBatch(ctx, orgID, batch)
		for _, w := range batch {
			close(w.done)
		}
	}
}

// grantBatch grants wishes in one transaction, and each in its own when that fails, so that one that cannot be stored
// takes no other along.
func (s *Service) grantBatch(ctx context.Context, orgID uuid.UUID, batch []*wish) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := s.grant(ctx, orgID, batch)
	switch {
	case err == nil:
	case len(batch) == 1 || postgres.IsUnavailable(err) || postgres.IsUnknownOutcome(err) || ctx.Err() != nil:
		for _, w := range batch {
			w.runs, w.err = nil, err
		}
	default:
		s.Log.WarnContext(ctx, "runs are requested one by one", slog.Int("calls", len(batch)), slog.Any("err", err))
		for _, w := range batch {
			if err := s.grant(ctx, orgID, []*wish{w}); err != nil {
				w.runs, w.err = nil, err
			}
		}
	}
}

// grant requests the runs of wishes in one transaction. What a person can act on is the wish's own error; the returned
// one concerns all.
func (s *Service) grant(ctx context.Context, orgID uuid.UUID, batch []*wish) error {
	return s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		ids := make([]uuid.UUID, len(batch))
		for i, w := range batch {
			ids[i], w.runs, w.err = w.testID, nil, nil
		}
		heads, err := apitest.HeadsByIDTx(ctx, tx, ids)
		if err != nil {
			return err
		}
		var requests []request
		counts := make([]int, len(batch))
		known := &looked{}
		for i, w := range batch {
			more, err := s.wanted(ctx, tx, heads, w, known)
			if err != nil {
				return err
			}
			counts[i] = len(more)
			requests = append(requests, more...)
		}
		if len(requests) == 0 {
			return nil
		}
		runs, err := s.begin(ctx, tx, requests)
		if err != nil {
			return err
		}
		for i, w := range batch {
			w.runs, runs = runs[:counts[i]:counts[i]], runs[counts[i]:]
		}
		return nil
	})
}

// wanted returns the runs of one wish, or notes why there are none.
func (s *Service) wanted(ctx context.Context, tx postgres.OrgTx, heads map[uuid.UUID]apitest.Test, w *wish, known *looked) ([]request, error) {
	head, ok := heads[w.testID]
	if !ok {
		w.err = apitest.NoSuchTest()
		return nil, nil
	}
	requests, err := s.requests(ctx, tx, head, w.in, w.who, w.template, known)
	if err != nil && fault.KindOf(err) != fault.Internal {
		w.err = err
		return nil, nil
	}
	return requests, err
}
