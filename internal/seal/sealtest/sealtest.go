// Package sealtest makes sealed exports for tests, without a database.
package sealtest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/seal"
)

// Made is an export and what an auditor may have kept of it.
type Made struct {
	OrgID  uuid.UUID
	NDJSON []byte
	Signer *seal.Signer
	Keys   []string // statements
	Heads  []string // notes, oldest first
}

// Export makes an honest export of n events, sealed by every span of them; the rest isn't sealed. A page has page events.
func Export(n, span, page int) (Made, error) { return export(n, span, page, "192.0.2.7", false) }

// ExportOpened is Export with addresses that were stored sealed and are shown opened.
func ExportOpened(n, span, page int) (Made, error) {
	return export(n, span, page, "sealed:AAAA", false)
}

// ExportSigned is ExportOpened with its lines signed, after each page.
func ExportSigned(n, span, page int) (Made, error) { return export(n, span, page, "sealed:AAAA", true) }

func export(n, span, page int, address string, signed bool) (Made, error) {
	signer, err := seal.NewSigner()
	if err != nil {
		return Made{}, err
	}
	at := time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)
	st, err := seal.NewStatement(1, signer, nil, at)
	if err != nil {
		return Made{}, err
	}
	m := Made{OrgID: uuid.New(), Signer: signer, Keys: []string{st.Note}}
	sealed := n / span * span
	var lines []any
	tree := &seal.Frontier{}
	var last seal.Head
	var leaves seal.Leaves
	var heads []any
	flush := func(position int) {
		lines = append(lines, heads...)
		if len(leaves.Positions) > 0 {
			lines = append(lines, leaves)
		}
		heads, leaves = nil, seal.Leaves{Line: seal.LineLeaves, First: tree.Size()}
		lines = append(lines, map[string]any{"line": seal.LineCursor, "position": position})
	}
	leaves.Line = seal.LineLeaves
	stream := uuid.New()
	for i := range n {
		if i%3 == 0 {
			stream = uuid.New()
		}
		line, leaf, err := m.event(stream, i, at, address)
		if err != nil {
			return Made{}, err
		}
		lines = append(lines, line)
		if i < sealed {
			leaves.Positions, leaves.Hashes = append(leaves.Positions, int64(2*i+1)), append(leaves.Hashes, leaf)
			tree.Add(leaf, nil)
			if (i+1)%span == 0 {
				h := seal.Head{OrgID: m.OrgID, Number: last.Number + 1, Size: tree.Size(), Root: tree.Root(), Position: int64(2*i + 1), Time: at.Add(time.Duration(i) * time.Second)}
				if last.Number > 0 {
					h.Previous = last.Hash()
				}
				note, err := h.Sign(signer)
				if err != nil {
					return Made{}, err
				}
				last = h
				m.Heads = append(m.Heads, note)
				heads = append(heads, seal.HeadLine{Line: seal.LineHead, Note: note})
			}
		}
		if (i+1)%page == 0 {
			flush(2*i + 1)
		}
	}
	flush(2*n - 1)
	opening := seal.Seals{Line: seal.LineSeals, Keys: m.Keys, Size: last.Size, Position: last.Position}
	if len(m.Heads) > 0 {
		opening.Head = m.Heads[len(m.Heads)-1]
	}
	id := uuid.New()
	lines = append([]any{header{seal.LineHeader, seal.Format, m.OrgID, 0, int64(2 * n), at, id, signed}, opening}, lines...)
	lines = append(lines, map[string]any{"line": seal.LineEnd, "events": n, "position": 2*n - 1, "upTo": 2 * n})
	var signing *seal.Signing
	if signed {
		signing = seal.NewSigning(signer, m.OrgID, id, 0)
	}
	m.NDJSON, err = written(lines, signing)
	return m, err
}

// header is the first line, as exports write it.
type header struct {
	Line           string    `json:"line"`
	Format         string    `json:"format"`
	OrganizationID uuid.UUID `json:"organizationId"`
	After          int64     `json:"after"`
	UpTo           int64     `json:"upTo"`
	ExportedAt     time.Time `json:"exportedAt"`
	ExportID       uuid.UUID `json:"exportId"`
	Signed         bool      `json:"signed,omitempty"`
}

// written encodes the lines, and a signature behind each cursor and the end when they are signed.
func written(lines []any, signing *seal.Signing) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		from := out.Len()
		if err := enc.Encode(l); err != nil {
			return nil, err
		}
		if signing == nil {
			continue
		}
		signing.Add(bytes.TrimSpace(out.Bytes()[from:]))
		line, _ := l.(map[string]any)
		if line["line"] != seal.LineCursor && line["line"] != seal.LineEnd {
			continue
		}
		position, _ := line["position"].(int)
		signed, err := signing.Sign(int64(position))
		if err != nil {
			return nil, err
		}
		if err := enc.Encode(signed); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// event is a line and its leaf.
func (m Made) event(stream uuid.UUID, i int, at time.Time, address string) (line map[string]any, leaf seal.Hash, err error) {
	version, position := i%3+1, int64(2*i+1)
	actor := uuid.MustParse("01981a52-6a7e-7cc1-9df0-3fb7e25c0a11")
	data := json.RawMessage(fmt.Sprintf(`{"from":"Engines of %d","to":"Engines, “new” & improved","n":[%d,9007199254740993,0.5]}`, i, i))
	meta := json.RawMessage(fmt.Sprintf(`{"actorKind":"apiKey","actorId":%q,"address":%q,"agent":"curl/8","requestId":"req-%08d"}`, actor, address, i))
	content := seal.Content{OrgID: m.OrgID, StreamID: stream, Kind: "thing", Type: "thing.renamed", Schema: 1, Meta: meta, Data: data}
	hash, err := content.Hash()
	if err != nil {
		return nil, leaf, err
	}
	at = at.Add(time.Duration(i) * time.Second)
	return map[string]any{
		"line": seal.LineEvent, "id": fmt.Sprintf("%s.%d", stream, version), "type": content.Type, "position": position, "recordedAt": at,
		"subject": "thing/" + stream.String(), "version": version, "actor": map[string]any{"kind": "apiKey", "id": actor}, "address": "192.0.2.7", "userAgent": "curl/8",
		"requestId": fmt.Sprintf("req-%08d", i), "contentHash": hex.EncodeToString(hash[:]), "data": data, "stored": map[string]any{"schema": 1, "meta": meta},
	}, seal.Leaf(position, version, at, hash), nil
}
