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
	case ExpectNothing:
		return "nothing"
	default:
		return "any value"
	}
}

// checkExpected says what is wrong with an expected value whose variables may not be known yet, "" when nothing is.
func checkExpected(v any, src *SourceInfo, op *OperatorInfo) string {
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
			if why := checkComparable(e, src); why != "" {
				return why
			}
		}
	case ExpectPart:
		if _, ok := v.(string); !ok && src != nil && src.Yields == KindText {
			return fmt.Sprintf("The source %s yields text, which contains only text.", src.Name)
		}
	case ExpectAny:
		return checkComparable(v, src)
	case ExpectNothing:
	}
	return ""
}

// checkComparable refuses an expected value that nothing from src can ever be compared with.
func checkComparable(v any, src *SourceInfo) string {
	if src == nil || src.Yields == KindJSON || isReference(v) {
		return ""
	}
	_, isNumber := v.(json.Number)
	_, isText := v.(string)
	switch {
	case src.Yields == KindNumber && !isNumber:
		return fmt.Sprintf("The source %s yields a number, so a number is expected, not %s.", src.Name, typeName(v))
	case src.Yields == KindText && !isNumber && !isText:
		return fmt.Sprintf("The source %s yields text, so text or a number is expected, not %s.", src.Name, typeName(v))
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
	src, op := sourceByName[a.Source], operatorByName[a.Operator]
	if src != nil && op != nil && wantsNumber(src, op) {
		expanded = numbersFromReferences(a.Expected, expanded)
	}
	a.Expected = expanded
	return a, nil
}

func wantsNumber(src *SourceInfo, op *OperatorInfo) bool {
	switch op.Expected {
	case ExpectNumber, ExpectRange, ExpectLength:
		return true
	default:
		return src.Yields == KindNumber
	}
}

// numbersFromReferences turns those texts of expanded (itself, or a list's members) into numbers that are references
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
	if before.kind == '[' && after.kind == '[' && len(before.kids) == len(after.kids) {
		for i := range before.kids {
			toNumber(before.kids[i], after.kids[i])
		}
	}
	return after.appendJSON(nil)
}
