package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
)

// maxFindings is how many violations a check names; more of a kind say nothing more.
const maxFindings = 100

// feedBehind is how long a feed may be without a successful read before it counts as unhealthy.
const feedBehind = 10 * time.Second

// CheckVersions returns what breaks invariant I4: ledger streams whose versions aren't 1, 2, 3 … or whose positions don't
// grow with them, attempts of runs likewise, and runs that begin or end in an impossible way. Nothing = it holds. It reads
// the whole log.
func (s *Store) CheckVersions(ctx context.Context) ([]string, error) {
	return s.find(ctx, "check versions", `
		SELECT 'stream ' || coalesce(s.stream_id, e.stream_id) || ' of ' || coalesce(s.org_id, e.org_id) || ': ' ||
		       CASE WHEN e.stream_id IS NULL THEN 'it has a head at version ' || s.version || ' and no events'
		            WHEN s.stream_id IS NULL THEN 'it has events and no head'
		            WHEN e.first <> 1 OR e.last <> e.n THEN 'versions ' || e.first || ' to ' || e.last || ', but ' || e.n || ' events'
		            WHEN e.disorder > 0 THEN e.disorder || ' positions do not grow with their versions'
		            ELSE 'its head says version ' || s.version || ' at ' || s.last_pos || ', its events ' || e.last || ' at ' || e.last_pos END
		  FROM es.ledger_stream s
		  FULL JOIN (SELECT org_id, stream_id, count(*) AS n, min(version) AS first, max(version) AS last, max(position) AS last_pos, count(*) FILTER (WHERE position <= before) AS disorder
		               FROM (SELECT org_id, stream_id, version, position, lag(position) OVER (PARTITION BY org_id, stream_id ORDER BY version) AS before FROM es.ledger_event) v
		              GROUP BY org_id, stream_id) e USING (org_id, stream_id)
		 WHERE e.stream_id IS NULL OR s.stream_id IS NULL OR e.first <> 1 OR e.last <> e.n OR e.disorder > 0 OR s.version <> e.last OR s.last_pos <> e.last_pos
		 LIMIT $1`, `
		SELECT 'run ' || stream_id || ' of ' || org_id || ', attempt ' || version / 100000 || ': events ' || min(version % 100000) || ' to ' || max(version % 100000) || ', but ' || count(*) ||
		       CASE WHEN count(*) FILTER (WHERE position <= before) > 0 THEN ', and positions that do not grow with their versions' ELSE '' END
		  FROM (SELECT org_id, stream_id, version, position, lag(position) OVER (PARTITION BY org_id, stream_id, version / 100000 ORDER BY version) AS before
		          FROM es.run_event WHERE version >= 100000 AND version < 2147483647) v
		 GROUP BY org_id, stream_id, version / 100000
		HAVING min(version % 100000) <> 1 OR max(version % 100000) <> count(*) OR count(*) FILTER (WHERE position <= before) > 0
		 LIMIT $1`, `
		SELECT 'run ' || stream_id || ' of ' || org_id || ': it has events and was never requested'
		  FROM es.run_event GROUP BY org_id, stream_id HAVING min(version) <> 1
		 LIMIT $1`)
}

// CheckCommands returns what breaks the log's part of invariant I3: appends whose events aren't one block of their stream,
// and recorded answers that name a position which isn't that organization's. Nothing = it holds.
func (s *Store) CheckCommands(ctx context.Context) ([]string, error) {
	return s.find(ctx, "check commands", `
		SELECT 'append ' || append_id || ' stands at ' || count(*) || ' of the versions ' || min(version) || ' to ' || max(version) || ' of stream ' || stream_id || ' of ' || org_id
		  FROM es.ledger_event GROUP BY org_id, stream_id, append_id HAVING max(version) - min(version) + 1 <> count(*)
		 LIMIT $1`, `
		SELECT 'the answer to key ' || a.key || ' of ' || a.principal || ' (' || a.route || ') in ' || a.org_id || ' names position ' || a.position || ', where there is nothing'
		  FROM (SELECT *, (SELECT value::bigint FROM jsonb_each_text(headers) WHERE lower(key) = 'x-event-position' AND value ~ '^[0-9]{1,18}$') AS position FROM es.idempotency_answers
		         WHERE jsonb_typeof(headers) = 'object') a
		 WHERE a.position > (SELECT dropped_to FROM es.retention)
		   AND NOT EXISTS (SELECT 1 FROM es.ledger_event e WHERE e.position = a.position)
		   AND NOT EXISTS (SELECT 1 FROM es.run_event e WHERE e.position = a.position)
		 LIMIT $1`)
}

