package seal

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	// sectionPrefix begins what is signed of a section; the organization's id follows. No head begins so.
	sectionPrefix = "testflow-audit-lines/"
	// markSize is how many bytes of a line's hash stand in its section's signature: what names the line that differs.
	markSize = 8
)

// section is what is signed of a stretch of an export's lines: "the server wrote just these".
type section struct {
	org, export uuid.UUID
	number      int64 // from 1 in each part
	from, to    int64 // positions: behind from, up to and with to
	lines       int
	digest      Hash // over the hash of each line
	marks       Hash // over the beginning of the hash of each line
	previous    Hash // of the section before; zero for the first
}

func (s section) text() string {
	return fmt.Sprintf("%s%s\nexport %s\nsection %d\nfrom %d\nto %d\nlines %d\ndigest %s\nmarks %s\nprevious %s\n",
		sectionPrefix, s.org, s.export, s.number, s.from, s.to, s.lines, s.digest, s.marks, s.previous)
}

func (s section) hash() Hash { return sha256.Sum256([]byte(s.text())) }

// errSectionForm says that a note isn't a signature of lines.
var errSectionForm = errors.New("it isn't written as the signature of lines")

// openSection reads a section and checks that a key signed it.
func openSection(signed string, key Key) (s section, err error) {
	text, _, ok := strings.Cut(signed, "\n\n")
	lines := strings.Split(text, "\n")
	names := []string{sectionPrefix, "export ", "section ", "from ", "to ", "lines ", "digest ", "marks ", "previous "}
	if !ok || len(lines) != len(names) {
		return s, errSectionForm
	}
	errs := make([]error, len(names))
	for i, name := range names {
		if lines[i], ok = strings.CutPrefix(lines[i], name); !ok {
			return s, errSectionForm
		}
	}
	s.org, errs[0] = uuid.Parse(lines[0])
	s.export, errs[1] = uuid.Parse(lines[1])
	s.number, errs[2] = strconv.ParseInt(lines[2], 10, 64)
	s.from, errs[3] = strconv.ParseInt(lines[3], 10, 64)
	s.to, errs[4] = strconv.ParseInt(lines[4], 10, 64)
	s.lines, errs[5] = strconv.Atoi(lines[5])
	s.digest, errs[6] = tlog.ParseHash(lines[6])
	s.marks, errs[7] = tlog.ParseHash(lines[7])
	s.previous, errs[8] = tlog.ParseHash(lines[8])
	if errors.Join(errs...) != nil || s.lines < 0 || s.text() != text+"\n" { // one text for one meaning
		return s, errSectionForm
	}
	n, err := note.Open([]byte(signed), note.VerifierList(key.verifier))
	if err != nil || len(n.Sigs) != 1 || len(n.UnverifiedSigs) > 0 {
		return s, errors.New("the export's sealing key didn't sign it")
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil {
		return s, errors.New("its signature isn't written as one")
	}
	return s, nil
}

// Signing signs the lines of one part of an export as they are written. It is used by one goroutine.
type Signing struct {
	signer *Signer
	next   section
	bytes  int
	marks  []byte
	digest hash.Hash
}

// NewSigning begins a part that goes on behind a position.
func NewSigning(s *Signer, org, export uuid.UUID, after int64) *Signing {
	return &Signing{signer: s, next: section{org: org, export: export, number: 1, from: after, to: after}, digest: sha256.New()}
}

// Add takes the next line, without the newline that ends it.
func (s *Signing) Add(line []byte) {
	sum := sha256.Sum256(line)
	_, _ = s.digest.Write(sum[:]) // never fails
	s.marks = append(s.marks, sum[:markSize]...)
	s.next.lines++
	s.bytes += len(line)
}

// Pending returns how many bytes were added since the last signature.
func (s *Signing) Pending() int { return s.bytes }

// Sign ends a section; position is that of the last event so far.
func (s *Signing) Sign(position int64) (Signed, error) {
	done := s.next
	done.to = position
	s.digest.Sum(done.digest[:0])
	done.marks = sha256.Sum256(s.marks)
	msg, err := note.Sign(&note.Note{Text: done.text()}, s.signer)
	if err != nil {
		return Signed{}, fmt.Errorf("sign section %d of export %s: %w", done.number, done.export, err)
	}
	out := Signed{Line: LineSigned, Position: position, Note: string(msg), Marks: s.marks}
	s.next = section{org: done.org, export: done.export, number: done.number + 1, from: position, to: position, previous: done.hash()}
	s.bytes, s.marks = 0, make([]byte, 0, len(s.marks))
	s.digest.Reset()
	return out, nil
}
