package testspec_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/testspec"
)

func exchange(t testing.TB) *testspec.Subject {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: "pets.example", Organization: []string{"Pets"}},
		NotBefore: judgedAt.Add(-time.Hour), NotAfter: judgedAt.Add(30*24*time.Hour + time.Minute),
		DNSNames: []string{"pets.example", "*.pets.example"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	scope := testspec.NewScope(map[string]string{"limit": "5", "name": "Ada"})
	scope.Capture("ids", json.RawMessage(`[1,2]`))
	scope.Capture("count", json.RawMessage(`7`))
	scope.Capture("etag", json.RawMessage(`"42"`))
	response := http.Response{Header: http.Header{"Set-Cookie": {
		"session=abc; Path=/app; Domain=pets.example; Max-Age=60; Expires=Sat, 28 Nov 2026 12:00:00 GMT; SameSite=Lax; HttpOnly; Secure",
		"gone=; Max-Age=0", "plain=4; HttpOnly", "plain=5",
	}}}
	return &testspec.Subject{
		Status: 200, Reason: "OK", HTTPVersion: "1.1", URL: "https://pets.example/b", RemoteIP: "192.0.2.1",
		Header: http.Header{"Content-Type": {"text/plain; charset=iso-8859-1"}}, Body: []byte("h\xfc"),
		Redirects:    []testspec.Hop{{Status: 301, URL: "https://pets.example/", Location: "https://pets.example/a"}, {Status: 302, URL: "https://pets.example/a", Location: "https://pets.example/b"}},
		ResponseTime: 20 * time.Millisecond, Timings: testspec.Timings{DNS: time.Millisecond, Connect: 2 * time.Millisecond, TLS: 3 * time.Millisecond, FirstByte: 4 * time.Millisecond, Download: 5 * time.Millisecond},
		SetCookies: response.Cookies(), Jar: func() []*http.Cookie { return []*http.Cookie{{Name: "old", Value: "9"}} },
		TLSVersion: "1.3", TLSCipher: "TLS_AES_128_GCM_SHA256", ALPN: "h2", Certificate: cert, Scope: scope, Now: judgedAt,
	}
}

