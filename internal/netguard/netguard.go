// Package netguard decides which addresses may be dialled.
//
// It is the one dialler of executor, webhooks, chat and imports. CheckURL is a gate for good messages; the fence is a
// control hook on the socket, after names are resolved, for each connection and so for each redirect. Metadata
// services, loopback, private and special ranges are refused unless the operator allows them. The package reads no
// setting and sends no request.
package netguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// ErrBlocked is what errors.Is finds in every refusal by policy.
var ErrBlocked = errors.New("blocked by network policy")

// BlockedError is a refusal by policy. Its text names no resolved address: who may read a run's result shall not learn
// what a name resolves to inside the operator's network.
type BlockedError struct {
	Reason string         // one clause, e.g. "loopback addresses are not allowed"
	Addr   netip.AddrPort // what would have been dialled; zero when it did not get so far. For the operator's log only.
}

// Error returns the reason.
func (e *BlockedError) Error() string { return "blocked by network policy: " + e.Reason }

// Is reports whether target is ErrBlocked.
func (e *BlockedError) Is(target error) bool { return target == ErrBlocked }

// Policy is what a Guard lets through. The zero Policy lets through the public Internet on every port but those that
// browsers shut too.
type Policy struct {
	// Allow opens what is shut otherwise; see ParseAllow.
	Allow []Rule
	// Deny shuts, and wins over Allow; see ParseDeny.
	Deny []Denial
	// Resolver replaces the system's name servers (tests, split horizon). Go's own resolver is used in any case.
	Resolver *net.Resolver
	// ConnectTimeout bounds one connection's establishing; 0 means 10 s.
	ConnectTimeout time.Duration
	// InterfaceAddrs replaces net.InterfaceAddrs (tests).
	InterfaceAddrs func() ([]net.Addr, error)
}

// Guard is the dialler. Safe for concurrent use.
type Guard struct {
	policy   Policy
	guardian *ssrf.Guardian
	dialer   net.Dialer

	mu  sync.Mutex
	own []netip.AddrPort // our listeners

	locals    atomic.Pointer[localAddrs]
	refreshed func() time.Time
}

// localAddrs are this machine's own addresses, as of a moment.
type localAddrs struct {
	addrs map[netip.Addr]bool
	read  time.Time
}

// localsFresh is how long this machine's addresses are believed: reading them takes a netlink round trip, and they
// change when an interface comes or goes.
const localsFresh = 30 * time.Second

// New returns a Guard with that policy. now is the clock by which this machine's own addresses are read again.
func New(policy Policy, now func() time.Time) *Guard {
	if policy.ConnectTimeout <= 0 {
		policy.ConnectTimeout = 10 * time.Second
	}
	if policy.Resolver == nil {
		policy.Resolver = &net.Resolver{PreferGo: true}
	}
	if policy.InterfaceAddrs == nil {
		policy.InterfaceAddrs = net.InterfaceAddrs
	}
	g := &Guard{policy: policy, guardian: ssrf.New(ssrf.WithAnyPort()), refreshed: now}
	// With PreferGo unset the C library would take part, and to it "127.1" and "0x7f.1" are loopback.
	policy.Resolver.PreferGo = true
	g.dialer = net.Dialer{
		Timeout:        policy.ConnectTimeout,
		KeepAlive:      30 * time.Second,
		Resolver:       policy.Resolver,
		ControlContext: g.control,
	}
	return g
}

// ShutListener keeps addr, an address that this process listens on, out of reach, also by an allow rule for a range:
// only a rule that names exactly this address and port opens it. An unspecified address (0.0.0.0, ::) stands for
// every address of this machine.
func (g *Guard) ShutListener(addr net.Addr) {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return // a Unix socket: cannot be dialled by tcp
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.own = append(g.own, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
}

// DialContext connects to address ("host:port") over TCP, if policy lets it. It fits http.Transport.DialContext. A
// refusal is a *BlockedError within the returned error.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, &BlockedError{Reason: "only TCP is allowed"}
	}
	if err := g.checkAddress(address); err != nil {
		return nil, err
	}
	return g.dialer.DialContext(ctx, network, address)
}

// checkAddress is what can be said of a "host:port" before it is looked up.
func (g *Guard) checkAddress(address string) error {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("split address: %w", err)
	}
	if err := checkHost(host); err != nil {
		return err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return &URLError{"a port is a number from 1 to 65535"}
	}
	return g.deniedName(host, uint16(port))
}

