package cli

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/seal"
)

// maxPinFile bounds a file with a key; maxHeadsFile one with seals, about a million of them.
const (
	maxPinFile   = 64 << 10
	maxHeadsFile = 1 << 30
)

// AuditVerify checks an audit export offline: neither a server nor a database is asked.
type AuditVerify struct {
	Files         []string `arg:"" name:"file" help:"Export of the audit log (NDJSON, plain or gzip); - is standard input. Several are the parts of one export, in order."`
	Key           []string `help:"Sealing key that you know: its fingerprint (sha256:…), the public key, or a file with either. The export's keys must follow from it or lead to it." placeholder:"KEY"`
	Head          []string `help:"File with seals that you kept from earlier, as --save-head or TESTFLOW_AUDIT_HEADS_FILE writes them. The history must still be what they say; this finds one that was rewritten with a stolen key." placeholder:"FILE"`
	SaveHead      string   `help:"Add the last seal of a history that verifies to this file, for --head of the next time." placeholder:"FILE"`
	RequireSealed bool     `help:"Fail when there are events at the end that no seal covers yet. An export is sealed before it begins, the record of itself too, so one that the server could seal has none."`
	Strict        bool     `help:"Fail when events show an address or agent that was opened and that no signature covers: no seal covers the readable form."`
}

// Run prints what was found. The exit code is 0 when every event is what was sealed, 1 when something was changed, 2 when
// the command or the file is wrong, or the file isn't whole.
func (a *AuditVerify) Run(ctx context.Context, env Env) error {
	opts := seal.Options{Progress: a.progress(env)}
	for _, k := range a.Key {
		pins, err := readPins(k)
		if err != nil {
			return usage("%w", err)
		}
		opts.Pins = append(opts.Pins, pins...)
	}
	for _, name := range a.Head {
		heads, err := ReadHeads(name)
		if err != nil {
			return usage("%w", err)
		}
		opts.Kept = append(opts.Kept, heads...)
	}
	in, closeAll, err := openExports(a.Files)
	if err != nil {
		return usage("%w", err)
	}
	defer closeAll()
	start := env.Now()
	r, err := seal.Verify(ctx, in, opts)
	if r.Parts > 0 {
		a.print(env, r, env.Now().Sub(start), err == nil)
	}
	switch {
	case ctx.Err() != nil:
		return &Exit{Code: ExitInterrupted, Err: errors.New("stopped; nothing is proven")}
	case len(r.Findings) > 0:
		err := errors.New("NOT what was sealed: the places stand above. Keep the file, and a copy of the database, as they are")
		return &Exit{Code: ExitFailed, Err: err}
	case err != nil:
		return usage("%w", err)
	case a.RequireSealed && r.Unsealed > 0:
		return &Exit{Code: ExitFailed, Err: fmt.Errorf("%d events at the end are covered by no seal yet: the server could not seal them before it wrote them. Look at /readyz and take the export again; what is sealed is in the same export with ?upTo=%d", r.Unsealed, r.UnsealedFrom-1)}
	case a.Strict && r.Opened > 0:
		return &Exit{Code: ExitFailed, Err: fmt.Errorf("readable addresses and agents are not covered: %d events. An export whose lines are signed covers them: take it from a server of this version, parts of one as the error of a cut file names them", r.Opened)}
	}
	if a.SaveHead != "" && r.Last.Number > 0 {
		if err := saveHead(a.SaveHead, r); err != nil {
			return couldNot("%w", err)
		}
	}
	return nil
}

// progress tells a person on standard error, about once a second.
func (a *AuditVerify) progress(env Env) func(seal.Report) {
	if !env.Terminal {
		return nil
	}
	start, last := env.Now(), env.Now()
	return func(r seal.Report) {
		if now := env.Now(); now.Sub(last) >= time.Second {
			last = now
			_, _ = fmt.Fprintf(env.Stderr, "%d events, %d MiB, %.0f events/s\n", r.Events, r.Bytes>>20, float64(r.Events)/now.Sub(start).Seconds())
		}
	}
}

// print tells what was found, the worst first; judged = the file could be read to its end.
func (a *AuditVerify) print(env Env, r seal.Report, took time.Duration, judged bool) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(env.Stdout, format+"\n", args...) }
	for _, f := range r.Findings {
		p("CHANGED  %s", f)
	}
	if r.MoreFindings {
		p("CHANGED  … and more, which are not named")
	}
	p("organization  %s", r.OrgID)
	p("events        %d, of them %d proven by a seal", r.Events, r.Sealed)
	if r.FirstSize > 0 {
		p("              a later part: the %d events before it are not in it, and its seals cover them too", r.FirstSize)
	}
	if r.Filtered {
		p("              a selection: each event is proven, that none is missing cannot be")
	}
	if r.Unsealed > 0 {
		p("not sealed    %d at the end, from position %d (%s): nothing proves them yet", r.Unsealed, r.UnsealedFrom, instant(r.UnsealedSince))
	}
	if r.Opened > 0 {
		p("not proven    the readable address and agent of %d events: the seals cover their sealed form, so who had this file can have changed them", r.Opened)
	}
	if r.SignedLines > 0 {
		p("signed        %d lines are as the server wrote them, and with them the readable address and agent of %d events", r.SignedLines, r.OpenedSigned)
	}
	if r.Last.Number > 0 {
		p("seals         %d checked; the last is number %d of %s, over %d events up to position %d", r.Heads, r.Last.Number, instant(r.Last.Time), r.Last.Size, r.Last.Position)
	}
	for _, k := range r.Keys {
		p("sealing key   %d of %s  %s", k.Number, instant(k.CreatedAt), k.Key.Fingerprint())
	}
	switch {
	case r.Pinned:
		p("trust         the key that you know vouches for these keys")
	case len(a.Key) == 0 && len(r.Keys) > 0:
		p("trust         no key given: this shows that the file agrees with itself. Compare the fingerprint with one that you got another way, and give it by --key")
	}
	if len(a.Head) > 0 {
		p("kept seals    %d agree with this history, %d are from before it", r.KeptChecked, r.KeptBefore)
	}
	p("took          %s, %.0f events/s, %d bytes", took.Round(time.Millisecond), float64(r.Events)/max(took.Seconds(), 0.001), r.Bytes)
	if judged && len(r.Findings) == 0 {
		p("result        %s", verdict(r))
	}
}

