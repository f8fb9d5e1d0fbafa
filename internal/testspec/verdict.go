package testspec

import "encoding/json"

// Verdict is the judgement of one assertion. It carries the assertion, so that a reader needs nothing else.
type Verdict struct {
	Source     string
	Property   string
	Filters    []Filter
	Quantifier Quantifier
	Operator   string
	Not        bool
	Severity   Severity
	// Expected is what was compared with, variables put in; its JSON is nil when the operator takes none.
	Expected Shown
	// Actual is what the response held, filters applied; its JSON is nil when there was nothing. Bytes are shown as base64.
	Actual Shown
	Pass   bool
	// Message is one readable sentence, true and false alike.
	Message string
}

// Shown is a value cut down for a result.
type Shown struct {
	// JSON is the value itself when it is not Truncated, otherwise a JSON string with its first limits.MaxActual bytes. It is
	// valid UTF-8 and holds no NUL, so that Postgres can store it as jsonb.
	JSON json.RawMessage
	// Size is the length in bytes of the whole value as text.
	Size      int
	Truncated bool
}
