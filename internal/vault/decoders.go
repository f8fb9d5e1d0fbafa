package vault

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// decoders undo what writes a value in other characters. Each returns ok = false when it changes nothing. What isn't
// written well stays as it is.
var decoders = []func([]byte) (view, bool){decodePercent, decodeBackslash, decodeEntities, decodeLines}

// decodeWith makes a view: escape is what an escape begins with, and undo returns what the text that begins with one
// stands for and how long it is, 0 = it is none.
func decodeWith(text []byte, escape string, undo func([]byte, []byte) ([]byte, int)) (view, bool) {
	if !bytes.ContainsAny(text, escape) {
		return view{}, false
	}
	v := view{text: make([]byte, 0, len(text)), from: make([]int32, 0, len(text)+1)}
	var buffer [utf8.UTFMax]byte
	changed := false
	for i := 0; i < len(text); {
		if c := text[i]; c == escape[0] || c == escape[len(escape)-1] {
			out, n := undo(buffer[:0], text[i:])
			if n == 0 {
				out, n = nil, cutEscape(text[i:])
			}
			if n > 0 {
				for _, c := range out {
					v.text, v.from = append(v.text, c), append(v.from, int32(i))
				}
				i += n
				changed = true
				continue
			}
		}
		// What lies before the next escape is taken over in one piece.
		next := bytes.IndexAny(text[i+1:], escape)
		if next < 0 {
			next = len(text) - i - 1
		}
		v.text = append(v.text, text[i:i+1+next]...)
		for end := i + 1 + next; i < end; i++ {
			v.from = append(v.from, int32(i))
		}
	}
	v.from = append(v.from, int32(len(text))) //nolint:gosec // as above
	return v, changed
}

// cutEscape returns how long an escape is of which the end, or an ellipsis, left only the beginning; 0 when that isn't so.
// It is taken out, so that what stands before it is seen to be the beginning of a secret.
func cutEscape(s []byte) int {
	longest := map[byte]int{'%': 2, '\\': 5, '&': 9}[s[0]]
	end := bytes.Index(s[:min(len(s), longest+len(ellipsis))], []byte(ellipsis))
	if end < 0 {
		end = len(s)
	}
	if end > longest {
		return 0
	}
	for _, c := range s[1:end] {
		if !isWordByte(c) && c != '#' {
			return 0
		}
	}
	return end
}

// decodePercent undoes %41.
func decodePercent(text []byte) (view, bool) {
	return decodeWith(text, "%", func(out, s []byte) ([]byte, int) {
		if len(s) < 3 {
			return nil, 0
		}
		c, ok := hexByte(s[1:3])
		if !ok {
			return nil, 0
		}
		return append(out, c), 3
	})
}

// decodeBackslash undoes the escapes of JSON, and the \x41 of programs.
func decodeBackslash(text []byte) (view, bool) {
	plain := map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'f': '\f', '"': '"', '\'': '\'', '/': '/', '\\': '\\'}
	return decodeWith(text, `\`, func(out, s []byte) ([]byte, int) {
		if len(s) < 2 {
			return nil, 0
		}
		if c, ok := plain[s[1]]; ok {
			return append(out, c), 2
		}
		if s[1] == 'x' && len(s) >= 4 {
			if c, ok := hexByte(s[2:4]); ok {
				return append(out, c), 4
			}
		}
		r, ok := unit(s)
		if !ok {
			return nil, 0
		}
		if utf16.IsSurrogate(r) {
			if low, ok := unit(s[6:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
				return utf8.AppendRune(out, utf16.DecodeRune(r, low)), 12
			}
		}
		return utf8.AppendRune(out, r), 6
	})
}

// unit reads \u0041.
func unit(s []byte) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return rune(n), err == nil
}

// decodeEntities undoes what XML and HTML write as &…;.
func decodeEntities(text []byte) (view, bool) {
	const longest = 10 // &#x10FFFF;
	named := map[string]rune{"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\'', "nbsp": '\u00a0', "sol": '/', "plus": '+', "equals": '='}
	return decodeWith(text, "&", func(out, s []byte) ([]byte, int) {
		end := bytes.IndexByte(s[:min(len(s), longest)], ';')
		if end < 2 {
			return nil, 0
		}
		name := string(s[1:end])
		if r, ok := named[name]; ok {
			return utf8.AppendRune(out, r), end + 1
		}
		if name[0] != '#' || len(name) < 2 {
			return nil, 0
		}
		base, digits := 10, name[1:]
		if digits[0] == 'x' || digits[0] == 'X' {
			base, digits = 16, digits[1:]
		}
		n, err := strconv.ParseUint(digits, base, 21)
		if err != nil {
			return nil, 0
		}
		return utf8.AppendRune(out, rune(n)), end + 1
	})
}

// decodeLines takes line breaks out, which tools put into base64 and into long headers.
func decodeLines(text []byte) (view, bool) {
	return decodeWith(text, "\r\n", func(out, s []byte) ([]byte, int) {
		n := 0
		for n < len(s) && (s[n] == '\r' || s[n] == '\n') {
			n++
		}
		for n < len(s) && (s[n] == ' ' || s[n] == '\t') { // the next line may be set in
			n++
		}
		return out, n
	})
}

func hexByte(s []byte) (byte, bool) {
	n, err := strconv.ParseUint(string(s), 16, 8)
	return byte(n), err == nil
}
