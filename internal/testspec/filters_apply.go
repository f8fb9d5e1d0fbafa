package testspec

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/itchyny/timefmt-go"

	"github.com/testflow/testflow/internal/limits"
)

// ofText makes a filter of what is done to text. What it makes is off the wire where v is.
func ofText(do func(s string) (out, why string)) func(*filtering, value, any) value {
	return func(_ *filtering, v value, _ any) value {
		s, ok := v.v.(string)
		if !ok {
			return notText(v)
		}
		out, why := do(s)
		if why != "" {
			return unreadable(why)
		}
		return value{v: out, wire: v.wire}
	}
}

func notText(v value) value { return unreadable(typeName(v.v) + " is not text") }

func plain(do func(string) string) func(*filtering, value, any) value {
	return ofText(func(s string) (string, string) { return do(s), "" })
}

var (
	filterLower        = plain(strings.ToLower)
	filterUpper        = plain(strings.ToUpper)
	filterTrim         = plain(strings.TrimSpace)
	filterHTMLEscape   = ofText(func(s string) (string, string) { return bounded(html.EscapeString(s)) })
	filterHTMLUnescape = plain(html.UnescapeString)
	filterURLEncode    = ofText(func(s string) (string, string) { return bounded(percentEncode(s)) })
	filterURLDecode    = ofText(func(s string) (string, string) {
		out, err := url.PathUnescape(s)
		if err != nil {
			return "", "this text is not percent-encoded"
		}
		return out, ""
	})
)

// bounded refuses text that a filter made too long.
func bounded(s string) (string, string) {
	if len(s) > limits.MaxFiltered {
		return "", fmt.Sprintf("it is longer than %d bytes", limits.MaxFiltered)
	}
	return s, ""
}

func percentEncode(s string) string {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		c := s[i]
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("-._~", c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		}
	}
	return string(b)
}

func filterCount(_ *filtering, v value, _ any) value {
	switch x := v.v.(type) {
	case []any:
		return numberValue(int64(len(x)))
	case binary:
		return numberValue(int64(len(x)))
	default:
		return unreadable(typeName(v.v) + " cannot be counted; length counts characters and members")
	}
}

func filterLength(_ *filtering, v value, _ any) value {
	n, cannot := lengthOf(v.only().v)
	if cannot != "" {
		return unreadable(cannot)
	}
	return numberValue(int64(n))
}

func filterNth(_ *filtering, v value, argument any) value {
	list, ok := v.v.([]any)
	if !ok {
		return unreadable(typeName(v.v) + " is not a list")
	}
	d, _ := asDecimal(argument)
	i, err := strconv.Atoi(d.truncated())
	if err != nil {
		return unreadable("this is not a place in a list")
	}
	if i < 0 {
		i += len(list)
	}
	if i < 0 || i >= len(list) {
		return missing(fmt.Sprintf("there is no such member in a list of %d", len(list)))
	}
	return value{v: list[i], wire: v.wire, date: v.date}
}

func filterUnique(f *filtering, v value, _ any) value {
	list, ok := v.v.([]any)
	if !ok {
		return unreadable(typeName(v.v) + " is not a list")
	}
	seen := map[string]bool{}
	out := []any{}
	for i, m := range list {
		if i&0xff == 0xff && f.ctx.Err() != nil {
			return unreadable("it takes too long")
		}
		if key := canonicalKey(m); !seen[key] {
			seen[key] = true
			out = append(out, m)
		}
	}
	return value{v: out, wire: v.wire, date: v.date}
}

// canonicalKey is the same text for JSON values that are equal, and only for these.
func canonicalKey(v any) string { return string(appendCanonical(nil, v)) }

