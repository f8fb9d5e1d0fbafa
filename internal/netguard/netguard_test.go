package netguard_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/netguard"
)

func guard(tb testing.TB, policy netguard.Policy) *netguard.Guard {
	tb.Helper()
	return netguard.New(policy, time.Now)
}

func allow(tb testing.TB, list string) []netguard.Rule {
	tb.Helper()
	rules, err := netguard.ParseAllow(list)
	if err != nil {
		tb.Fatal(err)
	}
	return rules
}

// spellings are ways to write an address that leads into the machine or its network. None may be dialled, however
// something below us would read them.
var spellings = []string{
	"127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7f.0x0.0x0.0x1", "0x7f.1",
	"0177.0.0.1", "017700000001", "0177.0.0.01", "127.0.0.1.", "127.000.000.001", "00000177.1", "0", "0.0.0.0", "0x0",
	"[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]",
	"[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
	"[2001:0:7f00:1::]", "[2001:db8::5efe:127.0.0.1]", "[2a00:1::5efe:7f00:1]", "[2a00:1::200:5efe:7f00:1]",
	"[fe80::1%25lo]", "[::1%25lo]", "[fe80::1]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[100::1]", "[2001:db8::1]",
	"[5f00::1]", "[3fff::1]", "[2620:4f:8000::1]",
	"169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]",
	"10.0.0.1", "10.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.1", "100.64.0.1", "100.127.255.255",
	"100.100.100.200", "168.63.129.16", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255",
	"198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "0.0.0.1", "0.255.255.255",
	"localhost", "LOCALHOST", "localhost.", "ⓛocalhost", "１２７.0.0.1", "127。0。0。1",
}

// TestSpellings_noneIsDialled sends a request to each through a transport; the fence or the gate must stop it.
func TestSpellings_noneIsDialled(t *testing.T) {
	var reached atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	g := guard(t, netguard.Policy{ConnectTimeout: 2 * time.Second})
	tr := &http.Transport{DialContext: g.DialContext, DisableKeepAlives: true}
	for _, host := range spellings {
		t.Run(host, func(t *testing.T) {
			ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
			defer stop()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+":"+port+"/", nil)
			if err != nil {
				return // not even a URL
			}
			resp, err := tr.RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
				t.Fatalf("%s answered %d", host, resp.StatusCode)
			}
			var dns *net.DNSError
			var shape *netguard.URLError
			if !errors.Is(err, netguard.ErrBlocked) && !errors.As(err, &dns) && !errors.As(err, &shape) {
				t.Errorf("%s: not stopped by us: %v", host, err)
			}
		})
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the target was reached %d times", n)
	}
}

