package netguard_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/testflow/testflow/internal/netguard"
)

// packets counts what arrives at a UDP socket of loopback.
func packets(t *testing.T) (port string, arrived <-chan struct{}) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c := make(chan struct{}, 1000)
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 100)
		for {
			if _, _, err := conn.ReadFromUDP(buf); err != nil {
				return
			}
			c <- struct{}{}
		}
	}()
	_, port, err = net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, c
}

// TestAttack_udp: no spelling, and no answer of a name server, leads UDP to where TCP may not go.
func TestAttack_udp(t *testing.T) {
	port, arrived := packets(t)
	try := func(g *netguard.Guard, host string) {
		conn, err := g.DialUDP(t.Context(), "udp", host+":"+port)
		if err == nil {
			_, _ = conn.WriteTo([]byte("x"), conn.RemoteAddr())
			_ = conn.Close()
			t.Errorf("%s: a socket", host)
			return
		}
		var dns *net.DNSError
		var shape *netguard.URLError
		var addr *net.AddrError
		if !errors.Is(err, netguard.ErrBlocked) && !errors.As(err, &dns) && !errors.As(err, &shape) && !errors.As(err, &addr) {
			t.Errorf("%s: not stopped by us: %v", host, err)
		}
	}
	g := guard(t, netguard.Policy{ConnectTimeout: 2 * time.Second})
	for _, host := range spellings {
		try(g, host)
	}
	for _, answer := range []string{"127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::1", "0.0.0.0", "10.0.0.1"} {
		answers := []netip.Addr{netip.MustParseAddr(answer)}
		try(guard(t, netguard.Policy{
			ConnectTimeout: 2 * time.Second, Resolver: dnsServer(t, func(dnsmessage.Question) []netip.Addr { return answers }),
		}), "rebind.example")
	}
	for _, network := range []string{"tcp", "unixgram", "ip4:udp", "udp7"} {
		if _, err := g.DialUDP(t.Context(), network, "8.8.8.8:443"); !errors.Is(err, netguard.ErrBlocked) {
			t.Errorf("%s: %v", network, err)
		}
	}
	select {
	case <-arrived:
		t.Error("a packet arrived")
	default:
	}
}

// TestDialUDP_oneFarEnd: an allowed socket speaks to its far end and to nobody else.
func TestDialUDP_oneFarEnd(t *testing.T) {
	port, arrived := packets(t)
	other, _ := packets(t)
	g := guard(t, netguard.Policy{Allow: allow(t, "127.0.0.1:"+port)})
	conn, err := g.DialUDP(t.Context(), "udp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.WriteTo([]byte("x"), conn.RemoteAddr()); err != nil {
		t.Fatal(err)
	}
	<-arrived
	to, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteTo([]byte("x"), to); !errors.Is(err, netguard.ErrOtherAddress) {
		t.Errorf("to another: %v", err)
	}
}
