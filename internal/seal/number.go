package seal

import (
	"bytes"
	"strconv"
)

// exactDigits is how many decimal digits every double holds exactly.
const exactDigits = 15

// keepDigits returns valid JSON in which each number that a double doesn't hold exactly is a text of its digits; raw
// itself when there is none. What is no JSON comes back as it is.
func keepDigits(raw []byte) []byte {
	var out []byte
	done := 0 // raw[:done] is in out
	for i := 0; i < len(raw); {
		switch c := raw[i]; {
		case c == '"':
			i = endOfText(raw, i)
		case c == '-' || c >= '0' && c <= '9':
			j := i + 1
			for j < len(raw) && isNumberByte(raw[j]) {
				j++
			}
			if text, exact := exactNumber(raw[i:j]); !exact {
				out = append(out, raw[done:i]...)
				out = append(out, `"\u0000`...)
				out = append(out, text...)
				out = append(out, '"')
				done = j
			}
			i = j
		default:
			i++
		}
	}
	if done == 0 {
		return raw
	}
	return append(out, raw[done:]...)
}

// endOfText returns the index behind the text that begins at i.
func endOfText(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw)
}

func isNumberByte(c byte) bool {
	return c >= '0' && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

// exactNumber says whether the shortest text of the number's double is the number; otherwise text is its normal form.
func exactNumber(n []byte) (text []byte, exact bool) {
	if len(n) <= exactDigits && !bytes.ContainsAny(n, ".eE") {
		return nil, true
	}
	f, err := strconv.ParseFloat(string(n), 64)
	text = normal(n)
	return text, err == nil && bytes.Equal(text, normal(strconv.AppendFloat(nil, f, 'e', -1, 64)))
}

// normal is a decimal number as sign, digits without zeros at either end, "e" and exponent: one text for one number,
// however it was written. Zero is "0".
func normal(n []byte) []byte {
	out := make([]byte, 0, len(n)+8)
	if n[0] == '-' {
		out, n = append(out, '-'), n[1:]
	}
	exponent := 0
	if e := bytes.IndexAny(n, "eE"); e >= 0 {
		var err error
		if exponent, err = strconv.Atoi(string(bytes.TrimPrefix(n[e+1:], []byte("+")))); err != nil {
			return bytes.Clone(n) // beyond what any column holds; its own text is as good
		}
		n = n[:e]
	}
	digits := n
	if point := bytes.IndexByte(n, '.'); point >= 0 {
		exponent -= len(n) - point - 1
		digits = append(bytes.Clone(n[:point]), n[point+1:]...)
	}
	digits = bytes.TrimLeft(digits, "0")
	trimmed := bytes.TrimRight(digits, "0")
	exponent += len(digits) - len(trimmed)
	if len(trimmed) == 0 {
		return []byte("0")
	}
	out = append(append(out, trimmed...), 'e')
	return strconv.AppendInt(out, int64(exponent), 10)
}
