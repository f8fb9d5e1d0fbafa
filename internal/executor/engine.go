package executor

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/testflow/testflow/internal/netguard"
)

// Config is what an Engine needs. Guard and Now are required.
type Config struct {
	Guard *netguard.Guard
	Now   func() time.Time
	// UserAgent is sent unless a step sets its own; "TestFlow" when empty.
	UserAgent string
	// RootCAs are trusted instead of the system's; nil means the system's.
	RootCAs *x509.CertPool
	// MaxResponseBytes and MaxStoredBody lower testspec's limits of the same names; 0 leaves them.
	MaxResponseBytes int64
	MaxStoredBody    int
}

// Engine runs specs. It keeps connections alive between runs of one organization for a few seconds. Safe for any
// number of goroutines.
type Engine struct {
	cfg Config
}

// New returns an Engine. Close it to drop its idle connections.
func New(cfg Config) *Engine { return &Engine{cfg: cfg} }

// Close drops idle connections. Runs in flight go on.
func (e *Engine) Close() {}

// Run runs in.Spec, one step after the other, and tells observe (which may be nil) what happens as it happens.
// It returns when the run has ended: at the latest when the spec's time is over or soon after ctx is done. The spec
// must have no faults under testspec.Validate.
func (e *Engine) Run(ctx context.Context, in Input, observe func(Observation)) Result {
	return Result{RunID: in.RunID, Region: in.Region, Status: Inconclusive, Code: CodeInternal, FailedStep: -1}
}
