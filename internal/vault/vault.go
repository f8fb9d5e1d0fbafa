// Package vault seals what must not stand readable in the database: envelope encryption with AES-256-GCM. A master key
// from outside wraps data keys, one an organization and one a person; a data key seals values. The package does no I/O:
// account and org keep the wrapped keys, so losing a person's key erases what was sealed with it.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

const (
	keySize   = 32 // AES-256
	keyIDSize = 8
	nonceSize = 12
	tagSize   = 16

	// format is the first byte of everything sealed: format ‖ key id ‖ nonce ‖ ciphertext and tag.
	format     = 1
	headerSize = 1 + keyIDSize + nonceSize

	// textPrefix marks sealed text among plain text, in events above all.
	textPrefix = "sealed:"
)

// Errors of opening. Neither says more than it must.
var (
	ErrUnknownKey = errors.New("sealed with a key that isn't here")
	ErrSealBroken = errors.New("sealed value is damaged or belongs elsewhere")
)

// Master wraps data keys. It holds several keys, so that a new one can take over while the old ones still open. It is
// safe for concurrent use.
type Master struct {
	keys  map[string]Key
	first Key
	raws  [][]byte // as keys, in the order of the list
}

// NewMaster returns a Master for a comma-separated list of keys, each 32 bytes in standard base64. The first wraps, all
// unwrap: put the new key in front, Rewrap every data key, then take the old one away.
func NewMaster(keys string) (*Master, error) {
	m := &Master{keys: map[string]Key{}}
	for i, text := range strings.Split(keys, ",") {
		raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
		if err != nil || len(raw) != keySize { // the cause would show a part of the key
			return nil, fmt.Errorf("master key %d of the list is not %d bytes in base64", i+1, keySize)
		}
		k, err := newKey(raw)
		if err != nil {
			return nil, fmt.Errorf("master key %d of the list: %w", i+1, err)
		}
		if _, twice := m.keys[k.id]; twice {
			return nil, fmt.Errorf("master key %d of the list stands there twice", i+1)
		}
		m.keys[k.id] = k
		m.raws = append(m.raws, raw)
		if i == 0 {
			m.first = k
		}
	}
	return m, nil
}

// GenerateMasterKey returns a new random key in the form that NewMaster reads.
func GenerateMasterKey() string {
	return base64.StdEncoding.EncodeToString(random(keySize))
}

// NewDataKey makes a data key and its wrapped form, which is what is stored. The owner ("person", its id) is bound to it:
// a wrapped key that was moved to another owner doesn't open.
func (m *Master) NewDataKey(owner ...string) (key Key, wrapped []byte, err error) {
	raw := random(keySize)
	if key, err = newKey(raw); err != nil {
		return Key{}, nil, err
	}
	return key, m.first.Seal(raw, wrapContext(owner)...), nil
}

// Unwrap returns the data key of a wrapped form made for the same owner, or ErrUnknownKey or ErrSealBroken.
func (m *Master) Unwrap(wrapped []byte, owner ...string) (Key, error) {
	raw, err := m.unwrap(wrapped, owner)
	if err != nil {
		return Key{}, err
	}
	return newKey(raw)
}

// Rewrap returns the wrapped form under the first master key; changed is false when it already is.
func (m *Master) Rewrap(wrapped []byte, owner ...string) (rewrapped []byte, changed bool, err error) {
	raw, err := m.unwrap(wrapped, owner)
	if err != nil {
		return nil, false, err
	}
	if id, _ := sealedKeyID(wrapped); id == m.first.id {
		return wrapped, false, nil
	}
	return m.first.Seal(raw, wrapContext(owner)...), true, nil
}

func (m *Master) unwrap(wrapped []byte, owner []string) ([]byte, error) {
	id, ok := sealedKeyID(wrapped)
	if !ok {
		return nil, ErrSealBroken
	}
	k, ok := m.keys[id]
	if !ok {
		return nil, ErrUnknownKey
	}
	raw, err := k.Open(wrapped, wrapContext(owner)...)
	if err != nil {
		return nil, err
	}
	if len(raw) != keySize {
		return nil, ErrSealBroken
	}
	return raw, nil
}

func wrapContext(owner []string) []string { return append([]string{"testflow data key"}, owner...) }

// Key seals and opens values. Its nonces are random, so one key is good for 2^32 values; a person or an organization
// stays far below that. The zero Key is unusable. It is safe for concurrent use.
type Key struct {
	id   string // keyIDSize bytes, derived from the key, telling nothing of it
	aead cipher.AEAD
}

func newKey(raw []byte) (Key, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return Key{}, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return Key{}, fmt.Errorf("make cipher: %w", err)
	}
	mac := hmac.New(sha256.New, raw)
	mac.Write([]byte("testflow key id"))
	return Key{id: string(mac.Sum(nil)[:keyIDSize]), aead: aead}, nil
}

// Seal encrypts plain and binds it to a context, such as the organization, the secret's id and its version: only Open
// with the same context gives it back.
func (k Key) Seal(plain []byte, context ...string) []byte {
	out := make([]byte, 0, headerSize+len(plain)+tagSize)
	out = append(out, format)
	out = append(out, k.id...)
	out = append(out, random(nonceSize)...)
	return k.aead.Seal(out, out[1+keyIDSize:headerSize], plain, bind(context))
}

// Open decrypts what Seal made with the same key and context. It returns ErrUnknownKey for another key's and
// ErrSealBroken for everything else that doesn't open.
func (k Key) Open(sealed []byte, context ...string) ([]byte, error) {
	id, ok := sealedKeyID(sealed)
	if !ok {
		return nil, ErrSealBroken
	}
	if id != k.id {
		return nil, ErrUnknownKey
	}
	plain, err := k.aead.Open(nil, sealed[1+keyIDSize:headerSize], sealed[headerSize:], bind(context))
	if err != nil {
		return nil, ErrSealBroken
	}
	return plain, nil
}

// SealText is Seal for text: the result is text that begins with "sealed:".
func (k Key) SealText(plain string, context ...string) string {
	return textPrefix + base64.RawURLEncoding.EncodeToString(k.Seal([]byte(plain), context...))
}

// OpenText opens what SealText made.
func (k Key) OpenText(sealed string, context ...string) (string, error) {
	text, ok := strings.CutPrefix(sealed, textPrefix)
	if !ok {
		return "", ErrSealBroken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", ErrSealBroken
	}
	plain, err := k.Open(raw, context...)
	return string(plain), err
}

// IsSealedText reports whether the text looks like one that SealText made.
func IsSealedText(text string) bool { return strings.HasPrefix(text, textPrefix) }

// sealedKeyID returns the id of the key that sealed something; ok is false when it cannot have been sealed here.
func sealedKeyID(sealed []byte) (id string, ok bool) {
	if len(sealed) < headerSize+tagSize || sealed[0] != format {
		return "", false
	}
	return string(sealed[1 : 1+keyIDSize]), true
}

// bind joins the parts of a context so that no two lists give the same bytes.
func bind(context []string) []byte {
	var out []byte
	for _, part := range context {
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = append(out, part...)
	}
	return out
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return b
}
