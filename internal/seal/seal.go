// Package seal makes a history tamper-evident and verifies it: leaves, trees, signed heads, chains of keys, and the check
// of an export without any server. The tree is that of RFC 6962 (golang.org/x/mod/sumdb/tlog), a head is a signed note in
// the checkpoint format of C2SP, so that programs of others can read it. The package knows no database and does no I/O
// beyond the reader that it is given; who stores what is told here is room audit.
package seal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/gowebpki/jcs"
	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a SHA-256; its text form is standard base64.
type Hash = tlog.Hash

// Content is what an event says, as it was stored: who did what to which stream, with all that is personal in its sealed
// form. Nothing in it can change without its hash changing.
type Content struct {
	OrgID    uuid.UUID       `json:"orgId"`
	StreamID uuid.UUID       `json:"streamId"`
	Kind     string          `json:"kind"`
	Type     string          `json:"type"`
	Schema   int             `json:"schema"`
	Meta     json.RawMessage `json:"meta"` // actor, address, agent, request id
	Data     json.RawMessage `json:"data"`
}

// Hash returns SHA-256 over the canonical JSON of the content. The error says that meta or data is no JSON.
func (c Content) Hash() (Hash, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return Hash{}, fmt.Errorf("encode content: %w", err)
	}
	canonical, err := Canonical(raw)
	if err != nil {
		return Hash{}, err
	}
	return sha256.Sum256(canonical), nil
}

// Canonical returns the RFC 8785 form of a JSON object. RFC 8785 knows no numbers but doubles, and two numbers that round
// to one double would look alike; a number that a double doesn't hold exactly is therefore hashed as the text of its
// digits behind U+0000, which no stored text can hold.
func Canonical(raw []byte) ([]byte, error) {
	canonical, err := jcs.Transform(keepDigits(raw))
	if err != nil {
		return nil, fmt.Errorf("make canonical JSON: %w", err)
	}
	return canonical, nil
}

// leafSize is the bytes of a leaf: position, version, microseconds, content hash.
const leafSize = 3*8 + tlog.HashSize

// Leaf returns SHA-256(0 ‖ position ‖ version ‖ recordedAt ‖ content hash), the numbers as 8 bytes, the most significant
// first, the time in microseconds of Unix.
func Leaf(position int64, version int, recordedAt time.Time, content Hash) Hash {
	var b [leafSize]byte
	binary.BigEndian.PutUint64(b[0:], uint64(position)) //nolint:gosec // bits, not a number
	binary.BigEndian.PutUint64(b[8:], uint64(version))  //nolint:gosec // likewise
	binary.BigEndian.PutUint64(b[16:], uint64(recordedAt.UnixMicro()))
	copy(b[24:], content[:])
	return tlog.RecordHash(b[:])
}
