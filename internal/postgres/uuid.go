package postgres

import (
	"encoding/binary"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// uuidCodec is pgx's codec for uuid, which also knows google's type. Without it pgx goes through database/sql: each id
// as text, through reflection. That was a sixth of the processor time of a run.
type uuidCodec struct{ pgtype.UUIDCodec }

// PlanEncode returns the plan for a uuid.UUID in binary, and pgx's for everything else.
func (c uuidCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(uuid.UUID); ok && format == pgtype.BinaryFormatCode {
		return encodeUUID{}
	}
	return c.UUIDCodec.PlanEncode(m, oid, format, value)
}

// PlanScan returns the plan for a *uuid.UUID from binary, and pgx's for everything else.
func (c uuidCodec) PlanScan(m *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	if _, ok := target.(*uuid.UUID); ok && format == pgtype.BinaryFormatCode {
		return scanUUID{}
	}
	return c.UUIDCodec.PlanScan(m, oid, format, target)
}

// errNoUUID says that a value is not what its plan was made for, or not sixteen bytes.
var errNoUUID = errors.New("not a UUID")

type encodeUUID struct{}

// Encode appends the sixteen bytes.
func (encodeUUID) Encode(value any, buf []byte) ([]byte, error) {
	id, ok := value.(uuid.UUID)
	if !ok {
		return nil, errNoUUID
	}
	return append(buf, id[:]...), nil
}

type scanUUID struct{}

// Scan reads the sixteen bytes; NULL is uuid.Nil, as with google's own Scan.
func (scanUUID) Scan(src []byte, target any) error {
	id, ok := target.(*uuid.UUID)
	if !ok {
		return errNoUUID
	}
	switch len(src) {
	case 0:
		*id = uuid.Nil
		return nil
	case len(id):
		copy(id[:], src)
		return nil
	}
	return errNoUUID
}

// uuidArrayCodec is pgx's codec for uuid[], which writes a []uuid.UUID in one go.
type uuidArrayCodec struct{ *pgtype.ArrayCodec }

// PlanEncode returns the plan for a []uuid.UUID in binary, and pgx's for everything else.
func (c uuidArrayCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.([]uuid.UUID); ok && format == pgtype.BinaryFormatCode {
		return encodeUUIDs{}
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

type encodeUUIDs struct{}

// Encode appends the array: its number of dimensions, no NULLs, the element's type, length, lower bound, and each id
// behind its length. A nil slice is NULL, as with pgx.
func (encodeUUIDs) Encode(value any, buf []byte) ([]byte, error) {
	ids, ok := value.([]uuid.UUID)
	if !ok {
		return nil, errNoUUID
	}
	if ids == nil {
		return nil, nil
	}
	put := func(n uint32) { buf = binary.BigEndian.AppendUint32(buf, n) }
	if len(ids) == 0 {
		put(0)
		put(0)
		put(pgtype.UUIDOID)
		return buf, nil
	}
	put(1)
	put(0)
	put(pgtype.UUIDOID)
	put(uint32(len(ids))) //nolint:gosec // a message holds less than 2 GiB
	put(1)
	for i := range ids {
		put(uint32(len(ids[i])))
		buf = append(buf, ids[i][:]...)
	}
	return buf, nil
}

// registerUUIDs makes m encode and decode google's UUIDs without detours.
func registerUUIDs(m *pgtype.Map) {
	element := &pgtype.Type{Name: "uuid", OID: pgtype.UUIDOID, Codec: uuidCodec{}}
	m.RegisterType(element)
	m.RegisterType(&pgtype.Type{Name: "_uuid", OID: pgtype.UUIDArrayOID, Codec: uuidArrayCodec{&pgtype.ArrayCodec{ElementType: element}}})
}
