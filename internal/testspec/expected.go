package testspec

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/testflow/testflow/internal/limits"
)

// doc says what an expectation takes, in one clause.
func (e Expectation) doc() string {
	switch e {
	case ExpectNumber:
		return "a number"
	case ExpectRange:
		return "a list of two numbers, the lower one first"
	case ExpectList:
		return "a list of at least one value"
	case ExpectText:
		return "text"
	case ExpectPattern:
		return "a regular expression (RE2)"
	case ExpectLength:
		return "a whole number from 0"
	case ExpectWhole:
		return "a list"
	case ExpectNear:
		return `an object {"value": number, "tolerance": number from 0}`
	case ExpectDate:
		return `a date (RFC 3339, ISO 8601 or HTTP's form) or "now"`
	case ExpectNothing:
		return "nothing"
	case ExpectSchema:
		return "a JSON Schema: an object, true or false"
	default:
		return "any value"
	}
}

// checkExpected says what is wrong with an expected value whose variables may not be known yet, "" when nothing is.
func checkExpected(v any, got yielded, op *OperatorInfo) string {
	refused := fmt.Sprintf("The operator %s expects %s.", op.Name, op.Expected.doc())
	switch op.Expected {
	case ExpectNumber:
		if !isNumberOrReference(v) {
			return refused
		}
	case ExpectRange:
		return checkRange(v, refused)
	case ExpectLength:
		n, ok := asDecimal(v)
		if !isReference(v) && (!ok || !n.isWhole() || n.negative) {
			return refused
		}
	case ExpectText:
		if _, ok := v.(string); !ok {
			return refused
		}
	case ExpectPattern:
		return checkPattern(v, refused)
	case ExpectList:
		list, ok := v.([]any)
		if !ok || len(list) == 0 {
			return refused
		}
		for _, e := range list {
			if why := got.checkComparable(e); why != "" {
				return why
			}
		}
	case ExpectPart:
		if _, ok := v.(string); !ok && (got.kinds == KindText || got.kinds == KindBytes) {
			return fmt.Sprintf("%s yields %s, which contains only text.", got.whom, got.kinds.names())
		}
	case ExpectAny:
		return got.checkComparable(v)
	case ExpectWhole:
		if _, ok := v.([]any); !ok && !isReference(v) {
			return refused
		}
	case ExpectNear:
		return checkNear(v, refused)
	case ExpectDate:
		text, ok := v.(string)
		if !ok {
			return refused
		}
		if _, isDate := parseDate(text); !isDate && text != "now" && len(References(text)) == 0 {
			return refused
		}
	case ExpectNothing, ExpectSchema:
	}
	return ""
}

// yielded is what comes to an operator: values of these kinds, from whom a message names. No kinds: unknown.
type yielded struct {
	kinds Kind
	whom  string // e.g. "The source status"
}

// checkComparable refuses an expected value that nothing of these kinds can ever be compared with.
func (y yielded) checkComparable(v any) string {
	if y.kinds == 0 || y.kinds&KindJSON != 0 || isReference(v) {
		return ""
	}
	ok := false
	switch v.(type) {
	case json.Number:
		ok = y.kinds&(KindNumber|KindText) != 0
	case string:
		ok = y.kinds&(KindText|KindDate|KindBytes) != 0
	case []any:
		ok = y.kinds&KindList != 0
	}
	if ok {
		return ""
	}
	expected := y.kinds.names()
	if y.kinds == KindText {
		expected = "text or a number"
	}
	return fmt.Sprintf("%s yields %s, so %s is expected, not %s.", y.whom, y.kinds.names(), expected, typeName(v))
}

func checkNear(v any, refused string) string {
	object, ok := v.(map[string]any)
	if !ok || len(object) != 2 || !isNumberOrReference(object["value"]) || !isNumberOrReference(object["tolerance"]) {
		return refused
	}
	if d, ok := asDecimal(object["tolerance"]); ok && d.negative {
		return refused
	}
	return ""
}

func checkRange(v any, refused string) string {
	bounds, ok := v.([]any)
	if !ok || len(bounds) != 2 || !isNumberOrReference(bounds[0]) || !isNumberOrReference(bounds[1]) {
		return refused
	}
	low, ok1 := bounds[0].(json.Number)
	high, ok2 := bounds[1].(json.Number)
	if ok1 && ok2 {
		if c, ok := compareNumbers(low.String(), high.String()); ok && c > 0 {
			return refused
		}
	}
	return ""
}

func checkPattern(v any, refused string) string {
	s, ok := v.(string)
	if !ok {
		return refused
	}
	if len(References(s)) > 0 {
		return ""
	}
	plain, err := NewScope().Expand(s, limits.MaxExpected)
	if err != nil {
		return refused
	}
	if _, why := compilePattern(plain); why != "" {
		return sentence(why) + "."
	}
	return ""
}

// isReference says whether v is text that is nothing but one reference, and so takes a captured value's type.
func isReference(v any) bool {
	s, ok := v.(string)
	if !ok || !strings.Contains(s, "{{") {
		return false
	}
	parts, err := parseTemplate(s)
	return err == nil && len(parts) == 1 && parts[0].ref != ""
}

func isNumberOrReference(v any) bool {
	_, isNumber := v.(json.Number)
	return isNumber || isReference(v)
}

// ExpandExpected returns a with the variables put into its expected value. Where a number is asked for, a variable's
// text that is wholly a number becomes one: variables are text, and `lessThan: "{{limit}}"` means a number. The errors
// are Expand's.
func (s *Scope) ExpandExpected(a Assertion) (Assertion, error) {
	if a.Expected == nil || !mayHoldReference(a.Expected) {
		return a, nil
	}
	expanded, err := s.ExpandJSON(a.Expected, limits.MaxExpected)
	if err != nil {
		return a, err
	}
	if op := operatorByName[a.Operator]; op != nil && wantsNumber(a.kinds(), op) {
		expanded = numbersFromReferences(a.Expected, expanded)
	}
	a.Expected = expanded
	return a, nil
}

func wantsNumber(kinds Kind, op *OperatorInfo) bool {
	switch op.Expected {
	case ExpectNumber, ExpectRange, ExpectLength, ExpectNear:
		return true
	default:
		return kinds == KindNumber
	}
}

// numbersFromReferences turns those texts of expanded (itself, or the members of a list or an object) into numbers that are references
// in template and look like numbers.
func numbersFromReferences(template, expanded json.RawMessage) json.RawMessage {
	before, _, err1 := readTree(template, limits.MaxSpecBytes)
	after, _, err2 := readTree(expanded, limits.MaxSpecBytes)
	if err1 != nil || err2 != nil {
		return expanded
	}
	toNumber := func(b, a *node) {
		if b.kind != 's' || a.kind != 's' || !isReference(b.text) {
			return
		}
		if t := strings.TrimSpace(a.text); storableNumber(t) == "" {
			if _, ok := parseDecimal(t); ok {
				a.kind, a.text = 'n', t
			}
		}
	}
	toNumber(before, after)
	if (before.kind == '[' || before.kind == '{') && after.kind == before.kind && len(before.kids) == len(after.kids) {
		for i := range before.kids {
			toNumber(before.kids[i], after.kids[i])
		}
	}
	return after.appendJSON(nil)
}
