package executor

import (
	"encoding/json"
	"strings"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
	"github.com/testflow/testflow/internal/vault"
)

// What a run says leaves it in one place, observe, and there every secret in it is hidden: those that were given with the
// Input and those that came up on the way (hide). Nothing is hidden earlier, since the next steps need what was said, and
// nothing later, since nobody else knows the values.

// secretLayer returns the values of `{{secrets.name}}` as a layer of a Scope, and what hides them; both nil without any.
func secretLayer(given map[string]vault.Secret) (map[string]string, *vault.Masker) {
	if len(given) == 0 {
		return nil, nil
	}
	layer := make(map[string]string, len(given))
	values := make([]string, 0, len(given))
	for name, s := range given {
		layer[testspec.SecretScope+name] = s.Reveal()
		values = append(values, s.Reveal())
	}
	return layer, vault.NewMasker(values...)
}

// hide keeps a value out of all that the run says from now on, this step's end included. It is for what is made of secrets
// on the way: a token that was fetched, a signature, a header that a helper wrote.
func (r *runner) hide(value string) {
	if value == "" {
		return
	}
	if r.masker == nil {
		r.masker = &vault.Masker{}
	}
	r.masker.Add(value)
}

// hideCaptured hides a captured value if it is marked as secret: all texts and numbers in it. Of another value it hides
// those that hold a secret, since the next steps may send them on: what a target made of a secret is encoded again there.
func (r *runner) hideCaptured(raw json.RawMessage, marked bool) {
	if !marked && !r.masker.Holds(raw) {
		return
	}
	var v any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if d.Decode(&v) != nil {
		r.hide(string(raw))
		return
	}
	r.hideValue(v, marked)
	if marked && len(raw) > 0 && (raw[0] == '{' || raw[0] == '[') {
		r.hide(string(raw)) // as a reference to it puts it in
	}
}

func (r *runner) hideValue(v any, marked bool) {
	hide := func(text string) {
		if marked || r.masker.Holds([]byte(text)) {
			r.hide(text)
		}
	}
	switch x := v.(type) {
	case string:
		hide(x)
	case json.Number:
		hide(x.String())
	case []any:
		for _, e := range x {
			r.hideValue(e, marked)
		}
	case map[string]any:
		for _, e := range x {
			r.hideValue(e, marked)
		}
	}
}

// observe tells the observer. It is the only way out of a run but its Result.
func (r *runner) observe(o Observation) {
	if r.masker != nil {
		switch v := o.(type) {
		case StepFinished:
			o = r.maskedStep(v)
		case AssertionEvaluated:
			o = r.maskedVerdict(v)
		}
	} else if v, ok := o.(StepFinished); ok && v.Response != nil {
		v.Response.whole = nil
	}
	r.tell(o)
}

// maskedStep returns the step without secrets. The request and the response are the observer's from now on, so they are
// changed in place.
func (r *runner) maskedStep(s StepFinished) StepFinished {
	m := r.masker
	s.Name = m.MaskString(s.Name)
	s.Error = r.maskedError(s.Error)
	s.Captures = r.maskedCaptures(s.Captures)
	if q := s.Request; q != nil {
		q.Method, q.URL = m.MaskString(q.Method), maskURL(m, q.URL)
		maskHeaders(m, q.Headers)
	}
	r.bodyHeld = false
	if p := s.Response; p != nil {
		p.URL, p.RemoteAddr, p.ContentType = maskURL(m, p.URL), m.MaskString(p.RemoteAddr), m.MaskString(p.ContentType)
		maskHeaders(m, p.Headers)
		for i := range p.Redirects {
			p.Redirects[i].URL, p.Redirects[i].Location = maskURL(m, p.Redirects[i].URL), maskURL(m, p.Redirects[i].Location)
		}
		r.maskBody(p)
	}
	return s
}

// maskBody hides secrets in what is kept of the body. They are looked for in the whole, so that none is missed of which
// only the beginning is kept; and a body that holds one has no hash, by which a short secret could be guessed.
func (r *runner) maskBody(p *ResponseSummary) {
	whole := p.whole
	p.whole = nil
	if whole == nil {
		whole = p.Body
	}
	r.bodyHeld = r.masker.Holds(whole)
	if cutOff := p.SHA256 == [32]byte{} && len(p.Body) == len(whole); cutOff { // not read to its end
		p.Body = []byte(r.masker.MaskCut(string(whole)))
		return
	}
	if r.bodyHeld {
		p.Body, p.SHA256 = r.masker.MaskDocument(whole, len(p.Body)), [32]byte{}
	}
}

// maskURL masks a URL of a summary. Only one that was cut ends in what may be the beginning of a secret; else a single
// letter at the end would be taken for one.
func maskURL(m *vault.Masker, u string) string {
	if len(u) < limits.MaxURL {
		return m.MaskString(u)
	}
	return m.MaskCut(u)
}

func maskHeaders(m *vault.Masker, list []Header) {
	for i := range list {
		list[i] = Header{Name: m.MaskString(list[i].Name), Value: m.MaskString(list[i].Value)}
	}
}

func (r *runner) maskedError(e *Error) *Error {
	if e == nil || r.masker == nil {
		return e
	}
	return &Error{Code: e.Code, Message: r.masker.MaskCut(e.Message), Phase: e.Phase}
}

func (r *runner) maskedCaptures(list []Captured) []Captured {
	if r.masker == nil || len(list) == 0 {
		return list
	}
	out := make([]Captured, len(list))
	for i, c := range list {
		c.Value = r.masker.MaskJSON(c.Value, false)
		out[i] = c
	}
	return out
}

func (r *runner) maskedVerdict(v AssertionEvaluated) AssertionEvaluated {
	m := r.masker
	v.Property = m.MaskString(v.Property)
	if r.bodyHeld && (v.Source == "sha256" || v.Source == "md5") {
		v.Message = strings.ReplaceAll(v.Message, string(v.Actual.JSON), `"`+hidden+`"`)
		v.Actual.JSON = json.RawMessage(`"` + hidden + `"`)
	}
	v.Message = m.MaskCut(v.Message)
	v.Expected.JSON = m.MaskJSON(v.Expected.JSON, v.Expected.Truncated)
	v.Actual.JSON = m.MaskJSON(v.Actual.JSON, v.Actual.Truncated)
	return v
}

// maskedResult returns the result as it may leave.
func (r *runner) maskedResult() Result {
	r.result.Error = r.maskedError(r.result.Error)
	r.result.Captures = r.maskedCaptures(r.result.Captures)
	return r.result
}
