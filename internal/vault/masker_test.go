package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// encodings are ways in which targets give back what they got.
var encodings = map[string]func(string) string{
	"raw":       func(s string) string { return s },
	"query":     url.QueryEscape,
	"path":      url.PathEscape,
	"lower %":   func(s string) string { return lowerPercent(url.QueryEscape(s)) },
	"every %":   func(s string) string { return everyPercent(s) },
	"base64":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64+1":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte("x" + s + "yy")) },
	"base64+2":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte("xy" + s + "z")) },
	"base64url": func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("user:" + s)) },
	"base64 in lines": func(s string) string {
		return inLines(base64.StdEncoding.EncodeToString([]byte("some text before " + s + " and after")))
	},
	"base64 in a query": func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("?" + s))) },
	"basic": func(s string) string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth("ada", s)
		return r.Header.Get("Authorization")
	},
	"hex":          func(s string) string { return hex.EncodeToString([]byte(s)) },
	"HEX":          func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"json":         func(s string) string { b, _ := json.Marshal(s); return string(b) },
	"json minimal": func(s string) string { b, _ := quote(s); return string(b) },
	"json ascii":   asciiJSON,
	"json in json": func(s string) string {
		b, _ := json.Marshal(s)
		b, _ = json.Marshal(map[string]string{"body": string(b)})
		return string(b)
	},
	"html": html.EscapeString,
	"xml":  func(s string) string { var b bytes.Buffer; _ = xml.EscapeText(&b, []byte(s)); return b.String() },
}

// longValue is as long as a secret may be, and like a key repeats nothing.
func longValue() string {
	var b strings.Builder
	for i := 0; b.Len() < 20_000; i++ {
		fmt.Fprintf(&b, "k%d/", i*i)
	}
	return b.String()
}

func lowerPercent(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == '%' {
			copy(b[i:], bytes.ToLower(b[i:i+3]))
		}
	}
	return string(b)
}

func everyPercent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

func asciiJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r > 0xffff {
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04X`, 0xd800+r>>10, 0xdc00+r&0x3ff)
			continue
		}
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

func inLines(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i += 13 {
		b.WriteString(s[i:min(len(s), i+13)] + "\r\n")
	}
	return b.String()
}

func TestMasker_findsEveryForm(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{
		"TFCANARY-0123456789", "p@ss word/+?&=\"\\<>'", "12345678", "naïve-пароль-🔑", "a{b}c:d;e,f%41", "tok\tab\nline", longValue(),
	} {
		m := NewMasker("something else entirely", secret)
		for name, encode := range encodings {
			text := encode(secret)
			masked := m.MaskString("before " + text + " after")
			assert.Contains(t, masked, hidden, "%s of %.20q: %.60q", name, secret, text)
			assert.True(t, strings.HasPrefix(masked, "before "), "%s of %.20q: %.60q", name, secret, masked)
			assert.True(t, strings.HasSuffix(masked, " after"), "%s of %.20q: %.60q", name, secret, masked)
			for i := range 3 { // whatever remains must not give the value away by decoding
				rest := strings.ReplaceAll(masked, hidden, "")
				assert.NotContains(t, rest, text[min(len(text)/4, i):len(text)*3/4], "%s of %.20q", name, secret)
			}
			assert.Less(t, len(masked), 120, "%s of %.20q: %.200s", name, secret, masked)
			if again := m.MaskString(masked); again != masked {
				t.Errorf("%s: masking twice changes it: %q", name, again)
			}
		}
	}
}

func TestMasker_anyValueInAnyForm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringN(MinSecret, 60, 200).Filter(func(s string) bool {
			return len(s) >= MinSecret && strings.TrimSpace(s) == s && !strings.ContainsAny(s, "\x00\ufffd…") && !strings.Contains(hidden, s)
		}).Draw(t, "secret")
		name := rapid.SampledFrom([]string{"raw", "query", "path", "every %", "base64", "base64+1", "base64+2", "base64url", "basic", "hex", "HEX", "json", "json minimal", "json ascii", "html"}).Draw(t, "encoding")
		before, after := rapid.String().Draw(t, "before"), rapid.String().Draw(t, "after")
		m := NewMasker(secret)
		text := before + " " + encodings[name](secret) + " " + after
		if masked := m.MaskString(text); !strings.Contains(masked, hidden) {
			t.Fatalf("%s shows %q", name, masked)
		} else if m.Holds([]byte(masked)) {
			t.Fatalf("%q still holds it", masked)
		}
		raw, _ := json.Marshal(map[string]any{before: []any{after, secret, 1, true}, "k" + secret: nil})
		out := m.MaskJSON(raw, false)
		if !json.Valid(out) || m.Holds(out) {
			t.Fatalf("from %s to %s", raw, out)
		}
	})
}

func TestMasker_leavesTheRest(t *testing.T) {
	t.Parallel()
	m := NewMasker("TFCANARY-0123456789")
	for _, text := range []string{"", "TFCANARY", "TFCANARY-012345678", "100% sure %zz & so on; \\q", "•••", `{"a":"\u00e9"}`, "line\r\n  line"} {
		require.Equal(t, text, m.MaskString(text))
		require.Equal(t, []byte(text), m.Mask([]byte(text)))
	}
	require.Equal(t, "a ••• b ••• c", m.MaskString("a TFCANARY-0123456789 b TFCANARY-0123456789TFCANARY-0123456789 c"))
	var none *Masker
	require.Equal(t, "TFCANARY-0123456789", none.MaskString("TFCANARY-0123456789"))
	require.Equal(t, []byte("abc"), none.MaskFirst([]byte("abcd"), 3))
	require.JSONEq(t, `{"a":1}`, string(none.MaskJSON(json.RawMessage(`{"a":1}`), false)))
	require.Nil(t, NewMasker())
}

func TestMasker_cutTextShowsNoBeginning(t *testing.T) {
	t.Parallel()
	const secret = `TFCANARY"x/5-0123456789-0123456789`
	m := NewMasker(secret)
	for name, encode := range encodings {
		if name == "base64 in lines" || name == "json in json" {
			continue
		}
		whole := "it is " + encode(secret)
		for n := 7; n < len(whole); n++ {
			cut := whole[:n]
			assert.NotContains(t, m.MaskCut(cut), "TFC", "%s at %d", name, n)
			assert.NotContains(t, m.MaskCut(cut+"… (900 bytes)."), "TFC", "%s at %d", name, n)
			if name == "base64" && n > 12 {
				assert.NotContains(t, m.MaskCut(cut+"…"), "VEZ", "%s at %d", name, n)
			}
			kept := string(m.MaskFirst([]byte(whole+" and more"), n))
			assert.NotContains(t, kept, "TFC", "%s at %d", name, n)
			assert.LessOrEqual(t, len(kept), n+len(hidden))
		}
	}
	raw := json.RawMessage(`"it is TFCANARY\"x/5-012"`)
	require.JSONEq(t, `"it is •••"`, string(m.MaskJSON(raw, true)))
}

func TestMasker_JSONStaysJSON(t *testing.T) {
	t.Parallel()
	m := NewMasker("12345678", "TFCANARY", `","b":"`, "true")
	for given, want := range map[string]string{
		`{"pin":12345678}`:                      `{"pin":"•••"}`,
		`{"pin":912345678.5}`:                   `{"pin":"•••"}`,
		`{"TFCANARY":["xTFCANARY",null,false]}`: `{"•••":["x•••",null,false]}`,
		`{"a":"x","b":"y"}`:                     `"•••"`,
		`[true]`:                                `["•••"]`,
		`"plain"`:                               `"plain"`,
	} {
		require.JSONEq(t, want, string(m.MaskJSON(json.RawMessage(given), false)), given)
	}
	require.JSONEq(t, `{"pin":"•••"}`, string(m.MaskDocument([]byte(`{"pin":12345678}`), 1000)))
	require.Equal(t, `{"pin":`, string(m.MaskDocument([]byte(`{"pin":12345678}`), 7)))
	require.Equal(t, `pin ••• x`, string(m.MaskDocument([]byte(`pin 12345678 x`), 1000)))
}

