package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

const (
	issuer   = "testflow"
	audience = "testflow-api"
	// tokenType is the typ header of access tokens (RFC 9068), so that no other JWT passes for one.
	tokenType = "at+jwt"

	// AccessLifetime is how long an access token is good for.
	AccessLifetime = 15 * time.Minute
	// leeway forgives clocks of nodes that differ.
	leeway = 30 * time.Second

	// MinSecretLength is the least length of a signing secret in bytes: an HMAC key shorter than its hash is guessable first.
	MinSecretLength = 32
)

// Claims is what an access token says. It says nothing of roles: those are looked up on each request, so that a change
// holds at once.
type Claims struct {
	AccountID uuid.UUID
	SessionID uuid.UUID
	OrgID     uuid.UUID // the organization that was chosen at sign-in; uuid.Nil = none
	IssuedAt  time.Time // whole seconds
	ExpiresAt time.Time // whole seconds
	TokenID   uuid.UUID
}

// Tokens signs and checks access tokens: HS256 under one of several keys. It is safe for concurrent use.
type Tokens struct {
	keys    map[string][]byte // by kid
	signing string            // kid of the key that signs
	parser  *jwt.Parser
	now     func() time.Time
	newID   func() uuid.UUID
}

// NewTokens returns Tokens for the secrets, a comma-separated list of which the first signs and all are accepted, so that
// a secret is rotated by putting the new one in front and, AccessLifetime later, taking the old one away. Each must have
// MinSecretLength bytes.
func NewTokens(secrets string, now func() time.Time, newID func() uuid.UUID) (*Tokens, error) {
	list, err := splitSecrets(secrets)
	if err != nil {
		return nil, err
	}
	t := &Tokens{keys: map[string][]byte{}, now: now, newID: newID}
	for i, secret := range list {
		kid := keyID(secret)
		t.keys[kid] = secret
		if i == 0 {
			t.signing = kid
		}
	}
	t.parser = jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway), jwt.WithStrictDecoding(), jwt.WithTimeFunc(now))
	return t, nil
}

// splitSecrets cuts a comma-separated list of secrets and refuses short and doubled ones.
func splitSecrets(secrets string) ([][]byte, error) {
	var list [][]byte
	seen := map[string]bool{}
	for i, s := range strings.Split(secrets, ",") {
		s = strings.TrimSpace(s)
		if len(s) < MinSecretLength {
			return nil, fmt.Errorf("secret %d of the list has %d bytes, at least %d are needed", i+1, len(s), MinSecretLength)
		}
		if seen[s] {
			return nil, fmt.Errorf("secret %d of the list stands there twice", i+1)
		}
		seen[s] = true
		list = append(list, []byte(s))
	}
	return list, nil
}

// keyID names a secret without telling anything of it.
func keyID(secret []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("testflow access token key id"))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

type accessClaims struct {
	jwt.RegisteredClaims
	SessionID string `json:"sid"`
	OrgID     string `json:"org,omitempty"`
}

// Issue returns a signed access token for the account, session and chosen organization of c, and when it ends. The other
// fields of c are ignored.
func (t *Tokens) Issue(c Claims) (token string, expiresAt time.Time, err error) {
	now := t.now().Truncate(time.Second)
	expiresAt = now.Add(AccessLifetime)
	claims := accessClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: c.AccountID.String(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expiresAt), ID: t.newID().String(),
		},
		SessionID: c.SessionID.String(),
	}
	if c.OrgID != uuid.Nil {
		claims.OrgID = c.OrgID.String()
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	tok.Header["typ"], tok.Header["kid"] = tokenType, t.signing
	token, err = tok.SignedString(t.keys[t.signing])
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign access token: %w", err)
	}
	return token, expiresAt, nil
}

// Verify returns what a valid access token says. An expired one is fault.Unauthenticated with the code
// auth.token_expired, everything else that isn't ours auth.token_invalid.
func (t *Tokens) Verify(token string) (Claims, error) {
	if len(token) > limits.MaxTokenLength {
		return Claims{}, invalidToken(errors.New("token is too long"))
	}
	if err := strictObjects(token); err != nil {
		return Claims{}, invalidToken(err)
	}
	var ac accessClaims
	_, err := t.parser.ParseWithClaims(token, &ac, t.key)
	if errors.Is(err, jwt.ErrTokenExpired) {
		return Claims{}, fault.New(fault.Unauthenticated, "auth.token_expired", "The access token has expired: refresh it.").Because(err)
	}
	if err != nil {
		return Claims{}, invalidToken(err)
	}
	c, err := ac.claims()
	if err != nil {
		return Claims{}, invalidToken(err)
	}
	return c, nil
}

// key picks the key for a token by its kid, among ours alone, and refuses headers that we never write.
func (t *Tokens) key(tok *jwt.Token) (any, error) {
	for name := range tok.Header {
		if name != "alg" && name != "typ" && name != "kid" { // crit, jku, jwk, x5u …
			return nil, fmt.Errorf("header %q is not allowed", name)
		}
	}
	if typ, _ := tok.Header["typ"].(string); typ != tokenType {
		return nil, errors.New("not an access token")
	}
	kid, _ := tok.Header["kid"].(string)
	key, ok := t.keys[kid]
	if !ok {
		return nil, errors.New("unknown key id")
	}
	return key, nil
}

func (ac accessClaims) claims() (c Claims, err error) {
	if ac.IssuedAt == nil {
		return c, errors.New("iat is missing")
	}
	if len(ac.Audience) != 1 {
		return c, errors.New("more than one audience")
	}
	if c.AccountID, err = parseID("sub", ac.Subject); err != nil {
		return Claims{}, err
	}
	if c.SessionID, err = parseID("sid", ac.SessionID); err != nil {
		return Claims{}, err
	}
	if c.TokenID, err = parseID("jti", ac.ID); err != nil {
		return Claims{}, err
	}
	if ac.OrgID != "" {
		if c.OrgID, err = parseID("org", ac.OrgID); err != nil {
			return Claims{}, err
		}
	}
	c.IssuedAt, c.ExpiresAt = ac.IssuedAt.Time, ac.ExpiresAt.Time
	return c, nil
}

// parseID accepts the canonical form only; uuid.Parse takes several.
func parseID(claim, s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil || id == uuid.Nil || id.String() != s {
		return uuid.Nil, fmt.Errorf("claim %s is not an id", claim)
	}
	return id, nil
}

func invalidToken(err error) *fault.Error {
	return fault.New(fault.Unauthenticated, "auth.token_invalid", "The access token is not valid: sign in again.").Because(err)
}
