package testspec

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Judge judges one assertion. a.Expected has its variables put in. It never fails as a program does: what cannot be
// compared is a false verdict whose message says why, with not as without.
func (s *Subject) Judge(ctx context.Context, a Assertion) Verdict {
	v := Verdict{Source: a.Source, Property: a.Property, Operator: a.Operator, Not: a.Not, Severity: a.Weight()}
	src, ok := sourceByName[a.Source]
	if !ok {
		v.Message = fmt.Sprintf("There is no source %q.", shorten(a.Source, 40))
		return v
	}
	op, ok := operatorByName[a.Operator]
	if !ok {
		v.Message = fmt.Sprintf("There is no operator %q.", shorten(a.Operator, 40))
		return v
	}
	var expected any
	if a.Expected != nil {
		var err error
		if expected, err = decodeJSON(a.Expected); err != nil {
			v.Message = "The expected value is not JSON."
			return v
		}
		v.Expected = show(expected)
	}
	actual := src.read(ctx, s, a.Property)
	if actual.none == "" {
		v.Actual = show(actual.v)
	}
	v.Pass, v.Message = conclude(src, op, a, actual, expected, v)
	return v
}

// conclude decides and writes the sentence.
func conclude(src *SourceInfo, op *OperatorInfo, a Assertion, actual value, expected any, v Verdict) (bool, string) {
	var b strings.Builder
	b.WriteString("Expected ")
	b.WriteString(src.noun(a.Property))
	if a.Not {
		b.WriteString(" not")
	}
	b.WriteByte(' ')
	b.WriteString(op.phrase)
	if a.Expected != nil {
		b.WriteByte(' ')
		b.WriteString(inSentence(v.Expected, op.Expected))
	}
	// Whether it exists can be asked of what isn't there; nothing else can.
	if actual.none != "" && (actual.broken || op.Name != "exists") {
		b.WriteString(", but " + actual.none + ".")
		return false, b.String()
	}
	holds, cannot := op.eval(actual, expected)
	is := "it is " + inSentence(v.Actual, ExpectAny)
	if actual.none != "" {
		is = actual.none
	}
	switch {
	case cannot != "":
		b.WriteString(", but " + cannot)
		if !strings.Contains(cannot, "longer than") {
			b.WriteString(": " + is)
		}
		b.WriteByte('.')
		return false, b.String()
	case holds == a.Not:
		b.WriteString(", but " + is + ".")
		return false, b.String()
	default:
		b.WriteString(", and " + is + ".")
		return true, b.String()
	}
}

// maxInSentence bounds a value within a sentence.
const maxInSentence = 120

// inSentence writes a value for a person.
func inSentence(s Shown, as Expectation) string {
	if as == ExpectRange {
		var bounds []json.RawMessage
		if json.Unmarshal(s.JSON, &bounds) == nil && len(bounds) == 2 {
			return string(bounds[0]) + " and " + string(bounds[1])
		}
	}
	text := string(s.JSON)
	if s.Truncated || len(text) > maxInSentence {
		return fmt.Sprintf("%s (%d bytes)", shorten(text, maxInSentence), s.Size)
	}
	return text
}
