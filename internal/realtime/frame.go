package realtime

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// The frames that a server sends. openapi/asyncapi.yaml describes them.
type (
	eventJSON struct {
		ID         string          `json:"id"`
		Type       string          `json:"type"`
		Position   int64           `json:"position"`
		RecordedAt string          `json:"recordedAt"`
		Subject    string          `json:"subject"`
		Version    int             `json:"version"`
		ProjectID  *uuid.UUID      `json:"projectId,omitempty"`
		TestID     *uuid.UUID      `json:"testId,omitempty"`
		Data       json.RawMessage `json:"data"`
	}
	subscribedFrame struct {
		Type   string   `json:"type"` // subscribed, unsubscribed
		Topics []string `json:"topics"`
		Cursor string   `json:"cursor"`
	}
	authenticatedFrame struct {
		Type      string `json:"type"`
		ExpiresAt string `json:"expiresAt,omitempty"`
	}
	pongFrame struct {
		Type string `json:"type"`
		At   string `json:"at"`
	}
	gapFrame struct {
		Type   string `json:"type"`
		Reason string `json:"reason"` // slow, retention, epoch
		Cursor string `json:"cursor"`
	}
	errorFrame struct {
		Type    string   `json:"type"`
		Code    string   `json:"code"`
		Message string   `json:"message"`
		Topics  []string `json:"topics,omitempty"`
	}
	byeFrame struct {
		Type         string `json:"type"`
		Code         int    `json:"code"`
		Reason       string `json:"reason"`
		RetryAfterMs int64  `json:"retryAfterMs"`
	}
	metricsFrame struct {
		Type string `json:"type"`
		At   string `json:"at"`
		Data any    `json:"data"`
	}
)

// stamp writes an instant as everywhere in the API.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// json returns the event as it stands in frames, encoded once. Server.mu is held.
func (it *item) json() []byte {
	if it.encoded != nil {
		return it.encoded
	}
	e := eventJSON{
		ID: it.ID(), Type: it.Type, Position: it.Position, RecordedAt: stamp(it.RecordedAt),
		Subject: it.Kind + "/" + it.StreamID.String(), Version: it.Version, Data: it.Data,
	}
	if it.project != uuid.Nil {
		e.ProjectID = &it.project
	}
	if it.test != uuid.Nil {
		e.TestID = &it.test
	}
	if len(e.Data) == 0 {
		e.Data = json.RawMessage("{}")
	}
	it.encoded = mustJSON(e)
	return it.encoded
}

// piece is a frame of events with the position that a client has when it has read it.
type piece struct {
	frame  []byte
	to     int64
	events int
}

// pieces encodes events of org as frames that lead from one position to another without a hole. No events make one frame
// that only advances the cursor.
func (s *Server) pieces(org uuid.UUID, from, to int64, events []*item) []piece {
	var all []piece
	for {
		n, size := 0, 0
		for n < len(events) && n < s.cfg.Limits.FrameEvents && (n == 0 || size+len(events[n].json()) < frameBytes) {
			size += len(events[n].json()) + 1
			n++
		}
		end := to
		if n < len(events) {
			end = events[n-1].Position
		}
		b := make([]byte, 0, size+160)
		b = append(b, `{"type":"events","from":"`...)
		b = append(b, s.cfg.Cursors.Encode(org, from)...)
		b = append(b, `","to":"`...)
		b = append(b, s.cfg.Cursors.Encode(org, end)...)
		b = append(b, `","events":[`...)
		for i, it := range events[:n] {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, it.json()...)
		}
		b = append(b, "]}"...)
		all = append(all, piece{frame: b, to: end, events: n})
		if events = events[n:]; len(events) == 0 {
			return all
		}
		from = end
	}
}
