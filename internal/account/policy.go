package account

import (
	"bufio"
	"bytes"
	"crypto/sha1" //nolint:gosec // the form of the lists of leaked passwords; nothing is protected by it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/trustelem/zxcvbn"
	"golang.org/x/text/unicode/norm"
)

const (
	// leastScore is zxcvbn's "safely unguessable": more than 10^8 guesses, each of which costs an argon2id hash.
	leastScore = 3
	// estimated is how many characters are looked at at a time: the estimate's cost grows faster than the length, and takes
	// about 15 ms for this many.
	estimated = 64
	// maxWords bounds what is known of the person and looked for in the password.
	maxWords = 40
)

// PasswordPolicy says which passwords are refused. The zero policy refuses what is short, what is easily guessed, and what
// stands in the lists of leaked passwords that every guesser begins with.
type PasswordPolicy struct {
	// Leaked is the operator's list of leaked passwords; nil = none.
	Leaked *LeakedPasswords
}

// about is what is known of the person, none of which makes a good password.
type about struct {
	email, name  string
	organization string
}

// words are its parts, as somebody who knows the person would try them.
func (a about) words() []string {
	text := a.email + " " + a.name + " " + a.organization + " testflow"
	words := strings.FieldsFunc(strings.ToLower(norm.NFKC.String(text)), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) })
	local, _, _ := strings.Cut(a.email, "@")
	words = append([]string{a.email, local}, words...)
	return words[:min(len(words), maxWords)]
}

// problems returns one sentence for each rule that a password breaks; the list of leaked passwords is asked by leaked.
func (PasswordPolicy) problems(password string, who about) []string {
	problems := passwordProblems(password, who.email)
	if len(problems) > 0 {
		return problems
	}
	plain, words := norm.NFKC.String(password), who.words()
	if guessable(plain, words) || commonplace(strings.ToLower(plain), words) {
		return []string{"This password is too easy to guess. Several words that don't belong together make a good one; names, dates and years don't."}
	}
	return nil
}

// guessable reports whether the password would be found soon by somebody who tries what people choose. Of a long one it
// is enough that its beginning or its end is hard.
func guessable(password string, words []string) bool {
	runes := []rune(password)
	if len(runes) <= estimated {
		return zxcvbn.PasswordStrength(password, words).Score < leastScore
	}
	return zxcvbn.PasswordStrength(string(runes[:estimated]), words).Score < leastScore &&
		zxcvbn.PasswordStrength(string(runes[len(runes)-estimated:]), words).Score < leastScore
}

// leaked returns a sentence when the password stands in the operator's list.
func (p PasswordPolicy) leaked(password string) ([]string, error) {
	if p.Leaked == nil {
		return nil, nil
	}
	for _, spelling := range []string{password, norm.NFKC.String(password)} {
		found, err := p.Leaked.Has(spelling)
		if err != nil {
			return nil, err
		}
		if found {
			return []string{"This password has been leaked somewhere and stands in the lists that guessers use. Choose another one, and don't use it elsewhere either."}, nil
		}
	}
	return nil, nil
}

// LeakedPasswords is a file of SHA-1 hashes of passwords, ordered by hash, as Have I Been Pwned gives it: a line is 40 hex
// digits, a colon and a count. It is searched on disk: some 35 small reads in 40 GB. It is safe for concurrent use.
type LeakedPasswords struct {
	file *os.File
	size int64
}

const (
	hashDigits = 2 * sha1.Size
	maxLine    = 64 // bytes of a line with its end; the longest real one has 52
	proofLines = 1000
)

var errNotOrdered = errors.New("it is no list of SHA-1 hashes ordered by hash: a line must be 40 hex digits, upper case, with an optional count after a colon")

// OpenLeakedPasswords opens a list and looks at its beginning and its end, so that a wrong file is noticed at the start.
func OpenLeakedPasswords(path string) (*LeakedPasswords, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the list of leaked passwords: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		l := &LeakedPasswords{file: f, size: info.Size()}
		if err = l.prove(); err == nil {
			return l, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("list of leaked passwords %s: %w", path, err), f.Close())
}

// Close closes the file.
func (l *LeakedPasswords) Close() error { return l.file.Close() }

// prove reads the first lines and the last one.
func (l *LeakedPasswords) prove() error {
	scan := bufio.NewScanner(io.NewSectionReader(l.file, 0, l.size))
	scan.Buffer(nil, maxLine)
	before := ""
	for n := 0; n < proofLines && scan.Scan(); n++ {
		hash, ok := hashOfLine(scan.Bytes())
		if !ok || hash < before {
			return errNotOrdered
		}
		before = hash
	}
	if scan.Err() != nil || before == "" {
		return errNotOrdered
	}
	hash, _, _, err := l.lineAt(l.size-1, 0)
	if err == nil && hash < before {
		err = errNotOrdered
	}
	return err
}

// Has reports whether a password stands in the list.
func (l *LeakedPasswords) Has(password string) (bool, error) {
	sum := sha1.Sum([]byte(password)) //nolint:gosec // see above
	want := strings.ToUpper(hex.EncodeToString(sum[:]))
	for low, high := int64(0), l.size; low < high; { // its line, if there is one, begins in [low, high); low begins a line
		hash, start, next, err := l.lineAt((low+high)/2, low)
		switch {
		case err != nil:
			return false, fmt.Errorf("search the list of leaked passwords: %w", err)
		case hash == want:
			return true, nil
		case hash > want:
			high = start
		default:
			low = next
		}
	}
	return false, nil
}

// lineAt reads the line that holds the byte at an offset: its hash, where it begins and where the next one does. No line
// begins before least.
func (l *LeakedPasswords) lineAt(offset, least int64) (hash string, start, next int64, err error) {
	from := max(least, offset-maxLine)
	buf := make([]byte, 2*maxLine)
	n, err := l.file.ReadAt(buf, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", 0, 0, err
	}
	buf = buf[:n]
	at := int(offset - from)
	begin := bytes.LastIndexByte(buf[:min(at, n)], '\n') + 1
	if begin == 0 && from > least { // no line is that long
		return "", 0, 0, errNotOrdered
	}
	end := bytes.IndexByte(buf[begin:], '\n')
	switch {
	case end >= 0:
		end += begin
	case from+int64(n) == l.size: // the last line may have no end
		end = n
	default:
		return "", 0, 0, errNotOrdered
	}
	hash, ok := hashOfLine(bytes.TrimSuffix(buf[begin:end], []byte{'\r'}))
	if !ok {
		return "", 0, 0, errNotOrdered
	}
	return hash, from + int64(begin), from + int64(end) + 1, nil
}

func hashOfLine(line []byte) (string, bool) {
	hash, _, _ := strings.Cut(string(bytes.TrimSuffix(line, []byte{'\r'})), ":")
	if len(hash) != hashDigits || strings.Trim(hash, "0123456789ABCDEF") != "" {
		return "", false
	}
	return hash, true
}