// TestSpellings_gate checks that all but names are refused before anything is looked up.
func TestSpellings_gate(t *testing.T) {
	g := guard(t, netguard.Policy{})
	for _, host := range spellings {
		err := g.CheckURL("http://" + host + "/")
		isName := strings.Contains(strings.ToLower(host), "ocalhost") || strings.Contains(host, "。") || strings.HasPrefix(host, "１")
		if err == nil && !isName {
			t.Errorf("%s passed the gate", host)
		}
	}
	for _, ok := range []string{
		"http://example.com/", "https://example.com:8443/a?b#c", "http://1.1.1.1/", "http://[2606:4700:4700::1111]/",
		"http://a.b.c.example/", "http://x1.example", "http://123.example/", "https://example.com:443",
	} {
		if err := g.CheckURL(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "example.com", "ftp://example.com", "file:///etc/passwd", "http://", "http:///x", "http://user@example.com/",
		"http://user:pw@example.com/", "http://example.com:0/", "http://example.com:99999/", "http://example.com:/", "http://example.com:25/",
		"http://exa mple.com/", "http://example.com/\r\nX: y", "http:example.com", "javascript:alert(1)", "gopher://x/", "unix:///var/run/docker.sock",
		"http://" + strings.Repeat("a", 254) + "/", "http://e.example/" + strings.Repeat("a", limits.MaxURL), "http://a.0x1/", "http://1.2.3/",
	} {
		if err := g.CheckURL(bad); err == nil {
			t.Errorf("%q passed the gate", bad)
		}
	}
}

func TestCheckAddr_allowList(t *testing.T) {
	g := guard(t, netguard.Policy{Allow: allow(t, "10.20.0.0/16:443, 127.0.0.1:8080,[fd00:1::/64]:443,192.168.7.7, 169.254.0.0/16, 169.254.170.2:80, 8.8.8.8:25")})
	for addr, open := range map[string]bool{
		"10.20.3.4:443": true, "10.20.3.4:80": false, "10.21.0.1:443": false, "127.0.0.1:8080": true, "127.0.0.1:8081": false,
		"127.0.0.2:8080": false, "[fd00:1::5]:443": true, "[fd00:1::5]:80": false, "[fd00:2::5]:443": false,
		"192.168.7.7:1": true, "192.168.7.8:1": false, "[::ffff:10.20.3.4]:443": true, "[::ffff:127.0.0.1]:8080": true,
		"169.254.1.1:80": true, "169.254.169.254:80": false, "169.254.170.2:80": true, "169.254.170.2:81": false,
		"8.8.8.8:25": true, "8.8.4.4:25": false, "8.8.8.8:53": false, "8.8.8.8:443": true, "[::1]:8080": false, "1.1.1.1:0": false,
	} {
		err := g.CheckAddr(netip.MustParseAddrPort(addr))
		if (err == nil) != open {
			t.Errorf("%s: %v, open should be %v", addr, err, open)
		}
		if err != nil && !errors.Is(err, netguard.ErrBlocked) {
			t.Errorf("%s: %v is not ErrBlocked", addr, err)
		}
		if err != nil && strings.Contains(err.Error(), strings.Split(addr, ":")[0]) {
			t.Errorf("%s: the message names the address: %v", addr, err)
		}
	}
}

func TestCheckAddr_ownListenerAndInterfaces(t *testing.T) {
	policy := netguard.Policy{
		Allow: allow(t, "10.0.0.0/8, 127.0.0.0/8, 127.0.0.9:3000"),
		InterfaceAddrs: func() ([]net.Addr, error) {
			return []net.Addr{
				&net.IPNet{IP: net.IPv4(10, 1, 1, 1), Mask: net.CIDRMask(8, 32)},
				&net.IPNet{IP: net.IPv4(93, 184, 216, 34), Mask: net.CIDRMask(24, 32)},
			}, nil
		},
	}
	g := guard(t, policy)
	g.ShutListener(&net.TCPAddr{IP: net.IPv4zero, Port: 3000})
	g.ShutListener(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5432})
	g.ShutListener(&net.UnixAddr{Name: "/tmp/x"})
	for addr, open := range map[string]bool{
		"10.1.1.1:3000": false, "10.1.1.1:3001": true, "10.1.1.2:3000": true, "127.0.0.1:3000": false, "127.0.0.9:3000": true,
		"127.0.0.1:5432": false, "127.0.0.1:5433": true, "93.184.216.34:3000": false, "93.184.216.34:443": false, "93.184.216.35:443": true,
	} {
		if err := g.CheckAddr(netip.MustParseAddrPort(addr)); (err == nil) != open {
			t.Errorf("%s: %v, open should be %v", addr, err, open)
		}
	}
}

func TestParseAllow(t *testing.T) {
	rules, err := netguard.ParseAllow(" 10.0.0.0/8 ,127.0.0.1:80,, fd00::1,[fd00::1]:443, [fd00:0:1::/32] ,::1/128")
	if err == nil {
		t.Errorf("[fd00:0:1::/32] has bits outside its mask: %v", rules)
	}
	rules, err = netguard.ParseAllow("10.0.0.0/8 ,127.0.0.1:80,, fd00::1,[fd00::1]:443,[fd00::/32],::1/128")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"10.0.0.0/8", "127.0.0.1:80", "fd00::1", "[fd00::1]:443", "fd00::/32", "::1"}
	for i, r := range rules {
		if r.String() != want[i] {
			t.Errorf("%d: %s, want %s", i, r, want[i])
		}
	}
	_, err = netguard.ParseAllow("localhost:80,10.0.0.0/33,10.0.0.1:,[::1,1.2.3.4:99999,10.0.0.1/8,[::1]x")
	if err == nil || strings.Count(err.Error(), `"`) != 14 {
		t.Errorf("not every faulty entry is named: %v", err)
	}
}

