package seal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"
)

const (
	// maxLine is the longest line of an export that is read; an event is bound by what a request may hold.
	maxLine = 64 << 20
	// maxPage is how many events may stand before their leaves; exports have far fewer.
	maxPage = 20_000
	// maxFindings is how many places are named. One is enough to distrust a file.
	maxFindings = 100
	// maxStreams is of how many streams the last version is remembered, so that memory stays constant.
	maxStreams = 1 << 16
)

// Options say what the verifier knows beside the file.
type Options struct {
	// Pins are fingerprints or public keys that the auditor knows; the export's chain of keys must hold one of them.
	// Without one the file is checked against itself alone.
	Pins []string
	// Kept are heads that the auditor kept from earlier, as signed notes: the history must still be what they say.
	Kept []string
	// Progress is called about every 10 000 events; nil = nobody listens.
	Progress func(Report)
}

// Finding is a place where the export isn't what was sealed.
type Finding struct {
	Line     int64 // of the file, from 1; 0 = of the whole
	Position int64 // of the event; 0 = none
	What     string
}

// String is the finding in one line.
func (f Finding) String() string {
	switch {
	case f.Line > 0 && f.Position > 0:
		return fmt.Sprintf("line %d, position %d: %s", f.Line, f.Position, f.What)
	case f.Line > 0:
		return fmt.Sprintf("line %d: %s", f.Line, f.What)
	case f.Position > 0:
		return fmt.Sprintf("position %d: %s", f.Position, f.What)
	}
	return f.What
}

// Report is what Verify found out.
type Report struct {
	OrgID    uuid.UUID
	Filtered bool  // a selection: each event is proven, that none is missing cannot be
	Parts    int   // headers
	Bytes    int64 // read
	Events   int64
	Sealed   int64 // of them, proven by a head
	// Unsealed are the events behind the last head: nothing proves them yet.
	Unsealed, UnsealedFrom int64     // how many, and the position of the first
	UnsealedSince          time.Time // of the first
	FirstSize              int64     // leaves before this file; 0 = it begins at the beginning
	Heads                  int64     // checked
	Last                   Head      // the last head; Number is 0 when there is none
	Note                   string    // of the last head: what to keep for the next time
	Keys                   []Statement
	Pinned                 bool  // a pinned key is in the chain
	KeptChecked            int   // kept heads that the history agrees with
	KeptBefore             int   // kept heads that this file begins after, or that a selection can't be checked against
	SignedLines            int64 // lines that are as the server wrote them, by its signature
	Opened                 int64 // events with readable personal data that neither a hash (of its sealed form) nor a signature covers
	OpenedSigned           int64 // those that a signature covers
	Findings               []Finding
	MoreFindings           bool // than are named
}

// Errors of a file that can't be judged. Both say in words what is wrong.
var (
	// ErrNotExport says that the file isn't an export that can be verified.
	ErrNotExport = errors.New("this is no audit export that can be verified")
	// ErrCutOff says that the file ends before its last line.
	ErrCutOff = errors.New("the export was cut off")
)

// Verify reads an export, one or more parts behind each other, and reports every place where it isn't what was sealed. It
// needs memory for one page of events, whatever the file's size. An error says that the file could not be judged
// (ErrNotExport, ErrCutOff, or the reader's); what was found until then is in the report.
func Verify(ctx context.Context, r io.Reader, o Options) (Report, error) {
	v := &verifier{opts: o, streams: map[uuid.UUID]int{}}
	in := bufio.NewReaderSize(r, 1<<20)
	var long []byte
	for {
		chunk, err := in.ReadSlice('\n')
		v.report.Bytes += int64(len(chunk))
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if long = append(long, chunk...); len(long) > maxLine {
				return v.report, fmt.Errorf("%w: line %d is longer than %d MiB", ErrNotExport, v.line+1, maxLine>>20)
			}
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return v.report, fmt.Errorf("read line %d: %w", v.line+1, err)
		}
		line := chunk
		if len(long) > 0 {
			line = append(long, chunk...)
			long = long[:0]
		}
		v.line++
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := v.read(line); err != nil {
				return v.report, err
			}
		}
		if err != nil {
			return v.report, v.finish()
		}
		if v.line&1023 == 0 && ctx.Err() != nil {
			return v.report, fmt.Errorf("stopped at line %d: %w", v.line, ctx.Err())
		}
	}
}

