package executor_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

// with is a spec of one step: a GET of u with auth, and what its status must be.
func with(u, auth string, status int) string {
	return `{"steps":[` + step("GET", u, auth, "", status) + `]}`
}

func step(method, u, auth, more string, status int) string {
	b, _ := json.Marshal(u)
	return fmt.Sprintf(`{"request":{"method":%q,"url":%s,"auth":%s%s},"assertions":[{"source":"status","operator":"equals","expected":%d}]}`,
		method, b, auth, more, status)
}

const (
	digestAuth = `{"type":"digest","username":"ada","password":"{{secrets.password}}"}`
	digestUni  = `{"type":"digest","username":"Ådä","password":"{{secrets.password}}"}`
)

// passes runs a spec that must pass, and looks for canaries in all that was told.
func passes(t *testing.T, e *executor.Engine, target *targettest.Server, spec string) outcome {
	t.Helper()
	o := run(t, e, target, spec)
	if o.Status != executor.Passed {
		for _, s := range o.steps {
			if s.Response != nil {
				t.Logf("%s %s", s.Name, s.Response.Body)
			}
		}
		t.Errorf("%s: %v", o.Status, o.Error)
	}
	return o
}

func TestAuth_digest(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	for _, algorithm := range []string{"", "MD5", "MD5-sess", "SHA-256", "SHA-256-sess"} {
		for _, qop := range []string{"", "auth", "auth-int", "auth, auth-int"} {
			if qop == "" && strings.HasSuffix(algorithm, "sess") {
				continue // RFC 2069 had no client nonce
			}
			for _, more := range []string{"", "&opaque=5ccc", "&userhash=1", "&decoy=1"} {
				t.Run(algorithm+" "+qop+more, func(t *testing.T) {
					t.Parallel()
					mark := url.QueryEscape("of " + algorithm + qop + more)
					u := "{{base}}/auth/digest?algorithm=" + algorithm + "&qop=" + url.QueryEscape(qop) + more + "&mark=" + mark
					// The second request answers without being asked, the third with a body, the fourth again with one.
					passes(t, e, target, `{"steps":[`+strings.Join([]string{
						step("GET", u, digestAuth, "", 200), step("GET", u, digestAuth, "", 200),
						step("PUT", u, digestAuth, `,"body":{"text":"a body"}`, 200), strings.TrimSuffix(step("POST", u, digestAuth, `,"body":{"json":{"a":1}}`, 200), "]}") + `,{"source":"jsonpath","property":"$.challenged","operator":"equals","expected":1}]}`,
					}, ",")+`]}`)
				})
			}
		}
	}
	t.Run("a name beyond ASCII", func(t *testing.T) {
		t.Parallel()
		u := "{{base}}/auth/digest?algorithm=SHA-256&qop=auth&user=" + url.QueryEscape(targettest.UnicodeUser)
		passes(t, e, target, with(u, digestUni, 200))
		passes(t, e, target, with(u+"&userhash=1", digestUni, 200))
	})
	t.Run("a stale nonce", func(t *testing.T) {
		t.Parallel()
		s := step("GET", "{{base}}/auth/digest?algorithm=MD5&qop=auth&uses=1", digestAuth, "", 200)
		passes(t, e, target, `{"steps":[`+s+`,`+s+`,`+s+`]}`)
	})
	t.Run("nextnonce", func(t *testing.T) {
		t.Parallel()
		s := step("GET", "{{base}}/auth/digest?algorithm=MD5&qop=auth&uses=1&next=1&mark=next", digestAuth, "", 200)
		s = strings.TrimSuffix(s, "]}") + `,{"source":"jsonpath","property":"$.challenged","operator":"equals","expected":1}]}`
		passes(t, e, target, `{"steps":[`+s+`,`+s+`,`+s+`]}`)
	})
	t.Run("always stale comes to an end", func(t *testing.T) {
		t.Parallel()
		passes(t, e, target, with("{{base}}/auth/digest?algorithm=MD5&qop=auth&uses=0", digestAuth, 401))
	})
	t.Run("a wrong password is answered once", func(t *testing.T) {
		t.Parallel()
		var asked int
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			w.Header().Set("WWW-Authenticate", `Digest realm="r", nonce="n", qop="auth"`)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		defer server.Close()
		passes(t, e, target, with(server.URL, digestAuth, 401))
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("a challenge that nobody knows", func(t *testing.T) {
		t.Parallel()
		passes(t, e, target, with("{{base}}/auth/digest?algorithm=SHA-999", digestAuth, 401))
	})
	t.Run("after a redirect", func(t *testing.T) {
		t.Parallel()
		to := url.QueryEscape("/auth/digest?algorithm=MD5&qop=auth-int")
		passes(t, e, target, `{"steps":[`+step("POST", "{{base}}/redirect?code=307&to="+to, digestAuth, `,"body":{"text":"kept"}`, 200)+`]}`)
		passes(t, e, target, `{"steps":[`+step("POST", "{{base}}/redirect?code=303&to="+to, digestAuth, `,"body":{"text":"left"}`, 200)+`]}`)
		passes(t, e, target, with("{{base}}/redirect?to={{other}}"+url.QueryEscape("/auth/digest?algorithm=MD5&qop=auth"), digestAuth, 401))
	})
}

// TestAuth_sigV4 is against a server that recomputes the signature from AWS's documents.
func TestAuth_sigV4(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	auth := func(service, more string) string {
		return `{"type":"awsSigV4","accessKeyId":"` + targettest.AWSAccessKeyID + `","secretAccessKey":"{{secrets.awsSecret}}","region":"eu-central-1","service":"` + service + `"` + more + `}`
	}
	session := `,"sessionToken":"{{secrets.awsSession}}"`
	for name, spec := range map[string]string{
		"plain":            step("GET", "{{base}}/aws/execute-api/pets", auth("execute-api", ""), "", 200),
		"a body":           step("POST", "{{base}}/aws/execute-api/pets", auth("execute-api", ""), `,"body":{"json":{"a":"b"}}`, 200),
		"a query":          step("GET", "{{base}}/aws/execute-api/pets?b=2&a=x y&empty&a=%2F&u=ü&plus=a%2Bb", auth("execute-api", ""), `,"query":{"q":"a b+c/~*"}`, 200),
		"headers":          step("GET", "{{base}}/aws/execute-api/pets", auth("execute-api", ""), `,"headers":{"X-Two":["a  b","c"],"Cookie":"a=b","Range":"bytes=0-9"}`, 200),
		"encoded twice":    step("GET", "{{base}}/aws/execute-api/a%20b/c%2Fd/(x)/ü", auth("execute-api", ""), "", 200),
		"a session":        step("GET", "{{base}}/aws/sts/", auth("sts", session), "", 200),
		"over TLS":         step("GET", "{{tls}}/aws/execute-api/pets", auth("execute-api", ""), "", 200),
		"s3":               step("PUT", "{{base}}/aws/s3/test$file.text", auth("s3", ""), `,"body":{"text":"Welcome to Amazon S3."}`, 200),
		"s3 encoded once":  step("GET", "{{base}}/aws/s3/a%20b/c%2Fd/(x)!*'/ü", auth("s3", session), "", 200),
		"s3 as it is":      step("GET", "{{base}}/aws/s3/./a", auth("s3", ""), "", 200),
		"s3 unsigned body": step("PUT", "{{base}}/aws/s3/x", auth("s3", ""), `,"headers":{"x-amz-content-sha256":"UNSIGNED-PAYLOAD"},"body":{"text":"x"}`, 200),
		"after a redirect": step("GET", "{{base}}/redirect?to="+url.QueryEscape("/aws/execute-api/pets?x=1"), auth("execute-api", ""), "", 200),
		"another origin":   step("GET", "{{base}}/redirect?to={{other}}/aws/execute-api/pets", auth("execute-api", session), "", 403),
		"a wrong region":   strings.Replace(step("GET", "{{base}}/aws/execute-api/pets", auth("execute-api", ""), "", 403), "{{secrets.awsSecret}}", "x{{secrets.awsSecret}}", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := passes(t, e, target, `{"steps":[`+spec+`]}`)
			told, _ := json.Marshal(o.steps)
			for _, canary := range []string{targettest.AWSSecretAccessKey, targettest.AWSSessionToken, "Signature="} {
				if strings.Contains(string(told), canary) {
					t.Errorf("the run tells %q", canary)
				}
			}
		})
	}
}

// TestSignature_publishedExamples holds the checking server to the signatures that AWS published.
func TestSignature_publishedExamples(t *testing.T) {
	t.Parallel()
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	s3 := "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="
	for name, c := range map[string]struct{ request, secret, payload, want string }{
		"GET object": {
			"GET /test.txt HTTP/1.1\nHost: examplebucket.s3.amazonaws.com\nRange: bytes=0-9\nx-amz-content-sha256: " + empty + "\nx-amz-date: 20130524T000000Z\n" +
				s3 + "host;range;x-amz-content-sha256;x-amz-date,Signature=x",
			targettest.AWSSecretAccessKey, empty, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
		},
		"PUT object": {
			"PUT /test$file.text HTTP/1.1\nHost: examplebucket.s3.amazonaws.com\nDate: Fri, 24 May 2013 00:00:00 GMT\nx-amz-date: 20130524T000000Z\n" +
				"x-amz-storage-class: REDUCED_REDUNDANCY\nx-amz-content-sha256: 44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072\n" +
				s3 + "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,Signature=x",
			targettest.AWSSecretAccessKey, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
		},
		"GET bucket lifecycle": {
			"GET /?lifecycle HTTP/1.1\nHost: examplebucket.s3.amazonaws.com\nx-amz-content-sha256: " + empty + "\nx-amz-date: 20130524T000000Z\n" +
				s3 + "host;x-amz-content-sha256;x-amz-date,Signature=x",
			targettest.AWSSecretAccessKey, empty, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		},
		"list objects": {
			"GET /?max-keys=2&prefix=J HTTP/1.1\nHost: examplebucket.s3.amazonaws.com\nx-amz-content-sha256: " + empty + "\nx-amz-date: 20130524T000000Z\n" +
				s3 + "host;x-amz-content-sha256;x-amz-date,Signature=x",
			targettest.AWSSecretAccessKey, empty, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
		},
		"IAM ListUsers": {
			"GET /?Action=ListUsers&Version=2010-05-08 HTTP/1.1\nHost: iam.amazonaws.com\nContent-Type: application/x-www-form-urlencoded; charset=utf-8\nX-Amz-Date: 20150830T123600Z\n" +
				"Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=x",
			"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", empty, "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
		},
	} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(c.request, "\n", "\r\n") + "\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := targettest.Signature(r, c.secret, c.payload)
		if err != nil || got != c.want {
			t.Errorf("%s: %s %v, AWS says %s", name, got, err, c.want)
		}
	}
}

