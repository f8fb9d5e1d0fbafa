package audit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/seal"
	"github.com/testflow/testflow/internal/vault"
)

// Several processes seal while others append; each event gets one leaf, in order, and the heads are one chain.
func TestSealer_severalAtOnce_sealEachEventOnce(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	var writers, sealers sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		sealer := s.newSealer()
		sealers.Go(func() {
			for {
				if err := sealer.Pass(t.Context()); err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 4 {
		writers.Go(func() {
			for i := range 40 {
				s.append(t, s.org, newID(), s.who, event{"thing.changed", fmt.Sprint(i)}, event{"thing.secured", "x"})
			}
		})
	}
	writers.Wait()
	close(done)
	sealers.Wait()
	require.NoError(t, s.sealer.Pass(t.Context()))
	r := s.verify(t, s.export(t, audit.Filter{}), seal.Options{})
	require.Empty(t, r.Findings)
	require.EqualValues(t, 320, r.Sealed)
	require.Len(t, s.published, int(r.Heads), "each head was published once")
	require.Zero(t, s.sealer.Lag())
	require.NoError(t, s.sealer.Check(t.Context()))
}

// A process that dies in the middle of a pass leaves nothing half done, and the next one goes on exactly there.
func TestSealer_diesInTheMiddle_andGoesOn(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.work(t, 3)
	before := s.scalar(t, `SELECT count(*) FROM es.sealed_leaf`)
	s.append(t, s.org, newID(), s.who, event{"thing.changed", "late"})
	// What it would have done is rolled back with the connection that it held.
	s.superuser(t, `CREATE TABLE killed (n int); INSERT INTO killed VALUES (1)`)
	s.superuser(t, `CREATE FUNCTION kill_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; CREATE TRIGGER killed AFTER INSERT ON es.sealed_head EXECUTE FUNCTION kill_it(); UPDATE killed SET n = 2`)
	require.Error(t, s.sealer.Pass(t.Context()))
	require.Equal(t, before, s.scalar(t, `SELECT count(*) FROM es.sealed_leaf`))
	s.superuser(t, `DROP TRIGGER killed ON es.sealed_head; UPDATE killed SET n = 3`)
	require.NoError(t, s.newSealer().Pass(t.Context()))
	require.NoError(t, s.sealer.Pass(t.Context()))
	r := s.verify(t, s.export(t, audit.Filter{}), seal.Options{})
	require.Empty(t, r.Findings)
	require.Equal(t, before+1, r.Sealed)
	require.EqualValues(t, 2, r.Heads)
}

// An event that is appended and not committed yet is behind the fence: those after it wait, and none is left out.
func TestSealer_waitsForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.append(t, s.org, newID(), s.who, event{"thing.changed", "first"})
	appended, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release) // a failed test too lets the writer go
	go func() {
		done <- s.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if _, err := s.store.Append(ctx, tx, eventstore.Stream{OrgID: s.org, ID: newID(), Kind: "thing"}, 0, nil, event{"thing.changed", "slow"}); err != nil {
				return err
			}
			close(appended)
			<-goOn
			return nil
		})
	}()
	<-appended
	s.append(t, s.org, newID(), s.who, event{"thing.changed", "quick"})
	require.NoError(t, s.sealer.Pass(t.Context()))
	require.EqualValues(t, 1, s.scalar(t, `SELECT count(*) FROM es.sealed_leaf`))
	require.Positive(t, s.sealer.Lag())
	release()
	require.NoError(t, <-done)
	require.NoError(t, s.sealer.Pass(t.Context()))
	require.EqualValues(t, 3, s.scalar(t, `SELECT count(*) FROM es.sealed_leaf`))
	require.Empty(t, s.verify(t, s.export(t, audit.Filter{}), seal.Options{}).Findings)
}

