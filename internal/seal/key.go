package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// keyName is the name of every sealing key; the bytes behind it tell keys apart.
const keyName = "testflow-audit"

// fingerprintPrefix begins the text of a fingerprint.
const fingerprintPrefix = "sha256:"

// Signer is a private sealing key (Ed25519).
type Signer struct {
	note.Signer
	private string
	key     Key
}

// Key is a public sealing key.
type Key struct {
	text     string // note's verifier key: name+hash+base64
	verifier note.Verifier
}

// NewSigner makes a key. Its Private text is a secret.
func NewSigner() (*Signer, error) {
	private, public, err := note.GenerateKey(rand.Reader, keyName)
	if err != nil {
		return nil, fmt.Errorf("make a sealing key: %w", err)
	}
	key, err := ParseKey(public)
	if err != nil {
		return nil, err
	}
	return ParseSigner(private, key)
}

// ParseSigner reads what Private returned, and checks that it belongs to the public key.
func ParseSigner(private string, key Key) (*Signer, error) {
	s, err := note.NewSigner(private)
	if err != nil {
		return nil, errors.New("this is no private sealing key") // the cause would show a part of it
	}
	signer := &Signer{Signer: s, private: private, key: key}
	probe := []byte("testflow sealing key")
	signature, err := s.Sign(probe)
	if err != nil {
		return nil, fmt.Errorf("sign with the sealing key: %w", err)
	}
	if !key.verifier.Verify(probe, signature) {
		return nil, errors.New("this private sealing key belongs to another public key")
	}
	return signer, nil
}

// Private returns the private key as text: a secret.
func (s *Signer) Private() string { return s.private }

// Key returns the public key.
func (s *Signer) Key() Key { return s.key }

// ParseKey reads what Key.String returned.
func ParseKey(text string) (Key, error) {
	text = strings.TrimSpace(text)
	v, err := note.NewVerifier(text)
	if err != nil || v.Name() != keyName {
		return Key{}, errors.New("this is no public sealing key: one begins with " + keyName + "+")
	}
	return Key{text: text, verifier: v}, nil
}

// String returns the public key as text.
func (k Key) String() string { return k.text }

// Fingerprint returns "sha256:" and the hash of the public key in hex: what people compare.
func (k Key) Fingerprint() string {
	sum := sha256.Sum256([]byte(k.text))
	return fingerprintPrefix + hex.EncodeToString(sum[:])
}

// Statement is one link of the chain of keys: "this key follows that one", signed by both, so that whoever trusts any key
// of the chain can tell that the others belong to it.
type Statement struct {
	Number    int // from 1
	Key       Key
	Previous  string // the key before it as text, "" for the first
	CreatedAt time.Time
	Note      string // as it was signed
}

// statementTitle is the first line of a statement.
const statementTitle = "testflow-audit sealing key"

// NewStatement signs that s is key number n. old is the key that it replaces, nil for the first.
func NewStatement(number int, s, old *Signer, at time.Time) (Statement, error) {
	previous, signers := "", []note.Signer{s}
	if old != nil {
		previous, signers = old.key.text, append(signers, old)
	}
	text := fmt.Sprintf("%s\n%d\n%s\nprevious %s\ntime %s\n", statementTitle, number, s.key, orNone(previous), at.UTC().Format(time.RFC3339Nano))
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		return Statement{}, fmt.Errorf("sign key %d: %w", number, err)
	}
	return Statement{Number: number, Key: s.key, Previous: previous, CreatedAt: at.UTC(), Note: string(signed)}, nil
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// parseStatement reads a statement and checks that the key in it and the one before it signed it. before is nil for
// number 1.
func parseStatement(signed string, number int, before *Key) (Statement, error) {
	text, _, ok := strings.Cut(signed, "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 5 || lines[0] != statementTitle {
		return Statement{}, errors.New("it isn't written as one")
	}
	key, err := ParseKey(lines[2])
	if err != nil {
		return Statement{}, err
	}
	previous, hasPrevious := strings.CutPrefix(lines[3], "previous ")
	stamp, hasTime := strings.CutPrefix(lines[4], "time ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if !hasPrevious || !hasTime || err != nil {
		return Statement{}, errors.New("it isn't written as one")
	}
	if lines[1] != strconv.Itoa(number) {
		return Statement{}, fmt.Errorf("it says that it is number %s", strconv.Quote(lines[1]))
	}
	known := []note.Verifier{key.verifier}
	s := Statement{Number: number, Key: key, CreatedAt: at, Note: signed}
	switch {
	case before == nil && previous != "none":
		return Statement{}, errors.New("it follows a key that isn't there")
	case before != nil && previous != before.text:
		return Statement{}, errors.New("it doesn't follow the key before it")
	case before != nil:
		s.Previous, known = previous, append(known, before.verifier)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(known...))
	if err != nil || len(n.Sigs) != len(known) {
		return Statement{}, errors.New("its signatures don't hold")
	}
	return s, nil
}

// Chain is the keys of an installation, oldest first; each is vouched for by the one before it and vouches for it.
type Chain struct {
	statements []Statement
	verifiers  note.Verifiers
}

// ParseChain reads statements in order and checks every link.
func ParseChain(notes []string) (*Chain, error) {
	c := &Chain{}
	var before *Key
	verifiers := make([]note.Verifier, 0, len(notes))
	for i, n := range notes {
		s, err := parseStatement(n, i+1, before)
		if err != nil {
			return nil, fmt.Errorf("the statement of sealing key %d is not genuine: %w", i+1, err)
		}
		c.statements = append(c.statements, s)
		before = &c.statements[i].Key
		verifiers = append(verifiers, s.Key.verifier)
	}
	c.verifiers = note.VerifierList(verifiers...)
	return c, nil
}

// Statements returns the chain, oldest first.
func (c *Chain) Statements() []Statement { return append([]Statement(nil), c.statements...) }

// Notes returns the statements as they were signed: what ParseChain reads.
func (c *Chain) Notes() []string {
	notes := make([]string, len(c.statements))
	for i, s := range c.statements {
		notes[i] = s.Note
	}
	return notes
}

// Newest returns the last statement; ok is false when there is none.
func (c *Chain) Newest() (s Statement, ok bool) {
	if len(c.statements) == 0 {
		return Statement{}, false
	}
	return c.statements[len(c.statements)-1], true
}

// Holds says whether a pin, a fingerprint or a public key, names a key of the chain.
func (c *Chain) Holds(pin string) bool {
	for _, s := range c.statements {
		if pin == s.Key.text || strings.EqualFold(pin, s.Key.Fingerprint()) {
			return true
		}
	}
	return false
}

// IsPin says whether a text looks like a fingerprint or a public key.
func IsPin(text string) bool {
	if digits, ok := strings.CutPrefix(strings.ToLower(text), fingerprintPrefix); ok {
		raw, err := hex.DecodeString(digits)
		return err == nil && len(raw) == sha256.Size
	}
	_, err := ParseKey(text)
	return err == nil
}
