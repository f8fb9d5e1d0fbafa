package executor_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/netguard"
)

func hostOf(tb testing.TB, raw string) string {
	tb.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return u.Host
}

func TestProxy_requestsGoThrough(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	const password = "p@ss:/w?rd#TFCANARY"
	open, shut := target.NewProxy(t, "", ""), target.NewProxy(t, "user", password)
	vars := map[string]string{
		"open": open.HTTP, "openTls": open.HTTPS, "openSocks": open.SOCKS5, "shut": shut.HTTP, "shutTls": shut.HTTPS, "shutSocks": shut.SOCKS5,
		"password": password, "whole": "http://user:" + url.QueryEscape(password) + "@" + shut.HTTP,
	}
	for name, c := range map[string]struct {
		url, rest string
		code      executor.Code
		says      string
	}{
		"http":                  {"{{base}}/pets/1", `,"proxy":"http://{{open}}"`, "", ""},
		"https target":          {"{{tls}}/pets/1", `,"proxy":"http://{{open}}"`, "", ""},
		"HTTP/2":                {"{{tls}}/pets/1", `,"proxy":"http://{{open}}","httpVersion":"2"`, "", ""},
		"https proxy":           {"{{base}}/pets/1", `,"proxy":"https://{{openTls}}"`, "", ""},
		"https by https":        {"{{tls}}/pets/1", `,"proxy":"https://{{openTls}}"`, "", ""},
		"socks5":                {"{{base}}/pets/1", `,"proxy":"socks5://{{openSocks}}"`, "", ""},
		"https by socks5":       {"{{tls}}/pets/1", `,"proxy":"socks5://{{openSocks}}"`, "", ""},
		"password":              {"{{tls}}/pets/1", `,"proxy":"http://user:{{password}}@{{shut}}"`, "", ""},
		"password, https proxy": {"{{tls}}/pets/1", `,"proxy":"https://user:{{password}}@{{shutTls}}"`, "", ""},
		"password, socks5":      {"{{base}}/pets/1", `,"proxy":"socks5://user:{{password}}@{{shutSocks}}"`, "", ""},
		"password, encoded":     {"{{base}}/pets/1", `,"proxy":"{{whole}}"`, "", ""},
		"IPv4":                  {"{{base}}/pets/1", `,"proxy":"http://{{open}}","ipVersion":"4"`, "", ""},
		"IPv6":                  {"{{base}}/pets/1", `,"proxy":"http://{{open}}","ipVersion":"6"`, executor.CodeDNS, "The proxy has no address"},
		"no password":           {"{{tls}}/pets/1", `,"proxy":"http://{{shut}}"`, executor.CodeConnect, "status 407"},
		"wrong password":        {"{{tls}}/pets/1", `,"proxy":"socks5://user:wrong@{{shutSocks}}"`, executor.CodeConnect, "user or the password"},
		"refused":               {"{{tls}}/pets/1", `,"proxy":"{{refused}}"`, executor.CodeConnect, "The proxy refused the connection"},
		"target refuses":        {"https://" + hostOf(t, target.RefusedURL), `,"proxy":"http://{{open}}"`, executor.CodeConnect, "status 502"},
		"target refuses, socks": {"{{refused}}", `,"proxy":"socks5://{{openSocks}}"`, executor.CodeConnect, "The proxy did not connect"},
		"not a proxy":           {"{{tls}}/pets/1", `,"proxy":"{{base}}"`, executor.CodeConnect, "The proxy did not connect"},
		"not TLS":               {"{{tls}}/pets/1", `,"proxy":"https://{{open}}"`, executor.CodeTLS, "handshake with the proxy"},
		"says garbage":          {"{{tls}}/pets/1", `,"proxy":"http://` + hostOf(t, target.GarbageURL) + `"`, executor.CodeConnect, ""},
		"hangs":                 {"{{tls}}/pets/1", `,"proxy":"http://` + hostOf(t, target.HangURL) + `","timeout":"200ms"`, executor.CodeTimeout, ""},
		"hangs, socks5":         {"{{tls}}/pets/1", `,"proxy":"socks5://` + hostOf(t, target.HangURL) + `","timeout":"200ms"`, executor.CodeTimeout, ""},
		"hangs, https":          {"{{tls}}/pets/1", `,"proxy":"https://` + hostOf(t, target.HangURL) + `","timeout":"200ms"`, executor.CodeTimeout, ""},
		"a name of its own":     {"http://pets.behind:" + target.URL[strings.LastIndexByte(target.URL, ':')+1:] + "/pets/1", `,"proxy":"http://{{open}}"`, "", ""},
		"not an address":        {"{{tls}}/pets/1", `,"proxy":"{{password}}"`, executor.CodeRequest, "the proxy cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := runWith(t, e, target, uuid.New(), get(c.url, c.rest), vars)
			if o.Code != c.code {
				t.Fatalf("code %q (%v), want %q", o.Code, o.Error, c.code)
			}
			if c.code == "" && string(o.steps[0].Response.Body) != targettest.Pet {
				t.Errorf("body %q", o.steps[0].Response.Body)
			}
			if c.code != "" && !strings.Contains(o.message(), c.says) {
				t.Errorf("%q, want %q", o.message(), c.says)
			}
			told, err := json.Marshal([]any{o.Result, o.steps})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(told), "TFCANARY") {
				t.Errorf("the password is told: %s", told)
			}
		})
	}
}

