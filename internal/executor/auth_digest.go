package executor

import (
	"context"
	"crypto/md5" //nolint:gosec // RFC 7616 has it, and it is all that many devices know
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"strings"

	"github.com/testflow/testflow/internal/testspec"
)

// Digest (RFC 7616) is written out here: of the libraries that were looked at none knows -sess, nextnonce, several
// challenges in one line and names beyond ASCII together.

// digestKey is for whom a challenge that was answered may be answered again without being asked.
type digestKey struct{ origin, username, password string }

// digestState is the last challenge of an origin and how often its nonce was used. A run's requests follow one another,
// so it needs no lock.
type digestState struct {
	challenge digestChallenge
	count     int
}

// digestChallenge is what of a WWW-Authenticate line matters.
type digestChallenge struct {
	realm, nonce, opaque, algorithm string
	hasOpaque, stale, userhash      bool
	qop                             string // auth or auth-int; "" is RFC 2069's way without
	hash                            func() hash.Hash
	session                         bool
}

// digest is Digest as RFC 7616 has it.
type digest struct {
	username, password string
	fresh              bool // the challenge that put answered came in this exchange
	tries              int
}

// maxDigestTries bounds the answers to challenges of one hop: one to the first, one more to a stale nonce.
const maxDigestTries = 2

func (e *authExpander) digest(a *testspec.Auth) credential {
	d := &digest{username: e.needed(a.Username, "username"), password: e.text(a.Password, "password")}
	if !testspec.ValidHeaderValue(d.username) {
		e.fail(badRequest("With its variables put in, the auth's username holds control characters."))
	}
	return d
}

func (d *digest) key(x *exchanging) digestKey {
	return digestKey{x.url.Scheme + "://" + hostPort(x.url), d.username, d.password}
}

// put answers the challenge that is known, if one is.
func (d *digest) put(_ context.Context, x *exchanging, req *http.Request) *Error {
	s := x.runner.digests[d.key(x)]
	if s == nil {
		return nil
	}
	s.count++
	response, line := s.challenge.answer(d, req.Method, req.URL.RequestURI(), x.body, s.count, rand.Text()[:16])
	x.runner.hide(response)
	x.setHeader(req, "Authorization", line)
	return nil
}

// again takes what the response says of nonces and answers a challenge once; once more when the nonce was stale, or
// when it was an older one that the server may have forgotten.
func (d *digest) again(x *exchanging, req *http.Request, resp *http.Response) bool {
	key := d.key(x)
	if resp.StatusCode != http.StatusUnauthorized {
		if s := x.runner.digests[key]; s != nil {
			if next := nextNonce(resp.Header); next != "" {
				s.challenge.nonce, s.count = next, 0
			}
		}
		d.tries, d.fresh = 0, false // the next hop starts anew
		return false
	}
	challenge, ok := findDigest(resp.Header)
	answered := req.Header.Get("Authorization") != ""
	if !ok || d.tries >= maxDigestTries || answered && d.fresh && !challenge.stale {
		delete(x.runner.digests, key)
		return false
	}
	d.tries++
	d.fresh = true
	if x.runner.digests == nil {
		x.runner.digests = map[digestKey]*digestState{}
	}
	x.runner.digests[key] = &digestState{challenge: challenge}
	return true
}

// findDigest returns the first challenge that can be answered: a server names what it prefers first.
func findDigest(h http.Header) (digestChallenge, bool) {
	for _, line := range h["Www-Authenticate"] {
		for _, c := range parseChallenges(line) {
			if !strings.EqualFold(c.scheme, "Digest") {
				continue
			}
			if d, ok := newDigestChallenge(c.params); ok {
				return d, true
			}
		}
	}
	return digestChallenge{}, false
}

func newDigestChallenge(params map[string]string) (digestChallenge, bool) {
	opaque, hasOpaque := params["opaque"]
	c := digestChallenge{
		realm: params["realm"], nonce: params["nonce"], opaque: opaque, hasOpaque: hasOpaque, algorithm: params["algorithm"],
		stale: strings.EqualFold(params["stale"], "true"), userhash: strings.EqualFold(params["userhash"], "true"),
	}
	name := strings.ToUpper(c.algorithm)
	name, c.session = strings.CutSuffix(name, "-SESS")
	switch name {
	case "", "MD5":
		c.hash = md5.New
	case "SHA-256":
		c.hash = sha256.New
	default:
		return c, false
	}
	if list, has := params["qop"]; has {
		for _, q := range strings.Split(list, ",") {
			switch q = strings.ToLower(strings.TrimSpace(q)); {
			case q == "auth", q == "auth-int" && c.qop == "":
				c.qop = q
			}
		}
		if c.qop == "" {
			return c, false
		}
	}
	// A nonce, a realm or an opaque that cannot stand in a header cannot be given back.
	for _, s := range []string{c.nonce, c.realm, c.opaque, c.algorithm} {
		if !testspec.ValidHeaderValue(s) {
			return c, false
		}
	}
	return c, c.nonce != ""
}

// answer returns the response and the whole line for Authorization.
func (c *digestChallenge) answer(d *digest, method, uri string, body []byte, count int, cnonce string) (response, line string) {
	sum := func(parts ...string) string {
		h := c.hash()
		_, _ = h.Write([]byte(strings.Join(parts, ":"))) // hashes take everything
		return hex.EncodeToString(h.Sum(nil))
	}
	a1 := sum(d.username, c.realm, d.password)
	if c.session {
		a1 = sum(a1, c.nonce, cnonce)
	}
	a2 := sum(method, uri)
	if c.qop == "auth-int" {
		a2 = sum(method, uri, sum(string(body)))
	}
	nc := fmt.Sprintf("%08x", count)
	if c.qop == "" {
		response = sum(a1, c.nonce, a2)
	} else {
		response = sum(a1, c.nonce, nc, cnonce, c.qop, a2)
	}

	var b strings.Builder
	b.WriteString("Digest ")
	switch {
	case c.userhash:
		b.WriteString("username=" + quoted(sum(d.username, c.realm)))
	case isASCII(d.username):
		b.WriteString("username=" + quoted(d.username))
	default:
		b.WriteString("username*=UTF-8''" + strings.ReplaceAll(url.QueryEscape(d.username), "+", "%20"))
	}
	b.WriteString(", realm=" + quoted(c.realm) + ", uri=" + quoted(uri))
	if c.algorithm != "" {
		b.WriteString(", algorithm=" + c.algorithm)
	}
	b.WriteString(", nonce=" + quoted(c.nonce))
	if c.qop != "" {
		b.WriteString(", nc=" + nc + ", cnonce=" + quoted(cnonce) + ", qop=" + c.qop)
	} else if c.session {
		b.WriteString(", cnonce=" + quoted(cnonce))
	}
	b.WriteString(", response=" + quoted(response))
	if c.hasOpaque {
		b.WriteString(", opaque=" + quoted(c.opaque))
	}
	if c.userhash {
		b.WriteString(", userhash=true")
	}
	return response, b.String()
}

// nextNonce is what Authentication-Info asks to use from now on; "" when it asks for nothing.
func nextNonce(h http.Header) string {
	next := parseParams(h.Get("Authentication-Info"))["nextnonce"]
	if !testspec.ValidHeaderValue(next) {
		return ""
	}
	return next
}

// quoted writes s as a quoted-string.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
