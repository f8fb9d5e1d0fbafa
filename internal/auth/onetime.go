package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

const (
	// oneTimePrefix makes a code that came by mail recognisable to people and to secret scanners.
	oneTimePrefix = "tfo_"
	oneTimeBytes  = 32 // 256 bits, so that a plain hash of it can't be guessed
)

// MintOneTime returns a new code for one purpose, to be sent once, and its hash, to be stored.
func MintOneTime(purpose string) (token string, hash []byte) {
	raw := make([]byte, oneTimeBytes)
	_, _ = rand.Read(raw) // never fails since Go 1.24
	return oneTimePrefix + base64.RawURLEncoding.EncodeToString(raw), oneTimeHash(purpose, raw)
}

// HashOneTime returns the hash under which a code for the purpose is stored; ok is false for a text that no MintOneTime
// made. A code for another purpose has another hash.
func HashOneTime(purpose, token string) (hash []byte, ok bool) {
	text, found := strings.CutPrefix(strings.TrimSpace(token), oneTimePrefix)
	if !found || len(text) != base64.RawURLEncoding.EncodedLen(oneTimeBytes) {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, false
	}
	return oneTimeHash(purpose, raw), true
}

func oneTimeHash(purpose string, raw []byte) []byte {
	sum := sha256.New()
	sum.Write([]byte("testflow one-time code\x00" + purpose + "\x00"))
	sum.Write(raw)
	return sum.Sum(nil)
}
