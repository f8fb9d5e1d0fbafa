package testspec

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"

	"github.com/testflow/testflow/internal/limits"
)

// plainValue turns a JSON value into what an expression counts with: a number is an int when it is whole and fits 64
// bits, written 1, 1.0 or 1e0, and otherwise the nearest float64.
func plainValue(v any) any {
	switch x := v.(type) {
	case json.Number:
		return plainNumber(x.String())
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = plainValue(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = plainValue(e)
		}
		return out
	default:
		return v
	}
}

func plainNumber(s string) any {
	if i, err := strconv.Atoi(s); err == nil {
		return i
	}
	d, ok := parseDecimal(s)
	if ok && d.isWhole() && d.exp <= 19 {
		text := d.digits + strings.Repeat("0", int(d.exp)-len(d.digits))
		if d.negative {
			text = "-" + text
		}
		if i, err := strconv.Atoi(text); err == nil {
			return i
		}
		if text == "" {
			return 0
		}
	}
	f, _ := strconv.ParseFloat(s, 64) // out of range is ±Inf, which compares as it should
	return f
}

// jsonOf turns what an expression yields into a JSON value.
func (m *meter) jsonOf(v reflect.Value, depth int) (any, error) {
	if err := m.spend(1); err != nil {
		return nil, err
	}
	if depth > limits.MaxResponseDepth {
		return nil, errSelector{fmt.Sprintf("the expression yields what nests deeper than %d levels", limits.MaxResponseDepth)}
	}
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch {
	case !v.IsValid():
		return nil, nil
	case v.Kind() == reflect.Bool:
		return v.Bool(), nil
	case v.CanInt():
		return json.Number(strconv.FormatInt(v.Int(), 10)), nil
	case v.CanUint():
		return json.Number(strconv.FormatUint(v.Uint(), 10)), nil
	case v.CanFloat():
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, errSelector{"the expression yields no number: it divides by zero, or is out of range"}
		}
		return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), nil
	case v.Kind() == reflect.String:
		return strings.ToValidUTF8(v.String(), "\ufffd"), nil
	case v.Kind() == reflect.Slice || v.Kind() == reflect.Array:
		out := make([]any, v.Len())
		for i := range out {
			e, err := m.jsonOf(v.Index(i), depth+1)
			if err != nil {
				return nil, err
			}
			out[i] = e
		}
		return out, nil
	case v.Kind() == reflect.Map:
		out := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			e, err := m.jsonOf(it.Value(), depth+1)
			if err != nil {
				return nil, err
			}
			key, err := m.jsonOf(it.Key(), depth+1)
			if err != nil {
				return nil, err
			}
			out[textForm(key)] = e
		}
		return out, nil
	default:
		return nil, errSelector{"the expression yields what is not a JSON value"}
	}
}

// textForm is a JSON value as text: text as it is, anything else as JSON.
func textForm(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return string(encodeJSON(nil, v))
}

// groupsByText turns what groupBy makes into an object: 1 becomes "1".
func groupsByText(groups map[any][]any) map[string]any {
	out := make(map[string]any, len(groups))
	for key, members := range groups {
		if name, ok := key.(string); ok {
			out[name] = members
			continue
		}
		out[fmt.Sprint(key)] = members
	}
	return out
}

// keptBuiltins are the library's functions that are bounded by their input and always yield the same.
var keptBuiltins = []string{
	"all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex", "count", "sum", "groupBy",
	"sortBy", "reduce", "len", "abs", "ceil", "floor", "round", "int", "float", "trim", "trimPrefix", "trimSuffix", "upper",
	"lower", "indexOf", "lastIndexOf", "hasPrefix", "hasSuffix", "max", "min", "mean", "median", "first", "last", "get", "take",
	"reverse", "concat", "flatten", "sort",
}

func expressionBuiltins() []expr.Option {
	out := make([]expr.Option, len(keptBuiltins))
	for i, name := range keptBuiltins {
		out[i] = expr.EnableBuiltin(name)
	}
	return out
}

// ExpressionFunctions lists the functions that an expression may call, for documents.
func ExpressionFunctions() []string {
	names := slices.Clone(keptBuiltins)
	for _, f := range expressionFunctions {
		if f.signature != nil {
			names = append(names, f.name)
		}
	}
	slices.Sort(names)
	return names
}

