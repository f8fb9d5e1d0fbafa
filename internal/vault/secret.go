package vault

import (
	"fmt"
	"log/slog"
)

// hidden is what a Secret shows of itself.
const hidden = "•••"

// Secret is text that shows itself to nobody by accident: printed in any way, logged or marshalled, it is •••. Only
// Reveal gives the value. The zero Secret is empty.
type Secret struct{ value string }

// NewSecret returns a Secret that holds the value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the value. Who calls it answers for where it goes.
func (s Secret) Reveal() string { return s.value }

// IsEmpty reports whether there is no value.
func (s Secret) IsEmpty() bool { return s.value == "" }

// String returns •••.
func (Secret) String() string { return hidden }

// GoString returns •••, for %#v.
func (Secret) GoString() string { return hidden }

// Format writes •••, whatever the verb: %x and %d would else reach the value.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue returns •••, for slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON returns "•••".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText returns •••, for YAML, map keys and the like.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// UnmarshalText takes the value, so that a Secret can be read from JSON, YAML and the environment.
func (s *Secret) UnmarshalText(text []byte) error {
	s.value = string(text)
	return nil
}