// find runs queries that return one text for each violation.
func (s *Store) find(ctx context.Context, what string, queries ...string) (found []string, err error) {
	err = s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		for _, sql := range queries {
			rows, err := tx.Query(ctx, sql, maxFindings)
			if err != nil {
				return err
			}
			texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			found = append(found, texts...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return found, nil
}

// CheckFeed returns what breaks the log's part of invariant I5: organizations whose events, read page by page behind their
// tenant's wall, aren't the plain scan of the tables. Nothing = it holds.
func (s *Store) CheckFeed(ctx context.Context) (found []string, err error) {
	var orgs []uuid.UUID
	var fence int64
	err = s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if fence, err = s.Fence(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT org_id FROM es.ledger_event UNION SELECT org_id FROM es.run_event`)
		if err != nil {
			return err
		}
		orgs, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("check the feed: %w", err)
	}
	for _, org := range orgs {
		difference, err := s.compareFeed(ctx, org, fence)
		if err != nil {
			return nil, fmt.Errorf("check the feed of %s: %w", org, err)
		}
		if difference != "" {
			found = append(found, "organization "+org.String()+": "+difference)
		}
		if len(found) == maxFindings {
			break
		}
	}
	return found, nil
}

// compareFeed walks one organization's log both ways at once.
func (s *Store) compareFeed(ctx context.Context, org uuid.UUID, fence int64) (difference string, err error) {
	const page = 2000
	for after, done := int64(0), false; !done; {
		var paged []Event
		upTo := int64(0)
		err := s.cfg.DB.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error {
			paged, upTo, err = s.ReadOrg(ctx, tx, org, OrgQuery{After: after, Before: fence + 1, Limit: page})
			return err
		})
		if err != nil {
			return "", err
		}
		if done = len(paged) < page; done {
			upTo = fence
		}
		var plain []int64
		err = s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `SELECT position FROM (SELECT org_id, position FROM es.ledger_event UNION ALL SELECT org_id, position FROM es.run_event) e
				WHERE org_id = $1 AND position > $2 AND position <= $3 ORDER BY position`, org, after, upTo)
			if err != nil {
				return err
			}
			plain, err = pgx.CollectRows(rows, pgx.RowTo[int64])
			return err
		})
		if err != nil {
			return "", err
		}
		for i, p := range plain {
			if i >= len(paged) || paged[i].Position != p {
				return fmt.Sprintf("the feed doesn't hold position %d where the log does", p), nil
			}
		}
		if len(paged) != len(plain) {
			return fmt.Sprintf("the feed holds %d events in (%d, %d], the log %d", len(paged), after, upTo, len(plain)), nil
		}
		after = upTo
	}
	return "", nil
}

// Oldest returns the position at or below which events of runs may be gone, because retention dropped their days; 0 while
// nothing was dropped. A reader whose cursor is before it has a gap.
func (s *Store) Oldest(ctx context.Context) (position int64, err error) {
	if err := s.cfg.DB.System.QueryRow(ctx, `SELECT dropped_to FROM es.retention`).Scan(&position); err != nil {
		return 0, fmt.Errorf("read how far the log was dropped: %w", err)
	}
	return position, nil
}

// Droppable returns the first UTC day, up to that of a time, whose runs must stay: the last days, and a day with runs until
// its digest is sealed. last is the position of the last event of the days before it, 0 when there are none.
func (s *Store) Droppable(ctx context.Context, before time.Time) (until time.Time, last int64, err error) {
	err = s.cfg.DB.System.QueryRow(ctx, `SELECT o_until, o_last FROM es.droppable($1::date)`, before.UTC().Format(time.DateOnly)).Scan(&until, &last)
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("find the days of runs that may go: %w", err)
	}
	return until, last, nil
}

// DropRuns drops the UTC days of runs before a time, and returns how many went. Today and the two days before stay,
// and so does a day with runs until its digest is sealed.
func (s *Store) DropRuns(ctx context.Context, before time.Time) (days int, err error) {
	err = s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT es.drop_partitions($1::date)`, before.UTC().Format(time.DateOnly)).Scan(&days)
	})
	if err != nil {
		return 0, fmt.Errorf("drop old runs: %w", err)
	}
	return days, nil
}

// Check returns nil when the feed runs and reads, otherwise fault.Unavailable with what is wrong. One that is just
// beginning gets a second for it.
func (f *Feed) Check(ctx context.Context) error {
	begin, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	begun := f.Wait(begin, 0)
	f.mu.Lock()
	read, pos := f.read, f.pos
	f.mu.Unlock()
	sick := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Unavailable, "feed_behind", format, args...)
	}
	if begun != nil {
		return sick("The feed of events has not begun to read.").Because(begun)
	}
	if silent := f.cfg.Now().Sub(read); silent > feedBehind {
		return sick("The feed of events has not read the log for %s.", silent.Round(time.Second))
	}
	end, err := f.cfg.Store.End(ctx)
	if err != nil {
		return sick("The log can't be read.").Because(err)
	}
	if end <= pos {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := f.Wait(wait, end); err != nil && !errors.Is(err, context.Canceled) {
		return sick("The feed of events is at %d, the log at %d.", f.Position(), end)
	}
	return nil
}
