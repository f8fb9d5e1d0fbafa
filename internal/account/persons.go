package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/vault"
)

const (
	// cachedPersons bounds the memory of the cache of keys: about 1 KiB each.
	cachedPersons = 10_000
	// personCacheFor is how long a process goes on opening what it could open: an erased person is gone after it,
	// everywhere.
	personCacheFor = 5 * time.Second
)

// ErrErased says that a person's key is gone, so that what was sealed with it is gone too.
var ErrErased = errors.New("the person has been erased")

// Persons seals and opens what is personal in events, each person's with a key of their own. Its keys lie wrapped in a
// table and for a while unwrapped in memory. It is safe for concurrent use.
type Persons struct {
	db     *postgres.DB
	master *vault.Master
	now    func() time.Time
	cache  *lru.Cache[uuid.UUID, cachedKey]
}

type cachedKey struct {
	key    vault.Key
	erased bool // there is no key, and there never will be one again
	until  time.Time
}

// NewPersons returns Persons of a database.
func NewPersons(db *postgres.DB, master *vault.Master, now func() time.Time) (*Persons, error) {
	cache, err := lru.New[uuid.UUID, cachedKey](cachedPersons)
	if err != nil {
		return nil, fmt.Errorf("make cache of keys: %w", err)
	}
	return &Persons{db: db, master: master, now: now, cache: cache}, nil
}

// createTx makes the key of a new person, as the system role.
func (p *Persons) createTx(ctx context.Context, tx pgx.Tx, person uuid.UUID) (vault.Key, error) {
	key, wrapped, err := p.master.NewDataKey("person", person.String())
	if err != nil {
		return vault.Key{}, err
	}
	if err := accountdb.New(tx).InsertPersonKey(ctx, accountdb.InsertPersonKeyParams{AccountID: person, WrappedKey: wrapped}); err != nil {
		return vault.Key{}, fmt.Errorf("store a person's key: %w", err)
	}
	// Already now, since the event of this transaction is sealed with it. If it rolls back, nobody asks for this id again.
	p.remember(person, key)
	return key, nil
}

// Seal returns plain, sealed with the person's key: text that begins with "sealed:". It fits eventstore.Config.Seal. For a
// person who has been erased it returns an empty text: nothing more is kept of them.
func (p *Persons) Seal(ctx context.Context, _ pgx.Tx, person uuid.UUID, plain string) (string, error) {
	key, err := p.key(ctx, person)
	if errors.Is(err, ErrErased) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return seal(key, person, plain), nil
}

// Open returns what Seal sealed for the person, or ErrErased. Text that isn't sealed is returned as it is.
func (p *Persons) Open(ctx context.Context, person uuid.UUID, sealed string) (string, error) {
	if !vault.IsSealedText(sealed) {
		return sealed, nil
	}
	key, err := p.key(ctx, person)
	if err != nil {
		return "", err
	}
	plain, err := key.OpenText(sealed, "person", person.String())
	if err != nil {
		return "", fmt.Errorf("open what is sealed for %s: %w", person, err)
	}
	return plain, nil
}

func seal(key vault.Key, person uuid.UUID, plain string) string {
	return key.SealText(plain, "person", person.String())
}

func (p *Persons) remember(person uuid.UUID, key vault.Key) {
	p.cache.Add(person, cachedKey{key: key, until: p.now().Add(personCacheFor)})
}

// key returns the person's key from memory or, as the system role in the caller's transaction, from the table.
func (p *Persons) key(ctx context.Context, person uuid.UUID) (vault.Key, error) {
	if c, ok := p.cache.Get(person); ok && p.now().Before(c.until) {
		if c.erased {
			return vault.Key{}, ErrErased
		}
		return c.key, nil
	}
	var wrapped []byte
	err := p.db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		wrapped, err = accountdb.New(tx).GetPersonKey(ctx, person)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // an error would roll the caller's transaction back
		}
		return err
	})
	switch {
	case err != nil:
		return vault.Key{}, fmt.Errorf("read a person's key: %w", err)
	case wrapped == nil:
		// Remembered as well: an export meets the same person thousands of times.
		p.cache.Add(person, cachedKey{erased: true, until: p.now().Add(personCacheFor)})
		return vault.Key{}, ErrErased
	}
	key, err := p.master.Unwrap(wrapped, "person", person.String())
	if err != nil {
		return vault.Key{}, fmt.Errorf("unwrap the key of %s: %w", person, err)
	}
	p.remember(person, key)
	return key, nil
}
