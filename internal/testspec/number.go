package testspec

import (
	"strconv"
	"strings"
)

// decimal is a JSON number taken apart, so that numbers are compared exactly whatever their size: 0.d₁d₂d₃… × 10^exp.
type decimal struct {
	negative bool
	digits   string // without leading and trailing zeros; "" is zero
	exp      int64
}

// parseDecimal reads a JSON number; ok is false for anything else. The cost is linear in the length of s.
func parseDecimal(s string) (d decimal, ok bool) {
	rest := s
	if rest, d.negative = strings.CutPrefix(rest, "-"); rest == "" {
		return d, false
	}
	mantissa, expText := rest, ""
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		mantissa, expText = rest[:i], rest[i+1:]
		if expText == "" {
			return d, false
		}
	}
	whole, frac, dotted := strings.Cut(mantissa, ".")
	if !allDigits(whole) || len(whole) > 1 && whole[0] == '0' || dotted && !allDigits(frac) {
		return d, false
	}
	if expText != "" {
		unsigned := strings.TrimLeft(expText, "+-")
		if len(expText)-len(unsigned) > 1 || !allDigits(unsigned) {
			return d, false
		}
		exp, err := strconv.ParseInt(expText, 10, 32)
		if err != nil {
			// An exponent beyond 32 bits: its sign alone decides.
			exp = 1 << 40
			if expText[0] == '-' {
				exp = -exp
			}
		}
		d.exp = exp
	}
	all := whole + frac
	digits := strings.TrimLeft(all, "0")
	d.exp += int64(len(whole)) - int64(len(all)-len(digits))
	d.digits = strings.TrimRight(digits, "0")
	if d.digits == "" {
		return decimal{}, true
	}
	return d, true
}

func allDigits(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// cmp returns -1, 0 or 1.
func (d decimal) cmp(o decimal) int {
	ds, os := d.sign(), o.sign()
	if ds != os {
		if ds < os {
			return -1
		}
		return 1
	}
	var m int
	switch {
	case ds == 0:
		return 0
	case d.exp != o.exp:
		m = 1
		if d.exp < o.exp {
			m = -1
		}
	default:
		m = strings.Compare(d.digits, o.digits)
	}
	return m * ds
}

func (d decimal) sign() int {
	switch {
	case d.digits == "":
		return 0
	case d.negative:
		return -1
	default:
		return 1
	}
}

// isWhole says whether d has no fraction: 1, 1.0 and 1e2 are whole.
func (d decimal) isWhole() bool { return d.digits == "" || d.exp >= int64(len(d.digits)) }

// compareNumbers compares two JSON numbers exactly; ok is false when one isn't a number.
func compareNumbers(a, b string) (c int, ok bool) {
	x, ok1 := parseDecimal(a)
	y, ok2 := parseDecimal(b)
	if !ok1 || !ok2 {
		return 0, false
	}
	return x.cmp(y), true
}

// truncated writes d without its fraction. d.exp is small.
func (d decimal) truncated() string {
	if d.exp <= 0 || d.digits == "" {
		return "0"
	}
	out := d.digits
	if n := int(d.exp); n <= len(out) {
		out = out[:n]
	} else {
		out += strings.Repeat("0", n-len(out))
	}
	if d.negative {
		out = "-" + out
	}
	return out
}
