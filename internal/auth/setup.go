package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// SetupToken returns the token with which an installation's first account is made: derived from the first secret of
// JWT_SECRET, so that every node of an installation knows the same one, and worth nothing once there is an account.
func SetupToken(secrets string) (string, error) {
	list, err := splitSecrets(secrets)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, list[0])
	mac.Write([]byte("testflow setup token"))
	return strings.ToLower(base32.StdEncoding.EncodeToString(mac.Sum(nil)[:15])), nil // 120 bits, 24 characters
}