// The sealer doesn't vouch for a tree that somebody changed: it stops there, says so, seals the others, and goes on once
// what was there is back.
func TestSealer_stopsWhereTheTreeWasChanged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct{ do, undo string }{
		"a leaf":            {`UPDATE es.sealed_leaf SET hash = sha256('x') WHERE org_id = $1 AND leaf = 4`, `UPDATE es.sealed_leaf l SET hash = k.hash FROM kept_leaf k WHERE l.org_id = $1 AND (l.org_id, l.leaf) = (k.org_id, k.leaf)`},
		"a leaf taken away": {`DELETE FROM es.sealed_leaf WHERE org_id = $1 AND leaf = 4`, `INSERT INTO es.sealed_leaf SELECT * FROM kept_leaf WHERE org_id = $1 AND leaf = 4`},
		"a seal":            {`UPDATE es.sealed_head SET note = replace(note, 'previous', 'Previous') WHERE org_id = $1`, `UPDATE es.sealed_head SET note = replace(note, 'Previous', 'previous') WHERE org_id = $1`},
		"a signature":       {`UPDATE es.sealed_head SET note = replace(note, 'number 2', 'number 3') WHERE org_id = $1`, `UPDATE es.sealed_head SET note = replace(note, 'number 3', 'number 2') WHERE org_id = $1`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSealed(t)
			s.work(t, 6)
			s.superuser(t, `CREATE TABLE kept_leaf AS SELECT * FROM es.sealed_leaf`)
			s.superuser(t, change.do, s.org)
			other := newID()
			for _, org := range []uuid.UUID{s.org, other} {
				s.append(t, org, newID(), s.who, event{"thing.changed", "later"})
			}
			sealer := s.newSealer() // as after a start: it knows no tree
			now := s.now
			require.NoError(t, sealer.Pass(t.Context()))
			require.EqualValues(t, 2, s.scalar(t, `SELECT count(*) FROM es.sealed_head WHERE org_id = $1`, s.org))
			require.EqualValues(t, 1, s.scalar(t, `SELECT count(*) FROM es.sealed_head WHERE org_id = $1`, other))
			require.Equal(t, 1, sealer.Stats().Damaged)
			require.Equal(t, fault.Unavailable, fault.KindOf(sealer.Check(t.Context())))
			require.Contains(t, s.log.String(), "was changed behind our back")

			s.superuser(t, change.undo, s.org)
			s.now = func() time.Time { return now().Add(2 * time.Minute) }
			require.NoError(t, sealer.Pass(t.Context()))
			require.NoError(t, sealer.Pass(t.Context()))
			require.EqualValues(t, 3, s.scalar(t, `SELECT count(*) FROM es.sealed_head WHERE org_id = $1`, s.org))
			require.NoError(t, sealer.Check(t.Context()))
			require.Empty(t, s.verify(t, s.export(t, audit.Filter{}), seal.Options{}).Findings)
		})
	}
}

// An organization where nothing happens gets a seal a day; a clock that was put back makes none that is older.
func TestSealer_sealsADay_andNeverBackInTime(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	require.NoError(t, s.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := s.store.Append(ctx, tx, eventstore.Stream{OrgID: s.org, ID: s.org, Kind: "org"}, 0, nil, event{"thing.changed", "made"})
		return err
	}))
	account := newID() // a person's own log
	s.append(t, account, newID(), s.who, event{"thing.changed", "x"})
	start := time.Now()
	for day, want := range []int64{1, 2, 3} {
		s.now = func() time.Time { return start.Add(time.Duration(day) * 25 * time.Hour) }
		require.NoError(t, s.sealer.Pass(t.Context()))
		require.Equal(t, want, s.scalar(t, `SELECT count(*) FROM es.sealed_head WHERE org_id = $1`, s.org))
		require.EqualValues(t, 1, s.scalar(t, `SELECT count(*) FROM es.sealed_head WHERE org_id = $1`, account))
	}
	s.now = func() time.Time { return start }
	s.append(t, s.org, newID(), s.who, event{"thing.changed", "later"})
	require.NoError(t, s.sealer.Pass(t.Context()))
	r := s.verify(t, s.export(t, audit.Filter{}), seal.Options{})
	require.Empty(t, r.Findings)
	require.EqualValues(t, 4, r.Heads)
}

