package oapi

import "time"

// Instant is a time as it leaves the API: RFC 3339 in UTC with milliseconds.
type Instant struct{ time.Time }

// At returns t as an Instant.
func At(t time.Time) Instant { return Instant{Time: t} }

// MarshalJSON writes t in UTC, cut to milliseconds.
func (t Instant) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}
