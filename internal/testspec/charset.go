package testspec

import (
	"bytes"
	"fmt"
	"mime"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
)

var (
	bomUTF8    = []byte("\xef\xbb\xbf")
	bomUTF16LE = []byte("\xff\xfe")
	bomUTF16BE = []byte("\xfe\xff")
)

// charsetNamed returns the encoding of that name (WHATWG's names, any case); nil is UTF-8. why is a clause.
func charsetNamed(name string) (enc encoding.Encoding, why string) {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return nil, ""
	case "utf-16":
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM), ""
	}
	enc, err := htmlindex.Get(name)
	if err != nil || enc == encoding.Replacement {
		return nil, fmt.Sprintf("there is no charset %s", shorten(name, 40))
	}
	return enc, ""
}

// charsetOf returns the encoding of body by its byte order mark, else by a content type's charset; nil is UTF-8.
func charsetOf(body []byte, contentType string) encoding.Encoding {
	switch {
	case bytes.HasPrefix(body, bomUTF8):
		return nil
	case bytes.HasPrefix(body, bomUTF16LE), bytes.HasPrefix(body, bomUTF16BE):
		return unicode.UTF16(unicode.BigEndian, unicode.ExpectBOM)
	case !strings.Contains(contentType, "="):
		return nil
	}
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil
	}
	enc, _ := charsetNamed(params["charset"]) // one that is not known is read as UTF-8
	return enc
}

// decodeText returns body as text without its byte order mark. Bytes that are no UTF-8 stay in it where UTF-8 is meant.
func decodeText(body []byte, contentType string) string {
	return decodeWith(charsetOf(body, contentType), body)
}

func decodeWith(enc encoding.Encoding, body []byte) string {
	if enc == nil {
		return string(bytes.TrimPrefix(body, bomUTF8))
	}
	text, err := enc.NewDecoder().Bytes(body)
	if err != nil { // decoders put U+FFFD for what they cannot read; only a UTF-16 without its mark is an error
		return string(body)
	}
	return string(text)
}
