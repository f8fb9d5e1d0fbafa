package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash/crc32"
	"math/big"
	"strings"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/fault"
)

// An API key reads tf_<id>_<secret><checksum>, all of it base62 (0-9 A-Z a-z) of fixed width: 16 bytes of id, 32 random
// bytes, and the CRC-32 (IEEE) of everything before it, as in GitHub's tokens. So a scanner knows a leaked key by its
// looks alone, a key that was cut or mistyped is told from a wrong one without a database, and a double click selects it.
const (
	// KeyPrefix begins every API key.
	KeyPrefix = "tf_"
	// KeyPattern is the regular expression of an API key, for scanners of leaked secrets.
	KeyPattern = `\btf_[0-9A-Za-z]{22}_[0-9A-Za-z]{49}\b`

	keyIDWidth       = 22 // 62^22 > 2^128
	keySecretWidth   = 43 // 62^43 > 2^256
	keyChecksumWidth = 6  // 62^6 > 2^32
	keySecretBytes   = 32
	keyLength        = len(KeyPrefix) + keyIDWidth + 1 + keySecretWidth + keyChecksumWidth
)

// MintKey returns a new key of the id, to be shown once, and the hash of its secret, to be stored. A second call with the
// same id gives another secret.
func MintKey(id uuid.UUID) (key string, hash []byte) {
	raw := make([]byte, keySecretBytes)
	_, _ = rand.Read(raw) // never fails since Go 1.24
	body := KeyLabel(id) + "_" + base62(raw, keySecretWidth)
	return body + keyChecksum(body), keyHash(id, raw)
}

// KeyLabel is the part of a key that is no secret and names it: tf_<id>. Whoever finds a leaked key knows by it which one
// to revoke.
func KeyLabel(id uuid.UUID) string { return KeyPrefix + base62(id[:], keyIDWidth) }

// LooksLikeKey reports whether a credential is meant to be an API key.
func LooksLikeKey(credential string) bool { return strings.HasPrefix(credential, KeyPrefix) }

// ParseKey takes a key apart into its id and the hash of its secret. A text that no MintKey made, such as one that was
// cut or mistyped, is fault.Unauthenticated with the code auth.api_key_malformed; no database was needed to tell.
func ParseKey(key string) (id uuid.UUID, hash []byte, err error) {
	if len(key) != keyLength || !LooksLikeKey(key) || key[len(KeyPrefix)+keyIDWidth] != '_' {
		return uuid.Nil, nil, malformedKey()
	}
	body, sum := key[:keyLength-keyChecksumWidth], key[keyLength-keyChecksumWidth:]
	if keyChecksum(body) != sum { // no secret: it follows from the rest of what was sent
		return uuid.Nil, nil, malformedKey()
	}
	rawID, okID := unbase62(body[len(KeyPrefix):len(KeyPrefix)+keyIDWidth], len(id))
	secret, okSecret := unbase62(body[len(KeyPrefix)+keyIDWidth+1:], keySecretBytes)
	if !okID || !okSecret {
		return uuid.Nil, nil, malformedKey()
	}
	return uuid.UUID(rawID), keyHash(uuid.UUID(rawID), secret), nil
}

// SameKeyHash compares two hashes in a time that doesn't depend on where they differ.
func SameKeyHash(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// keyHash is what is stored of a secret. It has 256 random bits, so a fast hash is as good as a slow one; the id in it
// binds it to its key.
func keyHash(id uuid.UUID, secret []byte) []byte {
	h := sha256.New()
	h.Write([]byte("testflow api key\x00"))
	h.Write(id[:])
	h.Write(secret)
	return h.Sum(nil)
}

func keyChecksum(body string) string {
	return base62(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(body))), keyChecksumWidth)
}

const base62Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// base62 writes raw as a number of width digits, the highest first.
func base62(raw []byte, width int) string {
	n, rest, base := new(big.Int).SetBytes(raw), new(big.Int), big.NewInt(int64(len(base62Digits)))
	out := make([]byte, width)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, rest)
		out[i] = base62Digits[rest.Int64()]
	}
	return string(out)
}

// unbase62 reads what base62 wrote of size bytes; ok is false for other characters and for numbers that don't fit, so that
// each value has one spelling.
func unbase62(text string, size int) (raw []byte, ok bool) {
	n, base := new(big.Int), big.NewInt(int64(len(base62Digits)))
	for i := range len(text) {
		digit := strings.IndexByte(base62Digits, text[i])
		if digit < 0 {
			return nil, false
		}
		n.Add(n.Mul(n, base), big.NewInt(int64(digit)))
	}
	if n.BitLen() > 8*size {
		return nil, false
	}
	return n.FillBytes(make([]byte, size)), true
}

func malformedKey() *fault.Error {
	return fault.New(fault.Unauthenticated, "auth.api_key_malformed", "This is not a whole API key: it was cut or mistyped. One begins with tf_ and has %d characters.", keyLength)
}
