package executor_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/netguard"
)

const h3 = `,"httpVersion":"3"`

func TestHTTP3(t *testing.T) {
	target := targettest.New(t)
	h := target.NewHTTP3(t)
	e := newEngine(t, target)
	alice := target.Client(t, "alice")
	port := h.URL[strings.LastIndexByte(h.URL, ':')+1:]
	vars := map[string]string{"h3": h.URL, "mutual3": h.MutualURL, "cert": alice.Certificate, "key": alice.Key, "ca": target.CAPEM()}
	for name, c := range map[string]struct {
		spec string
		code executor.Code
	}{
		"one":                 {get("{{h3}}/pets/1", h3), ""},
		"redirect":            {get("{{h3}}/redirect?to=%2Fpets%2F1", h3), ""},
		"redirect to http":    {`{"steps":[{"request":{"method":"GET","url":"{{h3}}/redirect","query":{"to":"{{base}}/pets/1"},"httpVersion":"3"}}]}`, executor.CodeRedirects},
		"by name":             {get("https://localhost:"+port+"/pets/1", h3+`,"ipVersion":"4"`), ""},
		"IPv6":                {get("{{h3}}/pets/1", h3+`,"ipVersion":"6"`), executor.CodeDNS},
		"resolve":             {get("https://localhost:1/pets/1", h3+`,"resolve":{"localhost:1":"127.0.0.1"}`), executor.CodeConnect},
		"resolve, other name": {get("https://pets.invalid:"+port+"/pets/1", h3+`,"tls":{"serverName":"localhost"},"resolve":{"pets.invalid:`+port+`":"127.0.0.1"}`), ""},
		"wrong name":          {get("https://pets.invalid:"+port+"/pets/1", h3+`,"resolve":{"pets.invalid:`+port+`":"127.0.0.1"}`), executor.CodeTLS},
		"no such name":        {get("https://pets.invalid:"+port+"/", h3), executor.CodeDNS},
		"own CA":              {get("{{h3}}/pets/1", h3+`,"tls":{"ca":"{{ca}}"}`), ""},
		"certificate":         {get("{{mutual3}}/peer", h3+`,"tls":{"clientCertificate":"{{cert}}","clientKey":"{{key}}"}`), ""},
		"no certificate":      {get("{{mutual3}}/peer", h3), executor.CodeTLS},
		"nobody there":        {get("https://"+hostOf(t, target.RefusedURL)+"/", h3), executor.CodeConnect},
		"body":                {`{"steps":[{"request":{"method":"POST","url":"{{h3}}/echo","httpVersion":"3","body":{"text":"hello"}},"assertions":[{"source":"jsonpath","property":"$.body","operator":"equals","expected":"hello"}]}]}`, ""},
		"bomb":                {get("{{h3}}/hostile/bomb/gzip", h3), executor.CodeTooLarge},
		"endless":             {get("{{h3}}/hostile/endless", h3), executor.CodeTooLarge},
		"hang":                {get("{{h3}}/hostile/hang", h3+`,"timeout":"200ms"`), executor.CodeTimeout},
		"large header":        {get("{{h3}}/hostile/40k-header", h3), executor.CodeTooLarge},
		"loop":                {get("{{h3}}/hostile/loop", h3), executor.CodeRedirects},
		"metadata":            {get("{{h3}}/hostile/to-metadata", h3), executor.CodeRedirects}, // http://
	} {
		t.Run(name, func(t *testing.T) {
			o := runWith(t, e, target, uuid.New(), c.spec, vars)
			if o.Code != c.code {
				t.Fatalf("code %q (%v), want %q", o.Code, o.Error, c.code)
			}
			if c.code != "" {
				return
			}
			r, tm := o.steps[0].Response, o.steps[0].Timings
			if r.HTTPVersion != "3" || r.TLS == nil || r.TLS.Version != "1.3" || !strings.HasPrefix(r.RemoteAddr, "127.0.0.1:") {
				t.Errorf("%+v", r)
			}
			if tm.TLS <= 0 || tm.FirstByte <= 0 || tm.Total < tm.TLS+tm.FirstByte {
				t.Errorf("%+v", tm)
			}
			if name == "certificate" && string(r.Body) != "alice" {
				t.Errorf("peer %q", r.Body)
			}
		})
	}
}

