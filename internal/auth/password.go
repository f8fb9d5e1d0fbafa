package auth

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"time"

	"github.com/alexedwards/argon2id"

	"github.com/testflow/testflow/internal/fault"
)

// passwordParams are OWASP's first choice for argon2id: 19 MiB, two passes, one lane; about 20 ms on a core.
var passwordParams = argon2id.Params{Memory: 19 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// Passwords hashes and checks passwords with argon2id, as many at once as there are cores, so that sign-ins can neither
// starve everything else nor fill the memory. It is safe for concurrent use.
type Passwords struct {
	slots chan struct{}
	wait  time.Duration // for a slot, then fault.Unavailable
	dummy string        // hash of a password that nobody has
}

// NewPasswords returns Passwords; concurrent is how many hashes may run at once, 0 = as many as there are cores.
func NewPasswords(concurrent int) (*Passwords, error) {
	if concurrent <= 0 {
		concurrent = runtime.GOMAXPROCS(0)
	}
	dummy, err := argon2id.CreateHash(rand.Text(), &passwordParams)
	if err != nil {
		return nil, fmt.Errorf("hash dummy password: %w", err)
	}
	return &Passwords{slots: make(chan struct{}, concurrent), wait: 2 * time.Second, dummy: dummy}, nil
}

// Hash returns the text to store for a password. When no core comes free in time it returns fault.Unavailable.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	release, err := p.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	hash, err := argon2id.CreateHash(password, &passwordParams)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

// Verify reports whether the password belongs to the stored hash, and whether the hash has older parameters and should be
// made anew. An empty hash stands for an unknown account: it costs as much time and is never right. When no core comes
// free in time it returns fault.Unavailable.
func (p *Passwords) Verify(ctx context.Context, password, hash string) (ok, outdated bool, err error) {
	release, err := p.acquire(ctx)
	if err != nil {
		return false, false, err
	}
	defer release()
	known := hash != ""
	if !known {
		hash = p.dummy
	}
	match, params, err := argon2id.CheckHash(password, hash)
	if err != nil {
		return false, false, fmt.Errorf("check password: %w", err)
	}
	return match && known, match && known && *params != passwordParams, nil
}

func (p *Passwords) acquire(ctx context.Context) (release func(), err error) {
	timer := time.NewTimer(p.wait)
	defer timer.Stop()
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a free core: %w", ctx.Err())
	case <-timer.C:
		busy := fault.New(fault.Unavailable, "auth.busy", "Too many sign-ins at once: try again in a moment.")
		busy.RetryAfter = p.wait
		return nil, busy
	}
}