// TestProxy_learnsNothing: a proxy gets neither the client certificate nor, of an https target, more than host and port.
func TestProxy_learnsNothing(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	proxy, alice := target.NewProxy(t, "", ""), target.Client(t, "alice")
	o := runWith(t, e, target, uuid.New(), `{"steps":[{"request":{"method":"GET","url":"{{mutual}}/peer","proxy":"https://{{p}}",
		"tls":{"clientCertificate":"{{cert}}","clientKey":"{{key}}","serverName":"localhost"}},
		"assertions":[{"source":"jsonpath","property":"$.peer","operator":"equals","expected":"alice"}]}]}`,
		map[string]string{"p": proxy.HTTPS, "cert": alice.Certificate, "key": alice.Key})
	if o.Status != executor.Passed {
		t.Fatalf("%+v", o.Error)
	}
	if got := proxy.Targets(); !slices.Equal(got, []string{hostOf(t, target.MutualURL)}) {
		t.Errorf("the proxy saw %v", got)
	}
}

// TestAttack_proxies: a proxy is no way around the policy, neither by its own address nor by the target's.
func TestAttack_proxies(t *testing.T) {
	target := targettest.New(t)
	proxy := target.NewProxy(t, "", "")
	// The proxies are allowed, the target is not.
	rules, err := netguard.ParseAllow(proxy.HTTP + "," + proxy.SOCKS5 + "," + proxy.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	e := executor.New(executor.Config{
		Guard: netguard.New(netguard.Policy{Allow: rules}, time.Now), Now: time.Now, RootCAs: target.CAs,
		Log: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	t.Cleanup(e.Close)
	port := target.URL[strings.LastIndexByte(target.URL, ':')+1:]
	before := len(proxy.Targets())
	for _, via := range []string{"http://" + proxy.HTTP, "https://" + proxy.HTTPS, "socks5://" + proxy.SOCKS5} {
		for _, to := range []string{
			target.URL + "/pets/1", target.TLSURL + "/pets/1", "http://localhost:" + port + "/pets/1", "http://169.254.169.254/latest/meta-data/",
			"https://169.254.169.254/", "http://[::ffff:169.254.169.254]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[2002:7f00:1::]:" + port + "/",
			"http://10.0.0.1/", "http://LOCALHOST.:" + port + "/",
		} {
			o := runWith(t, e, target, uuid.New(), get(to, `,"proxy":"`+via+`"`), nil)
			if o.Status != executor.Inconclusive || o.Code != executor.CodeBlocked {
				t.Errorf("%s by %s: %s %+v", to, via, o.Status, o.Error)
			}
		}
		for _, to := range []string{"http://2130706433:" + port + "/", "http://127.1:" + port + "/", "http://0x7f.1:" + port + "/"} {
			if o := runWith(t, e, target, uuid.New(), get(to, `,"proxy":"`+via+`"`), nil); o.Code != executor.CodeRequest && o.Code != executor.CodeBlocked {
				t.Errorf("%s by %s: %+v", to, via, o.Error)
			}
		}
	}
	if n := len(proxy.Targets()) - before; n != 0 {
		t.Errorf("the proxy was asked %d times: %v", n, proxy.Targets())
	}
	// A proxy where nothing may be dialled.
	connections := target.Connections()
	for _, via := range []string{target.URL, "https://" + hostOf(t, target.TLSURL), "socks5://" + hostOf(t, target.URL), "http://169.254.169.254:80", "http://localhost:" + port} {
		o := runWith(t, e, target, uuid.New(), get("http://93.184.216.34/", `,"proxy":"`+via+`"`), nil)
		if o.Status != executor.Inconclusive || o.Code != executor.CodeBlocked {
			t.Errorf("by %s: %s %+v", via, o.Status, o.Error)
		}
		if strings.Contains(o.message(), "127.0.0.1") {
			t.Errorf("the message names the address: %s", o.message())
		}
	}
	if n := target.Connections() - connections; n != 0 {
		t.Errorf("%d connections", n)
	}
	if !strings.Contains(logged.String(), "address=127.0.0.1:"+port) {
		t.Errorf("the operator's log does not hold the address: %s", logged.String())
	}
}

// TestProxy_redirectIsChecked: what a target behind a proxy redirects to is asked about again.
func TestProxy_redirectIsChecked(t *testing.T) {
	target := targettest.New(t)
	proxy := target.NewProxy(t, "", "")
	rules, err := netguard.ParseAllow(proxy.HTTP + "," + hostOf(t, target.URL))
	if err != nil {
		t.Fatal(err)
	}
	e := executor.New(executor.Config{Guard: netguard.New(netguard.Policy{Allow: rules}, time.Now), Now: time.Now})
	t.Cleanup(e.Close)
	o := runWith(t, e, target, uuid.New(), `{"steps":[{"request":{"method":"GET","url":"{{base}}/redirect","query":{"to":"{{other}}/pets/1"},"proxy":"http://{{p}}"}}]}`, map[string]string{"p": proxy.HTTP})
	if o.Code != executor.CodeBlocked {
		t.Errorf("%+v", o.Error)
	}
	if got := proxy.Targets(); !slices.Equal(got, []string{hostOf(t, target.URL)}) {
		t.Errorf("the proxy saw %v", got)
	}
}

func TestResolveAndIPVersion(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	port := target.TLSURL[strings.LastIndexByte(target.TLSURL, ':')+1:]
	plain := target.URL[strings.LastIndexByte(target.URL, ':')+1:]
	for name, c := range map[string]struct {
		spec string
		code executor.Code
	}{
		"a name that there isn't":         {get("http://pets.invalid:"+plain+"/host", `,"resolve":{"pets.invalid:`+plain+`":"127.0.0.1"}`), ""},
		"in other letters":                {get("http://PETS.invalid:"+plain+"/host", `,"resolve":{"pets.INVALID:`+plain+`":"{{ip}}"}`), ""},
		"the certificate is for the name": {get("https://pets.invalid:"+port+"/", `,"resolve":{"pets.invalid:`+port+`":"127.0.0.1"}`), executor.CodeTLS},
		"another port":                    {get("http://pets.invalid:"+plain+"/host", `,"resolve":{"pets.invalid:1":"127.0.0.1"}`), executor.CodeDNS},
		"to metadata":                     {get("http://pets.invalid:"+plain+"/host", `,"resolve":{"pets.invalid:`+plain+`":"169.254.169.254"}`), executor.CodeBlocked},
		"to metadata, mapped":             {get("http://pets.invalid:"+plain+"/host", `,"resolve":{"pets.invalid:`+plain+`":"::ffff:169.254.169.254"}`), executor.CodeBlocked},
		"to a private network":            {get("http://pets.invalid/", `,"resolve":{"pets.invalid:80":"10.0.0.1"}`), executor.CodeBlocked},
		"no address":                      {get("http://pets.invalid/", `,"resolve":{"pets.invalid:80":"{{base}}"}`), executor.CodeRequest},
		"metadata by an allowed address":  {get("http://169.254.169.254/", `,"resolve":{"169.254.169.254:80":"127.0.0.1"}`), executor.CodeBlocked},
		"IPv4":                            {get("{{base}}/host", `,"ipVersion":"4"`), ""},
		"IPv6 of an IPv4 address":         {get("{{base}}/host", `,"ipVersion":"6"`), executor.CodeDNS},
		"resolve and IPv6":                {get("http://pets.invalid:"+plain+"/", `,"ipVersion":"6","resolve":{"pets.invalid:`+plain+`":"127.0.0.1"}`), executor.CodeDNS},
	} {
		t.Run(name, func(t *testing.T) {
			o := runWith(t, e, target, uuid.New(), c.spec, map[string]string{"ip": "127.0.0.1"})
			if o.Code != c.code {
				t.Errorf("code %q (%v), want %q", o.Code, o.Error, c.code)
			}
			if c.code == "" && name != "IPv4" && !strings.Contains(strings.ToLower(string(o.steps[0].Response.Body)), "pets.invalid:"+plain) {
				t.Errorf("the host is not the URL's: %s", o.steps[0].Response.Body)
			}
		})
	}
}