func clientCredentials(realm, more string) string {
	return `{"type":"oauth2ClientCredentials","tokenUrl":"{{base}}/oauth/token?realm=` + realm + more + `","clientId":"checks & more","clientSecret":"{{secrets.clientSecret}}"`
}

func TestAuth_oauth2(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	resource := "{{base}}/oauth/resource"
	t.Run("one token for many steps and runs", func(t *testing.T) {
		t.Parallel()
		s := step("GET", resource, clientCredentials("many", "&life=3600")+`,"scope":"a b","audience":"pets","params":{"extra":["1","2"]}}`, "", 200)
		s = strings.TrimSuffix(s, "]}") + `,{"source":"jsonpath","property":"$.how","operator":"equals","expected":"client_credentials a b pets 1,2"}]}`
		for range 3 {
			o := passes(t, e, target, `{"steps":[`+s+`,`+s+`]}`)
			told, _ := json.Marshal([]any{o.steps, o.verdicts, o.Result})
			for _, canary := range []string{"token-many", targettest.ClientSecret} {
				if strings.Contains(string(told), canary) {
					t.Errorf("the run tells %q", canary)
				}
			}
			if h := header(o.steps[0], "Authorization"); h != "•••" {
				t.Errorf("Authorization %q", h)
			}
		}
		if n := target.TokenRequests("many"); n != 1 {
			t.Errorf("asked for %d tokens", n)
		}
		// Another way to connect, another scope, another organization: another token.
		passes(t, e, target, `{"steps":[`+step("GET", resource, clientCredentials("many", "&life=3600")+`,"scope":"a b","audience":"pets","params":{"extra":["1","2"]}}`, `,"verifyTls":false`, 200)+`]}`)
		passes(t, e, target, with(resource, clientCredentials("many", "&life=3600")+`,"scope":"c"}`, 200))
		in := executor.Input{RunID: uuid.New(), OrgID: uuid.New(), Spec: mustRead(t, `{"steps":[`+s+`]}`), Environment: names(target), Secrets: secrets()}
		if r := e.Run(context.Background(), in, nil); r.Status != executor.Passed {
			t.Error(r.Error)
		}
		if n := target.TokenRequests("many"); n != 4 {
			t.Errorf("asked for %d tokens", n)
		}
	})
	t.Run("many at once ask once", func(t *testing.T) {
		t.Parallel()
		spec := with(resource, clientCredentials("flight", "&life=3600&answer=slow")+`}`, 200)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { passes(t, e, target, spec) })
		}
		wg.Wait()
		if n := target.TokenRequests("flight"); n != 1 {
			t.Errorf("asked for %d tokens", n)
		}
	})
	t.Run("the endpoint's time is not the target's", func(t *testing.T) {
		t.Parallel()
		o := passes(t, e, target, with(resource, clientCredentials("aside", "&answer=slow")+`}`, 200))
		if aside := o.Duration - o.steps[0].Timings.Total; aside < targettest.SlowToken-10*time.Millisecond {
			t.Errorf("of %s the target is said to have taken %s", o.Duration, o.steps[0].Timings.Total)
		}
	})
	t.Run("the one who asks is canceled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(context.Background())
		first := make(chan outcome)
		spec := with(resource, clientCredentials("cancel", "&life=3600&answer=slow")+`}`, 200)
		go func() { first <- runContext(ctx, t, e, target, spec) }()
		for target.TokenRequests("cancel") == 0 {
			select {
			case o := <-first:
				t.Fatalf("%+v", o.Result)
			case <-time.After(time.Millisecond):
			}
		}
		time.AfterFunc(20*time.Millisecond, func() { cancel(executor.ErrCanceled) })
		passes(t, e, target, spec)
		if o := <-first; o.Status != executor.Canceled {
			t.Errorf("%s %v", o.Status, o.Error)
		}
	})
	t.Run("in the body", func(t *testing.T) {
		t.Parallel()
		passes(t, e, target, with(resource, clientCredentials("body", "&in=body")+`,"credentialsIn":"body"}`, 200))
	})
	t.Run("password", func(t *testing.T) {
		t.Parallel()
		auth := `{"type":"oauth2Password","tokenUrl":"{{base}}/oauth/token?realm=password","clientId":"checks & more","clientSecret":"{{secrets.clientSecret}}","username":"ada","password":"{{secrets.password}}"}`
		passes(t, e, target, with(resource, auth, 200))
		fails(t, e, target, with(resource, strings.Replace(auth, `"ada"`, `"eve"`, 1), 200), executor.CodeAuth, "invalid_grant")
	})
	t.Run("a withdrawn token is asked for once more", func(t *testing.T) {
		t.Parallel()
		auth := clientCredentials("revoked", "&life=3600") + `}`
		s := step("POST", resource, auth, `,"body":{"text":"x"}`, 200)
		passes(t, e, target, `{"steps":[`+s+`,`+step("GET", "{{base}}/oauth/revoke?realm=revoked", `{"type":"none"}`, "", 204)+`,`+s+`]}`)
		if n := target.TokenRequests("revoked"); n != 2 {
			t.Errorf("asked for %d tokens", n)
		}
		passes(t, e, target, with("{{base}}/status/401", auth, 401))
		if n := target.TokenRequests("revoked"); n != 3 {
			t.Errorf("asked for %d tokens", n)
		}
	})
	t.Run("another origin gets none", func(t *testing.T) {
		t.Parallel()
		passes(t, e, target, with("{{base}}/redirect?to={{other}}/oauth/resource", clientCredentials("away", "")+`}`, 401))
		passes(t, e, target, with("{{base}}/redirect?to=/oauth/resource", clientCredentials("away", "")+`}`, 200))
	})
	for answer, c := range map[string]struct {
		code executor.Code
		says string
	}{
		"html": {executor.CodeAuth, "not the JSON"}, "empty": {executor.CodeAuth, "no access_token"}, "mac": {executor.CodeAuth, "another type"},
		"injection": {executor.CodeAuth, "cannot stand in a header"}, "bomb": {executor.CodeTooLarge, "At the token endpoint"},
		"redirect": {executor.CodeAuth, "status 307"}, "strange": {executor.CodeAuth, "status 400"},
	} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			fails(t, e, target, with(resource, clientCredentials("bad", "&answer="+answer)+`}`, 200), c.code, c.says)
		})
	}
	t.Run("other failures", func(t *testing.T) {
		t.Parallel()
		wrong := strings.Replace(clientCredentials("wrong", "")+`}`, "{{secrets.clientSecret}}", "no", 1)
		fails(t, e, target, with(resource, wrong, 200), executor.CodeAuth, "invalid_client")
		refused := strings.Replace(clientCredentials("x", "")+`}`, "{{base}}", "{{refused}}", 1)
		fails(t, e, target, with(resource, refused, 200), executor.CodeConnect, "At the token endpoint")
		blocked := strings.Replace(clientCredentials("x", "")+`}`, "{{base}}", "http://169.254.169.254", 1)
		fails(t, e, target, with(resource, blocked, 200), executor.CodeBlocked, "At the token endpoint")
		hang := step("GET", resource, clientCredentials("hang", "&answer=hang")+`}`, `,"timeout":"200ms"`, 200)
		fails(t, e, target, `{"steps":[`+hang+`]}`, executor.CodeTimeout, "At the token endpoint")
	})
}