// Who has the database and the master key can write another history and seal it. A head that somebody kept finds it, and
// nothing else does.
func TestVerify_aHistoryRewrittenWithTheStolenKey_isFoundByAKeptSeal(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.work(t, 6)
	kept := s.keptHead(t)
	keys, err := s.keys.List(t.Context())
	require.NoError(t, err)
	opts := seal.Options{Pins: []string{keys[0].Key.Fingerprint()}}
	p := s.position(t, 4)
	s.set(t, p, `data = '{"text": "mischief"}'`)
	s.rehash(t, p)
	for _, table := range []string{"es.sealed_leaf", "es.sealed_node", "es.sealed_head"} {
		if table != "es.sealed_node" || s.scalar(t, `SELECT count(*) FROM es.sealed_node`) > 0 {
			s.superuser(t, `DELETE FROM `+table)
		}
	}
	s.superuser(t, `UPDATE es.sealer SET position = 0`)
	require.NoError(t, s.newSealer().Pass(t.Context()))
	export := s.export(t, audit.Filter{})
	require.Empty(t, s.verify(t, export, opts).Findings, "the rewritten history agrees with itself")
	opts.Kept = []string{kept}
	r := s.verify(t, export, opts)
	require.NotEmpty(t, r.Findings)
	require.Contains(t, r.Findings[0].String(), "the history was rewritten")

	// Cut off behind the kept seal, and the seals after it with it.
	s = newSealed(t)
	s.work(t, 6)
	opts = seal.Options{Kept: []string{s.keptHead(t)}}
	s.superuser(t, `DELETE FROM es.sealed_head WHERE number = 2`)
	s.superuser(t, `DELETE FROM es.sealed_leaf WHERE position > $1`, s.position(t, 8))
	s.superuser(t, `DELETE FROM es.ledger_event WHERE position > $1`, s.position(t, 8))
	r = s.verify(t, s.export(t, audit.Filter{}), opts)
	require.NotEmpty(t, r.Findings)
	require.Contains(t, r.Findings[0].String(), "it was cut")
}

// Before its seal an event can be changed unseen, when its hash is changed with it; without it the change shows.
func TestVerify_beforeTheSeal(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.append(t, s.org, newID(), s.who, event{"thing.changed", "1"}, event{"thing.changed", "2"})
	s.set(t, s.position(t, 0), `data = '{"text": "mischief"}'`)
	s.set(t, s.position(t, 1), `data = '{"text": "mischief"}'`)
	s.rehash(t, s.position(t, 1))
	for _, sealed := range []bool{false, true} {
		r := s.verify(t, s.export(t, audit.Filter{}), seal.Options{})
		require.Contains(t, r.Findings[0].String(), fmt.Sprintf("position %d: the event's content doesn't give its content hash", s.position(t, 0)))
		for _, f := range r.Findings {
			require.Equal(t, s.position(t, 0), f.Position, "the other one shows nothing")
		}
		require.Equal(t, sealed, r.Sealed == 2)
		require.NoError(t, s.sealer.Pass(t.Context()))
		if !sealed { // the exports left their own records
			s.superuser(t, `DELETE FROM es.ledger_event WHERE kind = 'audit'`)
			s.superuser(t, `DELETE FROM es.ledger_stream WHERE kind = 'audit'`)
			s.superuser(t, `DELETE FROM es.sealed_leaf`)
			s.superuser(t, `DELETE FROM es.sealed_head`)
			s.superuser(t, `UPDATE es.sealer SET position = 0`)
			s.sealer = s.newSealer()
			require.NoError(t, s.sealer.Pass(t.Context()))
		}
	}
}

// A rotation takes the old key's private half away; a master key that can't open the newest stops sealing, loudly.
func TestKeys_rotate(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.work(t, 3)
	for range 2 {
		_, err := s.keys.Rotate(t.Context())
		require.NoError(t, err)
		s.work(t, 3)
	}
	keys, err := s.keys.List(t.Context())
	require.NoError(t, err)
	require.Len(t, keys, 3)
	require.NotNil(t, keys[1].RetiredAt)
	require.Nil(t, keys[2].RetiredAt)
	require.EqualValues(t, 1, s.scalar(t, `SELECT count(private_key) FROM es.sealing_key`))
	for _, k := range keys { // whichever an auditor kept
		r := s.verify(t, s.export(t, audit.Filter{}), seal.Options{Pins: []string{k.Key.Fingerprint()}})
		require.Empty(t, r.Findings)
	}
	var stored []byte
	require.NoError(t, s.System.QueryRow(t.Context(), `SELECT private_key FROM es.sealing_key WHERE number = 3`).Scan(&stored))
	require.NotContains(t, string(stored), "PRIVATE+KEY")

	other, err := vault.NewMaster(vault.GenerateMasterKey())
	require.NoError(t, err)
	s.keys.Master = other
	s.append(t, s.org, newID(), s.who, event{"thing.changed", "later"})
	require.ErrorIs(t, s.sealer.Pass(t.Context()), vault.ErrUnknownKey)
	require.Contains(t, s.sealer.Stats().LastError, "TESTFLOW_MASTER_KEY")
	_, err = s.keys.Rotate(t.Context())
	require.ErrorIs(t, err, vault.ErrUnknownKey)
}

