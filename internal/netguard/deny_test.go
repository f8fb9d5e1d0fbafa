package netguard_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/testflow/testflow/internal/netguard"
)

func deny(tb testing.TB, list string) []netguard.Denial {
	tb.Helper()
	d, err := netguard.ParseDeny(list)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// TestAttack_deniedAddresses: what the operator denies stays shut, whatever is allowed, and however it is written.
func TestAttack_deniedAddresses(t *testing.T) {
	g := guard(t, netguard.Policy{
		Allow: allow(t, "10.0.0.0/8, 10.9.9.9:443, 127.0.0.0/8, 64:ff9b::/96, 2002::/16, 2001::/32, 0.0.0.0/0, ::/0"),
		Deny:  deny(t, "10.9.0.0/16, 127.0.0.1:5432, 93.184.216.34, [2606:4700::/32]:443, :2525, 198.18.0.0/15"),
	})
	for addr, open := range map[string]bool{
		"10.8.0.1:80": true, "10.9.0.1:80": false, "10.9.9.9:443": false, "[::ffff:10.9.0.1]:80": false, "[64:ff9b::a09:1]:80": false,
		"[2002:a09:1::]:80": false, "[2001:0:a09:1::]:80": false, "[2001:0:808:808::f5f6:fffe]:80": false, "[64:ff9b::808:808]:80": true,
		"127.0.0.1:5432": false, "127.0.0.1:5433": true, "93.184.216.34:443": false, "93.184.216.35:443": true,
		"[2606:4700::1]:443": false, "[2606:4700::1]:80": true, "8.8.8.8:2525": false, "10.8.0.1:2525": false, "8.8.8.8:443": true,
		"198.19.0.1:80": false, "[64:ff9b::a9fe:a9fe]:80": false, "[2002:a9fe:a9fe::]:80": false,
	} {
		err := g.CheckAddr(netip.MustParseAddrPort(addr))
		if (err == nil) != open {
			t.Errorf("%s: %v, open should be %v", addr, err, open)
		}
		if err != nil && !errors.Is(err, netguard.ErrBlocked) {
			t.Errorf("%s: %v is not ErrBlocked", addr, err)
		}
	}
}

// TestAttack_deniedNames: a denied name is refused at the gate, at the socket, over UDP and behind a proxy, in every spelling.
func TestAttack_deniedNames(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	g := guard(t, netguard.Policy{
		Allow:    allow(t, "127.0.0.0/8"),
		Deny:     deny(t, "db.example, *.Internal.Example, müller.example, api.example:"+port),
		Resolver: dnsServer(t, func(dnsmessage.Question) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }),
	})
	for host, open := range map[string]bool{
		"db.example": false, "DB.Example": false, "db.example.": false, "ⅾb.example": false, "db。example": false, "sub.db.example": true,
		"a.internal.example": false, "a.b.INTERNAL.example.": false, "internal.example": true, "xinternal.example": true, "internal.example.com": true,
		"müller.example": false, "xn--mller-kva.example": false, "MÜLLER.example": false, "api.example": false, "other.example": true,
	} {
		if err := g.CheckURL("http://" + host + ":" + port + "/"); (err == nil) != open {
			t.Errorf("gate, %s: %v, open should be %v", host, err, open)
		}
		conn, err := g.DialContext(t.Context(), "tcp", host+":"+port)
		if err == nil {
			_ = conn.Close()
		}
		if ascii := !strings.ContainsFunc(host, func(r rune) bool { return r > 127 }); (err == nil) != open && (ascii || err == nil) {
			t.Errorf("socket, %s: %v, open should be %v", host, err, open)
		}
		if udp, err := g.DialUDP(t.Context(), "udp", host+":"+port); err == nil {
			_ = udp.Close()
			if !open {
				t.Errorf("UDP, %s: open", host)
			}
		}
		n, err := net.LookupPort("tcp", port)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.CheckBehindProxy(t.Context(), host, uint16(n)); (err == nil) != open {
			t.Errorf("proxy, %s: %v, open should be %v", host, err, open)
		}
	}
	if err := g.CheckURL("http://api.example:1234/"); err != nil {
		t.Errorf("another port: %v", err)
	}
}

func TestParseDeny(t *testing.T) {
	const list = "10.0.0.0/8, 127.0.0.1:80,[fd00::/32]:443,db.example,db.example:5432,*.internal.example,*.internal.example:80,:25"
	var back []string
	for _, d := range deny(t, list) {
		back = append(back, d.String())
	}
	if got := strings.Join(back, ","); got != strings.ReplaceAll(list, " ", "") {
		t.Errorf("%s", got)
	}
	_, err := netguard.ParseDeny("10.0.0.0/33, 127.1, :0, :x, a.*.example, *., http://x, 0x7f.1, db.example:99999, ok.example")
	if err == nil || strings.Count(err.Error(), `"`) != 18 || strings.Contains(err.Error(), "ok.example") {
		t.Errorf("not every faulty entry is named: %v", err)
	}
}

func TestParseRegions(t *testing.T) {
	regions, err := netguard.ParseRegions("eu: allow=10.1.0.0/16,10.2.3.4:443 deny=*.corp.example,:25; us-east: deny=0.0.0.0/0\n\nlab: allow=[fd00::/8]:80;")
	if err != nil {
		t.Fatal(err)
	}
	if names := netguard.RegionNames(regions); strings.Join(names, " ") != "eu lab us-east" {
		t.Errorf("%v", names)
	}
	if eu := regions["eu"]; len(eu.Allow) != 2 || len(eu.Deny) != 2 || eu.Deny[1].Port != 25 {
		t.Errorf("%+v", eu)
	}
	both := netguard.Lists{Allow: allow(t, "10.0.0.1")}.With(regions["eu"])
	if len(both.Allow) != 3 || len(both.Deny) != 2 {
		t.Errorf("%+v", both)
	}
	_, err = netguard.ParseRegions("eu: allow=10.1.0.0/33; eu2; eu3: allow=10.0.0.0/8 allow=10.0.0.0/8; eu4:; eu5: permit=1.1.1.1; x: deny=a..b:0; ok: deny=:25; ok: deny=:26")
	for _, want := range []string{`"10.1.0.0/33"`, `"eu2"`, "eu3", "eu4 has no rules", `"permit=1.1.1.1"`, `"a..b:0"`, "ok stands there twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
}
