package testspec

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/theory/jsonpath"
	"github.com/theory/jsonpath/registry"
	"github.com/theory/jsonpath/spec"
)

// The library compares otherwise than RFC 9535 (2.3.5.2.2): true > false holds in it, as does any object >= another, an
// absent value <= an absent one does not, and numbers within lists are compared by their spelling. So each comparison of
// a path is handed over as a call of a function of ours; the library parses and types the path as it was written first.

// comparison is an operator with the function that stands in for it.
type comparison struct {
	operator, function string
	holds              func(a, b any, hasA, hasB bool) bool
}

// comparisons are the operators. A longer one stands before its beginning.
var comparisons = []comparison{
	{"==", "x_equal", pathEqual},
	{"!=", "x_different", func(a, b any, hasA, hasB bool) bool { return !pathEqual(a, b, hasA, hasB) }},
	{"<=", "x_at_most", func(a, b any, hasA, hasB bool) bool { return pathLess(a, b) || pathEqual(a, b, hasA, hasB) }},
	{">=", "x_at_least", func(a, b any, hasA, hasB bool) bool { return pathLess(b, a) || pathEqual(a, b, hasA, hasB) }},
	{"<", "x_less", func(a, b any, _, _ bool) bool { return pathLess(a, b) }},
	{">", "x_greater", func(a, b any, _, _ bool) bool { return pathLess(b, a) }},
}

var comparingParser = jsonpath.NewParser(jsonpath.WithRegistry(comparingRegistry()))

// comparingRegistry is boundedRegistry with the functions of comparisons.
func comparingRegistry() *registry.Registry {
	reg := boundedRegistry()
	for _, c := range comparisons {
		err := reg.Register(c.function, spec.FuncLogical, func([]spec.FuncExprArg) error { return nil }, func(args []spec.PathValue) spec.PathValue {
			a, hasA := pathOperand(args[0])
			b, hasB := pathOperand(args[1])
			return spec.Logical(c.holds(a, b, hasA, hasB))
		})
		if err != nil {
			panic(err) // only for a name that is taken
		}
	}
	return reg
}

// pathOperand returns what is compared, as decodeJSON would give it; ok is false for nothing.
func pathOperand(v spec.PathValue) (operand any, ok bool) {
	arg := spec.ValueFrom(v)
	if arg == nil {
		return nil, false
	}
	switch x := arg.Value().(type) {
	case int:
		return json.Number(strconv.Itoa(x)), true
	case int64:
		return json.Number(strconv.FormatInt(x, 10)), true
	case float64:
		return json.Number(strconv.FormatFloat(x, 'g', -1, 64)), true
	default:
		return x, true
	}
}

func pathEqual(a, b any, hasA, hasB bool) bool {
	if !hasA || !hasB {
		return hasA == hasB
	}
	return deepEqual(a, b)
}

func pathLess(a, b any) bool {
	switch x := a.(type) {
	case json.Number:
		y, ok := b.(json.Number)
		if !ok {
			return false
		}
		c, ok := compareNumbers(x.String(), y.String())
		return ok && c < 0
	case string:
		y, ok := b.(string)
		return ok && x < y // UTF-8 sorts as its code points do
	}
	return false
}

var errNegation = errors.New("! stands before parentheses, a query, or a function that yields true or false (match, search)")

// callComparisons writes each comparison in a valid path as a call, and finds the negations that the library lets through.
func callComparisons(path string) (string, error) {
	if !strings.Contains(path, "?") {
		return path, nil
	}
	r := comparisonWriter{in: path}
	out := r.until("")
	return out, r.err
}

type comparisonWriter struct {
	in  string
	at  int
	err error
}

// until writes what comes up to one of the closing characters, which it leaves there. Within, a comparison reaches from
// one of && || , ? ( [ to the next.
func (r *comparisonWriter) until(closing string) string {
	var done, operand strings.Builder
	left, function := "", ""
	flush := func() {
		if function == "" {
			done.WriteString(operand.String())
		} else {
			lead := len(left) - len(strings.TrimLeft(left, " \t\r\n"))
			done.WriteString(left[:lead] + function + "(" + left[lead:] + "," + operand.String() + ")")
		}
		left, function = "", ""
		operand.Reset()
	}
	for r.at < len(r.in) {
		rest, c := r.in[r.at:], r.in[r.at]
		if strings.IndexByte(closing, c) >= 0 {
			break
		}
		i := slices.IndexFunc(comparisons, func(o comparison) bool { return strings.HasPrefix(rest, o.operator) })
		switch {
		case c == '\'' || c == '"':
			end := r.at + 1
			for end < len(r.in) && r.in[end] != c {
				if r.in[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(r.in))
			operand.WriteString(r.in[r.at:end])
			r.at = end
		case c == '[' || c == '(':
			r.at++
			operand.WriteByte(c)
			operand.WriteString(r.until(map[byte]string{'[': "]", '(': ")"}[c]))
			if r.at < len(r.in) {
				operand.WriteByte(r.in[r.at])
				r.at++
			}
		case strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||"):
			flush()
			done.WriteString(rest[:2])
			r.at += 2
		case c == ',' || c == '?':
			flush()
			done.WriteByte(c)
			r.at++
		case i >= 0:
			left, function = operand.String(), comparisons[i].function
			operand.Reset()
			r.at += len(comparisons[i].operator)
		case c == '!':
			r.negation(rest[1:])
			operand.WriteByte(c)
			r.at++
		default:
			operand.WriteByte(c)
			r.at++
		}
	}
	flush()
	return done.String()
}

// negation checks what follows a !.
func (r *comparisonWriter) negation(rest string) {
	rest = strings.TrimLeft(rest, " \t\r\n")
	for _, begins := range []string{"(", "@", "$", "match(", "search("} {
		if strings.HasPrefix(rest, begins) {
			return
		}
	}
	r.err = errNegation
}