// TestAuth_tokenEnds moves the clock: a kept token is used until shortly before its end.
func TestAuth_tokenEnds(t *testing.T) {
	target := targettest.New(t)
	var ahead time.Duration
	e := executor.New(executor.Config{Guard: loopback(t), Now: func() time.Time { return time.Now().Add(ahead) }, RootCAs: target.CAs})
	defer e.Close()
	spec := with("{{base}}/oauth/resource", clientCredentials("ends", "&life=600")+`}`, 200)
	for _, c := range []struct {
		at   time.Duration
		want int
	}{{0, 1}, {560 * time.Second, 1}, {571 * time.Second, 2}, {572 * time.Second, 2}} {
		ahead = c.at
		passes(t, e, target, spec)
		if n := target.TokenRequests("ends"); n != c.want {
			t.Errorf("after %s asked for %d tokens, want %d", c.at, n, c.want)
		}
	}
}

func fails(t *testing.T, e *executor.Engine, target *targettest.Server, spec string, code executor.Code, says string) {
	t.Helper()
	o := run(t, e, target, spec)
	if o.Code != code || o.Error == nil || !strings.Contains(o.Error.Message, says) {
		t.Errorf("%s %v, want %s with %q", o.Status, o.Error, code, says)
	}
	told, _ := json.Marshal([]any{o.steps, o.verdicts, o.Result})
	if strings.Contains(string(told), "TFTARGET") {
		t.Errorf("the target's text is told: %s", told)
	}
}