func verdict(r seal.Report) string {
	said := provenOf(r)
	if r.Opened > 0 {
		said += fmt.Sprintf("; readable addresses and agents are not covered: %d events", r.Opened)
	}
	return said
}

func provenOf(r seal.Report) string {
	switch {
	case r.Sealed == 0 && r.Events > 0:
		return "nothing is sealed yet, so nothing is proven"
	case r.Unsealed > 0:
		return "every sealed event is what was sealed"
	}
	return "every event is what was sealed"
}

func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// openExports opens the files as one stream.
func openExports(names []string) (io.Reader, func(), error) {
	var open []io.Closer
	closeAll := func() {
		for _, c := range open {
			_ = c.Close() // read only
		}
	}
	readers := make([]io.Reader, 0, len(names))
	for _, name := range names {
		var f io.ReadCloser = os.Stdin
		if name != "-" {
			file, err := os.Open(name)
			if err != nil {
				closeAll()
				return nil, nil, err
			}
			f = file
		}
		open = append(open, f)
		readers = append(readers, &plain{in: f})
	}
	return io.MultiReader(readers...), closeAll, nil
}

// plain reads a file, unpacked when it is gzip.
type plain struct {
	in  io.Reader
	out io.Reader
}

func (p *plain) Read(b []byte) (int, error) {
	if p.out == nil {
		in := bufio.NewReaderSize(p.in, 1<<20)
		p.out = in
		if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
			z, err := gzip.NewReader(in)
			if err != nil {
				return 0, fmt.Errorf("unpack: %w", err)
			}
			p.out = z
		}
	}
	n, err := p.out.Read(b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: the packed file ends too early", seal.ErrCutOff)
	}
	return n, err
}

// readPins reads what --key was given.
func readPins(text string) ([]string, error) {
	if seal.IsPin(text) {
		return []string{text}, nil
	}
	raw, err := readFile(text, maxPinFile)
	if err != nil {
		return nil, fmt.Errorf("--key %q is neither a fingerprint (sha256: and 64 digits), nor a public key, nor a file: %w", text, err)
	}
	var pins []string
	for _, word := range strings.Fields(string(raw)) {
		if seal.IsPin(word) {
			pins = append(pins, word)
		}
	}
	if len(pins) == 0 {
		return nil, fmt.Errorf("the file %s holds neither a fingerprint (sha256: and 64 digits) nor a public key", text)
	}
	return pins, nil
}

// ReadHeads reads the seals that somebody kept in a file: one note as it is, or a JSON object a line with a field "note".
func ReadHeads(name string) ([]string, error) {
	raw, err := readFile(name, maxHeadsFile)
	if err != nil {
		return nil, err
	}
	if _, err := seal.ReadHead(string(raw)); err == nil {
		return []string{string(raw)}, nil
	}
	var notes []string
	for i, line := range strings.Split(string(raw), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var kept struct {
			Note string `json:"note"`
		}
		if json.Unmarshal([]byte(line), &kept) != nil || kept.Note == "" {
			return nil, fmt.Errorf("line %d of %s is no seal: each line is a JSON object with a field \"note\", or the file is one note", i+1, name)
		}
		if _, err := seal.ReadHead(kept.Note); err != nil {
			return nil, fmt.Errorf("line %d of %s is no seal: %w", i+1, name, err)
		}
		notes = append(notes, kept.Note)
	}
	if len(notes) == 0 {
		return nil, fmt.Errorf("there are no seals in %s", name)
	}
	return notes, nil
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s is larger than %d KiB", name, limit>>10)
	}
	return raw, nil
}

// saveHead adds the last seal to a file, in the form that ReadHeads reads.
func saveHead(name string, r seal.Report) (err error) {
	line, err := json.Marshal(map[string]any{"organizationId": r.OrgID, "size": r.Last.Size, "time": r.Last.Time, "note": r.Note})
	if err != nil {
		return fmt.Errorf("encode the seal: %w", err)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // the person names it, and a seal is no secret
	if err != nil {
		return fmt.Errorf("keep the seal: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("keep the seal: %w", err)
	}
	return nil
}