func appendCanonical(b []byte, v any) []byte {
	switch x := v.(type) {
	case json.Number:
		d, ok := parseDecimal(x.String())
		if !ok {
			return append(b, x...)
		}
		return fmt.Appendf(b, "%v:%s:%d", d.negative, d.digits, d.exp)
	case []any:
		b = append(b, '[')
		for _, m := range x {
			b = append(appendCanonical(b, m), ',')
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for _, k := range slices.Sorted(maps.Keys(x)) {
			b = append(appendQuoted(b, k), ':')
			b = append(appendCanonical(b, x[k]), ',')
		}
		return append(b, '}')
	case binary:
		return append(append(b, "bytes:"...), x...)
	case string:
		return strconv.AppendQuote(b, x)
	default:
		return encodeJSON(b, v)
	}
}

func filterKeys(_ *filtering, v value, _ any) value {
	object, ok := v.v.(map[string]any)
	if !ok {
		return unreadable(typeName(v.v) + " has no keys")
	}
	out := make([]any, 0, len(object))
	for _, k := range slices.Sorted(maps.Keys(object)) {
		out = append(out, k)
	}
	return value{v: out}
}

func filterValues(_ *filtering, v value, _ any) value {
	object, ok := v.v.(map[string]any)
	if !ok {
		return unreadable(typeName(v.v) + " has no keys")
	}
	out := make([]any, 0, len(object))
	for _, k := range slices.Sorted(maps.Keys(object)) {
		out = append(out, object[k])
	}
	return value{v: out}
}

func filterJoin(_ *filtering, v value, argument any) value {
	list, ok := v.v.([]any)
	if !ok {
		return unreadable(typeName(v.v) + " is not a list")
	}
	between, _ := argument.(string)
	size := 0
	parts := make([]string, len(list))
	for i, m := range list {
		text, why := asText(m)
		if why != "" {
			return unreadable(why)
		}
		parts[i] = text
		if size += len(text) + len(between); size > limits.MaxFiltered {
			return unreadable(fmt.Sprintf("it is longer than %d bytes", limits.MaxFiltered))
		}
	}
	return value{v: strings.Join(parts, between), wire: true}
}

func filterSplit(_ *filtering, v value, argument any) value {
	s, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	at, _ := argument.(string)
	if strings.Count(s, at) >= limits.MaxSelected {
		return unreadable(fmt.Sprintf("there are more than %d parts", limits.MaxSelected))
	}
	var out []any
	for part := range strings.SplitSeq(s, at) {
		out = append(out, part)
	}
	return value{v: out, wire: v.wire}
}

func filterRegex(_ *filtering, v value, argument any) value {
	s, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	pattern, _ := argument.(string)
	return findPattern(s, pattern, v.wire)
}

// findPattern returns what pattern finds first in s: its group named value, else its first group, else the whole match.
func findPattern(s, pattern string, wire bool) value {
	if len(s) > limits.MaxMatchInput {
		return unreadable(fmt.Sprintf("it is longer than the %d bytes that a pattern is run over", limits.MaxMatchInput))
	}
	re, why := compilePattern(pattern)
	if why != "" {
		return unreadable(why)
	}
	found := re.FindStringSubmatchIndex(s)
	if found == nil {
		return missing("the pattern finds nothing")
	}
	group := min(re.NumSubexp(), 1)
	if named := re.SubexpIndex("value"); named > 0 {
		group = named
	}
	if found[2*group] < 0 {
		return missing("the pattern's group finds nothing")
	}
	return value{v: s[found[2*group]:found[2*group+1]], wire: wire}
}

func filterReplace(_ *filtering, v value, argument any) value {
	s, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	from, to, _ := replacement(argument, "from")
	if n := strings.Count(s, from); len(s)+n*(len(to)-len(from)) > limits.MaxFiltered {
		return unreadable(fmt.Sprintf("it is longer than %d bytes", limits.MaxFiltered))
	}
	return value{v: strings.ReplaceAll(s, from, to), wire: v.wire}
}

func filterReplaceRegex(_ *filtering, v value, argument any) value {
	s, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	if len(s) > limits.MaxMatchInput {
		return unreadable(fmt.Sprintf("it is longer than the %d bytes that a pattern is run over", limits.MaxMatchInput))
	}
	pattern, to, _ := replacement(argument, "pattern")
	re, why := compilePattern(pattern)
	if why != "" {
		return unreadable(why)
	}
	// Matches don't overlap, so that each group that is put in adds at most the whole text over all of them.
	matches := 0
	re.ReplaceAllStringFunc(s, func(string) string { matches++; return "" })
	if len(s)*(1+strings.Count(to, "$"))+matches*len(to) > limits.MaxFiltered {
		return unreadable(fmt.Sprintf("it may become longer than %d bytes", limits.MaxFiltered))
	}
	return value{v: re.ReplaceAllString(s, to), wire: v.wire}
}

func filterJSONPath(f *filtering, v value, argument any) value {
	path, _ := argument.(string)
	doc := v.v
	var size int
	if text, ok := v.v.(string); !ok {
		size = countValues(doc)
	} else {
		var why string
		if doc, size, why = readDocument([]byte(text)); why != "" {
			return unreadable(strings.Replace(why, "the body", "this text", 1))
		}
	}
	return selectFrom(f.ctx, doc, size, path)
}

func filterURLQueryParam(_ *filtering, v value, argument any) value {
	s, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	u, err := url.Parse(s)
	if err != nil {
		return unreadable("this text is not a URL")
	}
	name, _ := argument.(string)
	values := u.Query()[name]
	if len(values) == 0 {
		return missing("there is no such parameter")
	}
	return value{v: values[0], wire: v.wire}
}

func filterLocation(_ *filtering, v value, _ any) value {
	object, _ := v.v.(map[string]any)
	to, ok := object["location"].(string)
	if !ok {
		return unreadable(typeName(v.v) + " is not a redirect")
	}
	return value{v: to}
}

// textOrBytes is text when b is UTF-8, bytes otherwise.
func textOrBytes(b []byte, wire bool) value {
	if utf8.Valid(b) {
		return value{v: string(b), wire: wire}
	}
	return value{v: binary(b)}
}

// bytesOf returns the bytes of bytes, or of text in UTF-8.
func bytesOf(v value) ([]byte, bool) {
	switch x := v.v.(type) {
	case string:
		return []byte(x), true
	case binary:
		return x, true
	default:
		return nil, false
	}
}

func base64Decoder(urlSafe bool) func(*filtering, value, any) value {
	encoding, name := base64.RawStdEncoding, "base64"
	if urlSafe {
		encoding, name = base64.RawURLEncoding, "base64url"
	}
	return func(_ *filtering, v value, _ any) value {
		s, ok := v.v.(string)
		if !ok {
			return notText(v)
		}
		b, err := encoding.DecodeString(strings.TrimRight(strings.TrimSpace(s), "="))
		if err != nil {
			return unreadable("this text is not " + name)
		}
		return textOrBytes(b, v.wire)
	}
}

func base64Encoder(urlSafe bool) func(*filtering, value, any) value {
	encoding := base64.StdEncoding
	if urlSafe {
		encoding = base64.RawURLEncoding
	}
	return func(_ *filtering, v value, _ any) value {
		b, ok := bytesOf(v)
		if !ok {
			return notText(v)
		}
		return value{v: encoding.EncodeToString(b)}
	}
}

func filterToHex(_ *filtering, v value, _ any) value {
	b, ok := bytesOf(v)
	if !ok {
		return notText(v)
	}
	return value{v: hex.EncodeToString(b)}
}

func filterHexDecode(_ *filtering, v value, _ any) value {
	s, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return unreadable("this text is not hexadecimal")
	}
	return textOrBytes(b, v.wire)
}