func header(s executor.StepFinished, name string) string {
	for _, h := range s.Request.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func TestAuth_staticKinds(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	key := func(in, name string) string {
		return `{"type":"apiKey","in":"` + in + `","name":"` + name + `","value":"{{secrets.apiKey}}"}`
	}
	cookieKey := `{"type":"apiKey","in":"cookie","name":"key","value":"TFCANARY-cookie"}`
	bearer := `{"type":"bearer","token":"TFCANARY-bearer"}`
	echo := func(method, u, auth, path, want string) string {
		p, _ := json.Marshal(path)
		w, _ := json.Marshal(want)
		return strings.TrimSuffix(step(method, u, auth, "", 200), "]}") + `,{"source":"jsonpath","property":` + string(p) + `,"operator":"equals","expected":` + string(w) + `}]}`
	}
	gone := func(u, auth, path string) string {
		p, _ := json.Marshal(path)
		return strings.TrimSuffix(step("GET", u, auth, "", 200), "]}") + `,{"source":"jsonpath","property":` + string(p) + `,"operator":"exists","not":true}]}`
	}
	away, back := "{{base}}/redirect?to={{other}}/echo", "{{base}}/redirect?to=/echo"
	for name, spec := range map[string]string{
		"basic":                 step("GET", "{{base}}/auth/basic", `{"type":"basic","username":"Ådä","password":"{{secrets.password}}"}`, "", 200),
		"none":                  gone("{{base}}/echo", `{"type":"none"}`, "$.headers.authorization"),
		"bearer":                echo("GET", "{{base}}/echo", bearer, "$.headers.authorization", "Bearer TFCANARY-bearer"),
		"bearer, redirected":    echo("GET", back, bearer, "$.headers.authorization", "Bearer TFCANARY-bearer"),
		"bearer, away":          gone(away, bearer, "$.headers.authorization"),
		"header":                echo("GET", "{{base}}/echo", key("header", "x-my-key"), "$.headers['x-my-key']", apiKeyCanary),
		"header, redirected":    echo("GET", back, key("header", "x-my-key"), "$.headers['x-my-key']", apiKeyCanary),
		"header, away":          gone(away, key("header", "x-my-key"), "$.headers['x-my-key']"),
		"query":                 echo("GET", "{{base}}/echo?a=1", key("query", "k y"), "$.uri", "/echo?a=1&k+y="+url.QueryEscape(apiKeyCanary)),
		"query, redirected":     echo("GET", back, key("query", "k"), "$.uri", "/echo?k="+url.QueryEscape(apiKeyCanary)),
		"query, away":           echo("GET", away, key("query", "k"), "$.uri", "/echo"),
		"query, carried away":   echo("GET", "{{base}}/carry?to={{other}}/echo", key("query", "k"), "$.uri", "/echo?a=1"),
		"query, carried back":   echo("GET", "{{base}}/carry?to=/echo", key("query", "k"), "$.uri", "/echo?a=1&k="+url.QueryEscape(apiKeyCanary)),
		"cookie":                echo("GET", "{{base}}/echo", cookieKey, "$.headers.cookie", "key=TFCANARY-cookie"),
		"cookie, away":          gone(away, cookieKey, "$.headers.cookie"),
		"a secret header, away": strings.Replace(gone(away, `{"type":"none"}`, "$.headers['x-mine']"), `"auth"`, `"headers":{"X-Mine":"a {{secrets.apiKey}}"},"auth"`, 1),
		"another header, away":  strings.Replace(echo("GET", away, `{"type":"none"}`, "$.headers['x-mine']", "plain"), `"auth"`, `"headers":{"X-Mine":"plain"},"auth"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := passes(t, e, target, `{"steps":[`+spec+`]}`)
			told, _ := json.Marshal([]any{o.steps, o.verdicts, o.Result})
			for _, s := range o.steps {
				if s.Response != nil {
					told = append(told, s.Response.Body...)
				}
			}
			for _, canary := range []string{"TFCANARY", url.QueryEscape(apiKeyCanary), targettest.Password, base64.StdEncoding.EncodeToString([]byte(targettest.UnicodeUser + ":" + targettest.Password))} {
				if strings.Contains(string(told), canary) {
					t.Errorf("the run tells %q: %s", canary, told)
				}
			}
		})
	}
	for name, c := range map[string]struct{ auth, says string }{
		"a colon":             {`{"type":"basic","username":"{{refused}}","password":""}`, "colon"},
		"an empty token":      {`{"type":"bearer","token":"{{nothing}}"}`, "empty"},
		"a line break":        {`{"type":"bearer","token":"{{lines}}"}`, "control characters"},
		"a header of ours":    {`{"type":"apiKey","in":"header","name":"{{host}}","value":"x"}`, "cannot be used"},
		"not for a cookie":    {`{"type":"apiKey","in":"cookie","name":"a","value":"{{semicolon}}"}`, "cookie"},
		"a key that is none":  {`{"type":"jwt","algorithm":"RS256","key":"{{lines}}"}`, "private key in PEM"},
		"a date that is none": {`{"type":"jwt","algorithm":"HS256","key":"k","claims":{"exp":"{{host}}"}}`, "claim exp"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := strings.Replace(with("{{base}}/echo", c.auth, 200), `{"steps"`, `{"variables":{"nothing":"","lines":"a\nb","host":"Host","semicolon":"a;b"},"steps"`, 1)
			fails(t, e, target, spec, executor.CodeRequest, c.says)
		})
	}
}

// TestAuth_jwt checks signatures by the standard library's primitives, not by the library that made them.
func TestAuth_jwt(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := map[string]*ecdsa.PrivateKey{}
	for algorithm, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		if ec[algorithm], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	const secret = "a secret of HMAC, long enough to be one"
	for _, algorithm := range []string{
		"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			var key any = rsaKey
			switch {
			case ec[algorithm] != nil:
				key = ec[algorithm]
			case algorithm == "EdDSA":
				key = edKey
			}
			text := secret
			if algorithm[:2] != "HS" {
				der, err := x509.MarshalPKCS8PrivateKey(key)
				if err != nil {
					t.Fatal(err)
				}
				text = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
			}
			var token string
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				token = r.Header.Get("X-Assertion")
			}))
			defer server.Close()
			quoted, _ := json.Marshal(text)
			now := time.Now().Unix()
			passes(t, e, target, with(server.URL, `{"type":"jwt","algorithm":"`+algorithm+`","key":`+string(quoted)+`,"keyId":"k{{refused}}",
				"name":"X-Assertion","prefix":"","claims":{"iss":"me","sub":"{{refused}}","n":9007199254740993,"nbf":"now-30s","list":[1,"{{refused}}"]},
				"headers":{"typ":"at+jwt"},"expiresIn":"90s"}`, 200))
			head, claims := verified(t, token, algorithm, key, secret)
			if head["alg"] != algorithm || head["kid"] != "k"+target.RefusedURL || head["typ"] != "at+jwt" {
				t.Errorf("header %v", head)
			}
			iat, _ := claims["iat"].(json.Number).Int64()
			exp, _ := claims["exp"].(json.Number).Int64()
			nbf, _ := claims["nbf"].(json.Number).Int64()
			if iat < now || iat > now+5 || exp != iat+90 || nbf != iat-30 || claims["n"] != json.Number("9007199254740993") || claims["sub"] != target.RefusedURL {
				t.Errorf("claims %v", claims)
			}
		})
	}
	t.Run("in the query, with dates of its own", func(t *testing.T) {
		t.Parallel()
		var token string
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { token = r.URL.Query().Get("assertion") }))
		defer server.Close()
		o := passes(t, e, target, with(server.URL, `{"type":"jwt","algorithm":"HS256","key":"`+secret+`","in":"query","name":"assertion","claims":{"iat":null,"exp":1700000000}}`, 200))
		if !strings.HasSuffix(o.steps[0].Request.URL, "?assertion=•••") {
			t.Errorf("told %s", o.steps[0].Request.URL)
		}
		_, claims := verified(t, token, "HS256", nil, secret)
		if claims["exp"] != json.Number("1700000000") || len(claims) != 1 {
			t.Errorf("claims %v", claims)
		}
	})
	t.Run("a key of another curve", func(t *testing.T) {
		t.Parallel()
		der, err := x509.MarshalPKCS8PrivateKey(ec["ES256"])
		if err != nil {
			t.Fatal(err)
		}
		quoted, _ := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		fails(t, e, target, with("{{base}}/echo", `{"type":"jwt","algorithm":"ES384","key":`+string(quoted)+`}`, 200), executor.CodeRequest, "does not fit ES384")
	})
}

// verified checks a compact JWS as RFC 7515 and RFC 7518 have it.
func verified(t *testing.T, token, algorithm string, key any, secret string) (head, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a token: %q", token)
	}
	decoded := make([][]byte, 3)
	for i, p := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil {
			t.Fatal(err)
		}
	}
	signed, signature := []byte(parts[0]+"."+parts[1]), decoded[2]
	hashed := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[algorithm[2:]]
	var sum []byte
	if hashed != 0 {
		h := hashed.New()
		h.Write(signed)
		sum = h.Sum(nil)
	}
	var good bool
	switch algorithm[:2] {
	case "HS":
		h := hmac.New(hashed.New, []byte(secret))
		h.Write(signed)
		good = hmac.Equal(h.Sum(nil), signature)
	case "RS":
		good = rsa.VerifyPKCS1v15(&key.(*rsa.PrivateKey).PublicKey, hashed, sum, signature) == nil
	case "PS":
		good = rsa.VerifyPSS(&key.(*rsa.PrivateKey).PublicKey, hashed, sum, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case "ES":
		half := len(signature) / 2
		r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
		good = slices.Contains([]int{64, 96, 132}, len(signature)) && ecdsa.Verify(&key.(*ecdsa.PrivateKey).PublicKey, sum, r, s)
	default:
		good = ed25519.Verify(key.(ed25519.PrivateKey).Public().(ed25519.PublicKey), signed, signature)
	}
	if !good {
		t.Errorf("the signature is wrong: %s", token)
	}
	for i, into := range []*map[string]any{&head, &claims} {
		d := json.NewDecoder(strings.NewReader(string(decoded[i])))
		d.UseNumber()
		if err := d.Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	return head, claims
}
