package testspec

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/testflow/testflow/internal/limits"
)

func cannotCombine(op string, a, b any) error {
	return errSelector{fmt.Sprintf("the expression cannot be evaluated: %s and %s have no %s", exprTypeName(a), exprTypeName(b), op)}
}

// floatOf returns a number as a float64.
func floatOf(v any) (float64, bool) {
	switch x := v.(type) {
	case int:
		return float64(x), true
	case float64:
		return x, true
	}
	r := reflect.ValueOf(v)
	switch {
	case r.CanInt():
		return float64(r.Int()), true
	case r.CanUint():
		return float64(r.Uint()), true
	}
	return 0, false
}

func counts(op string, whole func(a, b int) (int, bool), broken func(a, b float64) float64) func(*meter, any, any) (any, error) {
	return func(_ *meter, a, b any) (any, error) {
		x, ok1 := a.(int)
		y, ok2 := b.(int)
		if ok1 && ok2 && whole != nil {
			if n, fits := whole(x, y); fits {
				return n, nil
			}
			return nil, errSelector{"the expression cannot be evaluated: a whole number has at most 64 bits"}
		}
		f, ok1 := floatOf(a)
		g, ok2 := floatOf(b)
		if !ok1 || !ok2 {
			return nil, cannotCombine(op, a, b)
		}
		return broken(f, g), nil
	}
}

func addInts(a, b int) (int, bool) {
	c := a + b
	return c, (c > a) == (b > 0)
}

func subtractInts(a, b int) (int, bool) {
	c := a - b
	return c, (c < a) == (b > 0)
}

func multiplyInts(a, b int) (int, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	c := a * b
	return c, (c < 0) == ((a < 0) != (b < 0)) && c/b == a
}

var addNumbers = counts("+", addInts, func(a, b float64) float64 { return a + b })

func addValues(m *meter, a, b any) (any, error) {
	x, ok1 := a.(string)
	y, ok2 := b.(string)
	if !ok1 || !ok2 {
		return addNumbers(m, a, b)
	}
	if err := m.write(len(x) + len(y)); err != nil {
		return nil, err
	}
	return x + y, nil
}

func compares(op string, holds func(int) bool) func(*meter, any, any) (any, error) {
	return func(_ *meter, a, b any) (any, error) {
		if x, ok := a.(string); ok {
			if y, ok := b.(string); ok {
				return holds(strings.Compare(x, y)), nil
			}
		}
		c, ok := compareFloats(a, b)
		if !ok {
			return nil, cannotCombine(op, a, b)
		}
		return holds(c), nil
	}
}

func compareFloats(a, b any) (int, bool) {
	x, ok1 := a.(int)
	y, ok2 := b.(int)
	switch {
	case ok1 && ok2 && x < y:
		return -1, true
	case ok1 && ok2 && x > y:
		return 1, true
	case ok1 && ok2:
		return 0, true
	}
	f, ok1 := floatOf(a)
	g, ok2 := floatOf(b)
	switch {
	case !ok1 || !ok2:
		return 0, false
	case f < g:
		return -1, true
	case f > g:
		return 1, true
	default:
		return 0, f == g
	}
}

func compareTexts(op string, holds func(m *meter, a, b string) (bool, error)) func(*meter, any, any) (any, error) {
	return func(m *meter, a, b any) (any, error) {
		x, ok1 := a.(string)
		y, ok2 := b.(string)
		if !ok1 || !ok2 {
			return nil, errSelector{fmt.Sprintf("the expression cannot be evaluated: %s takes two texts, not %s and %s", op, exprTypeName(a), exprTypeName(b))}
		}
		return holds(m, x, y)
	}
}

func matchesText(m *meter, text, pattern string) (bool, error) {
	if m.re == nil || m.pattern != pattern {
		re, why := compilePattern(pattern)
		if why != "" {
			return false, errSelector{"the expression cannot be evaluated: " + why}
		}
		m.pattern, m.re = pattern, re
	}
	if len(text) > limits.MaxMatchInput {
		return false, errSelector{fmt.Sprintf("the expression cannot be evaluated: matches takes text of at most %d bytes", limits.MaxMatchInput)}
	}
	if err := m.clock(); err != nil {
		return false, err
	}
	return m.re.MatchString(text), nil
}

// equal compares as the operator equals does: numbers by value, texts by character, lists in order, objects without.
// Values of different types are not equal.
func (m *meter) equal(a, b any) (bool, error) {
	if err := m.spend(1); err != nil {
		return false, err
	}
	switch x := a.(type) {
	case nil:
		return b == nil, nil
	case bool:
		y, ok := b.(bool)
		return ok && x == y, nil
	case string:
		y, ok := b.(string)
		return ok && x == y, nil
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		for k, e := range x {
			f, has := y[k]
			if !has {
				return false, nil
			}
			if same, err := m.equal(e, f); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	if c, ok := compareFloats(a, b); ok {
		return c == 0, nil
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if !x.IsValid() || !y.IsValid() || x.Kind() != reflect.Slice || y.Kind() != reflect.Slice || x.Len() != y.Len() {
		return false, nil
	}
	for i := range x.Len() {
		if same, err := m.equal(x.Index(i).Interface(), y.Index(i).Interface()); !same || err != nil {
			return false, err
		}
	}
	return true, nil
}