// expressionFunctions stand in for the library's own where those have an order by chance, take more than linear time,
// or make more text than they are given; and for its operators. signature is nil for what only the compiler calls.
var expressionFunctions = []struct {
	name      string
	signature []any
	call      func(m *meter, args []any) (any, error)
}{
	{"keys", []any{new(func(any) []any)}, exprKeys},
	{"values", []any{new(func(any) []any)}, exprValues},
	{"uniq", []any{new(func(any) []any)}, exprUniq},
	{"split", []any{new(func(string, string) []any)}, exprSplit},
	{"join", []any{new(func(any, string) string)}, exprJoin},
	{"replace", []any{new(func(string, string, string) string)}, exprReplace},
	{"string", []any{new(func(any) string)}, exprString},
	{"toJSON", []any{new(func(any) string)}, exprToJSON},
	{"fromJSON", []any{new(func(string) any)}, exprFromJSON},
	{"__tick", nil, func(m *meter, args []any) (any, error) {
		if s, ok := args[0].(string); ok && len(s) > limits.MaxExpressionText {
			return nil, errExpressionText
		}
		if err := m.clock(); err != nil {
			return nil, err
		}
		return args[0], m.spend(1)
	}},
	{"__made", nil, func(m *meter, args []any) (any, error) {
		v := args[0]
		if groups, ok := v.(map[any][]any); ok {
			v = groupsByText(groups)
		}
		return v, m.made(v)
	}},
	{"__binary", nil, func(m *meter, args []any) (any, error) {
		op, _ := args[0].(string)
		if err := m.tick(); err != nil {
			return nil, err
		}
		return binaryOperators[op](m, args[1], args[2])
	}},
}

// ownFunctions are the options that define expressionFunctions: as people write them, or as the compiled code calls
// them, with the meter before their arguments.
func ownFunctions(asWritten bool) []expr.Option {
	var out []expr.Option
	for _, f := range expressionFunctions {
		fn := func(args ...any) (any, error) {
			m, ok := args[0].(*meter)
			if !ok || m == nil {
				return nil, errSelector{"the expression has no meter"}
			}
			v, err := f.call(m, args[1:])
			if err != nil {
				return nil, err
			}
			if f.signature != nil {
				err = m.made(v)
			}
			return v, err
		}
		switch {
		case !asWritten:
			out = append(out, expr.Function(f.name, fn))
		case f.signature != nil:
			out = append(out, expr.Function(f.name, fn, f.signature...))
		}
	}
	return out
}

func wrongType(name, wants string, got any) error {
	return errSelector{fmt.Sprintf("the expression cannot be evaluated: %s takes %s, not %s", name, wants, exprTypeName(got))}
}

// exprTypeName is typeName for what expressions count with.
func exprTypeName(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case bool:
		return "true or false"
	case string:
		return "text"
	case map[string]any:
		return "an object"
	case []any, []int, []string:
		return "a list"
	default:
		return "a number"
	}
}

func exprKeys(_ *meter, args []any) (any, error) {
	object, ok := args[0].(map[string]any)
	if !ok {
		return nil, wrongType("keys", "an object", args[0])
	}
	out := make([]any, 0, len(object))
	for _, k := range slices.Sorted(maps.Keys(object)) {
		out = append(out, k)
	}
	return out, nil
}

func exprValues(_ *meter, args []any) (any, error) {
	object, ok := args[0].(map[string]any)
	if !ok {
		return nil, wrongType("values", "an object", args[0])
	}
	out := make([]any, 0, len(object))
	for _, k := range slices.Sorted(maps.Keys(object)) {
		out = append(out, object[k])
	}
	return out, nil
}

// exprUniq keeps the first of equal values; two values are equal when their JSON is.
func exprUniq(m *meter, args []any) (any, error) {
	list, ok := args[0].([]any)
	if !ok {
		return nil, wrongType("uniq", "a list", args[0])
	}
	seen := make(map[string]bool, len(list))
	out := make([]any, 0, len(list))
	for _, e := range list {
		text, err := m.toJSON(e)
		if err != nil {
			return nil, err
		}
		if !seen[text] {
			seen[text] = true
			out = append(out, e)
		}
	}
	return out, nil
}

func exprSplit(m *meter, args []any) (any, error) {
	text, ok1 := args[0].(string)
	sep, ok2 := args[1].(string)
	if !ok1 || !ok2 {
		return nil, wrongType("split", "two texts", firstOther(args))
	}
	n := strings.Count(text, sep)
	if err := m.spend(n); err != nil {
		return nil, err
	}
	out := make([]any, 0, n+1)
	for part := range strings.SplitSeq(text, sep) {
		out = append(out, part)
	}
	return out, nil
}

