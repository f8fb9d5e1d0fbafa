package executor

import (
	"context"
	"crypto/sha256"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/testflow/testflow/internal/limits"
)

// tokenKey is what two requests must have in common to share an access token: the way to connect, which holds the
// organization, and a hash of the endpoint and of all that is sent to it.
type tokenKey struct {
	way transportKey
	sum [sha256.Size]byte
}

func newTokenKey(way transportKey, parts ...string) tokenKey {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write([]byte(strconv.Itoa(len(p)) + ":" + p)) // hashes take everything
	}
	return tokenKey{way, [sha256.Size]byte(h.Sum(nil))}
}

// tokens keeps access tokens until they end, the least used ones out first. One request at a time asks for a token;
// the others with the same key wait for its answer.
type tokens struct {
	mu      sync.Mutex
	kept    *lru.Cache[tokenKey, *token]
	flights map[tokenKey]*flight
}

// flight is a question to a token endpoint that is under way. token and err are there once done is closed.
type flight struct {
	done  chan struct{}
	token *token
	err   *Error
	own   bool // err is of the run that asked, not of the endpoint
}

func newTokens() *tokens {
	// New fails for a size below 1 alone.
	kept, _ := lru.New[tokenKey, *token](limits.MaxTokens)
	return &tokens{kept: kept, flights: map[tokenKey]*flight{}}
}

// get returns the token of key, from fetch when none is kept or it has ended.
func (t *tokens) get(ctx context.Context, key tokenKey, now func() time.Time, fetch func(context.Context) (*token, *Error)) (*token, *Error) {
	for {
		t.mu.Lock()
		if kept, ok := t.kept.Get(key); ok && now().Before(kept.until) {
			t.mu.Unlock()
			return kept, nil
		}
		f, flying := t.flights[key]
		if !flying {
			f = &flight{done: make(chan struct{})}
			t.flights[key] = f
		}
		t.mu.Unlock()
		if !flying {
			return t.fly(ctx, key, f, fetch)
		}
		select {
		case <-ctx.Done():
			return nil, stopped(ctx)
		case <-f.done:
		}
		// A token so short-lived that it is not kept is of use all the same: it was made for this moment.
		if !f.own {
			return f.token, f.err
		}
	}
}

// fly asks for a token and tells those who wait.
func (t *tokens) fly(ctx context.Context, key tokenKey, f *flight, fetch func(context.Context) (*token, *Error)) (*token, *Error) {
	f.own = true // also when fetch panics
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.flights, key)
		if f.token != nil {
			t.kept.Add(key, f.token)
		}
		close(f.done)
	}()
	f.token, f.err = fetch(ctx)
	f.own = f.err != nil && ctx.Err() != nil
	return f.token, f.err
}

// drop forgets a token that was refused, unless another took its place.
func (t *tokens) drop(key tokenKey, refused *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if kept, ok := t.kept.Peek(key); ok && kept == refused {
		t.kept.Remove(key)
	}
}
