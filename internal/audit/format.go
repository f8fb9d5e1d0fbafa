package audit

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/seal"
)

// Format is a form in which the audit log can be taken away.
type Format string

// The formats.
const (
	NDJSON      Format = "ndjson"      // a JSON object a line; the only one that can be verified
	CSV         Format = "csv"         // RFC 4180, safe to open in a spreadsheet
	CloudEvents Format = "cloudevents" // a JSON batch of CloudEvents 1.0, one a line
)

// ExportFormat names the form of an NDJSON export, in its header.
const ExportFormat = "testflow.audit.v1"

// The lines of an NDJSON export; whoever adds evidence has names of their own.
const (
	lineHeader = "header"
	lineEvent  = "event"
	lineCursor = "cursor"
	lineEnd    = "end"
)

// header is the first line of an NDJSON export, and of each of its parts.
type header struct {
	Line           string     `json:"line"`
	Format         string     `json:"format"`
	OrganizationID uuid.UUID  `json:"organizationId"`
	After          int64      `json:"after"`            // position that this part goes on from; 0 = the beginning
	UpTo           int64      `json:"upTo"`             // position up to which the log was settled
	Filter         *Selection `json:"filter,omitempty"` // absent: nothing is left out
	ExportedAt     time.Time  `json:"exportedAt"`
	ExportID       uuid.UUID  `json:"exportId,omitzero"` // as its audit.export_started has it
	Signed         bool       `json:"signed,omitempty"`  // its lines are
}

// eventLine is one event: as people read it, and what is needed to compute its content hash.
type eventLine struct {
	Line string `json:"line"`
	Entry
	Stored storedPart `json:"stored"`
}

// storedPart is what an event's hash covers beside organization, subject, type and data, which is as stored as well.
type storedPart struct {
	Schema int             `json:"schema"`
	Meta   json.RawMessage `json:"meta"` // as stored: address and agent sealed
}

type cursorLine struct {
	Line     string `json:"line"`
	Position int64  `json:"position"`
}

type endLine struct {
	Line     string `json:"line"`
	Events   int    `json:"events"` // of this part
	Position int64  `json:"position"`
	UpTo     int64  `json:"upTo"`
}

// encoder writes one export.
type encoder interface {
	open(h header) error
	// sign ends a section of lines, when they are signed; position is that of the last event so far.
	sign(position int64) error
	event(orgID uuid.UUID, e Entry, raw eventstore.Event) error
	lines(evidence []any) error
	cursor(position int64) error
	close(done Exported) error
}

func newEncoder(f Format, w io.Writer) (encoder, error) {
	switch f {
	case NDJSON:
		return newNDJSON(w), nil
	case CSV:
		c := csv.NewWriter(w)
		c.UseCRLF = true
		return &csvFile{w: c}, nil
	case CloudEvents:
		return &cloudEvents{w: w, enc: jsonLines(w)}, nil
	}
	return nil, formatUnknown()
}

func jsonLines(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}

// signEvery is after how many bytes a section of lines is signed, though its page hasn't ended.
const signEvery = 4 << 20

// ndjson writes an object a line.
type ndjson struct {
	w       io.Writer
	line    bytes.Buffer
	enc     *json.Encoder // into line
	signing *seal.Signing // nil: its lines aren't signed
}

func newNDJSON(w io.Writer) *ndjson {
	n := &ndjson{w: w}
	n.enc = jsonLines(&n.line)
	return n
}

func (n *ndjson) write(v any) error {
	n.line.Reset()
	if err := n.enc.Encode(v); err != nil {
		return err
	}
	if n.signing != nil {
		n.signing.Add(bytes.TrimSuffix(n.line.Bytes(), []byte("\n")))
	}
	_, err := n.w.Write(n.line.Bytes())
	return err
}

func (n *ndjson) sign(position int64) error {
	if n.signing == nil {
		return nil
	}
	signed, err := n.signing.Sign(position)
	if err != nil {
		return err
	}
	n.line.Reset()
	if err := n.enc.Encode(signed); err != nil {
		return err
	}
	_, err = n.w.Write(n.line.Bytes())
	return err
}

func (n *ndjson) open(h header) error { return n.write(h) }

func (n *ndjson) event(_ uuid.UUID, e Entry, raw eventstore.Event) error {
	line := eventLine{Line: lineEvent, Entry: e, Stored: storedPart{Schema: raw.Stored.Schema, Meta: raw.Stored.Meta}}
	if raw.Schema != raw.Stored.Schema { // what people read is what the hash covers, never a newer form of it
		line.Data = raw.Stored.Data
	}
	if err := n.write(line); err != nil {
		return err
	}
	if n.signing != nil && n.signing.Pending() >= signEvery {
		return n.sign(e.Position)
	}
	return nil
}

