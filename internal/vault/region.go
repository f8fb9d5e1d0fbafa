package vault

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// Ring opens what any of its keys sealed, and seals with the first: the keys of a region. It is safe for concurrent use.
type Ring struct {
	keys  map[string]Key
	first Key
}

// NewRing returns a Ring for a comma-separated list of keys, each as RegionKey writes it.
func NewRing(keys string) (*Ring, error) {
	r := &Ring{keys: map[string]Key{}}
	for i, text := range strings.Split(keys, ",") {
		raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
		if err != nil || len(raw) != keySize { // the cause would show a part of the key
			return nil, fmt.Errorf("key %d of the list is not %d bytes in base64", i+1, keySize)
		}
		if err := r.add(raw); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Ring) add(raw []byte) error {
	k, err := newKey(raw)
	if err != nil {
		return err
	}
	if len(r.keys) == 0 {
		r.first = k
	}
	r.keys[k.id] = k
	return nil
}

// Region returns a region's keys, one from each master key. Nothing of a master key can be told from them, and nothing of
// another region's.
func (m *Master) Region(name string) (*Ring, error) {
	r := &Ring{keys: map[string]Key{}}
	for _, raw := range m.raws {
		key, err := regionKey(raw, name)
		if err != nil {
			return nil, err
		}
		if err := r.add(key); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// RegionKey returns the key of a region that the first master key gives, as its workers are given it.
func (m *Master) RegionKey(name string) (string, error) {
	key, err := regionKey(m.raws[0], name)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(key), nil
}

func regionKey(master []byte, name string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, master, nil, "testflow region:"+name, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive the key of region %s: %w", name, err)
	}
	return key, nil
}

// Seal seals with the first key; see Key.Seal.
func (r *Ring) Seal(plain []byte, context ...string) []byte { return r.first.Seal(plain, context...) }

// Open opens what one of the keys sealed in that context, or returns ErrUnknownKey or ErrSealBroken.
func (r *Ring) Open(sealed []byte, context ...string) ([]byte, error) {
	id, ok := sealedKeyID(sealed)
	if !ok {
		return nil, ErrSealBroken
	}
	k, ok := r.keys[id]
	if !ok {
		return nil, ErrUnknownKey
	}
	return k.Open(sealed, context...)
}

// Current reports whether something was sealed with the first key.
func (r *Ring) Current(sealed []byte) bool {
	id, ok := sealedKeyID(sealed)
	return ok && id == r.first.id
}

// Current reports whether something was wrapped with the first master key.
func (m *Master) Current(wrapped []byte) bool {
	id, ok := sealedKeyID(wrapped)
	return ok && id == m.first.id
}

// IDOf returns which key sealed something: 8 bytes that tell nothing of it; nil when it cannot have been sealed here.
func IDOf(sealed []byte) []byte {
	id, ok := sealedKeyID(sealed)
	if !ok {
		return nil
	}
	return []byte(id)
}

// ID returns the key's own id, as IDOf.
func (k Key) ID() []byte { return []byte(k.id) }
