package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/seal"
	"github.com/testflow/testflow/internal/vault"
)

// SealingKeys keeps the keys that sign the audit log's heads. The private ones lie sealed by the master key in the
// database, and only the newest has one at all.
type SealingKeys struct {
	DB     *postgres.DB
	Master *vault.Master
	Now    func() time.Time
}

// SealingKey is one key of the chain, as people see it.
type SealingKey struct {
	seal.Statement
	RetiredAt *time.Time // nil: it signs
}

// querier is a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// sealingKeys returns every key, oldest first. Any role may read them.
func sealingKeys(ctx context.Context, q querier) (keys []SealingKey, chain *seal.Chain, err error) {
	rows, err := q.Query(ctx, `SELECT statement, retired_at FROM es.sealing_key ORDER BY number`) //nolint:rowserrcheck // ForEachRow does
	if err != nil {
		return nil, nil, fmt.Errorf("read the sealing keys: %w", err)
	}
	var notes []string
	var retired []*time.Time
	var note string
	var at *time.Time
	if _, err = pgx.ForEachRow(rows, []any{&note, &at}, func() error {
		notes, retired = append(notes, note), append(retired, at)
		return nil
	}); err != nil {
		return nil, nil, fmt.Errorf("read the sealing keys: %w", err)
	}
	if chain, err = seal.ParseChain(notes); err != nil {
		return nil, nil, fmt.Errorf("read the sealing keys: %w", err)
	}
	for i, s := range chain.Statements() {
		keys = append(keys, SealingKey{Statement: s, RetiredAt: retired[i]})
	}
	return keys, chain, nil
}

// List returns every key, oldest first; none before the first seal.
func (k *SealingKeys) List(ctx context.Context) (keys []SealingKey, err error) {
	err = k.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		keys, _, err = sealingKeys(ctx, tx)
		return err
	})
	return keys, err
}

// Rotate makes a new key, signed by the old one, whose private half is then destroyed. Heads that the old one signed stay
// valid. It waits for a seal that is being made; from its return on every node signs with the new key.
func (k *SealingKeys) Rotate(ctx context.Context) (made SealingKey, err error) {
	err = k.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT 1 FROM es.sealer FOR UPDATE`); err != nil {
			return fmt.Errorf("wait for the sealer: %w", err)
		}
		old, number, err := k.load(ctx, tx)
		if err != nil {
			return err
		}
		_, made.Statement, err = k.add(ctx, tx, number+1, old)
		return err
	})
	if err != nil {
		return SealingKey{}, fmt.Errorf("rotate the sealing key: %w", err)
	}
	return made, nil
}

// Signer returns the key that signs now and the chain that it ends; the first call of all makes the first key.
func (k *SealingKeys) Signer(ctx context.Context) (s *seal.Signer, chain *seal.Chain, err error) {
	err = k.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT 1 FROM es.sealer FOR UPDATE`); err != nil { // so that nobody rotates in between
			return fmt.Errorf("wait for the sealer: %w", err)
		}
		s, chain, err = k.signer(ctx, tx)
		return err
	})
	return s, chain, err
}

// signer returns the key that signs and the chain; the first call of all makes the first key. The caller holds the
// sealer's row, so that no two make one.
func (k *SealingKeys) signer(ctx context.Context, tx pgx.Tx) (*seal.Signer, *seal.Chain, error) {
	s, _, err := k.load(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	if s == nil {
		if s, _, err = k.add(ctx, tx, 1, nil); err != nil {
			return nil, nil, err
		}
	}
	_, chain, err := sealingKeys(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	if newest, ok := chain.Newest(); !ok || newest.Key.String() != s.Key().String() {
		return nil, nil, errors.New("the newest sealing key isn't the one that its statement names: the table of keys was changed by hand")
	}
	return s, chain, nil
}

// load opens the newest key; nil and 0 when there is none.
func (k *SealingKeys) load(ctx context.Context, tx pgx.Tx) (*seal.Signer, int, error) {
	var number int
	var public string
	var wrapped, private []byte
	err := tx.QueryRow(ctx, `SELECT number, public_key, wrapped_key, private_key FROM es.sealing_key ORDER BY number DESC LIMIT 1`).Scan(&number, &public, &wrapped, &private)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the sealing key: %w", err)
	}
	key, err := seal.ParseKey(public)
	if err != nil {
		return nil, 0, fmt.Errorf("read sealing key %d: %w", number, err)
	}
	if private == nil {
		return nil, 0, fmt.Errorf("sealing key %d is the newest and was retired: the table of keys was changed by hand", number)
	}
	data, err := k.Master.Unwrap(wrapped, keyContext(number)...)
	if err != nil {
		return nil, 0, fmt.Errorf("open sealing key %d with TESTFLOW_MASTER_KEY: %w", number, err)
	}
	plain, err := data.Open(private, keyContext(number)...)
	if err != nil {
		return nil, 0, fmt.Errorf("open sealing key %d: %w", number, err)
	}
	s, err := seal.ParseSigner(string(plain), key)
	if err != nil {
		return nil, 0, fmt.Errorf("open sealing key %d: %w", number, err)
	}
	return s, number, nil
}

// add makes key number n, signed by the old one, and takes the old one's private half away.
func (k *SealingKeys) add(ctx context.Context, tx pgx.Tx, n int, old *seal.Signer) (*seal.Signer, seal.Statement, error) {
	fail := func(err error) (*seal.Signer, seal.Statement, error) {
		return nil, seal.Statement{}, fmt.Errorf("make sealing key %d: %w", n, err)
	}
	s, err := seal.NewSigner()
	if err != nil {
		return fail(err)
	}
	at := k.Now().UTC().Truncate(time.Microsecond)
	statement, err := seal.NewStatement(n, s, old, at)
	if err != nil {
		return fail(err)
	}
	data, wrapped, err := k.Master.NewDataKey(keyContext(n)...)
	if err != nil {
		return fail(err)
	}
	if _, err := tx.Exec(ctx, `UPDATE es.sealing_key SET private_key = NULL, wrapped_key = NULL, retired_at = $1 WHERE private_key IS NOT NULL`, at); err != nil {
		return fail(err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO es.sealing_key (number, public_key, statement, created_at, wrapped_key, private_key) VALUES ($1, $2, $3, $4, $5, $6)`,
		n, s.Key().String(), statement.Note, at, wrapped, data.Seal([]byte(s.Private()), keyContext(n)...))
	if err != nil {
		return fail(err)
	}
	return s, statement, nil
}

func keyContext(number int) []string { return []string{"sealing key", strconv.Itoa(number)} }
