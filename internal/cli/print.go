package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// event is an event of the live stream, as far as every one is alike.
type event struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	RecordedAt time.Time       `json:"recordedAt"`
	Subject    string          `json:"subject"`
	Data       json.RawMessage `json:"data"`
}

// eventData are the fields of the data of runs that a line shows.
type eventData struct {
	TestName string          `json:"testName"`
	Trigger  string          `json:"trigger"`
	Region   string          `json:"region"`
	Attempt  int             `json:"attempt"`
	Attempts int             `json:"attempts"`
	Status   json.RawMessage `json:"status"`
	Reason   string          `json:"reason"`
	Worker   string          `json:"worker"`
	Error    *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	DurationMs float64 `json:"durationMs"`
	Counts     struct {
		Steps            int `json:"steps"`
		Assertions       int `json:"assertions"`
		AssertionsFailed int `json:"assertionsFailed"`
		SoftFailed       int `json:"softFailed"`
	} `json:"counts"`
	Step     int    `json:"step"`
	Name     string `json:"name"`
	StepName string `json:"stepName"`
	Request  struct {
		Method string `json:"method"`
		URL    string `json:"url"`
	} `json:"request"`
	Response *struct {
		Status int   `json:"status"`
		Size   int64 `json:"size"`
	} `json:"response"`
	Source   string          `json:"source"`
	Property string          `json:"property"`
	Operator string          `json:"operator"`
	Not      bool            `json:"not"`
	Expected json.RawMessage `json:"expected"`
	Actual   json.RawMessage `json:"actual"`
	Pass     bool            `json:"pass"`
	Severity string          `json:"severity"`
	Message  string          `json:"message"`
}

func (d eventData) status() string {
	var s string
	if json.Unmarshal(d.Status, &s) != nil {
		return ""
	}
	return s
}

// Colours of a terminal.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
	bold   = "1"
)

// maxNames is how many running tests' names are remembered; maxValue is how much of a value stands in a line.
const (
	maxNames = 1000
	maxValue = 120
)

// printer writes events, for people or for programs.
type printer struct {
	env    Env
	json   bool
	names  map[string]string // of tests, by run
	status string            // of the last run that finished
}

func newPrinter(env Env, asJSON bool) *printer {
	return &printer{env: env, json: asJSON, names: map[string]string{}}
}

// event prints one event and returns it. An error is stdout's.
func (p *printer) event(raw json.RawMessage) (e event, err error) {
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, fmt.Errorf("an event is not as it should be: %w", err)
	}
	var d eventData
	_ = json.Unmarshal(e.Data, &d) // data of another shape is printed as it is
	run, isRun := strings.CutPrefix(e.Subject, "run/")
	if isRun && e.Type == "run.finished" {
		p.status = d.status()
	}
	if p.json {
		_, err := p.env.Stdout.Write(append(bytes.TrimSpace(raw), '\n'))
		return e, err
	}
	line := p.other(e)
	if isRun {
		if d.TestName != "" && len(p.names) < maxNames {
			p.names[run] = clean(d.TestName)
		}
		text, known := p.run(e.Type, run, d)
		switch {
		case known && text == "":
			return e, nil
		case known:
			line = p.paint(dim, shortID(run)) + " " + text
		}
		if e.Type == "run.finished" {
			delete(p.names, run)
		}
	}
	_, err = fmt.Fprintf(p.env.Stdout, "%s %s\n", p.paint(dim, p.stamp(e.RecordedAt)), line)
	return e, err
}

