// Package livetest is a strict client of the live stream, for tests and measurements. It refuses what a server must never
// do: a hole or a step back between cursors, events out of order. It knows the frames by their JSON alone.
package livetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Event is an event of a frame.
type Event struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	Position   int64           `json:"position"`
	RecordedAt time.Time       `json:"recordedAt"`
	Subject    string          `json:"subject"`
	Version    int             `json:"version"`
	ProjectID  string          `json:"projectId"`
	TestID     string          `json:"testId"`
	Data       json.RawMessage `json:"data"`
}

// Frame is any frame of the server.
type Frame struct {
	Type         string          `json:"type"`
	From         string          `json:"from"`
	To           string          `json:"to"`
	Events       []Event         `json:"events"`
	Topics       []string        `json:"topics"`
	Cursor       string          `json:"cursor"`
	Reason       string          `json:"reason"`
	Code         json.RawMessage `json:"code"` // a word in error, a number in bye
	Message      string          `json:"message"`
	RetryAfterMs int64           `json:"retryAfterMs"`
	ExpiresAt    string          `json:"expiresAt"`
	Data         json.RawMessage `json:"data"`

	Received time.Time `json:"-"` // when the frame was read from the socket
	Raw      []byte    `json:"-"` // as it came
}

// ErrorCode is the code of an error frame.
func (f Frame) ErrorCode() string { return strings.Trim(string(f.Code), `"`) }

// Options say how to connect.
type Options struct {
	Token        string      // sent as the first frame; empty = nothing is sent
	Subprotocols []string    // offered in the handshake
	Header       http.Header // of the handshake
	// Check, when it isn't nil, judges each frame as it came.
	Check func(raw []byte) error
}

// Client is one connection. It is for one goroutine.
type Client struct {
	Conn   *websocket.Conn
	Cursor string // where to resume: the last one that the server gave

	position int64
	began    bool
	check    func([]byte) error
}

// readLimit is more than any frame has; a server that sends more is broken.
const readLimit = 4 << 20

// Dial connects to the live stream of the server at base (http://host:port) and signs in when there is a token.
func Dial(ctx context.Context, base string, o Options) (*Client, error) {
	conn, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(base, "http")+"/api/live", &websocket.DialOptions{
		Subprotocols: o.Subprotocols, HTTPHeader: o.Header, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("dial: status %d: %w", resp.StatusCode, err)
		}
		return nil, fmt.Errorf("dial: %w", err)
	}
	conn.SetReadLimit(readLimit)
	c := &Client{Conn: conn, check: o.Check}
	if o.Token != "" {
		if err := c.Send(ctx, map[string]any{"type": "auth", "token": o.Token}); err != nil {
			return nil, errors.Join(err, conn.CloseNow())
		}
	}
	return c, nil
}

// Send sends v as a JSON frame.
func (c *Client) Send(ctx context.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	return c.Conn.Write(ctx, websocket.MessageText, b)
}

// Subscribe asks for topics, from the cursor if it isn't empty.
func (c *Client) Subscribe(ctx context.Context, after string, topics ...string) error {
	m := map[string]any{"type": "subscribe", "topics": topics}
	if after != "" {
		m["after"] = after
	}
	return c.Send(ctx, m)
}

// Next reads one frame and checks it against those before.
func (c *Client) Next(ctx context.Context) (Frame, error) {
	_, b, err := c.Conn.Read(ctx)
	if err != nil {
		return Frame{}, err
	}
	f := Frame{Received: time.Now(), Raw: b}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("frame %.200q: %w", b, err)
	}
	if c.check != nil {
		if err := c.check(b); err != nil {
			return f, fmt.Errorf("frame %.2000q: %w", b, err)
		}
	}
	switch f.Type {
	case "subscribed", "unsubscribed", "gap":
		c.Cursor, c.began = f.Cursor, f.Type != "gap"
	case "events":
		if !c.began {
			return f, errors.New("events before a subscription holds")
		}
		if f.From != c.Cursor {
			return f, fmt.Errorf("a frame begins at %s, the one before ended at %s", f.From, c.Cursor)
		}
		for _, e := range f.Events {
			if e.Position <= c.position {
				return f, fmt.Errorf("event %s has position %d after %d", e.ID, e.Position, c.position)
			}
			c.position = e.Position
		}
		c.Cursor = f.To
	}
	return f, nil
}

// Until reads frames until one has the type, and returns it and the events on the way.
func (c *Client) Until(ctx context.Context, frameType string) (Frame, []Event, error) {
	var events []Event
	for {
		f, err := c.Next(ctx)
		if err != nil {
			return f, events, err
		}
		events = append(events, f.Events...)
		if f.Type == frameType {
			return f, events, nil
		}
	}
}

// Close ends the connection at once.
func (c *Client) Close() { _ = c.Conn.CloseNow() }
