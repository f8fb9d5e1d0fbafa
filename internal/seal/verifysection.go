package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// signedBegins is how an export writes the beginning of a signature.
const signedBegins = `{"line":"signed",`

const (
	// maxSectionLines and maxSectionBytes are how much may stand before its signature; exports sign far sooner.
	maxSectionLines = 2 * maxPage
	maxSectionBytes = 2 * maxLine
)

// sections holds the lines of a signed part until their signature comes: what was cut before it comes again in the next
// part, and what stands beside the seals counts as covered only with it.
type sections struct {
	on     bool // the header says that the part is signed
	export uuid.UUID

	raw  []byte
	held []heldLine

	number   int64 // of the section before
	previous Hash  // of the section before
	lost     bool  // the section before couldn't be read, so nothing is known of its hash
}

// heldLine is a line that waits for its signature.
type heldLine struct {
	number   int64 // of the file
	digest   Hash
	from, to int  // in sections.raw
	taken    bool // it was handled at once: the header and the seals, without which no signature can be read
}

// read handles one line of the file: at once, or with its section.
func (v *verifier) read(raw []byte) error {
	if i := v.glued(raw); i > 0 {
		if _, err := parseObject(raw[:i]); err == nil {
			if err := v.read(raw[:i]); err != nil {
				return err
			}
		}
		return v.read(raw[i:])
	}
	switch {
	case !v.sections.on || v.part.seals == nil:
		parts := v.report.Parts
		if err := v.take(raw); err != nil {
			return err
		}
		if v.sections.on && (v.report.Parts > parts || v.part.seals != nil) {
			v.sections.held = append(v.sections.held, heldLine{number: v.line, digest: sha256.Sum256(raw), taken: true})
		}
		return nil
	case bytes.HasPrefix(raw, []byte(headerBegins)):
		return v.nextPart(raw)
	case bytes.HasPrefix(raw, []byte(signedBegins)) && json.Valid(raw): // otherwise it was cut, and counts as none
		return v.signature(raw)
	}
	return v.hold(raw)
}

// glued returns where the next part begins in a line of one that was cut in it; 0 when the line is one.
func (v *verifier) glued(raw []byte) int {
	if !v.part.open || v.broken != nil || !bytes.Contains(raw[1:], []byte(headerBegins)) || json.Valid(raw) {
		return 0
	}
	return bytes.LastIndex(raw, []byte(headerBegins))
}

func (v *verifier) hold(raw []byte) error {
	s := &v.sections
	from := len(s.raw)
	s.raw = append(s.raw, raw...)
	s.held = append(s.held, heldLine{number: v.line, digest: sha256.Sum256(raw), from: from, to: len(s.raw)})
	if len(s.held) > maxSectionLines || len(s.raw) > maxSectionBytes {
		return v.notExport("%d lines without the signature that the header promises", len(s.held))
	}
	return nil
}

// release handles the first n of the lines that were held; covered says that the signature over them is good.
func (v *verifier) release(n int, covered bool) error {
	s, line := &v.sections, v.line
	v.covered = covered
	defer func() { v.line, v.covered = line, false }()
	for _, h := range s.held[:n] {
		if h.taken {
			continue
		}
		v.line = h.number
		if err := v.take(s.raw[h.from:h.to]); err != nil {
			return err
		}
	}
	if s.held = s.held[:copy(s.held, s.held[n:])]; len(s.held) == 0 {
		s.raw = s.raw[:0]
	}
	return nil
}

// nextPart begins a part behind this one. What no signature covered yet comes again in it, when it goes on where the last
// signature stands; otherwise it counts without one.
func (v *verifier) nextPart(raw []byte) error {
	if o, err := parseObject(raw); err == nil && len(v.sections.held) > 0 {
		if after, ok := o.number("after"); !ok || after != v.resume() {
			if err := v.release(len(v.sections.held), false); err != nil {
				return err
			}
		}
	}
	v.sections = sections{raw: v.sections.raw[:0], held: v.sections.held[:0]}
	return v.read(raw)
}

// signature checks the signature of a section, and then its lines.
func (v *verifier) signature(raw []byte) error {
	s := &v.sections
	signed, marks, err := v.openSignature(raw)
	if err != nil {
		v.found(v.line, 0, "the signature of %s can't be believed: %v", v.heldLines(), err)
		s.number, s.lost = s.number+1, true
		return v.release(len(s.held), false)
	}
	covered := v.followsSection(signed)
	if more := len(s.held) - signed.lines; more > 0 && signed.number > s.number+1 { // lines whose signatures are gone
		if err := v.release(more, false); err != nil {
			return err
		}
	}
	covered = v.compareLines(signed, marks) && covered
	s.number, s.previous, s.lost = signed.number, signed.hash(), false
	if covered {
		v.report.SignedLines += int64(signed.lines)
	}
	return v.release(len(s.held), covered)
}