func filterUTF8Encode(_ *filtering, v value, _ any) value {
	s, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	return value{v: binary(s)}
}

func filterUTF8Decode(_ *filtering, v value, _ any) value {
	b, ok := bytesOf(v)
	if !ok {
		return notText(v)
	}
	if !utf8.Valid(b) {
		return unreadable("these bytes are not UTF-8")
	}
	return value{v: string(b), wire: true}
}

func filterDecode(_ *filtering, v value, argument any) value {
	b, ok := bytesOf(v)
	if !ok {
		return notText(v)
	}
	name, _ := argument.(string)
	enc, why := charsetNamed(name)
	if why != "" {
		return unreadable(why)
	}
	return value{v: decodeWith(enc, b), wire: true}
}

// numberText returns v's number in JSON's form; text may have spaces around it, a + and zeros before it.
func numberText(v value) (string, bool) {
	switch x := v.v.(type) {
	case json.Number:
		return x.String(), true
	case string:
		s := strings.TrimSpace(x)
		sign := ""
		if rest, ok := strings.CutPrefix(s, "-"); ok {
			sign, s = "-", rest
		} else {
			s = strings.TrimPrefix(s, "+")
		}
		for len(s) > 1 && s[0] == '0' && s[1] >= '0' && s[1] <= '9' {
			s = s[1:]
		}
		_, ok := parseDecimal(s)
		return sign + s, ok && !strings.HasPrefix(s, "-")
	default:
		return "", false
	}
}

