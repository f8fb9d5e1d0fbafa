package realtime

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/fault"
)

// Cursors writes positions of an organization's log as opaque, signed text and reads them back. A cursor is bound to its
// organization, and to the epoch of the database: after a failover or a restore, positions may mean other events. GET
// /api/events uses the same cursors. It is safe for concurrent use.
type Cursors struct {
	key   []byte
	epoch uint64
}

// cursorMAC is how many bytes of the HMAC-SHA-256 a cursor carries: 128 bits.
const cursorMAC = 16

// NewCursors returns Cursors under the key, at least 32 secret bytes that nothing else is signed with. All nodes of an
// installation need the same key and epoch.
func NewCursors(key []byte, epoch uint64) *Cursors { return &Cursors{key: key, epoch: epoch} }

// Encode returns the cursor of everything in org's log up to and including the position.
func (c *Cursors) Encode(org uuid.UUID, position int64) string {
	var b [16 + cursorMAC]byte
	binary.BigEndian.PutUint64(b[:8], c.epoch)
	binary.BigEndian.PutUint64(b[8:16], uint64(position)) //nolint:gosec // positions are not negative
	copy(b[16:], c.mac(org, b[:16]))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Decode returns the position of a cursor of org. current is false when the cursor is from another epoch, so that its
// position means nothing any more. A cursor that is forged, cut or another organization's is fault.Invalid.
func (c *Cursors) Decode(org uuid.UUID, cursor string) (position int64, current bool, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) != 16+cursorMAC || !hmac.Equal(b[16:], c.mac(org, b[:16])) {
		return 0, false, fault.New(fault.Invalid, "cursor.invalid", "That is not a cursor of this organization.")
	}
	return int64(binary.BigEndian.Uint64(b[8:16])), binary.BigEndian.Uint64(b[:8]) == c.epoch, nil //nolint:gosec // we wrote it
}

func (c *Cursors) mac(org uuid.UUID, what []byte) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte("testflow event cursor 1\x00"))
	h.Write(org[:])
	h.Write(what)
	return h.Sum(nil)[:cursorMAC]
}
