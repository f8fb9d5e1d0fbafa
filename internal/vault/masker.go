package vault

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"
)

const (
	// MinSecret is the shortest value, in bytes, that is looked for wherever it stands. A shorter one would hide half of
	// everything, so it cannot be made a secret; one that comes up in a run is hidden where it stands alone.
	MinSecret = 4
	// minPiece is the shortest line of a text of several lines, and leaf of a JSON document, that is hidden by itself.
	minPiece = 12
	// ellipsis is how texts for people say that something was cut off.
	ellipsis = "…"
)

// Masker hides secrets in whatever leaves: it finds a value as it is, base64 encoded inside a longer text (so Basic
// credentials too), in hexadecimal digits, and each of these percent-encoded, escaped as in JSON or HTML, or broken into
// lines, also twice over. Each text is passed by an Aho-Corasick automaton over all forms of all values. A nil Masker
// hides nothing and costs nothing. It is safe for concurrent use.
//
// What a target makes of a secret in other ways (a hash, a part of it, another cipher) cannot be found.
type Masker struct {
	mu     sync.Mutex
	values map[string]bool
	forms  []form
	auto   *automaton // nil after Add, until it is needed
}

// form is one way in which a value may be written.
type form struct {
	text string
	// before and after are the characters beside it that hold a part of the value: the bits of base64 that it shares with
	// its neighbours.
	before, after int
	alone         bool // counts only where no letter or digit stands beside it
}

// NewMasker returns a Masker for the values; nil when there are none.
func NewMasker(values ...string) *Masker {
	if len(values) == 0 {
		return nil
	}
	m := &Masker{}
	for _, v := range values {
		m.Add(v)
	}
	return m
}

// Add hides another value from now on. Adding one twice, or an empty one, does nothing. A value of several lines is also
// hidden line by line, and one that is a JSON document by its texts: of a private key or a service account's file each
// part is secret.
func (m *Masker) Add(value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(value)
	if strings.ContainsAny(value, "\r\n") {
		m.add(strings.ReplaceAll(value, "\r\n", "\n"))
		for _, line := range strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if line = strings.TrimSpace(line); len(line) >= minPiece && !strings.HasPrefix(line, "-----") {
				m.add(line)
			}
		}
	}
	// Put into a URL as it is, a value ends for the target at the next of these.
	if pieces := strings.FieldsFunc(value, func(r rune) bool { return r == '&' || r == '#' }); len(pieces) > 1 {
		for _, piece := range pieces {
			if len(piece) >= minPiece {
				m.add(piece)
			}
		}
	}
	if text := strings.TrimSpace(value); strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		var document any
		if json.Unmarshal([]byte(text), &document) == nil {
			m.addLeaves(document)
		}
	}
}

func (m *Masker) addLeaves(v any) {
	switch x := v.(type) {
	case string:
		if len(x) >= minPiece {
			m.add(x)
		}
	case []any:
		for _, e := range x {
			m.addLeaves(e)
		}
	case map[string]any:
		for _, e := range x {
			m.addLeaves(e)
		}
	}
}

func (m *Masker) add(value string) {
	if value == "" || m.values[value] {
		return
	}
	if m.values == nil {
		m.values = map[string]bool{}
	}
	m.values[value] = true
	m.auto = nil
	m.forms = append(m.forms, formsOf(value)...)
}

// formsOf returns how a value may be written; what decoders undo (percent, JSON, HTML, line breaks) is not among them.
func formsOf(value string) []form {
	if len(value) < MinSecret {
		return []form{{text: value, alone: true}}
	}
	var forms []form
	add := func(f form) {
		if !slices.ContainsFunc(forms, func(o form) bool { return o.text == f.text }) {
			forms = append(forms, f)
		}
	}
	for _, text := range writings(value) {
		add(form{text: text})
		add(form{text: strings.ToLower(text)}) // as a host has it
		add(form{text: strings.ToUpper(text)})
		digits := hex.EncodeToString([]byte(text))
		add(form{text: digits})
		add(form{text: strings.ToUpper(digits)})
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			for shift := range 3 {
				add(encodedForm(enc, text, shift))
			}
		}
	}
	return forms
}