func filterToInt(_ *filtering, v value, _ any) value {
	n, ok := numberText(v)
	if !ok {
		return unreadable(typeName(v.v) + " is not a number")
	}
	d, ok := parseDecimal(n)
	_, isText := v.v.(string)
	switch {
	case !ok, isText && !d.isWhole():
		return unreadable("this text is not a whole number")
	case d.isWhole() && !strings.ContainsAny(n, ".eE"):
		return value{v: jsonNumber(n)}
	case d.isWhole() && d.exp > limits.MaxNumberLength:
		return value{v: jsonNumber(n)} // as it was written, since it would not end otherwise
	default:
		return value{v: jsonNumber(d.truncated())}
	}
}

func filterToFloat(_ *filtering, v value, _ any) value {
	n, ok := numberText(v)
	if !ok {
		return unreadable("this is not a number")
	}
	return value{v: jsonNumber(n)}
}

// asText writes a JSON value as text.
func asText(v any) (text, why string) {
	switch x := v.(type) {
	case string:
		return x, ""
	case binary:
		if !utf8.Valid(x) {
			return "", "these bytes are not UTF-8"
		}
		return string(x), ""
	default:
		out := encodeJSON(nil, v)
		if len(out) > limits.MaxShownSize {
			return "", fmt.Sprintf("it is longer than %d bytes", limits.MaxShownSize)
		}
		return string(out), ""
	}
}

func filterToString(_ *filtering, v value, _ any) value {
	text, why := asText(v.v)
	if why != "" {
		return unreadable(why)
	}
	return value{v: text}
}

func filterToDate(_ *filtering, v value, argument any) value {
	if n, ok := v.v.(json.Number); ok {
		seconds, err := n.Float64()
		if err != nil || seconds < -62135596800 || seconds > 253402300799 {
			return unreadable("this number of seconds is not a date in the years 1 to 9999")
		}
		whole := int64(seconds)
		return dateValue(time.Unix(whole, int64((seconds-float64(whole))*1e6)*1e3))
	}
	format, isFormat := argument.(string)
	if !isFormat {
		t, cannot := asDate(v.v)
		if cannot != "" {
			return unreadable(cannot)
		}
		return dateValue(t)
	}
	s, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	t, err := timefmt.ParseInLocation(strings.TrimSpace(s), format, time.UTC)
	if err != nil || len(s) > 200 {
		return unreadable("this text is not a date of the form " + shorten(format, 60))
	}
	return dateValue(t)
}

// checkFormat says what is wrong with a format of dates.
func checkFormat(format string) string {
	const known = "aAbBcCdDeFhHIjklmMnpPrRsStTuUvVwWxXyYzZ%f"
	if len(format) > 200 {
		return "a format of dates has at most 200 bytes"
	}
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		if i++; i == len(format) || strings.IndexByte(known, format[i]) < 0 {
			return "a % in a format of dates is followed by a letter such as Y, m, d, H, M, S; %% is a %"
		}
	}
	return ""
}

func filterFormatDate(_ *filtering, v value, argument any) value {
	t, cannot := asDate(v.v)
	if cannot != "" {
		return unreadable(cannot)
	}
	format, _ := argument.(string)
	return value{v: timefmt.Format(t.UTC(), format), wire: true}
}

func filterDaysAfterNow(f *filtering, v value, _ any) value {
	t, cannot := asDate(v.v)
	if cannot != "" {
		return unreadable(cannot)
	}
	return numberValue(wholeDays(t.Sub(f.subject.Now)))
}

func filterDaysBeforeNow(f *filtering, v value, _ any) value {
	t, cannot := asDate(v.v)
	if cannot != "" {
		return unreadable(cannot)
	}
	return numberValue(wholeDays(f.subject.Now.Sub(t)))
}