// stamp is the local time on a terminal, and the whole instant elsewhere.
func (p *printer) stamp(t time.Time) string {
	if p.env.Terminal {
		return t.Local().Format("15:04:05.000")
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// run is the line of a run's event; empty for one that says nothing new. known is false for a type of another sort.
func (p *printer) run(eventType, id string, d eventData) (line string, known bool) {
	name := p.names[id]
	if name == "" {
		name = "run"
	}
	name = p.paint(bold, name)
	status := d.status()
	switch eventType {
	case "run.requested":
		return fmt.Sprintf("%s %s requested (%s, %s)", p.paint(dim, "○"), name, clean(d.Trigger), clean(d.Region)), true
	case "run.started":
		return fmt.Sprintf("%s %s started%s in %s", p.paint(dim, "●"), name, attempt(d.Attempt), clean(d.Region)), true
	case "run.cancel_requested":
		return fmt.Sprintf("%s %s is to be canceled", p.paint(yellow, "◌"), name), true
	case "run.step_finished":
		return "  " + p.step(d), true
	case "run.assertion_evaluated":
		return "    " + p.assertion(d), true
	case "run.attempt_finished":
		if d.Attempt <= 1 && status == "passed" {
			return "", true
		}
		return fmt.Sprintf("  %s attempt %d %s", p.mark(status), d.Attempt, p.word(status)), true
	case "run.finished":
		return fmt.Sprintf("%s %s %s  %d of %d assertions hold  %s%s", p.mark(status), name, p.word(status),
			d.Counts.Assertions-d.Counts.AssertionsFailed-d.Counts.SoftFailed, d.Counts.Assertions, millis(d.DurationMs), why(d)), true
	}
	return "", false
}

func (p *printer) step(d eventData) string {
	answer := ""
	if d.Response != nil {
		answer = fmt.Sprintf("  %d  %s", d.Response.Status, size(d.Response.Size))
	}
	return fmt.Sprintf("%s step %d %s  %s %s%s  %s%s", p.mark(d.status()), d.Step+1, clean(d.Name), clean(d.Request.Method),
		clip(d.Request.URL), answer, millis(d.DurationMs), why(d))
}

func (p *printer) assertion(d eventData) string {
	what := clean(d.Source)
	if d.Property != "" {
		what += " " + clip(d.Property)
	}
	if d.Not {
		what += " not"
	}
	what += " " + clean(d.Operator)
	if len(d.Expected) > 0 {
		what += " " + clip(string(d.Expected))
	}
	if d.Pass {
		return p.paint(green, "✓") + " " + what
	}
	color, mark := red, "✗"
	if d.Severity == "soft" {
		color, mark = yellow, "!"
	}
	text := p.paint(color, mark) + " " + what
	switch {
	case len(d.Actual) > 0:
		text += p.paint(color, "  got "+clip(string(d.Actual)))
	case d.Message != "":
		text += "  " + clip(d.Message)
	}
	return text
}

// other is the line of an event that is not a run's.
func (p *printer) other(e event) string {
	data := clip(string(e.Data))
	if data == "{}" {
		data = ""
	}
	return fmt.Sprintf("%s %s  %s  %s", p.paint(dim, "·"), p.paint(bold, clean(e.Type)), clean(e.Subject), p.paint(dim, data))
}

// metrics prints a frame of system metrics.
func (p *printer) metrics(raw json.RawMessage) error {
	if p.json {
		_, err := fmt.Fprintf(p.env.Stdout, "{\"type\":\"metrics\",\"data\":%s}\n", raw)
		return err
	}
	_, err := fmt.Fprintf(p.env.Stdout, "%s %s %s\n", p.paint(dim, p.stamp(p.env.Now())), p.paint(bold, "system"), clip(string(raw)))
	return err
}

func (p *printer) mark(status string) string {
	switch status {
	case "passed":
		return p.paint(green, "✓")
	case "failed", "errored":
		return p.paint(red, "✗")
	case "skipped":
		return p.paint(dim, "-")
	}
	return p.paint(yellow, "?")
}

func (p *printer) word(status string) string {
	switch status {
	case "passed":
		return p.paint(green, status)
	case "failed", "errored":
		return p.paint(red, status)
	}
	return p.paint(yellow, clean(status))
}

func (p *printer) paint(color, text string) string {
	if !p.env.Color || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func attempt(n int) string {
	if n <= 1 {
		return ""
	}
	return " attempt " + strconv.Itoa(n)
}

func why(d eventData) string {
	text := ""
	if d.Reason != "" {
		text += "  " + clean(d.Reason)
	}
	if d.Error != nil {
		text += "  " + clean(d.Error.Code) + ": " + clip(d.Error.Message)
	}
	return text
}

func millis(ms float64) string {
	if ms < 10 {
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	}
	return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
}

func size(n int64) string {
	if n < 10_000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return strconv.FormatInt(n/1000, 10) + " kB"
}

// shortID is the end of an id: the beginnings of UUIDv7 made together are alike.
func shortID(id string) string {
	id = clean(id)
	if len(id) <= 8 {
		return id
	}
	return id[len(id)-8:]
}

// clip cleans a value and cuts it to what fits in a line.
func clip(s string) string {
	s = clean(s)
	if r := []rune(s); len(r) > maxValue {
		return string(r[:maxValue]) + "…"
	}
	return s
}

// clean takes away what could move the cursor, ring or colour the terminal: values come from targets.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
}