// writings returns the value as it may stand in a document or a URL that is then encoded as a whole, and what a target
// reads that takes a part of a URL for it. Of most values that is the value alone.
func writings(value string) []string {
	list := []string{value}
	add := func(text string) {
		if len(text) >= MinSecret && !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	add(strings.TrimSpace(value)) // a header's value loses spaces at its ends
	if minimal, err := quote(value); err == nil {
		add(string(minimal[1 : len(minimal)-1]))
	}
	if escaped, err := json.Marshal(value); err == nil {
		add(string(escaped[1 : len(escaped)-1]))
	}
	add(strings.ReplaceAll(value, " ", "+"))
	add(strings.ReplaceAll(value, "+", " "))
	add(url.QueryEscape(value))
	add(url.PathEscape(value))
	if plain, err := url.QueryUnescape(value); err == nil {
		add(plain)
	}
	if plain, err := url.PathUnescape(value); err == nil {
		add(plain)
	}
	return list
}

// encodedForm is the value in base64 when it stands shift bytes behind a border of three: without the characters that its
// neighbours have a part in.
func encodedForm(enc *base64.Encoding, value string, shift int) form {
	text := enc.EncodeToString(append(make([]byte, shift), value...))
	first := []int{0, 2, 3}[shift]
	last := (shift + len(value)) * 8 / 6
	f := form{text: text[first:last]}
	if shift > 0 {
		f.before = 1
	}
	if last < len(text) {
		f.after = 1
	}
	return f
}

// Holds reports whether a text holds a secret.
func (m *Masker) Holds(text []byte) bool { return len(m.find(text, false)) > 0 }

// Mask returns the text with ••• in each secret's place, or the text itself when it holds none.
func (m *Masker) Mask(text []byte) []byte {
	return replace(text, m.find(text, false), len(text))
}

// MaskString is Mask for a string.
func (m *Masker) MaskString(text string) string {
	if m == nil || text == "" {
		return text
	}
	spans := m.find([]byte(text), false)
	if len(spans) == 0 {
		return text
	}
	return string(replace([]byte(text), spans, len(text)))
}

// MaskFirst masks the first n bytes of a text, which is what is kept of it: a secret that begins there is hidden whole,
// though its end lies behind.
func (m *Masker) MaskFirst(text []byte, n int) []byte {
	n = min(n, len(text))
	if m == nil {
		return text[:n]
	}
	return replace(text, m.find(text[:min(len(text), n+m.reach())], false), n)
}

// MaskCut masks a text that was cut already, at its end or where an ellipsis stands: what may be the beginning of a
// secret there is hidden too.
func (m *Masker) MaskCut(text string) string {
	if m == nil || text == "" {
		return text
	}
	return string(replace([]byte(text), m.find([]byte(text), true), len(text)))
}

// MaskJSON masks a JSON value, which stays one: a number or literal that is a secret becomes a string. cut says that the
// value was cut, as in MaskCut.
func (m *Masker) MaskJSON(raw json.RawMessage, cut bool) json.RawMessage {
	if m == nil || len(raw) == 0 {
		return raw
	}
	if !cut && len(m.find(raw, false)) == 0 {
		return raw
	}
	masked, changed, ok := m.maskTokens(raw, cut)
	switch {
	case !ok:
		return json.RawMessage(`"` + hidden + `"`)
	case len(m.find(masked, false)) > 0: // a secret with JSON's own characters, across several values
		return json.RawMessage(`"` + hidden + `"`)
	case !changed:
		return raw
	}
	return masked
}

// MaskDocument is MaskFirst for a body: one that is JSON stays so when it is kept whole.
func (m *Masker) MaskDocument(body []byte, n int) []byte {
	masked := m.MaskFirst(body, n)
	if m == nil || n < len(body) || bytes.Equal(masked, body) || json.Valid(masked) || !json.Valid(body) {
		return masked
	}
	return m.MaskJSON(body, false)
}

// maskTokens writes JSON anew with its strings, keys and numbers masked one by one.
func (m *Masker) maskTokens(raw []byte, cut bool) (out []byte, changed, ok bool) {
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == '"':
			end := stringEnd(raw, i)
			if end < 0 {
				return nil, false, false
			}
			var text string
			if json.Unmarshal(raw[i:end], &text) != nil {
				return nil, false, false
			}
			masked := m.MaskString(text)
			if cut {
				masked = m.MaskCut(text)
			}
			if masked == text {
				out = append(out, raw[i:end]...)
			} else {
				quoted, err := quote(masked)
				if err != nil {
					return nil, false, false
				}
				out, changed = append(out, quoted...), true
			}
			i = end
		case c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z':
			end := i + 1
			for end < len(raw) && !strings.ContainsRune(",]}: \t\r\n", rune(raw[end])) {
				end++
			}
			if token := raw[i:end]; len(m.find(token, false)) > 0 {
				out, changed = append(out, `"`+hidden+`"`...), true
			} else {
				out = append(out, token...)
			}
			i = end
		default:
			out = append(out, c)
			i++
		}
	}
	return out, changed, true
}

// stringEnd returns the place after the JSON string that begins at i, -1 when it has no end.
func stringEnd(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

func quote(text string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// span is a part of a text, half-open.
type span struct{ from, to int }

// replace puts ••• in the place of spans within the first n bytes.
func replace(text []byte, spans []span, n int) []byte {
	if len(spans) == 0 {
		return text[:n]
	}
	out := make([]byte, 0, n+len(spans)*len(hidden))
	at := 0
	for _, s := range spans {
		if s.from >= n {
			break
		}
		out = append(append(out, text[at:s.from]...), hidden...)
		at = s.to
	}
	if at < n {
		out = append(out, text[at:n]...)
	}
	return out
}

// reach is how far behind a place the end of a secret may lie that begins before it, in its longest encoding.
func (m *Masker) reach() int {
	longest := 0
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.forms {
		longest = max(longest, len(f.text))
	}
	return 12*longest + 64
}

func (m *Masker) automaton() *automaton {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.auto == nil {
		m.auto = newAutomaton(m.forms)
	}
	return m.auto
}

// find returns the places of secrets in a text, in order, none touching another. With cut also what may be the beginning
// of one at the text's end, or before an ellipsis.
func (m *Masker) find(text []byte, cut bool) []span {
	if m == nil || len(text) == 0 {
		return nil
	}
	spans := findAll(m.automaton(), text, cut)
	if len(spans) < 2 {
		return spans
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	joined := spans[:1]
	for _, s := range spans[1:] {
		if last := &joined[len(joined)-1]; s.from <= last.to {
			last.to = max(last.to, s.to)
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}