// openSignature reads a line with a signature and checks who made it.
func (v *verifier) openSignature(raw []byte) (s section, marks []byte, err error) {
	o, err := parseObject(raw)
	if err != nil {
		return s, nil, err
	}
	if key := o.only("line", "position", "note", "marks"); key != "" {
		return s, nil, fmt.Errorf("it has a field %q, which nothing covers", key)
	}
	newest, ok := v.chain.Newest()
	if !ok {
		return s, nil, errors.New("the export's sealing key isn't known")
	}
	if s, err = openSection(o.text("note"), newest.Key); err != nil {
		return s, nil, err
	}
	if position, ok := o.number("position"); !ok || position != s.to {
		return s, nil, fmt.Errorf("it says position %d, the line around it %s", s.to, string(o["position"]))
	}
	return s, marks, o.into("marks", &marks)
}

// followsSection checks the chain of sections.
func (v *verifier) followsSection(s section) bool {
	before := &v.sections
	findings := len(v.report.Findings)
	switch {
	case s.org != v.report.OrgID:
		v.found(v.line, 0, "the signature is of organization %s", s.org)
	case s.export != before.export:
		v.found(v.line, 0, "the signature is of another export, %s", s.export)
	case s.number <= before.number:
		v.found(v.line, 0, "the signature of section %d stands behind the one of section %d: it was moved or doubled", s.number, before.number)
	case s.number > before.number+1:
		v.found(v.line, 0, "the signatures of the sections %d to %d before this one are missing", before.number+1, s.number-1)
	case !before.lost && s.previous != before.previous:
		v.found(v.line, 0, "the signature of section %d follows another section %d than the one that stands here", s.number, before.number)
	}
	return len(v.report.Findings) == findings && !v.report.MoreFindings
}

// compareLines holds the lines of a section against its signature, and names those that differ.
func (v *verifier) compareLines(s section, marks []byte) bool {
	held := v.sections.held
	digest := sha256.New()
	for i := range held {
		_, _ = digest.Write(held[i].digest[:]) // never fails
	}
	same := len(held) == s.lines && Hash(digest.Sum(nil)) == s.digest
	whole := len(marks) == s.lines*markSize && Hash(sha256.Sum256(marks)) == s.marks
	switch {
	case same && !whole:
		v.found(v.line, 0, "the marks beside the signature were changed; the lines before it are as the server wrote them")
	case !same && !(whole && v.nameLines(held, marks)):
		v.found(v.line, 0, "something in %s isn't as the server wrote it: it was changed in the file", v.heldLines())
	}
	return same
}

// nameLines reports the lines that differ from their marks; false when there is none.
func (v *verifier) nameLines(held []heldLine, marks []byte) bool {
	findings, n := len(v.report.Findings), len(marks)/markSize
	like := func(i, j int) bool {
		return i < n && j < len(held) && bytes.Equal(marks[i*markSize:(i+1)*markSize], held[j].digest[:markSize])
	}
	for i, j := 0, 0; i < n || j < len(held); {
		switch {
		case like(i, j):
			i, j = i+1, j+1
		case j == len(held):
			v.found(v.line, 0, "a line that the server wrote before this one was taken away")
			i++
		case like(i+1, j) && like(i, j+1):
			v.found(held[j].number, v.positionOf(held[j]), "the server wrote this line behind the next one: they were swapped in the file")
			i, j = i+2, j+2
		case i == n || like(i, j+1) && !like(i+1, j+1):
			v.found(held[j].number, v.positionOf(held[j]), "the server didn't write this line: it was put into the file")
			j++
		case like(i+1, j):
			v.found(held[j].number, v.positionOf(held[j]), "a line that the server wrote before this one was taken away")
			i++
		default:
			v.found(held[j].number, v.positionOf(held[j]), "the line isn't as the server wrote it: it was changed in the file")
			i, j = i+1, j+1
		}
	}
	return len(v.report.Findings) > findings || v.report.MoreFindings
}

// positionOf is the position of the event in a line, 0 when there is none.
func (v *verifier) positionOf(h heldLine) int64 {
	o, err := parseObject(v.sections.raw[h.from:h.to])
	if h.taken || err != nil || o.text("line") != LineEvent {
		return 0
	}
	position, _ := o.number("position") // 0 when it isn't one
	return position
}

// heldLines names the lines that wait for their signature.
func (v *verifier) heldLines() string {
	held := v.sections.held
	if len(held) == 0 {
		return "no lines"
	}
	return fmt.Sprintf("lines %d to %d", held[0].number, held[len(held)-1].number)
}
