package testspec

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxOffset bounds how far from now a generated time may be.
const maxOffset = 200 * 366 * 24 * time.Hour

// moment applies the arguments of a generated time, which were checked: an offset, a format or both.
func moment(now time.Time, args []string) (t time.Time, format string) {
	t = now.UTC()
	for _, arg := range args {
		if moved, why := addOffset(t, arg); isOffset(arg) && why == "" {
			t = moved
		} else {
			format = arg
		}
	}
	return t, format
}

func isOffset(arg string) bool { return strings.HasPrefix(arg, "+") || strings.HasPrefix(arg, "-") }

func checkOffset(args []string) string {
	if !isOffset(args[0]) {
		return "it takes " + argsOffset
	}
	_, why := addOffset(time.Unix(0, 0).UTC(), args[0])
	return why
}

func checkMoment(args []string) string {
	offsets := 0
	for _, arg := range args {
		var why string
		if isOffset(arg) {
			offsets++
			why = checkOffset([]string{arg})
		} else {
			_, why = formatMoment(time.Unix(0, 0).UTC(), arg)
		}
		if why != "" {
			return why
		}
	}
	if offsets > 1 || len(args)-offsets > 1 {
		return "it takes one offset and one format"
	}
	return ""
}

// addOffset moves t by an offset such as +1d, -2h30m or +1mo; months and years are the calendar's.
func addOffset(t time.Time, offset string) (time.Time, string) {
	refused := "an offset is a sign, then numbers with units ms s m h d w mo y, such as +1d or -2h30m, up to 200 years"
	if len(offset) < 3 || len(offset) > 32 || !isOffset(offset) {
		return t, refused
	}
	sign, rest := 1, offset[1:]
	if offset[0] == '-' {
		sign = -1
	}
	moved := t
	for rest != "" {
		n := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if n < 1 {
			return t, refused
		}
		count, err := strconv.Atoi(rest[:n])
		if err != nil || count > 200*366*24*3600 {
			return t, refused
		}
		rest = rest[n:]
		n = strings.IndexFunc(rest, func(r rune) bool { return r >= '0' && r <= '9' })
		if n < 0 {
			n = len(rest)
		}
		unit := rest[:n]
		rest = rest[n:]
		count *= sign
		switch unit {
		case "ms":
			moved = moved.Add(time.Duration(count) * time.Millisecond)
		case "s":
			moved = moved.Add(time.Duration(count) * time.Second)
		case "m":
			moved = addDays(moved, count/1440).Add(time.Duration(count%1440) * time.Minute)
		case "h":
			moved = addDays(moved, count/24).Add(time.Duration(count%24) * time.Hour)
		case "d":
			moved = addDays(moved, count)
		case "w":
			moved = addDays(moved, count*7)
		case "mo":
			moved = moved.AddDate(0, min(max(count, -2400), 2400), 0)
		case "y":
			moved = moved.AddDate(min(max(count, -201), 201), 0, 0)
		default:
			return t, refused
		}
		if moved.After(t.Add(maxOffset)) || moved.Before(t.Add(-maxOffset)) {
			return t, refused
		}
	}
	return moved, ""
}

// addDays adds days, in UTC always of 24 hours, without the overflow of a Duration.
func addDays(t time.Time, n int) time.Time {
	const most = 201 * 366
	return t.AddDate(0, 0, min(max(n, -most), most))
}

// momentFormats are the formats that have a name.
var momentFormats = map[string]func(time.Time) string{
	"":        func(t time.Time) string { return t.Format(time.RFC3339) },
	"rfc3339": func(t time.Time) string { return t.Format(time.RFC3339) },
	"date":    func(t time.Time) string { return t.Format(time.DateOnly) },
	"time":    func(t time.Time) string { return t.Format(time.TimeOnly) },
	"http":    func(t time.Time) string { return t.Format(http.TimeFormat) },
	"unix":    func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) },
	"unixMs":  func(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) },
}

// momentDirectives are what a % may be followed by, as in strftime, with Go's layout for it.
var momentDirectives = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'L': ".000", 'f': ".000000",
	'p': "PM", 'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'j': "002", 'z': "-0700", 'Z': "MST", 'F': "2006-01-02", 'T': "15:04:05",
}

// formatMoment writes t, which is in UTC, by a name of momentFormats or by strftime's directives; why is a clause that
// says what is wrong with the format.
func formatMoment(t time.Time, format string) (out, why string) {
	if f, ok := momentFormats[format]; ok {
		return f(t), ""
	}
	if !strings.Contains(format, "%") {
		return "", fmt.Sprintf("there is no format %s; use rfc3339, date, time, http, unix, unixMs or directives such as %%Y-%%m-%%d", shorten(format, 40))
	}
	if len(format) > 100 {
		return "", "a format has at most 100 bytes"
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		i++
		if i == len(format) {
			return "", "a format ends with a lone %; write %% for it"
		}
		switch c := format[i]; c {
		case '%':
			b.WriteByte('%')
		case 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		default:
			layout, ok := momentDirectives[c]
			if !ok {
				return "", fmt.Sprintf("there is no directive %%%c; there are %%Y %%y %%m %%d %%e %%H %%I %%M %%S %%L %%f %%p %%a %%A %%b %%B %%j %%z %%Z %%F %%T %%s %%%%", c)
			}
			b.WriteString(strings.TrimPrefix(t.Format(layout), "."))
		}
	}
	return b.String(), ""
}
