package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// keptFiles is how many mails an outbox holds; the oldest go first.
const keptFiles = 500

var errOutbox = errors.New("outbox")

// Outbox keeps letters as .eml files that only its owner may read, for an installation that sends none. Every mail program
// opens them, and so does `testflow outbox`.
type Outbox struct {
	Dir  string
	From Sender
}

// Deliver writes a letter's file. A second call writes the same one.
func (o *Outbox) Deliver(_ context.Context, l Letter) error {
	m, err := o.From.compose(l, gomail.NoEncoding)
	if err != nil {
		return err
	}
	var content bytes.Buffer
	if _, err := m.WriteTo(&content); err != nil {
		return fmt.Errorf("%w: compose: %w", errOutbox, err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", errOutbox, err)
	}
	if err := writeFile(filepath.Join(o.Dir, l.file()), content.Bytes()); err != nil {
		return fmt.Errorf("%w: %w", errOutbox, err)
	}
	return o.trim()
}

// file is the name of a letter's file: by time to the microsecond, as the database keeps it, so that a listing is in order;
// by id, so that a letter has one.
func (l Letter) file() string {
	return l.At.UTC().Format("20060102T150405.000000") + "-" + strings.ReplaceAll(l.Kind, ".", "-") + "-" + l.ID.String()[24:] + ".eml"
}

// Forget removes every mail to an address. What cannot be removed is an error that names the file, and the others are gone;
// what is no mail of an outbox stays where it is.
func (o *Outbox) Forget(address string) error {
	names, err := files(o.Dir)
	if err != nil {
		return err
	}
	var stuck []error
	for _, name := range names {
		k, err := readKept(o.Dir, name)
		var unreadable *fs.PathError
		switch {
		case errors.As(err, &unreadable) && !errors.Is(err, fs.ErrNotExist):
			stuck = append(stuck, fmt.Errorf("%w: %w", errOutbox, err))
		case err == nil && strings.EqualFold(k.To, address):
			stuck = append(stuck, o.remove(name))
		}
	}
	return errors.Join(stuck...)
}

// remove removes a file that may be gone already.
func (o *Outbox) remove(name string) error {
	if err := os.Remove(filepath.Join(o.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errOutbox, err)
	}
	return nil
}

// writeFile writes a file of mode 0600, whole or not at all.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone after the rename, and then it fails
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (o *Outbox) trim() error {
	names, err := files(o.Dir)
	if err != nil {
		return err
	}
	for _, name := range names[:max(0, len(names)-keptFiles)] {
		if err := o.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// files are the names of the mails in a folder, the oldest first.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOutbox, err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".eml") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Kept is a mail in an outbox, decoded.
type Kept struct {
	File    string // its name in the folder
	At      time.Time
	To      string
	Subject string
	Text    string
}

// ReadOutbox returns the mails of an outbox, the oldest first. A folder that isn't there is empty.
func ReadOutbox(dir string) ([]Kept, error) {
	names, err := files(dir)
	if err != nil {
		return nil, err
	}
	all := make([]Kept, 0, len(names))
	for _, name := range names {
		k, err := readKept(dir, name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, name), err)
		}
		all = append(all, k)
	}
	return all, nil
}

func readKept(dir, name string) (Kept, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return Kept{}, err
	}
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return Kept{}, err
	}
	k := Kept{File: name}
	if k.At, err = m.Header.Date(); err != nil {
		return Kept{}, err
	}
	if k.Subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		return Kept{}, err
	}
	to, err := m.Header.AddressList("To")
	if err != nil || len(to) != 1 {
		return Kept{}, fmt.Errorf("its recipient: %w", err)
	}
	k.To = to[0].Address
	body := m.Body
	if strings.EqualFold(m.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	k.Text = strings.ReplaceAll(string(text), "\r\n", "\n")
	return k, err
}