// The product's own roles may add to the sealed history and change nothing of it.
func TestSealed_isAppendOnly(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.work(t, 3)
	for _, sql := range []string{
		`UPDATE es.sealed_leaf SET hash = hash`, `DELETE FROM es.sealed_leaf`, `UPDATE es.sealed_head SET note = ''`, `DELETE FROM es.sealed_head`, `TRUNCATE es.sealed_head`,
		`DELETE FROM es.sealing_key`, `UPDATE es.sealing_key SET statement = ''`, `DELETE FROM es.sealed_node`,
	} {
		_, err := s.System.Exec(t.Context(), sql)
		require.Error(t, err, sql)
		_, err = s.API.Exec(t.Context(), sql)
		require.Error(t, err, sql)
	}
	for _, sql := range []string{`SELECT private_key FROM es.sealing_key`, `SELECT * FROM es.sealer`, `INSERT INTO es.sealed_head SELECT * FROM es.sealed_head`} {
		_, err := s.API.Exec(t.Context(), sql)
		require.Error(t, err, sql)
	}
	conn, err := pgx.Connect(t.Context(), s.URL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for _, table := range []string{"es.sealed_leaf", "es.sealed_head", "es.sealed_node"} {
		_, err := conn.Exec(t.Context(), `DELETE FROM `+table) // even the owner's
		require.ErrorContains(t, err, "append-only")
	}
}

// runID is a UUIDv7 of a time.
func runID(at time.Time) uuid.UUID {
	id := newID()
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli()))
	copy(id[:6], ms[2:])
	return id
}

func TestRunSealer_sealsADayOfRuns(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	yesterday := time.Now().UTC().AddDate(0, 0, -1).Truncate(24 * time.Hour).Add(12 * time.Hour)
	add := func(org uuid.UUID, at time.Time, version int) uuid.UUID {
		id := runID(at)
		require.NoError(t, s.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			in, err := s.store.AppendRuns(ctx, tx, []eventstore.RunEvent{{OrgID: org, RunID: id, Version: version, Data: event{"run.done", "4"}, RunColumns: eventstore.RunColumns{Status: "passed"}}})
			if len(in) != 1 {
				return errors.Join(err, errors.New("not stored"))
			}
			return err
		}))
		return id
	}
	first := add(s.org, yesterday, 1)
	add(s.org, yesterday.Add(time.Hour), 1)
	add(newID(), yesterday, 1)
	add(s.org, time.Now(), 1) // today isn't over

	r := &audit.RunSealer{DB: s.DB.DB, Store: s.store, Now: func() time.Time { return s.now() }, Log: slog.New(slog.NewTextHandler(&s.log, nil))}
	s.now = func() time.Time { return yesterday.Add(12*time.Hour + 30*time.Minute) }
	require.NoError(t, r.Pass(t.Context()))
	require.Zero(t, s.scalar(t, `SELECT count(*) FROM es.ledger_event WHERE kind = 'runs'`), "half an hour after midnight runs may still end")
	s.now = time.Now
	if time.Now().UTC().Hour() < 1 { // an hour after midnight
		s.now = func() time.Time { return time.Now().Add(time.Hour) }
	}
	for range 2 {
		require.NoError(t, r.Pass(t.Context()))
	}
	require.EqualValues(t, 2, s.scalar(t, `SELECT count(*) FROM es.ledger_event WHERE kind = 'runs'`), "one an organization")
	var data audit.RunsSealed
	require.NoError(t, s.System.QueryRow(t.Context(), `SELECT data FROM es.ledger_event WHERE kind = 'runs' AND org_id = $1`, s.org).Scan(&data))
	require.Equal(t, []any{yesterday.Format(time.DateOnly), int64(2), int64(2)}, []any{data.Day, data.Runs, data.Events})
	require.NoError(t, s.sealer.Pass(t.Context()))
	found, err := s.service.CheckSeals(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, found)

	for _, change := range []string{`status = 'failed'`, `data = '{"text": "5"}'`, `recorded_at = recorded_at - interval '1 s'`, `version = 5`} {
		s.superuser(t, `CREATE TABLE kept AS SELECT * FROM es.run_event WHERE stream_id = $1`, first)
		s.superuser(t, `UPDATE es.run_event SET `+change+` WHERE stream_id = $1`, first)
		found, err = s.service.CheckSeals(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, found, 1, change)
		require.Contains(t, found[0], "the runs of "+data.Day)
		s.superuser(t, `DELETE FROM es.run_event WHERE stream_id = $1`, first)
		s.superuser(t, `INSERT INTO es.run_event SELECT * FROM kept`)
		s.superuser(t, `DROP TABLE kept; UPDATE es.sealer SET position = position`)
	}
	found, err = s.service.CheckSeals(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, found)
}

