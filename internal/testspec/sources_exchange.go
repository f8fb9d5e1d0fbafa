package testspec

import (
	"context"
	"crypto/md5" //nolint:gosec // people compare with what others publish; nothing here relies on it
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// wireText is text off the wire; none is the clause for when there is none.
func wireText(s, none string) value {
	if s == "" {
		return missing(none)
	}
	return value{v: s, wire: true}
}

func millisValue(d time.Duration) value {
	us := d.Microseconds()
	return value{v: jsonNumber(fmt.Sprintf("%d.%03d", us/1000, us%1000))}
}

func readReason(_ context.Context, s *Subject, _ string) value {
	return wireText(s.Reason, "the response gives no reason")
}

func readHTTPVersion(_ context.Context, s *Subject, _ string) value {
	return wireText(s.HTTPVersion, "the version is not known")
}

func readURL(_ context.Context, s *Subject, _ string) value {
	return wireText(s.URL, "the URL is not known")
}

func readRemoteIP(_ context.Context, s *Subject, _ string) value {
	return wireText(s.RemoteIP, "the address is not known")
}

func readRedirects(_ context.Context, s *Subject, _ string) value {
	list := make([]any, len(s.Redirects))
	for i, h := range s.Redirects {
		list[i] = map[string]any{"status": jsonNumber(strconv.Itoa(h.Status)), "url": h.URL, "location": h.Location}
	}
	return value{v: list}
}

func checkHeaderName(p string) string {
	if !IsToken(p) {
		return "This is not the name of a header."
	}
	return ""
}

func readHeader(_ context.Context, s *Subject, p string) value {
	lines := s.Header[http.CanonicalHeaderKey(p)]
	if len(lines) == 0 {
		return missing("there is no such header")
	}
	return value{v: strings.Join(lines, ", "), wire: true}
}

func readSHA256(_ context.Context, s *Subject, _ string) value {
	sum := sha256.Sum256(s.Body)
	return value{v: hex.EncodeToString(sum[:])}
}

func readMD5(_ context.Context, s *Subject, _ string) value {
	sum := md5.Sum(s.Body) //nolint:gosec // see the import
	return value{v: hex.EncodeToString(sum[:])}
}

// phases are the parts of the source timing.
var phases = []partInfo{
	{"dns", "finding the address", KindNumber},
	{"connect", "connecting", KindNumber},
	{"tls", "the TLS handshake", KindNumber},
	{"firstByte", "from a usable connection to the first byte of the answer", KindNumber},
	{"download", "from the first byte to the last", KindNumber},
	{"total", "all of it, as responseTime", KindNumber},
}

func readTiming(_ context.Context, s *Subject, p string) value {
	switch p {
	case "dns":
		return millisValue(s.Timings.DNS)
	case "connect":
		return millisValue(s.Timings.Connect)
	case "tls":
		return millisValue(s.Timings.TLS)
	case "firstByte":
		return millisValue(s.Timings.FirstByte)
	case "download":
		return millisValue(s.Timings.Download)
	default:
		return millisValue(s.ResponseTime)
	}
}

// tlsParts are the parts of the source tls.
var tlsParts = []partInfo{
	{"version", "`1.2` or `1.3`", KindText},
	{"cipher", "the cipher suite, such as `TLS_AES_128_GCM_SHA256`", KindText},
	{"protocol", "the protocol that ALPN chose, such as `h2`", KindText},
}

func readTLS(_ context.Context, s *Subject, p string) value {
	if s.TLSVersion == "" {
		return missing("the connection had no TLS")
	}
	switch p {
	case "version":
		return wireText(s.TLSVersion, "")
	case "cipher":
		return wireText(s.TLSCipher, "the cipher is not known")
	default:
		return wireText(s.ALPN, "no protocol was chosen by ALPN")
	}
}

// cookieAttribute describes an attribute of a cookie. read returns nothing when the cookie was set without it.
type cookieAttribute struct {
	name string
	read func(c *http.Cookie) value
}

var cookieAttributes = []cookieAttribute{
	{"Value", func(c *http.Cookie) value { return value{v: c.Value, wire: true} }},
	{"Path", func(c *http.Cookie) value { return wireText(c.Path, "the cookie has no Path") }},
	{"Domain", func(c *http.Cookie) value { return wireText(c.Domain, "the cookie has no Domain") }},
	{"MaxAge", func(c *http.Cookie) value {
		switch {
		case c.MaxAge < 0:
			return numberValue(0)
		case c.MaxAge == 0:
			return missing("the cookie has no Max-Age")
		default:
			return numberValue(int64(c.MaxAge))
		}
	}},
	{"Expires", func(c *http.Cookie) value {
		if c.Expires.IsZero() {
			return missing("the cookie has no Expires")
		}
		return dateValue(c.Expires)
	}},
	{"SameSite", func(c *http.Cookie) value {
		switch c.SameSite {
		case http.SameSiteLaxMode:
			return value{v: "Lax", wire: true}
		case http.SameSiteStrictMode:
			return value{v: "Strict", wire: true}
		case http.SameSiteNoneMode:
			return value{v: "None", wire: true}
		default:
			return missing("the cookie has no SameSite")
		}
	}},
	{"HttpOnly", func(c *http.Cookie) value { return value{v: c.HttpOnly} }},
	{"Secure", func(c *http.Cookie) value { return value{v: c.Secure} }},
	{"Partitioned", func(c *http.Cookie) value { return value{v: c.Partitioned} }},
}

// splitCookie takes name[Attribute] apart; attribute is "" when none is written. Case and the - of Max-Age don't matter.
func splitCookie(p string) (name, attribute string) {
	name, rest, ok := strings.Cut(p, "[")
	if !ok || !strings.HasSuffix(rest, "]") {
		return p, ""
	}
	return name, strings.ReplaceAll(strings.TrimSuffix(rest, "]"), "-", "")
}

func cookieAttributeNamed(name string) *cookieAttribute {
	i := slices.IndexFunc(cookieAttributes, func(a cookieAttribute) bool { return strings.EqualFold(a.name, name) })
	if i < 0 {
		return nil
	}
	return &cookieAttributes[i]
}

func checkCookie(p string) string {
	name, attribute := splitCookie(p)
	switch {
	case !IsToken(name):
		return "This is not the name of a cookie, with or without an attribute as in session[HttpOnly]."
	case strings.HasSuffix(p, "]") && cookieAttributeNamed(attribute) == nil:
		return unknownName("attribute of a cookie", attribute, namesOf(cookieAttributes, func(a *cookieAttribute) string { return a.name }))
	}
	return ""
}

// cookieYields returns the kind that a property of the source cookie yields.
func cookieYields(p string) Kind {
	_, attribute := splitCookie(p)
	switch strings.ToLower(attribute) {
	case "maxage":
		return KindNumber
	case "expires":
		return KindDate
	case "httponly", "secure", "partitioned":
		return KindJSON
	default:
		return KindText
	}
}

func readCookie(_ context.Context, s *Subject, p string) value {
	name, attribute := splitCookie(p)
	read := cookieAttributeNamed(attribute)
	if read == nil {
		read = &cookieAttributes[0]
	}
	for i := len(s.SetCookies) - 1; i >= 0; i-- {
		if c := s.SetCookies[i]; c.Name == name {
			return read.read(c)
		}
	}
	if s.Jar != nil {
		for _, c := range s.Jar() {
			if c.Name != name {
				continue
			}
			if read == &cookieAttributes[0] {
				return read.read(c)
			}
			return unreadable("the response does not set this cookie, so that its attributes are not known")
		}
	}
	return missing("there is no such cookie")
}

func checkVariableName(p string) string {
	if !IsVariableName(p) {
		return "This is not the name of a variable: a letter or _, then letters, digits, _ and -."
	}
	return ""
}

func readVariable(_ context.Context, s *Subject, p string) value {
	if s.Scope == nil {
		return missing("there is no such variable")
	}
	text, raw, ok := s.Scope.lookup(p)
	if !ok {
		return missing("there is no such variable")
	}
	if raw == nil {
		return value{v: text, wire: true}
	}
	v, err := decodeJSON(json.RawMessage(raw))
	if err != nil {
		return unreadable("its value is not JSON")
	}
	_, isText := v.(string)
	return value{v: v, wire: isText}
}

func checkPath(p string) string {
	if _, err := compilePath(p); err != nil {
		return sentence(err.Error()) + "."
	}
	return ""
}
