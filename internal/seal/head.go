package seal

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// originPrefix begins a head; the organization's id follows.
const originPrefix = "testflow-audit/"

// emptyRoot is the root of a tree without leaves.
var emptyRoot = Hash(sha256.Sum256(nil))

// Head is what is signed: "this organization's history had so many events then, and this was their tree". Heads of an
// organization are numbered and each names the one before it by its hash.
type Head struct {
	OrgID    uuid.UUID
	Number   int64 // from 1, without gaps
	Size     int64 // leaves
	Root     Hash
	Position int64 // of the last leaf's event; 0 when there is none
	Time     time.Time
	Previous Hash // Hash() of the head before it; zero for the first
}

// text is what is signed: a checkpoint of C2SP (origin, size, root) with lines of our own.
func (h Head) text() string {
	return fmt.Sprintf("%s%s\n%d\n%s\nnumber %d\nposition %d\ntime %s\nprevious %s\n",
		originPrefix, h.OrgID, h.Size, h.Root, h.Number, h.Position, h.Time.UTC().Format(time.RFC3339Nano), h.Previous)
}

// Hash is what the next head calls this one by: SHA-256 of what was signed.
func (h Head) Hash() Hash { return sha256.Sum256([]byte(h.text())) }

// Sign returns the head as a signed note.
func (h Head) Sign(s *Signer) (signed string, err error) {
	msg, err := note.Sign(&note.Note{Text: h.text()}, s)
	if err != nil {
		return "", fmt.Errorf("sign head %d of %s: %w", h.Number, h.OrgID, err)
	}
	return string(msg), nil
}

// errHeadForm says that a note isn't a head.
var errHeadForm = errors.New("it isn't written as a seal")

// ReadHead reads a head without looking at its signature.
func ReadHead(signed string) (Head, error) {
	text, _, ok := strings.Cut(signed, "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 7 {
		return Head{}, errHeadForm
	}
	var h Head
	var errs [7]error
	field := func(i int, name string) string {
		value, ok := strings.CutPrefix(lines[i], name)
		if !ok {
			errs[i] = errHeadForm
		}
		return value
	}
	h.OrgID, errs[0] = uuid.Parse(field(0, originPrefix))
	h.Size, errs[1] = strconv.ParseInt(lines[1], 10, 64)
	h.Root, errs[2] = tlog.ParseHash(lines[2])
	h.Number, errs[3] = strconv.ParseInt(field(3, "number "), 10, 64)
	h.Position, errs[4] = strconv.ParseInt(field(4, "position "), 10, 64)
	h.Time, errs[5] = time.Parse(time.RFC3339Nano, field(5, "time "))
	h.Previous, errs[6] = tlog.ParseHash(field(6, "previous "))
	// The text must be the one way to write this head, or two texts would mean the same.
	if errors.Join(errs[:]...) != nil || h.Size < 0 || h.Number < 1 || h.text() != text+"\n" {
		return Head{}, errHeadForm
	}
	return h, nil
}

// OpenHead reads a head and checks that a key of the chain signed it; key is that key's number.
func (c *Chain) OpenHead(signed string) (h Head, key int, err error) {
	if h, err = ReadHead(signed); err != nil {
		return Head{}, 0, err
	}
	n, err := note.Open([]byte(signed), c.verifiers)
	var unknown *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unknown):
		return Head{}, 0, errors.New("no sealing key of this installation signed it")
	case err != nil:
		return Head{}, 0, errors.New("its signature doesn't hold")
	}
	// note reads base64 with any bits in its padding; a head is written in one way.
	if _, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil {
		return Head{}, 0, errors.New("its signature isn't written as one")
	}
	for _, s := range c.statements {
		if s.Key.verifier.KeyHash() == n.Sigs[0].Hash {
			return h, s.Number, nil
		}
	}
	return Head{}, 0, errors.New("no sealing key of this installation signed it")
}
