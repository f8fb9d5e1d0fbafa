package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/testflow/testflow/internal/mail/internal/maildb"
)

const (
	// Queue is the queue of mail; processes that hold the master key work it.
	Queue = "mail"
	// Concurrency is how many messages one process hands over at a time.
	Concurrency = 4

	// maxAttempts with the waits of backoff try for about half a day. A message ends sooner when it is worth nothing more.
	maxAttempts  = 20
	firstBackoff = 10 * time.Second
	maxBackoff   = time.Hour
	// deliverTimeout bounds one attempt; lease keeps a second job off for a little longer, after which it may try.
	deliverTimeout = time.Minute
	lease          = 150 * time.Second
	bookTimeout    = 10 * time.Second
)

// DeliverArgs are the arguments of the job that hands a message over: its id alone.
type DeliverArgs struct {
	MailID uuid.UUID `json:"mailId"`
}

// Kind names the job.
func (DeliverArgs) Kind() string { return "mail.deliver" }

// InsertOpts puts it into its queue.
func (DeliverArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: Queue, MaxAttempts: maxAttempts}
}

type deliverer struct {
	river.WorkerDefaults[DeliverArgs]
	s *Service
}

// AddWorker adds the worker of this room's job kind.
func AddWorker(workers *river.Workers, s *Service) error {
	if err := river.AddWorkerSafely(workers, &deliverer{s: s}); err != nil {
		return fmt.Errorf("add the worker of mail: %w", err)
	}
	return nil
}

// Timeout bounds one attempt.
func (*deliverer) Timeout(*river.Job[DeliverArgs]) time.Duration {
	return deliverTimeout + 2*bookTimeout
}

// NextRetry doubles the wait from 10 s to an hour.
func (d *deliverer) NextRetry(job *river.Job[DeliverArgs]) time.Time {
	return d.s.Now().Add(backoff(job.Attempt))
}

func backoff(attempt int) time.Duration {
	wait := firstBackoff
	for range max(0, attempt-1) {
		if wait *= 2; wait >= maxBackoff {
			return maxBackoff
		}
	}
	return wait
}

// Work makes one attempt.
func (d *deliverer) Work(ctx context.Context, job *river.Job[DeliverArgs]) error {
	return d.s.deliver(ctx, job.Args.MailID, job.Attempt >= job.MaxAttempts)
}

// deliver makes one attempt at a message; last says that there will be no other. The error, which the queue keeps, names
// no person. At least once: what a server took before we could write that down is handed over again, as the same message.
func (s *Service) deliver(ctx context.Context, id uuid.UUID, last bool) error {
	q := maildb.New(s.DB.System)
	row, err := q.ClaimMail(ctx, maildb.ClaimMailParams{MailID: id, LeaseSeconds: lease.Seconds()})
	if errors.Is(err, pgx.ErrNoRows) {
		return s.unclaimed(ctx, q, id)
	}
	if err != nil {
		return fmt.Errorf("claim mail %s: %w", id, err)
	}
	kind, attempts := row.Kind, int(row.Attempts)
	if row.Expired {
		return s.bury(ctx, id, kind, attempts, "it came too late to be worth anything")
	}
	letter, err := s.open(id, row)
	if err != nil { // a master key that isn't here may come back
		return s.postpone(ctx, id, kind, attempts, last, "it cannot be opened: is TESTFLOW_MASTER_KEY the one that it was stored with?", err)
	}
	attempt, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	err = s.Out.Deliver(attempt, letter)
	var refused *Refused
	switch {
	case err == nil:
		return s.delivered(ctx, letter, attempts)
	case errors.As(err, &refused):
		return s.bury(ctx, id, kind, attempts, fmt.Sprintf("refused with %d", refused.Code))
	}
	return s.postpone(ctx, id, kind, attempts, last, problemOf(err), err)
}

// unclaimed ends the job of a message that is gone, and waits where somebody else is at it.
func (*Service) unclaimed(ctx context.Context, q *maildb.Queries, id uuid.UUID) error {
	waits, err := q.MailWaits(ctx, id)
	if err != nil {
		return fmt.Errorf("look for mail %s: %w", id, err)
	}
	if waits {
		return river.JobSnooze(lease)
	}
	return nil
}