// verifier is Verify's state.
type verifier struct {
	opts   Options
	report Report
	line   int64

	part     part
	sections sections
	covered  bool // the line that is handled stands under a good signature
	chain    *Chain
	kept     []keptHead // by size, those to come
	streams  map[uuid.UUID]int
	forgot   bool // streams was emptied once

	lastPosition int64 // of an event, or the end of a part
	lastEvent    int64 // position
	page         []pageEvent
	tail         []pageEvent // of the parts so far: events that no leaf was read of; a later part may cover them
	broken       error       // of a line that can't be read; it is forgiven when another part follows

	stored, computed *Frontier // by what the sealer stored; by the events themselves
	heads            []pendingHead
	last             Head // the last head that was read
	lastKey          int
	off              bool // a head didn't fit: the tree can't be followed any further
	doubts           []Finding
	doubtsFrom       int64 // line of the first event since the last good head
}

// part is one header and what follows it.
type part struct {
	open        bool // a header without its end
	closed      bool // its end was read
	seals       *Seals
	head        Head // of seals
	after, upTo int64
	events      int64
	filtered    bool
	started     bool // its start was read, or there is none
}

// pageEvent is an event that waits for its leaf or its proof.
type pageEvent struct {
	line, position int64
	leaf           Hash
	at             time.Time

	opened, openedSigned int64 // what it added to the report's
}

type pendingHead struct {
	Head
	line int64
	note string
}

type keptHead struct {
	Head
	note string
}

// found adds a finding.
func (v *verifier) found(line, position int64, format string, args ...any) {
	if len(v.report.Findings) >= maxFindings {
		v.report.MoreFindings = true
		return
	}
	v.report.Findings = append(v.report.Findings, Finding{Line: line, Position: position, What: fmt.Sprintf(format, args...)})
}

// notExport is the error of a line that can't be read at all.
func (v *verifier) notExport(format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrNotExport, v.line, fmt.Sprintf(format, args...))
}

// take handles one line.
func (v *verifier) take(raw []byte) error {
	o, err := parseObject(raw)
	if v.broken != nil && (err != nil || o.text("line") != LineHeader) {
		return v.broken
	}
	if err != nil {
		if v.part.open {
			v.broken = fmt.Errorf("%w or damaged: line %d can't be read (%w); go on with ?after=%d", ErrCutOff, v.line, err, v.resume())
			return nil
		}
		if v.report.Parts == 0 {
			return v.notExport("%v. Only NDJSON can be verified, CSV and CloudEvents carry no proof: GET /api/audit/export?format=ndjson", err)
		}
		return v.notExport("%v", err)
	}
	kind := o.text("line")
	if kind == LineHeader {
		return v.header(o)
	}
	if !v.part.open {
		return v.notExport("it stands outside an export, which begins with its header; get one with: GET /api/audit/export?format=ndjson")
	}
	if v.part.seals == nil && kind != LineSeals {
		return v.notExport("there are no seals behind the header")
	}
	switch kind {
	case LineSeals:
		return v.seals(o)
	case LineStart:
		return v.start(o)
	case LineEvent:
		return v.event(o)
	case LineHead:
		return v.headLine(o)
	case LineLeaves:
		return v.leaves(o)
	case LineProof:
		return v.proof(o)
	case LineCursor:
		return nil
	case LineEnd:
		return v.end(o)
	case LineSigned:
		v.found(v.line, 0, "there is a signature of lines that isn't written as one, or whose header doesn't say that there are any: one of them was changed")
		return nil
	}
	return v.notExport("a line of a kind %q, which this version doesn't know", kind)
}

// header begins a part.
func (v *verifier) header(o object) error {
	v.broken = nil
	if f := o.text("format"); f != Format {
		return v.notExport("its format is %q, this version verifies %q", f, Format)
	}
	org, err := uuid.Parse(o.text("organizationId"))
	if err != nil {
		return v.notExport("its header names no organization")
	}
	after, ok := o.number("after")
	upTo, ok2 := o.number("upTo")
	if !ok || !ok2 {
		return v.notExport("its header doesn't say from where to where it goes")
	}
	_, filtered := o["filter"]
	if v.part.open {
		if resume := v.resume(); after != resume {
			return fmt.Errorf("%w before line %d, where a part begins that goes on behind position %d: get one with ?after=%d", ErrCutOff, v.line, after, resume)
		}
		v.cut()
	}
	switch first := v.report.Parts == 0; {
	case first:
		v.report.OrgID, v.report.Filtered, v.lastPosition = org, filtered, after
	case org != v.report.OrgID:
		return v.notExport("this part is of organization %s, the one before of %s", org, v.report.OrgID)
	case filtered != v.report.Filtered:
		return v.notExport("a selection can't follow the whole log, nor the other way around")
	case v.part.closed && after >= v.lastEvent && after <= v.lastPosition: // nothing lies between the last event and the end
		v.lastPosition = after
	case after != v.lastPosition:
		v.found(v.line, 0, "this part goes on behind position %d, the one before ended at %d: something between them is missing or doubled", after, v.lastPosition)
	}
	v.report.Parts++
	v.part = part{open: true, after: after, upTo: upTo, filtered: filtered}
	return v.sectioned(o)
}