// dnsServer answers every question with what answer returns, on loopback.
func dnsServer(t *testing.T, answer func(question dnsmessage.Question) []netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
			for _, a := range answer(q) {
				h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 0, Type: q.Type}
				switch {
				case q.Type == dnsmessage.TypeA && a.Is4():
					reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
				case q.Type == dnsmessage.TypeAAAA && a.Is6():
					reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
				}
			}
			out, err := reply.Pack()
			if err != nil {
				continue
			}
			_, _ = conn.WriteToUDP(out, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

// TestRebinding: a name that is public when the gate may look and private when the socket connects.
func TestRebinding_isStoppedAtTheSocket(t *testing.T) {
	var reached atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer srv.Close()
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	for name, answers := range map[string][]netip.Addr{
		"private":     {netip.MustParseAddr("127.0.0.1")},
		"metadata":    {netip.MustParseAddr("169.254.169.254")},
		"both":        {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.1")},
		"mapped":      {netip.MustParseAddr("::ffff:127.0.0.1")},
		"nat64":       {netip.MustParseAddr("64:ff9b::7f00:1")},
		"six":         {netip.MustParseAddr("::1")},
		"unspecified": {netip.MustParseAddr("0.0.0.0")},
	} {
		t.Run(name, func(t *testing.T) {
			g := guard(t, netguard.Policy{
				ConnectTimeout: 2 * time.Second,
				Resolver:       dnsServer(t, func(dnsmessage.Question) []netip.Addr { return answers }),
			})
			u := url.URL{Scheme: "http", Host: net.JoinHostPort("rebind.example", itoa(port)), Path: "/"}
			if err := g.CheckURL(u.String()); err != nil {
				t.Fatalf("the gate looks at the text only: %v", err)
			}
			conn, err := g.DialContext(t.Context(), "tcp", u.Host)
			if err == nil {
				_ = conn.Close()
				t.Fatal("connected")
			}
			if !errors.Is(err, netguard.ErrBlocked) {
				t.Errorf("%v is not ErrBlocked", err)
			}
		})
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the target was reached %d times", n)
	}
}

// TestNameToAllowedAddress: an allow rule holds for what a name resolves to.
func TestNameToAllowedAddress_isDialled(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	g := guard(t, netguard.Policy{
		Allow:    allow(t, addr),
		Resolver: dnsServer(t, func(dnsmessage.Question) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }),
	})
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := g.DialContext(t.Context(), "tcp", "inside.example:"+port)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestDial_onlyTCP(t *testing.T) {
	g := guard(t, netguard.Policy{Allow: allow(t, "127.0.0.1")})
	for _, network := range []string{"udp", "unix", "ip4:icmp", "unixgram", "tcp7"} {
		if _, err := g.DialContext(t.Context(), network, "127.0.0.1:80"); !errors.Is(err, netguard.ErrBlocked) {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// FuzzCheckURL: whatever passes the gate as an address is one that the fence lets through too.
func FuzzCheckURL(f *testing.F) {
	for _, s := range spellings {
		f.Add("http://" + s + "/")
	}
	g := netguard.New(netguard.Policy{}, time.Now)
	f.Fuzz(func(t *testing.T, raw string) {
		if g.CheckURL(raw) != nil {
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("%q passed and is not a URL", raw)
		}
		if ip := net.ParseIP(u.Hostname()); ip != nil {
			a, _ := netip.AddrFromSlice(ip)
			if !a.Unmap().IsGlobalUnicast() || a.Unmap().IsPrivate() || a.Unmap().IsLoopback() {
				t.Fatalf("%q passed", raw)
			}
			if four := ip.To4(); four != nil && binary.BigEndian.Uint32(four)>>24 == 127 {
				t.Fatalf("%q passed", raw)
			}
		}
	})
}

func itoa(i int) string { return (&net.TCPAddr{Port: i}).String()[1:] }
