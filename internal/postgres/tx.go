package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// endTimeout bounds COMMIT and ROLLBACK, which run to their end even when the caller has gone.
const endTimeout = 10 * time.Second

var (
	// ErrOtherOrg says that InOrg was called inside another organization's transaction.
	ErrOtherOrg = errors.New("a transaction of another organization is open in this context")
	// ErrTxFailed says that a joined InOrg or InSystem had failed and so had rolled everything back.
	ErrTxFailed = errors.New("the surrounding transaction was rolled back by an earlier error")
)

// OrgTx is a transaction of the api role, bound to one organization. Only InOrg makes it, so a function that takes one
// cannot be called without a tenant.
type OrgTx struct {
	pgx.Tx
	org uuid.UUID
}

// OrgID returns the organization that the transaction is bound to.
func (t OrgTx) OrgID() uuid.UUID { return t.org }

// txState is the open transaction of one DB in a context.
type txState struct {
	tx     pgx.Tx
	org    uuid.UUID // uuid.Nil while acting as system
	system bool
	failed error
	after  []func()
}

type (
	txKey      struct{ db *DB }
	currentKey struct{}
)

func (d *DB) state(ctx context.Context) *txState {
	st, _ := ctx.Value(txKey{d}).(*txState)
	return st
}

func withState(ctx context.Context, d *DB, st *txState) context.Context {
	return context.WithValue(context.WithValue(ctx, txKey{d}, st), currentKey{}, st)
}

// InOrg runs fn in a transaction of the api role bound to org and commits when fn returns nil. BEGIN and the tenant
// take one round trip. Inside an InOrg of the same organization it joins that transaction, inside another's it returns
// ErrOtherOrg, and inside an InSystem it joins with the api role and org for the length of fn. There are no
// savepoints: an error of a joined fn rolls everything back at once, whatever the outer fn makes of it. fn must not
// use tx from two goroutines, nor keep it.
func (d *DB) InOrg(ctx context.Context, org uuid.UUID, fn func(ctx context.Context, tx OrgTx) error) error {
	if org == uuid.Nil {
		return errors.New("InOrg needs an organization")
	}
	st := d.state(ctx)
	run := func(ctx context.Context, tx pgx.Tx) error { return fn(ctx, OrgTx{Tx: tx, org: org}) }
	switch {
	case st == nil:
		begin := "begin; set local testflow.org_id = '" + org.String() + "'"
		return d.begin(ctx, &txState{org: org}, begin, run)
	case st.org == org && !st.system:
		return st.join(ctx, "", "", run)
	case st.org != uuid.Nil && st.org != org:
		return fmt.Errorf("%w: %s, not %s", ErrOtherOrg, st.org, org)
	}
	before := *st
	in := "set local role " + d.apiRole + "; set local testflow.org_id = '" + org.String() + "'"
	out := "set local role " + d.systemRole
	if before.org == uuid.Nil {
		out += "; set local testflow.org_id = ''"
	}
	st.org, st.system = org, false
	defer func() { st.org, st.system = before.org, before.system }()
	return st.join(ctx, in, out, run)
}

// InSystem runs fn in a transaction of the system role, which sees all tenants, and commits when fn returns nil. Inside
// an InSystem it joins; inside an InOrg it joins with the system role for the length of fn. Errors act as in InOrg.
func (d *DB) InSystem(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	st := d.state(ctx)
	switch {
	case st == nil:
		return d.begin(ctx, &txState{system: true}, "begin", fn)
	case st.system:
		return st.join(ctx, "", "", fn)
	}
	st.system = true
	defer func() { st.system = false }()
	return st.join(ctx, "set local role "+d.systemRole, "set local role "+d.apiRole, fn)
}

// InTx reports whether ctx is inside a transaction, of whatever database, that an InOrg or InSystem of its own would join.
func InTx(ctx context.Context) bool {
	st, _ := ctx.Value(currentKey{}).(*txState)
	return st != nil
}

// AfterCommit runs fn after the transaction around ctx has committed, in the order of the calls, and never if it rolls
// back; at once when there is none. Around several databases' transactions it is the innermost. fn must not fail and
// must be quick: it runs before InOrg or InSystem returns.
func AfterCommit(ctx context.Context, fn func()) {
	if st, _ := ctx.Value(currentKey{}).(*txState); st != nil {
		st.after = append(st.after, fn)
		return
	}
	fn()
}

// begin opens a transaction and ends it: the one place that commits.
func (d *DB) begin(ctx context.Context, st *txState, begin string, fn func(ctx context.Context, tx pgx.Tx) error) (err error) {
	pool := d.API
	if st.system {
		pool = d.System
	}
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	st.tx = tx
	done := false
	defer func() {
		if !done { // fn panicked or called runtime.Goexit
			err = errors.Join(err, rollback(ctx, tx))
		}
	}()
	err = fn(withState(ctx, d, st), tx)
	if err == nil && st.failed != nil {
		err = fmt.Errorf("%w: %w", ErrTxFailed, st.failed)
	}
	if err == nil {
		err = ctx.Err() // nobody waits for the answer: a rollback is the outcome that is known
	}
	done = true
	if err != nil {
		// A failed rollback closes the connection, which rolls back too: the caller needs fn's error only.
		_ = rollback(ctx, tx)
		return err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := tx.Commit(end); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, f := range st.after {
		f()
	}
	return nil
}

// join runs fn in the transaction that is open already, between the statements in and out.
func (st *txState) join(ctx context.Context, in, out string, fn func(ctx context.Context, tx pgx.Tx) error) error {
	if st.failed != nil {
		return fmt.Errorf("%w: %w", ErrTxFailed, st.failed)
	}
	if in != "" {
		if _, err := st.tx.Exec(ctx, in); err != nil {
			return st.fail(ctx, fmt.Errorf("change role: %w", err))
		}
	}
	if err := fn(context.WithValue(ctx, currentKey{}, st), st.tx); err != nil {
		return st.fail(ctx, err)
	}
	if st.failed != nil {
		return fmt.Errorf("%w: %w", ErrTxFailed, st.failed)
	}
	if out != "" {
		if _, err := st.tx.Exec(ctx, out); err != nil {
			return st.fail(ctx, fmt.Errorf("change role back: %w", err))
		}
	}
	return nil
}

// fail rolls back at once, so that nothing can be done in a transaction half of which went wrong.
func (st *txState) fail(ctx context.Context, err error) error {
	if st.failed == nil {
		st.failed = err
		_ = rollback(ctx, st.tx) // a failed rollback closes the connection, which rolls back too
	}
	return err
}

func rollback(ctx context.Context, tx pgx.Tx) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := tx.Rollback(end); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}