// sectioned takes from a header whether its part is signed.
func (v *verifier) sectioned(header object) error {
	v.sections.on = false
	switch said := string(header["signed"]); said {
	case "", "false":
		return nil
	case "true":
	default:
		return v.notExport("its header says neither that it is signed nor that it isn't")
	}
	id, err := uuid.Parse(header.text("exportId"))
	if err != nil {
		return v.notExport("its header doesn't say which export it is")
	}
	v.sections = sections{on: true, export: id, raw: v.sections.raw[:0], held: v.sections.held[:0]}
	return nil
}

// seals reads the keys and the last head of the part.
func (v *verifier) seals(o object) error {
	var s Seals
	if v.part.seals != nil {
		return v.notExport("the seals stand there twice")
	}
	if err := errors.Join(o.into("keys", &s.Keys), o.into("size", &s.Size), o.into("position", &s.Position)); err != nil {
		return v.notExport("%v", err)
	}
	s.Head = o.text("head")
	v.part.seals = &s
	chain, err := ParseChain(s.Keys)
	if err != nil {
		v.found(v.line, 0, "%v", err)
		chain = &Chain{}
	}
	switch {
	case v.chain == nil:
		v.chain = chain
		v.checkPins()
		v.readKept()
	case !continues(v.chain, chain):
		v.found(v.line, 0, "the sealing keys of this part are not those of the part before")
	default:
		v.chain = chain
	}
	v.report.Keys = v.chain.Statements()
	if s.Head == "" {
		if s.Size != 0 {
			v.found(v.line, 0, "%d events are said to be sealed, and there is no seal", s.Size)
		}
	} else {
		h, _, err := v.openHead(v.line, s.Head)
		if err == nil && (h.Size != s.Size || h.Position != s.Position) {
			v.found(v.line, 0, "the seal says %d events up to position %d, the line around it %d up to %d", h.Size, h.Position, s.Size, s.Position)
		}
		v.part.head = h
		if v.part.filtered && err == nil {
			v.report.Last, v.report.Note = h, s.Head
			v.report.Heads++
			v.keptOfSelection(h)
		}
	}
	if v.part.after == 0 || v.part.filtered {
		v.part.started = true
		if v.stored == nil {
			v.stored, v.computed = &Frontier{}, &Frontier{}
		}
	}
	return nil
}

// openHead reads a head of this organization that a known key signed; otherwise it is a finding.
func (v *verifier) openHead(line int64, signed string) (Head, int, error) {
	h, key, err := v.chain.OpenHead(signed)
	if err != nil {
		if h, readErr := ReadHead(signed); readErr == nil {
			v.found(line, 0, "seal %d (%d events, position %d, of %s) is not genuine: %v", h.Number, h.Size, h.Position, stamp(h.Time), err)
			return h, 0, err
		}
		v.found(line, 0, "a seal is not genuine: %v", err)
		return Head{}, 0, err
	}
	if h.OrgID != v.report.OrgID {
		err = errors.New("another organization's seal")
		v.found(line, 0, "seal %d is another organization's (%s)", h.Number, h.OrgID)
	}
	return h, key, err
}

// continues says whether the later chain is the earlier one with or without more behind it.
func continues(earlier, later *Chain) bool {
	a, b := earlier.Notes(), later.Notes()
	return len(a) <= len(b) && slices.Equal(a, b[:len(a)])
}

func (v *verifier) checkPins() {
	for _, pin := range v.opts.Pins {
		if v.chain.Holds(pin) {
			v.report.Pinned = true
			return
		}
	}
	if len(v.opts.Pins) > 0 {
		v.found(v.line, 0, "none of the sealing keys of this export is the one that you know (%s): its seals were made by somebody else", v.opts.Pins[0])
	}
}

// readKept opens the heads that the auditor kept and puts them in order of size.
func (v *verifier) readKept() {
	for i, signed := range v.opts.Kept {
		h, _, err := v.chain.OpenHead(signed)
		switch {
		case err != nil:
			v.found(0, 0, "the seal that you kept (%s) can't be matched with this export: %v", keptName(i, h, signed), err)
		case h.OrgID != v.report.OrgID:
			// a file of seals of a whole installation holds those of others
		default:
			v.kept = append(v.kept, keptHead{h, signed})
		}
	}
	slices.SortStableFunc(v.kept, func(a, b keptHead) int { return int(min(max(a.Size-b.Size, -1), 1)) })
}

