package testspec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/testflow/testflow/internal/limits"
)

// Expectation says what an operator's expected value must be.
type Expectation string

// The expectations.
const (
	ExpectNothing Expectation = "nothing"      // expected is left out
	ExpectAny     Expectation = "any"          // any JSON value
	ExpectNumber  Expectation = "number"       // a number
	ExpectRange   Expectation = "range"        // a list of two numbers, the lower one first
	ExpectList    Expectation = "list"         // a list of at least one value
	ExpectText    Expectation = "text"         // text
	ExpectPattern Expectation = "pattern"      // an RE2 regular expression
	ExpectLength  Expectation = "length"       // a whole number from 0
	ExpectPart    Expectation = "textOrMember" // any value; text when the source yields text
	ExpectWhole   Expectation = "wholeList"    // a list, which may be empty
	ExpectNear    Expectation = "near"         // an object {"value": number, "tolerance": number}
	ExpectSchema  Expectation = "schema"       // a JSON Schema
	ExpectDate    Expectation = "date"         // text that is a date, or "now"
)

// OperatorInfo describes one operator.
type OperatorInfo struct {
	Name string
	// Doc is one sentence for documents and messages.
	Doc      string
	Takes    Kind
	Expected Expectation

	// phrase completes "expected the status …" and, with not, "expected the status not …".
	phrase string
	// eval says whether actual holds; cannot is a clause that says why the two cannot be compared, "" when they can.
	eval func(actual value, expected any) (holds bool, cannot string)
	// evalIn stands in eval's place where the operator needs the response, or may take long.
	evalIn func(ctx context.Context, s *Subject, actual value, expected any) (holds bool, cannot string)
	// explain says in a clause why it does not hold, where showing actual says too little; nil where it doesn't.
	explain func(ctx context.Context, s *Subject, actual value, expected any) string
	costly  bool // it may take long even over a small body
}

// evaluate decides with whichever function the operator has.
func (op *OperatorInfo) evaluate(ctx context.Context, s *Subject, actual value, expected any) (holds bool, cannot string) {
	if op.evalIn != nil {
		return op.evalIn(ctx, s, actual, expected)
	}
	return op.eval(actual, expected)
}

const anyKind = KindNumber | KindText | KindJSON