// TestHTTP3_connections: the steps of a run share one; it is closed with the run, and two runs have one each.
func TestHTTP3_connections(t *testing.T) {
	target := targettest.New(t)
	h := target.NewHTTP3(t)
	e := newEngine(t, target)
	spec := `{"steps":[{"request":{"method":"GET","url":"{{h3}}/pets/1","httpVersion":"3"}},{"request":{"method":"GET","url":"{{h3}}/pets/1","httpVersion":"3"}}]}`
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			o := runWith(t, e, target, uuid.Nil, spec, map[string]string{"h3": h.URL})
			if o.Status != executor.Passed || o.steps[0].Response.Reused || !o.steps[1].Response.Reused {
				t.Errorf("%+v %+v", o.Error, o.steps)
			}
		})
	}
	wg.Wait()
	if n := h.Connections(); n != 20 {
		t.Errorf("%d connections for 20 runs", n)
	}
}

// TestHTTP3_hostile: each is a typed end, soon.
func TestHTTP3_hostile(t *testing.T) {
	target := targettest.New(t)
	h := target.NewHTTP3(t)
	e := newEngine(t, target)
	for name, origin := range h.Hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := "15s"
			if origin.Code == "timeout" {
				limit = "500ms"
			}
			started := time.Now()
			o := run(t, e, target, get(origin.URL+"/", h3+`,"timeout":"`+limit+`"`))
			if string(o.Code) != origin.Code {
				t.Errorf("code %q (%v), want %q", o.Code, o.Error, origin.Code)
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestAttack_http3: the fence holds for UDP: literal addresses, names, resolve, redirects.
func TestAttack_http3(t *testing.T) {
	target := targettest.New(t)
	h := target.NewHTTP3(t)
	guard := netguard.New(netguard.Policy{}, time.Now)
	e := executor.New(executor.Config{Guard: guard, Now: time.Now, RootCAs: target.CAs})
	t.Cleanup(e.Close)
	port := h.URL[strings.LastIndexByte(h.URL, ':')+1:]
	for _, spec := range []string{
		get(h.URL+"/pets/1", h3),
		get("https://localhost:"+port+"/pets/1", h3),
		get("https://[::ffff:127.0.0.1]:"+port+"/pets/1", h3),
		get("https://[64:ff9b::7f00:1]:"+port+"/pets/1", h3),
		get("https://[2002:7f00:1::]:"+port+"/pets/1", h3),
		get("https://169.254.169.254/", h3),
		get("https://pets.invalid:"+port+"/", h3+`,"resolve":{"pets.invalid:`+port+`":"127.0.0.1"}`),
		get("https://pets.invalid:"+port+"/", h3+`,"resolve":{"pets.invalid:`+port+`":"::ffff:127.0.0.1"}`),
		get("https://pets.invalid:53/", h3+`,"resolve":{"pets.invalid:53":"8.8.8.8"}`),
	} {
		o := run(t, e, target, spec)
		if o.Status != executor.Inconclusive || o.Code != executor.CodeBlocked {
			t.Errorf("%s: %s %+v", spec, o.Status, o.Error)
		}
	}
	if n := h.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
	// A redirect over HTTP/3 from what is allowed to what is not.
	allowed := netip.MustParseAddrPort(hostOf(t, h.URL))
	e = executor.New(executor.Config{
		Guard: netguard.New(netguard.Policy{Allow: []netguard.Rule{{Prefix: netip.PrefixFrom(allowed.Addr(), 32), Port: allowed.Port()}}}, time.Now),
		Now:   time.Now, RootCAs: target.CAs,
	})
	t.Cleanup(e.Close)
	o := runWith(t, e, target, uuid.New(), `{"steps":[{"request":{"method":"GET","url":"{{h3}}/redirect","query":{"to":"{{mutual3}}/peer"},"httpVersion":"3"}}]}`,
		map[string]string{"h3": h.URL, "mutual3": h.MutualURL})
	if o.Code != executor.CodeBlocked {
		t.Errorf("redirect: %+v", o.Error)
	}
}

// TestHTTP3_canceled: a run that is canceled while QUIC shakes hands ends at once.
func TestHTTP3_canceled(t *testing.T) {
	target := targettest.New(t)
	h := target.NewHTTP3(t)
	e := newEngine(t, target)
	ctx, stop := context.WithCancelCause(context.Background())
	timer := time.AfterFunc(100*time.Millisecond, func() { stop(executor.ErrCanceled) })
	defer timer.Stop()
	started := time.Now()
	o := runContext(ctx, t, e, target, get(h.Hostile["h3-silent"].URL+"/", h3))
	if o.Status != executor.Canceled || time.Since(started) > 3*time.Second {
		t.Errorf("%s after %s", o.Status, time.Since(started))
	}
}
