package testspec

import (
	"net/http"
	"strings"
	"time"
)

// dateLayouts are the forms in which a date is read besides those of HTTP. Without an offset it is UTC.
var dateLayouts = []string{time.RFC3339Nano, time.DateOnly, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", time.DateTime, time.RFC1123Z}

// parseDate reads an instant from text: RFC 3339, an ISO 8601 date with or without a time, or a date of HTTP.
func parseDate(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if len(s) > 64 {
		return time.Time{}, false
	}
	for _, layout := range dateLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	t, err := http.ParseTime(s)
	return t, err == nil
}

func dateValue(t time.Time) value {
	return value{v: t.UTC().Format(time.RFC3339Nano), date: true}
}

// asDate reads v as an instant; cannot is a clause that says why it is none.
func asDate(v any) (t time.Time, cannot string) {
	s, ok := v.(string)
	if !ok {
		return time.Time{}, typeName(v) + " is not a date"
	}
	if t, ok = parseDate(s); !ok {
		return time.Time{}, "this text is not a date (RFC 3339, ISO 8601 or HTTP's form)"
	}
	return t, ""
}
