package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

const (
	secretA = "a-secret-of-more-than-thirty-two-bytes-A"
	secretB = "a-secret-of-more-than-thirty-two-bytes-B"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func at(moment time.Time) func() time.Time { return func() time.Time { return moment } }

func tokens(t *testing.T, secrets string, now time.Time) *Tokens {
	t.Helper()
	tk, err := NewTokens(secrets, at(now), uuid.New)
	require.NoError(t, err)
	return tk
}

func code(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

func TestTokens_whatIsIssuedIsVerified(t *testing.T) {
	t.Parallel()
	tk := tokens(t, secretA, noon)
	in := Claims{AccountID: uuid.New(), SessionID: uuid.New(), OrgID: uuid.New()}
	token, ends, err := tk.Issue(in)
	require.NoError(t, err)
	require.Equal(t, noon.Add(15*time.Minute), ends)

	out, err := tk.Verify(token)
	require.NoError(t, err)
	require.Equal(t, in.AccountID, out.AccountID)
	require.Equal(t, in.SessionID, out.SessionID)
	require.Equal(t, in.OrgID, out.OrgID)
	require.True(t, out.ExpiresAt.Equal(ends))
	require.NotEqual(t, uuid.Nil, out.TokenID)

	token, _, err = tk.Issue(Claims{AccountID: in.AccountID, SessionID: in.SessionID})
	require.NoError(t, err)
	out, err = tk.Verify(token)
	require.NoError(t, err)
	require.Equal(t, uuid.Nil, out.OrgID)
}

func TestTokens_rotation(t *testing.T) {
	t.Parallel()
	issue := func(secrets string) string {
		token, _, err := tokens(t, secrets, noon).Issue(Claims{AccountID: uuid.New(), SessionID: uuid.New()})
		require.NoError(t, err)
		return token
	}
	both := tokens(t, secretB+" , "+secretA, noon)
	_, err := both.Verify(issue(secretA))
	require.NoError(t, err, "the old secret is still good")
	_, err = both.Verify(issue(secretB + "," + secretA))
	require.NoError(t, err)
	_, err = tokens(t, secretA, noon).Verify(issue(secretB + "," + secretA))
	require.Equal(t, "auth.token_invalid", code(err), "the first one signs")
}

func TestNewTokens_refusesWeakSecrets(t *testing.T) {
	t.Parallel()
	for _, secrets := range []string{"", "short", secretA + ",", secretA + ",short", secretA + "," + secretA} {
		_, err := NewTokens(secrets, at(noon), uuid.New)
		require.Error(t, err, "%q", secrets)
		require.NotContains(t, err.Error(), secretA)
		_, err = NewRefreshTokens(secrets)
		require.Error(t, err, "%q", secrets)
	}
}

// forge signs any header and claims the way HS256 does.
func forge(t *testing.T, secret string, header, claims map[string]any) string {
	t.Helper()
	h, err := json.Marshal(header)
	require.NoError(t, err)
	c, err := json.Marshal(claims)
	require.NoError(t, err)
	return sign(secret, string(h), string(c))
}

func sign(secret, header, claims string) string {
	b := base64.RawURLEncoding
	input := b.EncodeToString([]byte(header)) + "." + b.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(input))
	return input + "." + b.EncodeToString(mac.Sum(nil))
}

func TestAttack_tokens_confusion(t *testing.T) {
	t.Parallel()
	tk := tokens(t, secretA, noon)
	kid := keyID([]byte(secretA))
	header := map[string]any{"alg": "HS256", "typ": "at+jwt", "kid": kid}
	claims := map[string]any{
		"iss": "testflow", "aud": "testflow-api", "sub": uuid.NewString(), "sid": uuid.NewString(), "org": uuid.NewString(),
		"iat": noon.Unix(), "exp": noon.Add(time.Minute).Unix(), "jti": uuid.NewString(),
	}
	with := func(base map[string]any, key string, value any) map[string]any {
		m := maps.Clone(base)
		if value == nil {
			delete(m, key)
		} else {
			m[key] = value
		}
		return m
	}
	good := forge(t, secretA, header, claims)
	_, err := tk.Verify(good)
	require.NoError(t, err, "the forge makes what we make")
	refresh, err := NewRefreshTokens(secretA)
	require.NoError(t, err)
	refreshToken, _ := refresh.Mint()
	parts := strings.Split(good, ".")
	sign512 := func() string {
		tok := jwt.NewWithClaims(jwt.SigningMethodHS512, jwt.MapClaims(claims))
		tok.Header["typ"], tok.Header["kid"] = "at+jwt", kid
		s, err := tok.SignedString([]byte(secretA))
		require.NoError(t, err)
		return s
	}()
	none := func() string {
		tok := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims(claims))
		tok.Header["typ"], tok.Header["kid"] = "at+jwt", kid
		s, err := tok.SignedString(jwt.UnsafeAllowNoneSignatureType)
		require.NoError(t, err)
		return s
	}()
	headerJSON, err := json.Marshal(header)
	require.NoError(t, err)
	claimsJSON, err := json.Marshal(claims)
	require.NoError(t, err)
	twice := func(json, name string) string { // the first is good, and so is the last
		return strings.TrimSuffix(json, "}") + `,"` + name + `":"` + uuid.NewString() + `"}`
	}
	rsa := func() string {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		return signedBy(t, jwt.SigningMethodRS256, key, kid, claims)
	}()
	ecdsa := func() string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return signedBy(t, jwt.SigningMethodES256, key, kid, claims)
	}()

	for name, token := range map[string]string{
		"empty":                        "",
		"not a token":                  "a.b.c",
		"refresh token":                refreshToken,
		"alg none":                     none,
		"alg none, mixed case":         forge(t, secretA, with(header, "alg", "nOnE"), claims),
		"alg swapped to RS256":         forge(t, secretA, with(header, "alg", "RS256"), claims),
		"alg HS512 with our key":       sign512,
		"alg swapped to ES256":         forge(t, secretA, with(header, "alg", "ES256"), claims),
		"alg HS384 with our key":       signedBy(t, jwt.SigningMethodHS384, []byte(secretA), kid, claims),
		"RS256, signed by its own key": rsa,
		"ES256, signed by its own key": ecdsa,
		"alg missing":                  forge(t, secretA, with(header, "alg", nil), claims),
		"alg in another case":          forge(t, secretA, with(header, "alg", "hs256"), claims),
		"alg twice":                    sign(secretA, strings.Replace(string(headerJSON), "{", `{"alg":"none",`, 1), string(claimsJSON)),
		"kid a URL":                    forge(t, "", with(header, "kid", "https://evil.example/key"), claims),
		"kid a statement":              forge(t, "", with(header, "kid", "x' UNION SELECT 'AAAA"), claims),
		"kid a list":                   forge(t, secretA, with(header, "kid", []string{kid}), claims),
		"kid in another case":          forge(t, secretA, with(with(header, "kid", nil), "KID", kid), claims),
		"kid of another secret":        forge(t, secretA, with(header, "kid", keyID([]byte(secretB))), claims),
		"kid empty, secret empty":      forge(t, "", with(header, "kid", ""), claims),
		"x5u in the header":            forge(t, secretA, with(header, "x5u", "https://evil.example/cert"), claims),
		"x5c in the header":            forge(t, secretA, with(header, "x5c", []string{"AAAA"}), claims),
		"a subject twice":              sign(secretA, string(headerJSON), twice(string(claimsJSON), "sub")),
		"a subject in another case":    sign(secretA, string(headerJSON), twice(string(claimsJSON), "SUB")),
		"an end twice":                 sign(secretA, string(headerJSON), strings.Replace(string(claimsJSON), "{", `{"exp":1,`, 1)),
		"signature cut off":            parts[0] + "." + parts[1] + ".",
		"two parts":                    parts[0] + "." + parts[1],
		"another secret":               forge(t, secretB, header, claims),
		"another secret, its kid":      forge(t, secretB, with(header, "kid", keyID([]byte(secretB))), claims),
		"no kid":                       forge(t, secretA, with(header, "kid", nil), claims),
		"kid a path":                   forge(t, "", with(header, "kid", "../../dev/null"), claims),
		"kid a number":                 forge(t, secretA, with(header, "kid", 1), claims),
		"kid unknown":                  forge(t, secretA, with(header, "kid", "0000000000000000"), claims),
		"jwk in the header":            forge(t, secretA, with(header, "jwk", map[string]any{"kty": "oct", "k": "AAAA"}), claims),
		"jku in the header":            forge(t, secretA, with(header, "jku", "https://evil.example/keys"), claims),
		"crit in the header":           forge(t, secretA, with(header, "crit", []string{"exp"}), claims),
		"typ missing":                  forge(t, secretA, with(header, "typ", nil), claims),
		"typ JWT":                      forge(t, secretA, with(header, "typ", "JWT"), claims),
		"another audience":             forge(t, secretA, header, with(claims, "aud", "somebody-else")),
		"two audiences":                forge(t, secretA, header, with(claims, "aud", []string{"testflow-api", "other"})),
		"no audience":                  forge(t, secretA, header, with(claims, "aud", nil)),
		"another issuer":               forge(t, secretA, header, with(claims, "iss", "testflow2")),
		"no issuer":                    forge(t, secretA, header, with(claims, "iss", nil)),
		"no expiry":                    forge(t, secretA, header, with(claims, "exp", nil)),
		"issued in the future":         forge(t, secretA, header, with(claims, "iat", noon.Add(time.Hour).Unix())),
		"no iat":                       forge(t, secretA, header, with(claims, "iat", nil)),
		"not before the future":        forge(t, secretA, header, with(claims, "nbf", noon.Add(time.Hour).Unix())),
		"no subject":                   forge(t, secretA, header, with(claims, "sub", nil)),
		"subject not an id":            forge(t, secretA, header, with(claims, "sub", "admin")),
		"subject zero":                 forge(t, secretA, header, with(claims, "sub", uuid.Nil.String())),
		"subject in another spelling":  forge(t, secretA, header, with(claims, "sub", "{"+uuid.NewString()+"}")),
		"no session":                   forge(t, secretA, header, with(claims, "sid", nil)),
		"organization not an id":       forge(t, secretA, header, with(claims, "org", "x")),
		"no jti":                       forge(t, secretA, header, with(claims, "jti", nil)),
		"padding":                      good + "=",
		"white space":                  " " + good,
		"malleable last character":     good[:len(good)-1] + string(other(good[len(good)-1])),
		"claims are not JSON":          sign(secretA, string(headerJSON), "null and void"),
		"claims are null":              sign(secretA, string(headerJSON), "null"),
		"longer than any token of us":  strings.Repeat("a", limits.MaxTokenLength+1),
		"somebody else's claim inside": parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"x"}`)) + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tk.Verify(token)
			require.Equal(t, "auth.token_invalid", code(err), "%v", err)
			require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
			require.Zero(t, got)
		})
	}
}

func signedBy(t *testing.T, method jwt.SigningMethod, key any, kid string, claims map[string]any) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	tok.Header["typ"], tok.Header["kid"] = "at+jwt", kid
	s, err := tok.SignedString(key)
	require.NoError(t, err)
	return s
}

// other returns the base64url character that differs from c in unused trailing bits only: strict decoding refuses it.
func other(c byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)^1]
}

func TestTokens_expiry(t *testing.T) {
	t.Parallel()
	token, ends, err := tokens(t, secretA, noon).Issue(Claims{AccountID: uuid.New(), SessionID: uuid.New()})
	require.NoError(t, err)
	_, err = tokens(t, secretA, ends.Add(leeway-time.Second)).Verify(token)
	require.NoError(t, err, "clocks may differ a little")
	_, err = tokens(t, secretA, noon.Add(-leeway+time.Second)).Verify(token)
	require.NoError(t, err, "this node's clock may be behind the one that signed")
	_, err = tokens(t, secretA, noon.Add(-leeway-time.Second)).Verify(token)
	require.Equal(t, "auth.token_invalid", code(err), "a little")
	_, err = tokens(t, secretA, ends.Add(leeway+time.Second)).Verify(token)
	require.Equal(t, "auth.token_expired", code(err))
}

func TestSetupToken(t *testing.T) {
	t.Parallel()
	a, err := SetupToken(secretA + "," + secretB)
	require.NoError(t, err)
	require.Len(t, a, 24)
	again, err := SetupToken(secretA)
	require.NoError(t, err)
	require.Equal(t, a, again, "every node knows the same one")
	b, err := SetupToken(secretB)
	require.NoError(t, err)
	require.NotEqual(t, a, b)
	_, err = SetupToken("")
	require.Error(t, err)
}
