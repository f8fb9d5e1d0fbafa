package testspec

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Duration is a configured duration. In JSON it is a string such as "30s", "1m30s" or "250ms".
type Duration time.Duration

// ParseDuration reads s. It takes what time.ParseDuration takes, but only positive whole milliseconds.
func ParseDuration(s string) (Duration, error) {
	const hint = `write a duration such as "30s", "1m30s" or "250ms"`
	if len(s) > 32 {
		return 0, errors.New(hint)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New(hint)
	}
	if d <= 0 || d%time.Millisecond != 0 {
		return 0, errors.New("a duration is positive and a whole number of milliseconds")
	}
	return Duration(d), nil
}

// String returns the shortest form that ParseDuration reads back: "90s" is "1m30s", "1m0s" is "1m".
func (d Duration) String() string {
	t := time.Duration(d)
	switch {
	case t == 0:
		return "0s"
	case t%time.Hour == 0:
		return fmt.Sprintf("%dh", t/time.Hour)
	case t%time.Minute == 0 && t < time.Hour:
		return fmt.Sprintf("%dm", t/time.Minute)
	case t%time.Second != 0 && t < time.Second:
		return fmt.Sprintf("%dms", t/time.Millisecond)
	default:
		return t.String()
	}
}

// MarshalJSON writes String.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads what ParseDuration reads.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New("a duration is a string")
	}
	v, err := ParseDuration(s)
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// Values are one or several texts under one name. In JSON one value is a plain string, several are a list.
type Values []string

// MarshalJSON writes one value as a string and any other number as a list.
func (v Values) MarshalJSON() ([]byte, error) {
	if len(v) == 1 {
		return json.Marshal(v[0])
	}
	return json.Marshal([]string(v))
}

// UnmarshalJSON reads a string or a list of strings.
func (v *Values) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*v = Values{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return errors.New("write text or a list of texts")
	}
	*v = many
	return nil
}