// CheckBehindProxy says what can be known here of a target that a proxy will dial: nil, or a *BlockedError. It looks host
// up and asks of each address whether we would dial it. A name that is not found here may still be one that the proxy
// knows; what the proxy makes of a name, nobody but the proxy can say.
func (g *Guard) CheckBehindProxy(ctx context.Context, host string, port uint16) error {
	if err := checkHost(host); err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.CheckAddr(netip.AddrPortFrom(addr, port))
	}
	if err := g.deniedName(host, port); err != nil {
		return err
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	switch {
	case name == "localhost" || strings.HasSuffix(name, ".localhost"): // RFC 6761, whoever looks it up
		return g.CheckAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port))
	case metadataNames[name]:
		return &BlockedError{Reason: "cloud metadata services are not allowed"}
	}
	ctx, stop := context.WithTimeout(ctx, g.policy.ConnectTimeout)
	defer stop()
	addrs, err := g.policy.Resolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil
	}
	for _, addr := range addrs {
		if err := g.CheckAddr(netip.AddrPortFrom(addr, port)); err != nil {
			return err
		}
	}
	return nil
}

// control is the fence: it sees the address that the socket is about to connect to.
func (g *Guard) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	switch network {
	case "tcp4", "tcp6", "udp4", "udp6":
	default:
		return &BlockedError{Reason: "only TCP and UDP are allowed"}
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &BlockedError{Reason: "the address cannot be read"}
	}
	return g.CheckAddr(ap)
}

// CheckAddr says whether ap may be dialled: nil, or a *BlockedError.
func (g *Guard) CheckAddr(ap netip.AddrPort) error {
	addr := ap.Addr()
	if addr.Zone() != "" {
		return &BlockedError{Reason: "addresses with a zone are not allowed", Addr: ap}
	}
	addr = addr.Unmap()
	ap = netip.AddrPortFrom(addr, ap.Port())
	if ap.Port() == 0 {
		return &BlockedError{Reason: "port 0 is not a port", Addr: ap}
	}
	if g.deniedAddr(ap) {
		return &BlockedError{Reason: "the operator denies this address", Addr: ap}
	}
	single, inRange := g.allowed(ap)
	if single {
		return nil
	}
	if metadata[addr] || slices.ContainsFunc(carried(addr), func(inner netip.Addr) bool { return metadata[inner] }) {
		return &BlockedError{Reason: "cloud metadata services are not allowed", Addr: ap}
	}
	local := g.isLocal(addr)
	if g.isOwnListener(ap, local) {
		return &BlockedError{Reason: "this service's own addresses are not allowed", Addr: ap}
	}
	if inRange {
		return nil
	}
	if reason := special(addr); reason != "" {
		return &BlockedError{Reason: reason, Addr: ap}
	}
	if g.guardian.SafeAddr(addr) != nil {
		return &BlockedError{Reason: "special-purpose addresses are not allowed", Addr: ap}
	}
	if local {
		return &BlockedError{Reason: "this machine's own addresses are not allowed", Addr: ap}
	}
	if badPorts[ap.Port()] {
		return &BlockedError{Reason: "this port belongs to another protocol", Addr: ap}
	}
	return nil
}

// allowed says whether a rule opens exactly this address and port, and whether any rule opens it.
func (g *Guard) allowed(ap netip.AddrPort) (single, inRange bool) {
	for _, r := range g.policy.Allow {
		if !r.Matches(ap) {
			continue
		}
		inRange = true
		if r.Prefix.IsSingleIP() && r.Port != 0 {
			return true, true
		}
	}
	return false, inRange
}

func (g *Guard) isOwnListener(ap netip.AddrPort, local bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range g.own {
		if o.Port() != ap.Port() {
			continue
		}
		if o.Addr() == ap.Addr() || o.Addr().IsUnspecified() && (local || ap.Addr().IsLoopback() || ap.Addr().IsUnspecified()) {
			return true
		}
	}
	return false
}

// isLocal says whether addr is one of this machine's own.
func (g *Guard) isLocal(addr netip.Addr) bool {
	now := g.refreshed()
	l := g.locals.Load()
	if l == nil || now.Sub(l.read) > localsFresh {
		next := &localAddrs{addrs: map[netip.Addr]bool{}, read: now}
		list, err := g.policy.InterfaceAddrs()
		if err != nil && l != nil {
			next.addrs = l.addrs // better the old ones than none
		}
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				next.addrs[p.Addr().Unmap().WithZone("")] = true
			}
		}
		g.locals.Store(next)
		l = next
	}
	return l.addrs[addr]
}
