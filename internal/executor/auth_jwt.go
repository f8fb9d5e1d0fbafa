package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// signedJWT is a JWT that is signed for each request.
type signedJWT struct {
	once
	method   jwt.SigningMethod
	key      any
	header   map[string]any
	claims   jwt.MapClaims
	lifetime time.Duration
	in, name string
	prefix   string
}

func (e *authExpander) jwt(a *testspec.Auth) credential {
	j := &signedJWT{
		method: jwt.GetSigningMethod(a.Algorithm), in: a.Place(), name: "Authorization", prefix: "Bearer ",
		lifetime: time.Duration(a.ExpiresIn), claims: jwt.MapClaims{},
	}
	if j.method == nil {
		e.fail(badRequest("There is no algorithm " + a.Algorithm + " for a JWT."))
		return nil
	}
	if j.lifetime <= 0 {
		j.lifetime = limits.DefaultTokenLife
	}
	if a.Name != nil {
		j.name = e.needed(a.Name, "name")
	}
	e.place(j.in, j.name)
	if a.Prefix != nil {
		if j.prefix = ""; *a.Prefix != "" {
			j.prefix = e.line(a.Prefix, "prefix") + " "
		}
	}
	j.key = e.signingKey(a)
	e.object(a.Claims, "claims", (*map[string]any)(&j.claims))
	e.object(a.Headers, "headers", &j.header)
	if a.KeyID != nil {
		if j.header == nil {
			j.header = map[string]any{}
		}
		j.header["kid"] = e.needed(a.KeyID, "keyId")
	}
	e.checkDates(j.claims)
	return j
}

// object puts variables into a JSON object and reads it; numbers stay as they are written.
func (e *authExpander) object(template json.RawMessage, name string, into *map[string]any) {
	if template == nil {
		return
	}
	raw, err := e.runner.scope.ExpandJSON(template, limits.MaxClaims)
	if err != nil {
		e.fail(expandError("the auth's "+name, err))
		return
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		e.fail(badRequest("With their variables put in, the auth's " + name + " are not a JSON object."))
	}
}

// dates are the claims that may be written relative to now.
var dates = []string{"iat", "nbf", "exp"}

// checkDates refuses a date that is none, now that its variables are put in.
func (e *authExpander) checkDates(claims jwt.MapClaims) {
	for _, name := range dates {
		text, ok := claims[name].(string)
		if !ok {
			continue
		}
		if _, relative := testspec.ParseNumericDate(text, time.Time{}); relative {
			continue
		}
		// A variable's value is text; as a date it is a number.
		var n json.Number
		if err := json.Unmarshal([]byte(text), &n); err != nil {
			e.fail(badRequest("With its variables put in, the claim " + name + ` is neither a number of seconds nor text such as "now+5m".`))
			return
		}
		claims[name] = n
	}
}

// signingKey reads the key that an algorithm needs. What a reader says of a bad one is not passed on.
func (e *authExpander) signingKey(a *testspec.Auth) any {
	text := e.needed(a.Key, "key")
	if strings.HasPrefix(a.Algorithm, "HS") {
		return []byte(text)
	}
	if len(text) > limits.MaxSigningKey {
		e.fail(badRequest("The auth's key is longer than any that is used to sign."))
		return nil
	}
	var key any
	var err error
	pem := []byte(text)
	switch a.Algorithm[:2] {
	case "RS", "PS":
		key, err = jwt.ParseRSAPrivateKeyFromPEM(pem)
	case "ES":
		key, err = jwt.ParseECPrivateKeyFromPEM(pem)
	default:
		key, err = jwt.ParseEdPrivateKeyFromPEM(pem)
	}
	if err != nil {
		e.fail(badRequest("The auth's key is not a private key in PEM that fits " + a.Algorithm + "."))
	}
	return key
}

func (j *signedJWT) put(_ context.Context, x *exchanging, req *http.Request) *Error {
	now := x.runner.engine.cfg.Now().Truncate(time.Second)
	claims := jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(j.lifetime).Unix()}
	for name, value := range j.claims {
		claims[name] = value
	}
	for _, name := range dates {
		switch v := claims[name].(type) {
		case nil:
			delete(claims, name) // null means: none
		case string:
			at, _ := testspec.ParseNumericDate(v, now) // was checked
			claims[name] = at.Unix()
		}
	}
	token := jwt.NewWithClaims(j.method, claims)
	for name, value := range j.header {
		token.Header[name] = value
	}
	signed, err := token.SignedString(j.key)
	if err != nil { // an elliptic curve of another size, an RSA key that is too short
		return badRequest("The auth's key does not fit " + j.method.Alg() + ".")
	}
	x.runner.hide(signed)
	if j.in == "query" {
		x.setQuery(req, j.name, signed)
	} else {
		x.setHeader(req, j.name, j.prefix+signed)
	}
	return nil
}