func keptName(i int, h Head, signed string) string {
	if h.Number == 0 {
		if read, err := ReadHead(signed); err == nil {
			h = read
		}
	}
	if h.Number == 0 {
		return fmt.Sprintf("number %d of your list", i+1)
	}
	return fmt.Sprintf("number %d, of %s", h.Number, stamp(h.Time))
}

// keptOfSelection compares kept heads with the one head of a filtered export.
func (v *verifier) keptOfSelection(h Head) {
	for _, k := range v.kept {
		switch {
		case k.Size == h.Size && k.Root != h.Root:
			v.found(0, 0, "the seal that you kept (number %d, of %s) says another tree of %d events: the history was rewritten", k.Number, stamp(k.Time), k.Size)
		case k.Size == h.Size:
			v.report.KeptChecked++
		case k.Size > h.Size:
			v.found(0, 0, "the seal that you kept (number %d, of %s) covers %d events, this export's last seal %d: the history was cut", k.Number, stamp(k.Time), k.Size, h.Size)
		default:
			v.report.KeptBefore++
		}
	}
	v.kept = nil
}

// start takes over the tree of the parts before.
func (v *verifier) start(o object) error {
	var s Start
	if v.part.started || v.part.filtered {
		return v.notExport("a start where none can be")
	}
	if err := errors.Join(o.into("size", &s.Size), o.into("peaks", &s.Peaks)); err != nil {
		return v.notExport("%v", err)
	}
	s.Head = o.text("head")
	f, ok := NewFrontier(s.Size, s.Peaks)
	if !ok {
		v.found(v.line, 0, "a tree of %d leaves doesn't have %d peaks", s.Size, len(s.Peaks))
		f, v.off = &Frontier{size: s.Size}, true
	}
	v.part.started = true
	if v.stored != nil { // it continues a part of this file
		v.goOn(f, s.Head)
		return nil
	}
	v.report.FirstSize = s.Size
	v.stored, v.computed = f, &Frontier{size: f.size, peaks: f.Peaks()}
	if s.Head != "" {
		h, key, err := v.openHead(v.line, s.Head)
		if err == nil {
			v.last, v.lastKey = h, key
			v.report.Last, v.report.Note = h, s.Head
			if h.Size == f.size && h.Root != f.Root() {
				v.found(v.line, 0, "the tree before this part isn't the one of seal %d", h.Number)
				v.off = true
			}
		}
	}
	for len(v.kept) > 0 && v.kept[0].Size < s.Size {
		v.kept = v.kept[1:]
		v.report.KeptBefore++
	}
	return nil
}

// end checks that the part is whole.
func (v *verifier) end(o object) error {
	if !v.part.filtered && v.stored != nil {
		v.bridge(v.part.seals.Size, v.part.seals.Position+1)
	}
	if err := v.settle(); err != nil {
		return err
	}
	if n, ok := o.number("events"); !ok || n != v.part.events {
		v.found(v.line, 0, "it says that there are %s events, and there are %d", string(o["events"]), v.part.events)
	}
	if !v.part.filtered && !v.off && v.stored != nil {
		for _, h := range v.heads {
			v.found(h.line, 0, "seal %d covers %d events, and the export has only %d of them", h.Number, h.Size, v.stored.size)
		}
		if v.stored.size != v.part.seals.Size {
			v.found(v.line, 0, "%d events are sealed, and the export has the leaves of %d", v.part.seals.Size, v.stored.size)
		}
		if v.part.head.Number > 0 && v.last.Hash() != v.part.head.Hash() {
			v.found(v.line, 0, "the last seal of the export is number %d, and its opening names number %d", v.last.Number, v.part.head.Number)
		}
	}
	v.heads = nil
	v.lastPosition = v.part.upTo
	v.part.open, v.part.closed = false, true
	return nil
}

// finish judges the whole.
func (v *verifier) finish() error {
	switch {
	case v.report.Parts == 0:
		return fmt.Errorf("%w: it is empty", ErrNotExport)
	case v.broken != nil:
		return v.broken
	case !v.part.open && len(v.sections.held) > 0:
		if err := v.release(len(v.sections.held), false); err != nil {
			return err
		}
	case v.part.open:
		return fmt.Errorf("%w: its last line is missing; get the rest with ?after=%d, and verify both files together", ErrCutOff, v.resume())
	}
	for _, k := range v.kept {
		if v.off {
			break
		}
		v.found(0, 0, "the seal that you kept (number %d, of %s) covers %d events, the sealed history has only %d: it was cut", k.Number, stamp(k.Time), k.Size, v.stored.Size())
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
