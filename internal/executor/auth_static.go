package executor

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/testflow/testflow/internal/testspec"
)

// authorization is a value of the header Authorization that stays the same: Basic and Bearer.
type authorization struct {
	once
	value string
}

func (a *authorization) put(_ context.Context, x *exchanging, req *http.Request) *Error {
	x.setHeader(req, "Authorization", a.value)
	return nil
}

// basic is Basic as RFC 7617 has it: UTF-8, and no colon in the user name, since the first one ends it.
func (e *authExpander) basic(a *testspec.Auth) credential {
	user, password := e.text(a.Username, "username"), e.text(a.Password, "password")
	switch {
	case strings.Contains(user, ":"):
		e.fail(badRequest("With its variables put in, the auth's username holds a colon, which Basic cannot carry."))
	case !testspec.ValidHeaderValue(user + password):
		e.fail(badRequest("With its variables put in, the auth's username or password holds control characters."))
	}
	pair := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	e.runner.hide(pair)
	return &authorization{value: "Basic " + pair}
}

func (e *authExpander) bearer(a *testspec.Auth) credential {
	token := e.line(a.Token, "token")
	e.runner.hide(token)
	return &authorization{value: "Bearer " + token}
}

// apiKey is a key under a name of the target's choosing.
type apiKey struct {
	once
	in, name, value string
}

func (e *authExpander) apiKey(a *testspec.Auth) credential {
	k := &apiKey{in: a.Place(), name: e.needed(a.Name, "name")}
	e.place(k.in, k.name)
	if k.in == "query" {
		k.value = e.needed(a.Value, "value")
	} else {
		k.value = e.line(a.Value, "value")
	}
	if k.in == "cookie" && !validCookieValue(k.value) {
		e.fail(badRequest("With its variables put in, the auth's value holds what a cookie cannot carry."))
	}
	e.runner.hide(k.value)
	return k
}

func (k *apiKey) put(_ context.Context, x *exchanging, req *http.Request) *Error {
	switch k.in {
	case "query":
		x.setQuery(req, k.name, k.value)
	case "cookie":
		// Not AddCookie, which would drop bytes that it does not like. The cookies of the jar come after it.
		pair := k.name + "=" + k.value
		if others := req.Header.Get("Cookie"); others != "" {
			pair += "; " + others
		}
		req.Header.Set("Cookie", pair)
	default:
		x.setHeader(req, k.name, k.value)
	}
	return nil
}

// validCookieValue says whether s is made of RFC 6265's cookie-octets, in quotes or not.
func validCookieValue(s string) bool {
	s = strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`)
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '"' || r == ',' || r == ';' || r == '\\'
	})
}
