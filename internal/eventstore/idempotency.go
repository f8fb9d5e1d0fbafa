package eventstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
)

// idempotencyTTL is how long an answer is given again.
const idempotencyTTL = 24 * time.Hour

// Key names a command that a client may send again.
type Key struct {
	OrgID     uuid.UUID // whose transaction the command runs in
	Principal string    // who asks: "user:<id>", "apiKey:<id>"
	Route     string    // "POST /api/projects"
	Key       string    // the client's; empty = the command is not recorded
	BodyHash  []byte    // of path, query and body: the same key for something else is refused
}

// Answer is what a command answered.
type Answer struct {
	Status int
	Header map[string]string // those that belong to the answer: Location, ETag, X-Event-Position
	Body   []byte
	Secret bool // it shows a secret: it is kept sealed
}

// IdempotencyConfig is what Idempotency stands on.
type IdempotencyConfig struct {
	DB   *postgres.DB
	Now  func() time.Time
	TTL  time.Duration // 0 = 24 h
	Seal func(ctx context.Context, orgID uuid.UUID, plain []byte) ([]byte, error)
	Open func(ctx context.Context, orgID uuid.UUID, sealed []byte) ([]byte, error)
}

// Idempotency runs a command once for each key and gives its first answer again. The answer is written in the command's
// own transaction, so it is there exactly when the command happened.
type Idempotency struct{ cfg IdempotencyConfig }

// NewIdempotency returns an Idempotency. Without Seal and Open an answer with a secret is an error.
func NewIdempotency(cfg IdempotencyConfig) *Idempotency {
	cfg.TTL = orDefault(cfg.TTL, idempotencyTTL)
	return &Idempotency{cfg: cfg}
}

// Do runs fn in a transaction of k.OrgID, which every InOrg and InSystem under fn's context joins, and records its answer
// beside what it did. A key that is known gives the recorded answer (replayed) and fn isn't called; with another body it
// is fault.Invalid, and while the first call still runs fault.Conflict. An error of fn records nothing: the key is free.
func (i *Idempotency) Do(ctx context.Context, k Key, fn func(ctx context.Context) (Answer, error)) (answer Answer, replayed bool, err error) {
	err = i.cfg.DB.InOrg(ctx, k.OrgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if k.Key == "" {
			answer, err = fn(ctx)
			return err
		}
		found, err := i.claim(ctx, tx, k, &answer)
		if err != nil {
			return err
		}
		if found {
			replayed = true
			return nil
		}
		if answer, err = fn(ctx); err != nil {
			return err
		}
		return i.record(ctx, tx, k, answer)
	})
	if err != nil {
		return Answer{}, false, err
	}
	return answer, replayed, nil
}

// claim takes the key for the rest of the transaction and looks for its answer.
func (i *Idempotency) claim(ctx context.Context, tx postgres.OrgTx, k Key, answer *Answer) (found bool, err error) {
	var (
		free, sealed  bool
		hash, headers []byte
		created       time.Time
	)
	batch := &pgx.Batch{}
	batch.Queue(`SELECT pg_try_advisory_xact_lock(21576, $1)`, k.lock()).QueryRow(func(row pgx.Row) error { return row.Scan(&free) })
	// A snapshot after the lock: whoever had it before has committed his answer.
	batch.Queue(`SELECT body_hash, status, headers, body, sealed, created_at FROM es.idempotency_answers WHERE org_id = $1 AND principal = $2 AND route = $3 AND key = $4`,
		k.OrgID, k.Principal, k.Route, k.Key).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&hash, &answer.Status, &headers, &answer.Body, &sealed, &created)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		found = err == nil
		return err
	})
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return false, fmt.Errorf("look for the idempotency key: %w", err)
	}
	switch {
	case !free:
		f := fault.New(fault.Conflict, "idempotency.in_progress", "A request with this Idempotency-Key is still running.")
		f.RetryAfter = time.Second
		return false, f
	case !found:
		return false, nil
	case i.cfg.Now().Sub(created) >= i.cfg.TTL:
		_, err := tx.Exec(ctx, `DELETE FROM es.idempotency_answers WHERE org_id = $1 AND principal = $2 AND route = $3 AND key = $4`, k.OrgID, k.Principal, k.Route, k.Key)
		if err != nil {
			return false, fmt.Errorf("forget an old idempotency key: %w", err)
		}
		*answer = Answer{}
		return false, nil
	case !bytes.Equal(hash, k.BodyHash):
		return false, fault.New(fault.Invalid, "idempotency.key_reused", "This Idempotency-Key was used for another request.")
	}
	if err := json.Unmarshal(headers, &answer.Header); err != nil {
		return false, fmt.Errorf("decode a recorded answer: %w", err)
	}
	if answer.Secret = sealed; sealed {
		if i.cfg.Open == nil {
			return false, errors.New("a recorded answer is sealed and nothing opens it")
		}
		if answer.Body, err = i.cfg.Open(ctx, k.OrgID, answer.Body); err != nil {
			return false, fmt.Errorf("open a recorded answer: %w", err)
		}
	}
	return true, nil
}

func (i *Idempotency) record(ctx context.Context, tx postgres.OrgTx, k Key, a Answer) error {
	headers, err := json.Marshal(a.Header)
	if err != nil {
		return fmt.Errorf("encode an answer's headers: %w", err)
	}
	body := a.Body
	if body == nil {
		body = []byte{}
	}
	if a.Secret {
		if i.cfg.Seal == nil {
			return errors.New("an answer holds a secret and nothing seals it")
		}
		if body, err = i.cfg.Seal(ctx, k.OrgID, body); err != nil {
			return fmt.Errorf("seal an answer: %w", err)
		}
	}
	_, err = tx.Exec(ctx, `INSERT INTO es.idempotency_answers (org_id, principal, route, key, body_hash, status, headers, body, sealed, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		k.OrgID, k.Principal, k.Route, k.Key, k.BodyHash, a.Status, headers, body, a.Secret, i.cfg.Now().UTC().Truncate(time.Microsecond))
	if err != nil {
		return fmt.Errorf("record an answer: %w", err)
	}
	return nil
}

// lock is the key's number among the advisory locks with two ints. Two keys that share one only mean that one of two
// commands in the same moment is told to come again.
func (k Key) lock() int32 {
	h := sha256.New()
	h.Write(k.OrgID[:])
	for _, s := range []string{k.Principal, k.Route, k.Key} {
		_ = binary.Write(h, binary.BigEndian, uint32(len(s))) //nolint:gosec // a header's length; a hash doesn't fail
		h.Write([]byte(s))
	}
	return int32(binary.BigEndian.Uint32(h.Sum(nil))) //nolint:gosec // any 32 bits will do
}

// Prune forgets answers that are too old to be given again and returns how many.
func (i *Idempotency) Prune(ctx context.Context) (n int64, err error) {
	err = i.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM es.idempotency_answers WHERE created_at < $1`, i.cfg.Now().UTC().Add(-i.cfg.TTL))
		n = tag.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune idempotency answers: %w", err)
	}
	return n, nil
}

// ForgetAnswersTx removes the answers that were kept for a principal, and every other one that mentions the text, as the
// system role: somebody is being forgotten.
func ForgetAnswersTx(ctx context.Context, tx pgx.Tx, principal, mentions string) error {
	_, err := tx.Exec(ctx, `
		DELETE FROM es.idempotency_answers
		 WHERE principal = $1 OR NOT sealed AND position(convert_to($2, 'UTF8') IN body) > 0`, principal, mentions)
	if err != nil {
		return fmt.Errorf("forget answers: %w", err)
	}
	return nil
}
