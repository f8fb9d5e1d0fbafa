package run

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/run/internal/rundb"
)

// lastLook bounds the reading after a wait that was cut short.
const lastLook = 5 * time.Second

// Ends tells those who wait for the end of runs, from the feed of this process.
type Ends struct {
	mu      sync.Mutex
	waiting map[uuid.UUID][]chan<- uuid.UUID
}

// NewEnds returns Ends that hear from feed; cancel ends that.
func NewEnds(feed *eventstore.Feed) (e *Ends, cancel func()) {
	e = &Ends{waiting: map[uuid.UUID][]chan<- uuid.UUID{}}
	return e, feed.Subscribe(e.hear)
}

func (e *Ends) hear(b eventstore.Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		return
	}
	for _, ev := range b.Events {
		if ev.Type != TypeFinished {
			continue
		}
		for _, ch := range e.waiting[ev.StreamID] {
			ch <- ev.StreamID // has room for every run that it waits for
		}
		delete(e.waiting, ev.StreamID)
	}
}

// expect returns a channel that gets the id of each of the runs when it ends. forget must be called.
func (e *Ends) expect(ids []uuid.UUID) (ch chan uuid.UUID, forget func()) {
	ch = make(chan uuid.UUID, len(ids))
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		e.waiting[id] = append(e.waiting[id], ch)
	}
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, id := range ids {
			var others []chan<- uuid.UUID
			for _, c := range e.waiting[id] {
				if c != ch {
					others = append(others, c)
				}
			}
			if e.waiting[id] = others; len(others) == 0 {
				delete(e.waiting, id)
			}
		}
	}
}

// WaitFinished returns the runs when all of them have ended, or as they are when ctx ends, in the order of their ids.
// Runs that aren't there are left out.
func (s *Service) WaitFinished(ctx context.Context, orgID uuid.UUID, ids []uuid.UUID) ([]Run, error) {
	if _, err := auth.Require(ctx, orgID, auth.RunRead); err != nil {
		return nil, err
	}
	if s.Ends == nil {
		return s.getRuns(ctx, orgID, ids)
	}
	ended, forget := s.Ends.expect(ids) // before the look, or an end between the two would be missed
	defer forget()
	runs, err := s.getRuns(ctx, orgID, ids)
	if err != nil {
		return nil, err
	}
	open := map[uuid.UUID]bool{}
	for _, r := range runs {
		if !r.Status.Ended() {
			open[r.ID] = true
		}
	}
	if len(open) == 0 {
		return runs, nil
	}
	for len(open) > 0 && ctx.Err() == nil {
		select {
		case id := <-ended:
			delete(open, id)
		case <-ctx.Done():
		}
	}
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	return s.getRuns(look, orgID, ids)
}

func (s *Service) getRuns(ctx context.Context, orgID uuid.UUID, ids []uuid.UUID) (runs []Run, err error) {
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		rows, err := rundb.New(tx).GetRuns(ctx, rundb.GetRunsParams{OrgID: orgID, RunIds: ids})
		if err != nil {
			return fmt.Errorf("read runs: %w", err)
		}
		runs = runs[:0]
		for _, row := range rows {
			runs = append(runs, runOf(row))
		}
		return nil
	})
	return runs, err
}