// The doctor reads what an auditor would get, and the columns that filters look at.
func TestCheckSeals_findsWhatWasChanged(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	s.work(t, 6)
	kept := s.keptHead(t)
	found, err := s.service.CheckSeals(t.Context(), []string{kept})
	require.NoError(t, err)
	require.Empty(t, found)
	events := s.scalar(t, `SELECT count(*) FROM es.ledger_event`)
	p := s.position(t, 4)
	s.superuser(t, `UPDATE es.ledger_event SET actor_id = gen_random_uuid() WHERE position = $1`, p)
	found, err = s.service.CheckSeals(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Contains(t, found[0], fmt.Sprintf("position %d of %s: the column of the actor", p, s.org))
	s.superuser(t, `DELETE FROM es.ledger_event WHERE position = $1`, p)
	found, err = s.service.CheckSeals(t.Context(), nil)
	require.NoError(t, err)
	require.NotEmpty(t, found)
	require.Contains(t, found[len(found)-1], fmt.Sprintf("organization %s: position %d: the event is gone", s.org, p))
	require.Equal(t, events-1, s.scalar(t, `SELECT count(*) FROM es.ledger_event`), "looking leaves no trace")
}

// An organization that was erased leaves its signed heads: an export that somebody kept still verifies, and neither the
// sealer nor the doctor takes what is missing for a change.
func TestSeal_outlivesItsOrganization(t *testing.T) {
	t.Parallel()
	s := newSealed(t)
	other := s.another()
	s.work(t, 6)
	other.work(t, 6)
	require.NoError(t, s.sealer.Pass(t.Context()))
	export, kept := s.export(t, audit.Filter{}), s.keptHead(t)

	_, err := s.System.Exec(t.Context(), `INSERT INTO orgs (org_id, name, version, created_at, updated_at, erase_at)
		VALUES ($1, 'x', 1, now(), now(), now() - interval '1 day')`, s.org)
	require.NoError(t, err)
	for s.scalar(t, `SELECT es.erase_org($1, 4)`, s.org) > 0 {
	}
	_, err = s.System.Exec(t.Context(), `SELECT es.erase_org_end($1)`, s.org)
	require.NoError(t, err)
	require.Zero(t, s.scalar(t, `SELECT count(*) FROM es.ledger_event WHERE org_id = $1`, s.org))
	require.Zero(t, s.scalar(t, `SELECT count(*) FROM es.sealed_leaf WHERE org_id = $1`, s.org))
	require.Equal(t, kept, s.keptHead(t), "the heads stay")

	require.NoError(t, s.newSealer().Pass(t.Context()))
	other.work(t, 3)
	found, err := s.service.CheckSeals(t.Context(), []string{other.keptHead(t)})
	require.NoError(t, err)
	require.Empty(t, found)

	r := s.verify(t, export, seal.Options{Kept: []string{kept}})
	require.Empty(t, r.Findings)
	bent := bytes.Replace(export, []byte("name 3"), []byte("name 4"), 1)
	require.NotEmpty(t, s.verify(t, bent, seal.Options{Kept: []string{kept}}).Findings)
}