// operators is the table of operators. A new one is a new line here: validation, documents and messages follow.
var operators = []OperatorInfo{
	{
		Name: "equals", Takes: everyKind, Expected: ExpectAny, phrase: "to equal", eval: evalEquals,
		Doc: "Is the same value: numbers by value (1 and 1.0 are equal), texts by character, lists in order, objects without. " +
			"Header and body text is read as a number when a number is expected. Dates are equal as instants; bytes are expected as base64 " +
			"or `hex:`. Values of different types cannot be compared, except with null.",
	},
	ordering("lessThan", "to be less than", "Is a number below expected.", func(c int) bool { return c < 0 }),
	ordering("lessOrEqual", "to be at most", "Is a number not above expected.", func(c int) bool { return c <= 0 }),
	ordering("greaterThan", "to be greater than", "Is a number above expected.", func(c int) bool { return c > 0 }),
	ordering("greaterOrEqual", "to be at least", "Is a number not below expected.", func(c int) bool { return c >= 0 }),
	{
		Name: "between", Takes: anyKind, Expected: ExpectRange, phrase: "to be between", eval: evalBetween,
		Doc: "Is a number from the first to the second of expected, both included.",
	},
	{
		Name: "in", Takes: everyKind, Expected: ExpectList, phrase: "to be one of", eval: evalIn,
		Doc: "Equals one of the values in the list expected.",
	},
	{
		Name: "contains", Takes: KindText | KindJSON | KindList | KindBytes, Expected: ExpectPart, phrase: "to contain", eval: evalContains,
		Doc: "Is text (or bytes) with expected in it, or a list with a member that equals expected.",
	},
	textual("startsWith", "to start with", "Is text that starts with expected.", strings.HasPrefix),
	textual("endsWith", "to end with", "Is text that ends with expected.", strings.HasSuffix),
	{
		Name: "matches", Takes: KindText | KindJSON, Expected: ExpectPattern, phrase: "to match", costly: true, evalIn: evalMatches,
		Doc: "Is text in which the regular expression expected (RE2) finds something; anchor it with ^ and $ to match the whole.",
	},
	{
		Name: "exists", Takes: everyKind &^ KindNumber, Expected: ExpectNothing, phrase: "to exist",
		Doc: "Is there: the header was sent, the path or the selector selects at least one value (null counts).",
		eval: func(a value, _ any) (bool, string) {
			if list, ok := a.v.([]any); ok && (a.list || a.nodes) {
				return len(list) > 0, ""
			}
			return a.none == "", ""
		},
	},
	{
		Name: "isEmpty", Takes: KindText | KindJSON | KindList | KindBytes, Expected: ExpectNothing, phrase: "to be empty",
		Doc: "Is empty text, an empty list or an empty object.",
		eval: func(a value, _ any) (bool, string) {
			n, cannot := lengthOf(a.v)
			return n == 0, cannot
		},
	},
	typed("isNull", "to be null", "Is null.", func(v any) bool { return v == nil }),
	typed("isBoolean", "to be true or false", "Is true or false.", func(v any) bool { _, ok := v.(bool); return ok }),
	typed("isInteger", "to be a whole number", "Is a number without a fraction (1, 1.0 and 1e2 are).", func(v any) bool { d, ok := asDecimal(v); return ok && d.isWhole() }),
	typed("isFloat", "to be a number with a fraction", "Is a number with a fraction (1.5 is, 1.0 is not).", func(v any) bool { d, ok := asDecimal(v); return ok && !d.isWhole() }),
	typed("isNumber", "to be a number", "Is a number.", func(v any) bool { _, ok := v.(json.Number); return ok }),
	typed("isString", "to be text", "Is text.", func(v any) bool { _, ok := v.(string); return ok }),
	typedOf(KindJSON|KindList, "isList", "to be a list", "Is a list.", func(v any) bool { _, ok := v.([]any); return ok }),
	typed("isObject", "to be an object", "Is an object.", func(v any) bool { _, ok := v.(map[string]any); return ok }),
	shaped("isUuid", "to be a UUID", "Is text of the form of a UUID (RFC 9562), in any case.", isUUID),
	shaped("isIsoDate", "to be an ISO 8601 date", "Is text that is a date or a date with time and offset (RFC 3339).", isISODate),
	shaped("isIpv4", "to be an IPv4 address", "Is text that is an IPv4 address.", func(s string) bool { a, err := netip.ParseAddr(s); return err == nil && a.Is4() }),
	shaped("isIpv6", "to be an IPv6 address", "Is text that is an IPv6 address without a zone.", func(s string) bool { a, err := netip.ParseAddr(s); return err == nil && a.Is6() && a.Zone() == "" }),
	{
		Name: "hasLength", Takes: KindText | KindJSON | KindList | KindBytes, Expected: ExpectLength, phrase: "to have the length", eval: evalHasLength,
		Doc: "Is text of that many characters, bytes of that many bytes, or a list or object of that many members.",
	},
	{
		Name: "hasKey", Takes: KindJSON, Expected: ExpectText, phrase: "to have the key", eval: evalHasKey,
		Doc: "Is an object with that key.",
	},
	{
		Name: "hasValue", Takes: KindJSON | KindList, Expected: ExpectAny, phrase: "to have the value", eval: evalHasValue,
		Doc: "Is an object or list with a member that equals expected.",
	},
	{
		Name: "containsSubset", Takes: KindJSON | KindList, Expected: ExpectAny, phrase: "to contain the subset", eval: evalContainsSubset,
		Doc: "Holds all of expected and perhaps more: an object every key of it with a value that contains its own, a list for each member " +
			"of it another member that contains it; any other value equals it.",
	},
	{
		Name: "equalsUnordered", Takes: KindJSON | KindList, Expected: ExpectWhole, phrase: "to equal in any order", eval: evalEqualsUnordered,
		Doc: "Is a list with the same members as expected, each as often, in any order.",
	},
	{
		Name: "approximately", Takes: anyKind, Expected: ExpectNear, phrase: "to be approximately", eval: evalApproximately,
		Doc: "Is a number that is at most `tolerance` away from `value`: `{value: 3.14, tolerance: 0.01}`.",
	},
	dated("before", "to be before", "Is a date before expected, which is a date or `now`.", func(c int) bool { return c < 0 }),
	dated("after", "to be after", "Is a date after expected, which is a date or `now`.", func(c int) bool { return c > 0 }),
	{
		Name: "matchesSchema", Takes: KindJSON | KindList, Expected: ExpectSchema, phrase: "to match the schema",
		evalIn: evalMatchesSchema, explain: explainSchema, costly: true,
		Doc: "Follows the JSON Schema expected: draft 2020-12, or the one that $schema names (2019-09, 07, 06, 04). " +
			"A $ref reaches what the test carries in schemas, as schemas/NAME or by its $id. format is an annotation.",
	},
}

