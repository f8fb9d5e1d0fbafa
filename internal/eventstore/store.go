package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
)

// Config is what a Store stands on.
type Config struct {
	DB     *postgres.DB // the main database
	Types  []Type       // of every slice; two with one name are a mistake that New panics on
	Inline []ReadModel  // called in this order after each append
	// Seal encrypts a piece of personal data with the key of person, in the append's transaction, and returns text that
	// starts with "sealed:". It is asked for addresses and agents of users and of API keys; nil = they are not stored.
	Seal   func(ctx context.Context, tx pgx.Tx, person uuid.UUID, plain string) (string, error)
	Now    func() time.Time
	NewID  func() uuid.UUID // UUIDv7; names an append
	Logger *slog.Logger
}

// Store appends to the log and reads it. Safe for concurrent use.
type Store struct {
	cfg   Config
	types map[string]Type
	ids   atomic.Pointer[registry]
}

// registry is what the table of types says: numbers on disk against names.
type registry struct {
	byName map[string]int16
	byID   map[int16]string
}

// ErrUnknownType says that an event's type was not registered with the Store.
var ErrUnknownType = errors.New("event type is not registered")

// New returns a Store. Call Sync before the first append.
func New(cfg Config) *Store {
	s := &Store{cfg: cfg, types: make(map[string]Type, len(cfg.Types))}
	for _, t := range cfg.Types {
		if err := t.check(); err != nil {
			panic("eventstore: " + err.Error())
		}
		if _, twice := s.types[t.Name]; twice {
			panic("eventstore: two types are called " + t.Name)
		}
		s.types[t.Name] = t
	}
	s.ids.Store(&registry{})
	return s
}

// Types returns the registered types by name.
func (s *Store) Types() []Type {
	all := make([]Type, 0, len(s.types))
	for _, t := range s.types {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Type) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

// TypeOf returns the registered type of that name.
func (s *Store) TypeOf(name string) (Type, bool) {
	t, ok := s.types[name]
	return t, ok
}

// Sync writes the names of the registered types into the log's registry and learns everybody's numbers. It is called
// once at start; several processes may do it at once. It returns an error when a name is registered in the other lane.
func (s *Store) Sync(ctx context.Context) error {
	err := s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		// One at a time, or two processes would number the same name. The log's appends don't look at this lock.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(21575, 2)`); err != nil {
			return err
		}
		for _, t := range s.Types() {
			var lane string
			err := tx.QueryRow(ctx, `
				INSERT INTO es.event_type AS e (type_id, name, lane, cur_schema)
				SELECT coalesce(max(type_id), 0) + 1, $1, $2::text::"char", $3 FROM es.event_type
				ON CONFLICT (name) DO UPDATE SET cur_schema = greatest(e.cur_schema, excluded.cur_schema)
				RETURNING lane::text`, t.Name, string(rune(t.Lane)), t.Schema).Scan(&lane)
			if err != nil {
				return fmt.Errorf("register %s: %w", t.Name, err)
			}
			if lane != string(rune(t.Lane)) {
				return fmt.Errorf("register %s: it is in lane %s of the log already, not in %c", t.Name, lane, t.Lane)
			}
		}
		return s.learn(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("sync event types: %w", err)
	}
	return nil
}

// querier is a transaction, a pool or a connection.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// learn reads the registry.
func (s *Store) learn(ctx context.Context, q querier) error {
	rows, err := q.Query(ctx, `SELECT type_id, name FROM es.event_type`) //nolint:rowserrcheck // ForEachRow does
	if err != nil {
		return fmt.Errorf("read event types: %w", err)
	}
	r := &registry{byName: map[string]int16{}, byID: map[int16]string{}}
	var id int16
	var name string
	_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error {
		r.byName[name], r.byID[id] = id, name
		return nil
	})
	if err != nil {
		return fmt.Errorf("read event types: %w", err)
	}
	s.ids.Store(r)
	return nil
}

// typeID returns the registered type and its number.
func (s *Store) typeID(ctx context.Context, q querier, name string, lane Lane) (Type, int16, error) {
	t, ok := s.types[name]
	if !ok || t.Lane != lane {
		return Type{}, 0, fmt.Errorf("%w in lane %c: %s", ErrUnknownType, lane, name)
	}
	if id, ok := s.ids.Load().byName[name]; ok {
		return t, id, nil
	}
	if err := s.learn(ctx, q); err != nil {
		return Type{}, 0, err
	}
	id, ok := s.ids.Load().byName[name]
	if !ok {
		return Type{}, 0, fmt.Errorf("%w with the log (Sync was not called): %s", ErrUnknownType, name)
	}
	return t, id, nil
}

// typeIDs returns the numbers of those names that the log knows.
func (s *Store) typeIDs(ctx context.Context, q querier, names []string) ([]int16, error) {
	ids := make([]int16, 0, len(names))
	for _, name := range names {
		id, ok := s.ids.Load().byName[name]
		if !ok {
			if err := s.learn(ctx, q); err != nil {
				return nil, err
			}
			if id, ok = s.ids.Load().byName[name]; !ok {
				continue // nobody ever wrote one
			}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// matchingTypes is typeIDs, for patterns too: "org.*" is every type whose name begins with "org.".
func (s *Store) matchingTypes(ctx context.Context, q querier, patterns []string) ([]int16, error) {
	var names []string
	for _, p := range patterns {
		prefix, many := strings.CutSuffix(p, "*")
		if !many {
			names = append(names, p)
			continue
		}
		if err := s.learn(ctx, q); err != nil { // another process may have brought new ones
			return nil, err
		}
		for name := range s.ids.Load().byName {
			if strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
	}
	return s.typeIDs(ctx, q, names)
}

// name returns the type's name; a number that another process registered after our Sync is looked up.
func (s *Store) name(ctx context.Context, q querier, id int16) (string, error) {
	if name, ok := s.ids.Load().byID[id]; ok {
		return name, nil
	}
	if err := s.learn(ctx, q); err != nil {
		return "", err
	}
	if name, ok := s.ids.Load().byID[id]; ok {
		return name, nil
	}
	return "", fmt.Errorf("%w: number %d", ErrUnknownType, id)
}

// applyInline hands what was stored to the inline read models.
func (s *Store) applyInline(ctx context.Context, tx pgx.Tx, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	for _, m := range s.cfg.Inline {
		if err := m.Apply(ctx, tx, events); err != nil {
			return fmt.Errorf("read model %T: %w", m, err)
		}
	}
	return nil
}

// VersionConflict says that a stream was at another version than expected: somebody else appended first. Its fault is a
// Conflict; a caller whose expected version came from If-Match answers with fault.Precondition instead.
type VersionConflict struct {
	Stream           Stream
	Actual, Expected int
}

// Error says which stream and which versions.
func (c *VersionConflict) Error() string {
	return fmt.Sprintf("%s %s is at version %d, expected %d", c.Stream.Kind, c.Stream.ID, c.Actual, c.Expected)
}

// Unwrap returns the fault that a person sees.
func (c *VersionConflict) Unwrap() error {
	return fault.New(fault.Conflict, "request.version_conflict", "Somebody else changed this first. Read it again and decide anew.")
}