func (s *Service) open(id uuid.UUID, row maildb.ClaimMailRow) (Letter, error) {
	key, err := s.Master.Unwrap(row.WrappedKey, "mail", id.String())
	if err != nil {
		return Letter{}, err
	}
	plain, err := key.Open(row.Sealed, "mail", id.String())
	if err != nil {
		return Letter{}, err
	}
	l := Letter{ID: id, At: row.CreatedAt}
	if err := json.Unmarshal(plain, &l.Message); err != nil {
		return Letter{}, errors.New("what was sealed is no message") // the cause could show a part of it
	}
	return l, nil
}

// book writes down what came of an attempt, also when the process is being stopped.
func (s *Service) book(ctx context.Context, fn func(ctx context.Context, q *maildb.Queries) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bookTimeout)
	defer cancel()
	return fn(ctx, maildb.New(s.DB.System))
}

// delivered books a letter as handed over. Whose row is gone was erased while it was written: then its file goes too.
// Where that can't be known, it goes as well, and the next attempt writes it again if there is somebody to write to.
func (s *Service) delivered(ctx context.Context, l Letter, attempts int) error {
	var rows int64
	err := s.book(ctx, func(ctx context.Context, q *maildb.Queries) (err error) {
		rows, err = q.DeleteMail(ctx, l.ID)
		return err
	})
	if (err != nil || rows == 0) && s.Kept != nil {
		err = errors.Join(err, s.Kept.remove(l.file()))
	}
	if err != nil {
		return fmt.Errorf("mail %s was handed over, and that could not be stored: %w", l.ID, err)
	}
	s.Log.InfoContext(ctx, "mail handed over", slog.String("mail_id", l.ID.String()), slog.String("kind", l.Kind), slog.Int("attempts", attempts))
	return nil
}

func (s *Service) postpone(ctx context.Context, id uuid.UUID, kind string, attempts int, last bool, problem string, cause error) error {
	if last {
		return s.bury(ctx, id, kind, attempts, fmt.Sprintf("given up after %d attempts: %s", attempts, problem))
	}
	err := s.book(ctx, func(ctx context.Context, q *maildb.Queries) error {
		return q.PostponeMail(ctx, maildb.PostponeMailParams{MailID: id, Problem: problem})
	})
	s.Log.WarnContext(ctx, "mail not handed over; it is tried again", slog.String("mail_id", id.String()), slog.String("kind", kind),
		slog.Int("attempts", attempts), slog.String("problem", problem))
	s.Log.DebugContext(ctx, "mail not handed over, in detail", slog.String("mail_id", id.String()), slog.String("cause", typeOf(cause)))
	return errors.Join(fmt.Errorf("mail %s: %s", id, problem), err)
}

func (s *Service) bury(ctx context.Context, id uuid.UUID, kind string, attempts int, problem string) error {
	err := s.book(ctx, func(ctx context.Context, q *maildb.Queries) error {
		_, err := q.BuryMail(ctx, maildb.BuryMailParams{MailID: id, Problem: problem})
		return err
	})
	if err != nil {
		return fmt.Errorf("give up mail %s: %w", id, err)
	}
	s.tellDead(ctx, id, kind, attempts, problem)
	return river.JobCancel(fmt.Errorf("mail %s: %s", id, problem))
}

func typeOf(err error) string { return fmt.Sprintf("%T", err) }

// problemOf says in our words why a message waits. The server's own words hold addresses.
func problemOf(err error) string {
	var (
		coded   interface{ ErrorCode() int }
		dns     *net.DNSError
		op      *net.OpError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.As(err, &coded) && coded.ErrorCode() > 0:
		return fmt.Sprintf("the server answered %d", coded.ErrorCode())
	case errors.Is(err, errAuth):
		return "the server didn't take user and password"
	case errors.Is(err, errTLS):
		return "no encrypted connection could be made"
	case errors.As(err, &dns):
		return "the server's name is not known"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "the server was too slow"
	case errors.As(err, &op) && op.Op == "dial":
		return "the server cannot be reached"
	case errors.Is(err, errOutbox):
		return "the outbox cannot be written"
	}
	return "the connection to the server broke"
}
