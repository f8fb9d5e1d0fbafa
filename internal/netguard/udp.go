package netguard

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// DialUDP connects a UDP socket to address ("host:port"), if policy lets it, for protocols that bring their own
// connections: QUIC. network is "udp", "udp4" or "udp6". The fence is the same as for TCP: it sees the address that the
// socket connects to, after the name was looked up; the kernel then sends to that address alone and takes from it alone.
// A refusal is a *BlockedError within the returned error.
func (g *Guard) DialUDP(ctx context.Context, network, address string) (*UDPConn, error) {
	if network != "udp" && network != "udp4" && network != "udp6" {
		return nil, &BlockedError{Reason: "only UDP is allowed"}
	}
	if err := g.checkAddress(address); err != nil {
		return nil, err
	}
	conn, err := g.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err //nolint:wrapcheck // as DialContext: net's error says it all
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close() // never so: that is what a dialler makes of "udp"
		return nil, errors.New("not a UDP socket")
	}
	remote, ok := udp.RemoteAddr().(*net.UDPAddr)
	if !ok {
		_ = udp.Close()
		return nil, errors.New("not a UDP address")
	}
	return &UDPConn{udp: udp, remote: remote, addr: remote.AddrPort()}, nil
}

// UDPConn is a connected UDP socket as a net.PacketConn, which is what QUIC wants. It writes to its one far end only.
type UDPConn struct {
	udp    *net.UDPConn
	remote *net.UDPAddr
	addr   netip.AddrPort
}

var _ net.PacketConn = (*UDPConn)(nil)

// ErrOtherAddress is the error of a packet to anybody but the far end.
var ErrOtherAddress = errors.New("this socket sends to one address only")

// RemoteAddr is the far end.
func (c *UDPConn) RemoteAddr() net.Addr { return c.remote }

// ReadFrom reads a packet of the far end's.
func (c *UDPConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, err := c.udp.Read(p)
	return n, c.remote, err //nolint:wrapcheck // the caller looks at net's types
}

// WriteTo sends a packet to the far end; ErrOtherAddress when addr is another.
func (c *UDPConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok || to.AddrPort() != c.addr {
		return 0, ErrOtherAddress
	}
	return c.udp.Write(p) //nolint:wrapcheck // the caller looks at net's types
}

// Close closes the socket.
func (c *UDPConn) Close() error { return c.udp.Close() } //nolint:wrapcheck // net's own

// LocalAddr is the near end.
func (c *UDPConn) LocalAddr() net.Addr { return c.udp.LocalAddr() }

// SetDeadline is net.Conn's, as are its siblings.
func (c *UDPConn) SetDeadline(t time.Time) error { return c.udp.SetDeadline(t) } //nolint:wrapcheck // net's own

// SetReadDeadline bounds reading.
func (c *UDPConn) SetReadDeadline(t time.Time) error { return c.udp.SetReadDeadline(t) } //nolint:wrapcheck // net's own

// SetWriteDeadline bounds writing.
func (c *UDPConn) SetWriteDeadline(t time.Time) error { return c.udp.SetWriteDeadline(t) } //nolint:wrapcheck // net's own

// SetReadBuffer asks for a larger buffer; the kernel gives what it may.
func (c *UDPConn) SetReadBuffer(n int) error { return c.udp.SetReadBuffer(n) } //nolint:wrapcheck // net's own

// SetWriteBuffer asks for a larger buffer; the kernel gives what it may.
func (c *UDPConn) SetWriteBuffer(n int) error { return c.udp.SetWriteBuffer(n) } //nolint:wrapcheck // net's own