func firstOther(args []any) any {
	for _, a := range args {
		if _, ok := a.(string); !ok {
			return a
		}
	}
	return nil
}

func exprJoin(m *meter, args []any) (any, error) {
	list, ok1 := args[0].([]any)
	sep, ok2 := args[1].(string)
	if !ok1 || !ok2 {
		return nil, errSelector{"the expression cannot be evaluated: join takes a list and the text between its members"}
	}
	var b strings.Builder
	for i, e := range list {
		text, ok := e.(string)
		if !ok {
			var err error
			if text, err = m.toJSON(e); err != nil {
				return nil, err
			}
		}
		if b.Len()+len(sep)+len(text) > limits.MaxExpressionText {
			return nil, errExpressionText
		}
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func exprReplace(m *meter, args []any) (any, error) {
	text, ok1 := args[0].(string)
	from, ok2 := args[1].(string)
	to, ok3 := args[2].(string)
	if !ok1 || !ok2 || !ok3 {
		return nil, wrongType("replace", "three texts", firstOther(args))
	}
	n := strings.Count(text, from)
	if n > 0 && len(to) > limits.MaxExpressionText/n {
		return nil, errExpressionText
	}
	if err := m.spend(n); err != nil {
		return nil, err
	}
	return strings.ReplaceAll(text, from, to), nil
}

// toJSON writes v under the meter.
func (m *meter) toJSON(v any) (string, error) {
	j, err := m.jsonOf(reflect.ValueOf(v), 0)
	if err != nil {
		return "", err
	}
	raw := encodeJSON(nil, j)
	if len(raw) > limits.MaxShownSize {
		return "", errSelector{fmt.Sprintf("the expression writes a value that is longer than %d bytes", limits.MaxShownSize)}
	}
	return string(raw), m.write(len(raw))
}

func exprToJSON(m *meter, args []any) (any, error) { return m.toJSON(args[0]) }

func exprString(m *meter, args []any) (any, error) {
	if s, ok := args[0].(string); ok {
		return s, nil
	}
	return m.toJSON(args[0])
}

func exprFromJSON(_ *meter, args []any) (any, error) {
	text, ok := args[0].(string)
	if !ok {
		return nil, wrongType("fromJSON", "text", args[0])
	}
	doc, _, why := readDocument([]byte(text))
	if why != "" {
		return nil, errSelector{"the expression cannot be evaluated: fromJSON: " + strings.ReplaceAll(why, "the body", "the text")}
	}
	return plainValue(doc), nil
}

// binaryOperators stand in for the library's: theirs wrap around when a number overflows, join texts without bound, and
// say what is wrong in the words of Go.
var binaryOperators map[string]func(m *meter, a, b any) (any, error)

func init() { //nolint:gochecknoinits // the table and the operators refer to each other through the meter's functions
	binaryOperators = map[string]func(m *meter, a, b any) (any, error){
		"==": func(m *meter, a, b any) (any, error) { return m.equal(a, b) },
		"!=": func(m *meter, a, b any) (any, error) {
			same, err := m.equal(a, b)
			return !same, err
		},
		"<":          compares("<", func(c int) bool { return c < 0 }),
		"<=":         compares("<=", func(c int) bool { return c <= 0 }),
		">":          compares(">", func(c int) bool { return c > 0 }),
		">=":         compares(">=", func(c int) bool { return c >= 0 }),
		"+":          addValues,
		"-":          counts("-", subtractInts, func(a, b float64) float64 { return a - b }),
		"*":          counts("*", multiplyInts, func(a, b float64) float64 { return a * b }),
		"contains":   compareTexts("contains", func(_ *meter, a, b string) (bool, error) { return strings.Contains(a, b), nil }),
		"startsWith": compareTexts("startsWith", func(_ *meter, a, b string) (bool, error) { return strings.HasPrefix(a, b), nil }),
		"endsWith":   compareTexts("endsWith", func(_ *meter, a, b string) (bool, error) { return strings.HasSuffix(a, b), nil }),
		"matches":    compareTexts("matches", matchesText),
		"%": func(_ *meter, a, b any) (any, error) {
			x, ok1 := a.(int)
			y, ok2 := b.(int)
			if !ok1 || !ok2 || y == 0 {
				return nil, errSelector{"the expression cannot be evaluated: % takes two whole numbers, the second not 0"}
			}
			return x % y, nil
		},
		"/":  counts("/", nil, func(a, b float64) float64 { return a / b }),
		"**": counts("**", nil, math.Pow),
	}
}
