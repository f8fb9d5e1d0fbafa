package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// part is one long-lived piece of a process. Parts start in order and stop in the reverse order, each after those that
// lean on it.
type part struct {
	name string
	// run works until its context ends. An early return, with or without an error, brings the whole process down.
	run func(ctx context.Context) error
	// stop asks the part to finish its work before its context is cancelled; nil = just cancel.
	stop func(ctx context.Context) error
}

// process runs parts and stops them in order.
type process struct {
	log     *slog.Logger
	timeout time.Duration // for the whole graceful stop
	parts   []runningPart
	failed  chan error
}

type runningPart struct {
	part
	cancel   context.CancelFunc
	done     chan struct{}
	stopping *atomic.Bool // from then on, ending is what it is asked to do
}

func newProcess(log *slog.Logger, timeout time.Duration) *process {
	return &process{log: log, timeout: timeout, failed: make(chan error, 1)}
}

// start runs a part in the background. Its context is not derived from the signal's: it ends when its turn to stop comes.
func (p *process) start(ctx context.Context, pt part) {
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done, stopping := make(chan struct{}), &atomic.Bool{}
	p.parts = append(p.parts, runningPart{part: pt, cancel: cancel, done: done, stopping: stopping})
	go func() {
		defer close(done)
		err := pt.run(runCtx)
		if stopping.Load() && (err == nil || errors.Is(err, context.Canceled)) {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		select {
		case p.failed <- fmt.Errorf("%s: %w", pt.name, err):
		default: // another part failed first; this one is most likely its consequence
			p.log.ErrorContext(ctx, "a part of the process failed", slog.String("part", pt.name), slog.Any("err", err))
		}
	}()
}

// wait blocks until the signal's context ends or a part fails, then stops everything; it returns the failure.
func (p *process) wait(ctx context.Context) error {
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-p.failed:
		p.log.ErrorContext(ctx, "stopping: a part of the process failed", slog.Any("err", failure))
	}
	return errors.Join(failure, p.stopAll(ctx))
}

// stopAll stops the parts last to first, within the timeout; what doesn't stop by then is cancelled hard.
func (p *process) stopAll(ctx context.Context) error {
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout)
	defer cancel()
	var errs []error
	for i := len(p.parts) - 1; i >= 0; i-- {
		r := &p.parts[i]
		r.stopping.Store(true)
		if r.stop != nil {
			if err := r.stop(stopCtx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", r.name, err))
			}
		}
		r.cancel()
		select {
		case <-r.done:
		case <-stopCtx.Done():
			errs = append(errs, fmt.Errorf("%s did not stop within %s", r.name, p.timeout))
			// Its context is cancelled; give it one more second each, then leave it to the end of the process.
			select {
			case <-r.done:
			case <-time.After(time.Second):
			}
		}
	}
	p.parts = nil
	return errors.Join(errs...)
}