// everyKind is of operators that take whatever there is.
const everyKind = anyKind | KindList | KindDate | KindBytes

var operatorByName = indexBy(operators, func(o *OperatorInfo) string { return o.Name })

// Operators lists every operator in the order of the documents.
func Operators() []OperatorInfo { return append([]OperatorInfo(nil), operators...) }

// OperatorNames lists their names.
func OperatorNames() []string {
	return namesOf(operators, func(o *OperatorInfo) string { return o.Name })
}

// OperatorsFor lists the names of the operators that fit a source; none for an unknown one.
func OperatorsFor(source string) []string {
	s, ok := sourceByName[source]
	if !ok {
		return nil
	}
	return operatorsOf(s.Yields)
}

// operatorsOf lists the names of the operators that fit values of these kinds.
func operatorsOf(kinds Kind) []string {
	var names []string
	for i := range operators {
		if operators[i].Takes&kinds != 0 {
			names = append(names, operators[i].Name)
		}
	}
	return names
}

func ordering(name, phrase, doc string, holds func(c int) bool) OperatorInfo {
	return OperatorInfo{
		Name: name, Takes: anyKind, Expected: ExpectNumber, phrase: phrase,
		Doc: doc + " Header and body text is read as a number; anything else cannot be compared.",
		eval: func(a value, expected any) (bool, string) {
			c, cannot := order(a, expected)
			return cannot == "" && holds(c), cannot
		},
	}
}

// order compares a with a number.
func order(a value, expected any) (int, string) {
	bound, ok := expected.(json.Number)
	if !ok {
		return 0, fmt.Sprintf("%s sets no order", typeName(expected))
	}
	n, ok := a.number()
	if !ok {
		return 0, notANumber(a)
	}
	c, ok := compareNumbers(n, bound.String())
	if !ok {
		return 0, notANumber(a)
	}
	return c, ""
}

func notANumber(a value) string {
	if a.wire {
		return "this text is not a number"
	}
	return typeName(a.v) + " cannot be compared with a number"
}

func textual(name, phrase, doc string, holds func(s, part string) bool) OperatorInfo {
	return OperatorInfo{
		Name: name, Takes: KindText | KindJSON | KindBytes, Expected: ExpectText, phrase: phrase, Doc: doc,
		eval: func(a value, expected any) (bool, string) {
			if b, ok := a.v.(binary); ok {
				part, cannot := expectedBytes(expected)
				return cannot == "" && holds(string(b), string(part)), cannot
			}
			s, ok := a.v.(string)
			part, ok2 := expected.(string)
			if !ok || !ok2 {
				return false, typeName(a.v) + " is not text"
			}
			return holds(s, part), ""
		},
	}
}

func typed(name, phrase, doc string, holds func(v any) bool) OperatorInfo {
	return typedOf(KindJSON, name, phrase, doc, holds)
}

func typedOf(takes Kind, name, phrase, doc string, holds func(v any) bool) OperatorInfo {
	return OperatorInfo{
		Name: name, Takes: takes, Expected: ExpectNothing, phrase: phrase, Doc: doc,
		eval: func(a value, _ any) (bool, string) { return holds(a.v), "" },
	}
}

func shaped(name, phrase, doc string, holds func(s string) bool) OperatorInfo {
	return OperatorInfo{
		Name: name, Takes: KindText | KindJSON, Expected: ExpectNothing, phrase: phrase, Doc: doc,
		eval: func(a value, _ any) (bool, string) {
			s, ok := a.v.(string)
			return ok && len(s) <= 128 && holds(s), ""
		},
	}
}

func asDecimal(v any) (decimal, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return decimal{}, false
	}
	return parseDecimal(n.String())
}

func evalEquals(a value, expected any) (bool, string) {
	if _, ok := a.v.(binary); ok && expected != nil {
		part, cannot := expectedBytes(expected)
		return cannot == "" && deepEqual(a.v, part), cannot
	}
	if text, ok := expected.(string); ok && a.date {
		c, cannot := orderDates(a.v, text, time.Time{})
		return cannot == "" && c == 0, cannot
	}
	if _, ok := expected.(json.Number); ok && a.wire {
		c, cannot := order(a, expected)
		return cannot == "" && c == 0, cannot
	}
	if a.v != nil && expected != nil && typeName(a.v) != typeName(expected) {
		return false, fmt.Sprintf("%s cannot be compared with %s", typeName(a.v), typeName(expected))
	}
	return deepEqual(a.v, expected), ""
}