func TestSources_exchange(t *testing.T) {
	s := exchange(t)
	for _, c := range []struct {
		source, property, rest string
		pass                   bool
		word                   string
	}{
		{"reason", "", `"operator":"equals","expected":"OK"`, true, `the reason to equal "OK"`},
		{"httpVersion", "", `"operator":"equals","expected":"1.1"`, true, ""},
		{"httpVersion", "", `"operator":"lessThan","expected":2`, true, ""},
		{"url", "", `"operator":"endsWith","expected":"/b"`, true, ""},
		{"redirects", "", `"filters":[{"count":true}],"operator":"equals","expected":2`, true, "Expected the redirects after count to equal 2, and it is 2."},
		{"redirects", "", `"filters":[{"nth":0},{"location":true}],"operator":"endsWith","expected":"/a"`, true, "after nth 0, location"},
		{"redirects", "", `"filters":[{"jsonpath":"$[*].status"}],"operator":"equals","expected":[301,302]`, true, ""},
		{"redirects", "", `"operator":"hasLength","expected":2`, true, ""},
		{"remoteIp", "", `"operator":"isIpv4"`, true, ""},
		{"cookie", "session", `"operator":"equals","expected":"abc"`, true, `cookie "session"`},
		{"cookie", "session[HttpOnly]", `"operator":"equals","expected":true`, true, ""},
		{"cookie", "plain[HttpOnly]", `"operator":"equals","expected":true`, false, "it is false"},
		{"cookie", "session[Secure]", `"operator":"equals","expected":true`, true, ""},
		{"cookie", "session[Max-Age]", `"operator":"equals","expected":60`, true, ""},
		{"cookie", "gone[MaxAge]", `"operator":"equals","expected":0`, true, ""},
		{"cookie", "plain[MaxAge]", `"operator":"exists"`, false, "no Max-Age"},
		{"cookie", "session[Path]", `"operator":"equals","expected":"/app"`, true, ""},
		{"cookie", "session[Domain]", `"operator":"equals","expected":"pets.example"`, true, ""},
		{"cookie", "session[SameSite]", `"operator":"equals","expected":"Lax"`, true, ""},
		{"cookie", "session[Expires]", `"operator":"after","expected":"now"`, true, ""},
		{"cookie", "session[Expires]", `"operator":"equals","expected":"2026-11-28T13:00:00+01:00"`, true, ""},
		{"cookie", "session[value]", `"operator":"equals","expected":"abc"`, true, ""},
		{"cookie", "plain", `"operator":"equals","expected":5`, true, ""},
		{"cookie", "old", `"operator":"equals","expected":9`, true, ""},
		{"cookie", "old[Path]", `"operator":"exists","not":true`, false, "attributes are not known"},
		{"cookie", "none", `"operator":"exists","not":true`, true, "there is no such cookie"},
		{"body", "", `"operator":"equals","expected":"hü"`, true, ""},
		{"bytes", "", `"operator":"equals","expected":"hex:68fc"`, true, `it is "aPw="`},
		{"bytes", "", `"operator":"equals","expected":"aPw="`, true, ""},
		{"bytes", "", `"operator":"startsWith","expected":"hex:68"`, true, ""},
		{"bytes", "", `"operator":"contains","expected":"hex:fc"`, true, ""},
		{"bytes", "", `"operator":"hasLength","expected":2`, true, ""},
		{"bytes", "", `"operator":"equals","expected":"hex:6","not":true`, false, "not hexadecimal"},
		{"bytes", "", `"filters":[{"toHex":true}],"operator":"equals","expected":"68fc"`, true, ""},
		{"bytes", "", `"filters":[{"decode":"latin1"}],"operator":"equals","expected":"hü"`, true, ""},
		{"body", "", `"filters":[{"split":"ü"},{"upper":true}],"quantifier":"any","operator":"equals","expected":"H"`, true, ""},
		{"bodySize", "", `"operator":"equals","expected":2`, true, ""},
		{"sha256", "", `"operator":"matches","expected":"^[0-9a-f]{64}$"`, true, ""},
		{"md5", "", `"operator":"matches","expected":"^[0-9a-f]{32}$"`, true, ""},
		{"regex", "^h(.)", `"operator":"equals","expected":"ü"`, true, ""},
		{"regex", "x", `"operator":"exists"`, false, "finds nothing"},
		{"timing", "dns", `"operator":"equals","expected":1`, true, "the dns time in ms"},
		{"timing", "connect", `"operator":"equals","expected":2`, true, ""},
		{"timing", "tls", `"operator":"equals","expected":3`, true, ""},
		{"timing", "firstByte", `"operator":"equals","expected":4`, true, ""},
		{"timing", "download", `"operator":"equals","expected":5`, true, ""},
		{"timing", "total", `"operator":"equals","expected":20`, true, ""},
		{"tls", "version", `"operator":"equals","expected":"1.3"`, true, ""},
		{"tls", "version", `"operator":"greaterOrEqual","expected":1.2`, true, ""},
		{"tls", "cipher", `"operator":"contains","expected":"AES"`, true, ""},
		{"tls", "protocol", `"operator":"equals","expected":"h2"`, true, ""},
		{"certificate", "subject", `"operator":"equals","expected":"CN=pets.example,O=Pets"`, true, "the certificate's subject"},
		{"certificate", "subjectCommonName", `"operator":"equals","expected":"pets.example"`, true, ""},
		{"certificate", "issuer", `"operator":"contains","expected":"O=Pets"`, true, ""},
		{"certificate", "notBefore", `"operator":"before","expected":"now"`, true, ""},
		{"certificate", "notAfter", `"operator":"after","expected":"2026-12-01"`, true, ""},
		{"certificate", "notAfter", `"filters":[{"daysAfterNow":true}],"operator":"greaterThan","expected":29`, true, ""},
		{"certificate", "daysUntilExpiry", `"operator":"equals","expected":30`, true, ""},
		{"certificate", "serial", `"operator":"equals","expected":"abc"`, true, ""},
		{"certificate", "sans", `"operator":"contains","expected":"*.pets.example"`, true, ""},
		{"certificate", "sans", `"quantifier":"any","operator":"equals","expected":"192.0.2.1"`, true, ""},
		{"certificate", "fingerprint", `"operator":"matches","expected":"^[0-9a-f]{64}$"`, true, ""},
		{"certificate", "keyAlgorithm", `"operator":"equals","expected":"ECDSA"`, true, ""},
		{"certificate", "keySize", `"operator":"equals","expected":256`, true, ""},
		{"certificate", "selfSigned", `"operator":"equals","expected":true`, true, ""},
		{"certificate", "signatureAlgorithm", `"operator":"equals","expected":"ECDSA-SHA256"`, true, ""},
		{"certificate", "pem", `"operator":"startsWith","expected":"-----BEGIN CERTIFICATE"`, true, ""},
		{"variable", "limit", `"operator":"equals","expected":5`, true, ""},
		{"variable", "name", `"operator":"equals","expected":"Ada"`, true, ""},
		{"variable", "ids", `"operator":"equals","expected":[1,2]`, true, ""},
		{"variable", "count", `"operator":"lessThan","expected":8`, true, ""},
		{"variable", "etag", `"operator":"equals","expected":42`, true, ""},
		{"variable", "nothing", `"operator":"exists","not":true`, true, ""},
	} {
		assertion := fmt.Sprintf(`{"source":%q,"property":%q,%s}`, c.source, c.property, c.rest)
		if c.property == "" {
			assertion = fmt.Sprintf(`{"source":%q,%s}`, c.source, c.rest)
		}
		spec := `{"steps":[{"request":{"method":"GET","url":"http://a.example/"},"assertions":[` + assertion + `]}]}`
		if _, err := testspec.Read([]byte(spec), testspec.WithAnyName()); err != nil && c.pass {
			t.Errorf("%s is refused: %v", assertion, faultsOf(t, err))
		}
		v := judged(t, s, assertion)
		if v.Pass != c.pass || !strings.Contains(v.Message, c.word) {
			t.Errorf("%s: pass %v, %s", assertion, v.Pass, v.Message)
		}
	}
	bare := &testspec.Subject{Status: 200}
	for _, source := range []string{`"certificate","property":"notAfter"`, `"tls","property":"version"`, `"reason"`, `"remoteIp"`, `"variable","property":"a"`, `"cookie","property":"a"`} {
		if v := judged(t, bare, `{"source":`+source+`,"operator":"exists","not":true}`); !v.Pass {
			t.Errorf("%s of nothing: %s", source, v.Message)
		}
	}
}
