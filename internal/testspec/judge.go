package testspec

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Judge judges one assertion. a.Expected has its variables put in. It never fails as a program does: what cannot be
// compared is a false verdict whose message says why, with not as without.
func (s *Subject) Judge(ctx context.Context, a Assertion) Verdict {
	v := Verdict{
		Source: a.Source, Property: a.Property, Filters: a.Filters, Quantifier: a.Quantifier,
		Operator: a.Operator, Not: a.Not, Severity: a.Weight(),
	}
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
	actual := s.filter(ctx, s.read(ctx, src, a.Property), a.Filters)
	if a.Quantifier == "" {
		if op.Name != "exists" {
			actual = actual.onlyFor(expected)
		}
	}
	if actual.none == "" {
		v.Actual = show(actual.v)
	}
	j := judgement{ctx: ctx, subject: s, src: src, op: op, assertion: a, expected: expected, verdict: &v}
	if a.Quantifier == "" {
		j.single(actual)
	} else {
		j.members(actual)
	}
	return v
}

// onlyFor is the single node where a list of nodes is not what is expected.
func (x value) onlyFor(expected any) value {
	if _, isList := expected.([]any); isList && x.nodes {
		return x
	}
	return x.only()
}

// judgement is one assertion about to be decided.
type judgement struct {
	ctx       context.Context //nolint:containedctx // lives as long as one call of Judge
	subject   *Subject
	src       *SourceInfo
	op        *OperatorInfo
	assertion Assertion
	expected  any
	verdict   *Verdict
}

// sentenceSize is what most sentences fit in.
const sentenceSize = 96

// begin writes a sentence up to the expected value. who stands before the noun.
func (j *judgement) begin(b *strings.Builder, who string) {
	b.Grow(sentenceSize)
	b.WriteString("Expected ")
	b.WriteString(who)
	b.WriteString(j.src.noun(j.assertion.Property))
	for i, f := range j.assertion.Filters {
		if i == 0 {
			b.WriteString(" after ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(f.Name)
		if len(f.Argument) > 0 && string(f.Argument) != "true" {
			b.WriteByte(' ')
			b.WriteString(shorten(string(f.Argument), 40))
		}
	}
	if j.assertion.Not {
		b.WriteString(" not")
	}
	b.WriteByte(' ')
	b.WriteString(j.op.phrase)
	if j.assertion.Expected != nil {
		b.WriteByte(' ')
		b.WriteString(inSentence(j.verdict.Expected, j.op.Expected))
	}
}

// single decides about the value itself and writes the sentence.
func (j *judgement) single(actual value) {
	var b strings.Builder
	j.begin(&b, "")
	j.verdict.Pass = j.concludeSingle(&b, actual)
	b.WriteByte('.')
	j.verdict.Message = b.String()
}

func (j *judgement) concludeSingle(b *strings.Builder, actual value) bool {
	// Whether it exists can be asked of what isn't there; nothing else can.
	if actual.none != "" && (actual.broken || j.op.Name != "exists") {
		b.WriteString(", but " + actual.none)
		return false
	}
	holds, cannot := j.op.evaluate(j.ctx, j.subject, actual, j.expected)
	is := "it is " + inSentence(j.verdict.Actual, ExpectAny)
	if actual.none != "" {
		is = actual.none
	}
	switch {
	case cannot != "":
		b.WriteString(", but " + cannot)
		if !strings.Contains(cannot, "longer than") {
			b.WriteString(": " + is)
		}
		return false
	case holds == j.assertion.Not && !holds && j.op.explain != nil:
		b.WriteString(", but " + j.op.explain(j.ctx, j.subject, actual, j.expected))
		return false
	case holds == j.assertion.Not:
		b.WriteString(", but " + is)
		return false
	default:
		b.WriteString(", and " + is)
		return true
	}
}

// members decides about each member of a list and writes the sentence.
func (j *judgement) members(actual value) {
	var b strings.Builder
	j.begin(&b, map[Quantifier]string{
		QuantifierAny: "some member of ", QuantifierAll: "every member of ", QuantifierNone: "no member of ",
	}[j.assertion.Quantifier])
	j.verdict.Pass = j.concludeMembers(&b, actual)
	b.WriteByte('.')
	j.verdict.Message = b.String()
}

func (j *judgement) concludeMembers(b *strings.Builder, actual value) bool {
	if actual.none != "" {
		b.WriteString(", but " + actual.none)
		return false
	}
	list, ok := actual.v.([]any)
	if !ok {
		b.WriteString(", but " + typeName(actual.v) + " has no members: it is " + inSentence(j.verdict.Actual, ExpectAny))
		return false
	}
	member := func(i int) string {
		return fmt.Sprintf("member %d is %s", i, inSentence(show(list[i]), ExpectAny))
	}
	want := j.assertion.Quantifier
	unlike, cannotAt := "", -1
	for i, m := range list {
		if i&0xff == 0xff && j.ctx.Err() != nil {
			b.WriteString(", but judging its members takes too long")
			return false
		}
		holds, cannot := j.op.evaluate(j.ctx, j.subject, value{v: m, wire: actual.wire, date: actual.date}, j.expected)
		switch {
		case cannot != "":
			if cannotAt < 0 {
				unlike, cannotAt = cannot, i
			}
			if want != QuantifierAny {
				b.WriteString(", but " + cannot + ": " + member(i))
				return false
			}
		case holds != j.assertion.Not && want == QuantifierAny:
			b.WriteString(", and " + member(i))
			return true
		case holds != j.assertion.Not && want == QuantifierNone, holds == j.assertion.Not && want == QuantifierAll:
			b.WriteString(", but " + member(i))
			if !holds && j.op.explain != nil {
				b.WriteString(": " + j.op.explain(j.ctx, j.subject, value{v: m}, j.expected))
			}
			return false
		}
	}
	count := "all " + strconv.Itoa(len(list)) + " are"
	switch {
	case want == QuantifierAny && cannotAt >= 0:
		b.WriteString(", but none is, and " + unlike + ": " + member(cannotAt))
		return false
	case want == QuantifierAny && len(list) == 0:
		b.WriteString(", but there is no member")
		return false
	case want == QuantifierAny:
		b.WriteString(", but none of " + strconv.Itoa(len(list)) + " is: they are " + inSentence(j.verdict.Actual, ExpectAny))
		return false
	case len(list) == 0:
		b.WriteString(", and there is no member")
	case want == QuantifierNone:
		b.WriteString(", and none of " + strconv.Itoa(len(list)) + " is")
	default:
		b.WriteString(", and " + count)
	}
	return true
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
