package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

const (
	// refreshPrefix makes a refresh token recognisable to people, to secret scanners and to us.
	refreshPrefix = "tfr_"
	refreshBytes  = 32 // 256 bits
)

// RefreshTokens mints opaque refresh tokens and turns them into what is stored: HMAC-SHA256 under JWT_REFRESH_SECRET, so
// that neither a copy of the table nor the secret alone gives a usable token. It is safe for concurrent use.
type RefreshTokens struct {
	secrets [][]byte // the first one is for new tokens
}

// NewRefreshTokens returns RefreshTokens for the secrets, a comma-separated list like that of NewTokens.
func NewRefreshTokens(secrets string) (*RefreshTokens, error) {
	list, err := splitSecrets(secrets)
	if err != nil {
		return nil, err
	}
	return &RefreshTokens{secrets: list}, nil
}

// Mint returns a new token, to be given out once, and its hash, to be stored.
func (r *RefreshTokens) Mint() (token string, hash []byte) {
	raw := make([]byte, refreshBytes)
	_, _ = rand.Read(raw) // never fails since Go 1.24
	return refreshPrefix + base64.RawURLEncoding.EncodeToString(raw), refreshHash(r.secrets[0], raw)
}

// Hashes returns the hashes under which a token may be stored, one a secret, the newest first; ok is false for a text that
// no Mint made.
func (r *RefreshTokens) Hashes(token string) (hashes [][]byte, ok bool) {
	text, found := strings.CutPrefix(token, refreshPrefix)
	if !found || len(text) != base64.RawURLEncoding.EncodedLen(refreshBytes) {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, false
	}
	for _, secret := range r.secrets {
		hashes = append(hashes, refreshHash(secret, raw))
	}
	return hashes, true
}

func refreshHash(secret, raw []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("testflow refresh token\x00"))
	mac.Write(raw)
	return mac.Sum(nil)
}