func evalBetween(a value, expected any) (bool, string) {
	bounds, ok := expected.([]any)
	if !ok || len(bounds) != 2 {
		return false, "the expected value is not a list of two numbers"
	}
	low, cannot := order(a, bounds[0])
	if cannot != "" {
		return false, cannot
	}
	high, cannot := order(a, bounds[1])
	return cannot == "" && low >= 0 && high <= 0, cannot
}

func evalIn(a value, expected any) (bool, string) {
	list, ok := expected.([]any)
	if !ok {
		return false, "the expected value is not a list"
	}
	comparable, cannot := false, ""
	for _, e := range list {
		holds, why := evalEquals(a, e)
		if holds {
			return true, ""
		}
		if why == "" {
			comparable = true
		} else if cannot == "" {
			cannot = why
		}
	}
	if comparable {
		cannot = ""
	}
	return false, cannot
}

func evalContains(a value, expected any) (bool, string) {
	switch v := a.v.(type) {
	case string:
		part, ok := expected.(string)
		if !ok {
			return false, "text contains only text, not " + typeName(expected)
		}
		return strings.Contains(v, part), ""
	case binary:
		part, cannot := expectedBytes(expected)
		return cannot == "" && bytes.Contains(v, part), cannot
	case []any:
		return hasMember(a, v, expected), ""
	default:
		return false, typeName(a.v) + " contains nothing"
	}
}

func evalMatches(ctx context.Context, _ *Subject, a value, expected any) (bool, string) {
	if ctx.Err() != nil {
		return false, "the assertions and captures of this step take too long, or the run was stopped"
	}
	s, ok := a.v.(string)
	pattern, ok2 := expected.(string)
	if !ok || !ok2 {
		return false, typeName(a.v) + " is not text"
	}
	if len(s) > limits.MaxMatchInput {
		return false, fmt.Sprintf("it is longer than the %d bytes that a pattern is run over", limits.MaxMatchInput)
	}
	re, why := compilePattern(pattern)
	if why != "" {
		return false, why
	}
	return re.MatchString(s), ""
}

// compilePattern compiles an RE2 pattern; why is a clause that says what is wrong with it.
func compilePattern(pattern string) (re *regexp.Regexp, why string) {
	if len(pattern) > limits.MaxPattern {
		return nil, fmt.Sprintf("a regular expression has at most %d bytes", limits.MaxPattern)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		clause := "this is not an RE2 regular expression"
		if se, ok := err.(*syntax.Error); ok { //nolint:errorlint // regexp documents that it returns this type itself
			clause += ": " + se.Code.String()
		}
		return nil, clause
	}
	return re, ""
}

func lengthOf(v any) (int, string) {
	switch x := v.(type) {
	case string:
		return utf8.RuneCountInString(x), ""
	case binary:
		return len(x), ""
	case []any:
		return len(x), ""
	case map[string]any:
		return len(x), ""
	default:
		return -1, typeName(v) + " has no length"
	}
}

func evalHasLength(a value, expected any) (bool, string) {
	n, cannot := lengthOf(a.v)
	if cannot != "" {
		return false, cannot
	}
	c, why := order(numberValue(int64(n)), expected)
	return why == "" && c == 0, why
}

func evalHasKey(a value, expected any) (bool, string) {
	object, ok := a.v.(map[string]any)
	key, ok2 := expected.(string)
	if !ok || !ok2 {
		return false, typeName(a.v) + " has no keys"
	}
	_, has := object[key]
	return has, ""
}

func evalHasValue(a value, expected any) (bool, string) {
	switch v := a.v.(type) {
	case map[string]any:
		for _, e := range v {
			if deepEqual(e, expected) {
				return true, ""
			}
		}
		return false, ""
	case []any:
		return evalContains(a, expected)
	default:
		return false, typeName(a.v) + " has no members"
	}
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
			continue
		}
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

func isISODate(s string) bool {
	for _, layout := range []string{time.DateOnly, time.RFC3339Nano} {
		if _, err := time.Parse(layout, s); err == nil {
			return true
		}
	}
	return false
}