func TestMasker_partsOfDocuments(t *testing.T) {
	t.Parallel()
	pem := "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END PRIVATE KEY-----\n"
	account, err := json.Marshal(map[string]any{"type": "service_account", "keys": []any{map[string]any{"private_key": pem}}})
	require.NoError(t, err)
	m := NewMasker(string(account), pem)
	for _, text := range []string{pem, string(account), "x MIIEvQIBADANBgkqhkiG9w0BAQEFAASC y", strings.ReplaceAll(pem, "\n", "\r\n"), strings.ReplaceAll(pem, "\n", ""), strings.ReplaceAll(pem, "\n", `\n`)} {
		masked := m.MaskString(text)
		require.NotContains(t, masked, "MIIEvQ", text)
		require.NotContains(t, masked, "BKcwgg", text)
	}
}

func TestMasker_shortValuesStandAlone(t *testing.T) {
	t.Parallel()
	m := NewMasker("7", "abc")
	require.Equal(t, "pin ••• of 70, •••; abcd é7", m.MaskString("pin 7 of 70, abc; abcd é7"))
}

func TestMasker_learnsWhileItRuns(t *testing.T) {
	t.Parallel()
	m := &Masker{}
	require.Equal(t, "derived-token", m.MaskString("derived-token"))
	m.Add("derived-token")
	m.Add("derived-token")
	m.Add("")
	require.Equal(t, "•••", m.MaskString("derived-token"))
}

// TestMasker_hostileTextIsCheap: a target that knows a secret's shape must not make us compare for ever.
func TestMasker_hostileTextIsCheap(t *testing.T) {
	t.Parallel()
	m := NewMasker(strings.Repeat("a", 64<<10) + "b")
	masked := m.Mask(bytes.Repeat([]byte("a"), 1<<20))
	require.NotContains(t, string(masked), "aaaa")
}

func BenchmarkMask(b *testing.B) {
	secrets := make([]string, 10)
	for i := range secrets {
		secrets[i] = fmt.Sprintf("TFCANARY-%02d-abcdefghijklmnop", i)
	}
	m := NewMasker(secrets...)
	plain := bytes.Repeat([]byte(`{"id":12,"name":"Rex","tags":["a","b"],"text":"some text of a pet"},`), 1000)
	escaped := bytes.ReplaceAll(plain, []byte("of a pet"), []byte(`of\na %41 pet`))
	for name, text := range map[string][]byte{"plain": plain, "escaped": escaped} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				m.Mask(text)
			}
		})
	}
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			NewMasker(secrets...).automaton()
		}
	})
}

func FuzzMask(f *testing.F) {
	f.Add("TFCANARY-1", "x %54FCANARY-1 &#84;FCANARY-1 \\u0054FCANARY-1 … \\u00… %5…", 5)
	f.Fuzz(func(t *testing.T, secret, text string, n int) {
		m := NewMasker(secret)
		masked := m.Mask([]byte(text))
		if len(secret) >= MinSecret && bytes.Contains(masked, []byte(secret)) && !strings.Contains(hidden, secret) && !strings.Contains(secret, hidden[:3]) {
			t.Fatalf("%q in %q", secret, masked)
		}
		_ = m.MaskCut(text)
		_ = m.MaskFirst([]byte(text), max(n, 0))
		if raw := json.RawMessage(text); json.Valid(raw) && !json.Valid(m.MaskJSON(raw, n%2 == 0)) {
			t.Fatal("no JSON any more")
		}
	})
}