func (n *ndjson) lines(evidence []any) error {
	for _, l := range evidence {
		if err := n.write(l); err != nil {
			return err
		}
	}
	return nil
}

func (n *ndjson) cursor(position int64) error { return n.write(cursorLine{lineCursor, position}) }

func (n *ndjson) close(done Exported) error {
	return n.write(endLine{lineEnd, done.Events, done.Position, done.UpTo})
}

// csvHeader names the columns; data is JSON.
var csvHeader = []string{"position", "recordedAt", "type", "subject", "version", "actorKind", "actorId", "address", "userAgent", "requestId", "contentHash", "data"}

type csvFile struct{ w *csv.Writer }

func (c *csvFile) open(header) error { return c.write(csvHeader) }

func (c *csvFile) event(_ uuid.UUID, e Entry, _ eventstore.Event) error {
	actor := ""
	if e.Actor.ID != uuid.Nil {
		actor = e.Actor.ID.String()
	}
	row := []string{
		strconv.FormatInt(e.Position, 10), e.RecordedAt.Format(time.RFC3339Nano), e.Type, e.Subject, strconv.Itoa(e.Version), e.Actor.Kind, actor,
		e.Address, e.UserAgent, e.RequestID, e.ContentHash, string(e.Data),
	}
	for i := range row {
		row[i] = safeCell(row[i])
	}
	return c.write(row)
}

func (c *csvFile) write(row []string) error {
	if err := c.w.Write(row); err != nil {
		return err
	}
	c.w.Flush() // into our buffer, so that an error is seen where it happens
	return c.w.Error()
}

func (c *csvFile) sign(int64) error     { return nil }
func (c *csvFile) lines([]any) error    { return nil }
func (c *csvFile) cursor(int64) error   { return nil } // each row has its position
func (c *csvFile) close(Exported) error { return nil }

// safeCell returns the text so that no spreadsheet takes it for a formula: with a ' before it when it begins, behind
// blanks, quotes and what cannot be seen, with a sign that begins one, narrow or wide.
func safeCell(text string) string {
	for i, r := range text {
		switch {
		case strings.ContainsRune("\t\r\n", r) && i == 0:
			return "'" + text
		case unicode.IsSpace(r), unicode.Is(unicode.Cf, r), strings.ContainsRune(`'"`+"`´‘’“”", r):
			continue
		case strings.ContainsRune("=+-@＝＋－＠﹦﹢﹣﹫−", r), unicode.IsControl(r):
			return "'" + text
		}
		return text
	}
	return text
}

// cloudEvent is an event as CloudEvents 1.0 writes it in JSON. Attributes that are ours are extensions, whose names are
// lower-case letters and whose numbers have 32 bits: hence the text of the position.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Position        string          `json:"position"`
	Version         int             `json:"version"`
	ActorKind       string          `json:"actorkind"`
	ActorID         string          `json:"actorid,omitempty"`
	Address         string          `json:"address,omitempty"`
	UserAgent       string          `json:"useragent,omitempty"`
	RequestID       string          `json:"requestid,omitempty"`
	ContentHash     string          `json:"contenthash,omitempty"`
	Data            json.RawMessage `json:"data"`
}

// cloudEvents writes a JSON array with one event a line; an array without its end was cut.
type cloudEvents struct {
	w     io.Writer
	enc   *json.Encoder
	begun bool
}

func (c *cloudEvents) open(header) error {
	_, err := io.WriteString(c.w, "[\n")
	return err
}

func (c *cloudEvents) event(orgID uuid.UUID, e Entry, _ eventstore.Event) error {
	if c.begun {
		if _, err := io.WriteString(c.w, ","); err != nil {
			return err
		}
	}
	c.begun = true
	actor := ""
	if e.Actor.ID != uuid.Nil {
		actor = e.Actor.ID.String()
	}
	err := c.enc.Encode(cloudEvent{
		SpecVersion: "1.0", ID: e.ID, Source: "/api/organizations/" + orgID.String(), Type: "testflow." + e.Type, Subject: e.Subject, Time: e.RecordedAt,
		DataContentType: "application/json", Position: strconv.FormatInt(e.Position, 10), Version: e.Version,
		ActorKind: e.Actor.Kind, ActorID: actor, Address: e.Address, UserAgent: e.UserAgent, RequestID: e.RequestID, ContentHash: e.ContentHash, Data: e.Data,
	})
	if err != nil {
		return fmt.Errorf("write a CloudEvent: %w", err)
	}
	return nil
}

func (c *cloudEvents) sign(int64) error   { return nil }
func (c *cloudEvents) lines([]any) error  { return nil }
func (c *cloudEvents) cursor(int64) error { return nil } // each event has its position

func (c *cloudEvents) close(Exported) error {
	_, err := io.WriteString(c.w, "]\n")
	return err
}
