package netguard

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/testflow/testflow/internal/limits"
)

// URLError says what is wrong with a URL's form. Its text holds nothing of the URL.
type URLError struct{ Reason string }

// Error returns the reason.
func (e *URLError) Error() string { return e.Reason }

// CheckURL is the gate at save and at run: it says early and plainly what could not be dialled anyhow. A *URLError is
// about its form, a *BlockedError about policy. A name that passes may still resolve to an address that the fence
// refuses.
func (g *Guard) CheckURL(raw string) error {
	if len(raw) > limits.MaxURL {
		return &URLError{"a URL has at most 8192 bytes"}
	}
	for i := range len(raw) {
		if raw[i] < 0x20 || raw[i] == 0x7f {
			return &URLError{"a URL holds no control characters"}
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return &URLError{"this is not a URL"}
	}
	return g.Check(u)
}

// Check is CheckURL for a parsed URL.
func (g *Guard) Check(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return &URLError{"a URL begins with http:// or https://"}
	case u.Opaque != "":
		return &URLError{"a URL begins with http:// or https://"}
	case u.User != nil:
		return &URLError{"a URL holds no user name or password; use a header"}
	case u.Hostname() == "":
		return &URLError{"a URL names a host"}
	}
	host := u.Hostname()
	if err := checkHost(host); err != nil {
		return err
	}
	port := uint16(80)
	if u.Scheme == "https" {
		port = 443
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return &URLError{"a port is a number from 1 to 65535"}
		}
		port = uint16(n)
	} else if strings.HasSuffix(u.Host, ":") {
		return &URLError{"a port is a number from 1 to 65535"}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.CheckAddr(netip.AddrPortFrom(addr, port))
	}
	if err := g.deniedName(host, port); err != nil {
		return err
	}
	if badPorts[port] && !g.portOpened(port) {
		return &BlockedError{Reason: "this port belongs to another protocol"}
	}
	return nil
}

// portOpened says whether some rule opens port, so that a name may lead to it.
func (g *Guard) portOpened(port uint16) bool {
	for _, r := range g.policy.Allow {
		if r.Port == port || r.Port == 0 {
			return true
		}
	}
	return false
}

// checkHost refuses what is neither a name nor a plainly written address: C libraries read "127.1", "2130706433",
// "0x7f.0.0.1" and "0177.0.0.1" as addresses, and so do proxies.
func checkHost(host string) error {
	if strings.Contains(host, "%") {
		return &BlockedError{Reason: "addresses with a zone are not allowed"}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if strings.ContainsAny(host, ":[]") {
		return &URLError{"this is not a host name or address"}
	}
	name := strings.TrimSuffix(host, ".")
	if name == "" || len(name) > 253 {
		return &URLError{"a host name has 1 to 253 characters"}
	}
	for i := range len(name) {
		if c := name[i]; c <= 0x20 || c == 0x7f || strings.IndexByte(`/\?#@<>^|"{}`, c) >= 0 {
			return &URLError{"this is not a host name or address"}
		}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if isNumberLabel(last) {
		return &URLError{"write an IPv4 address as four decimal numbers, such as 192.0.2.1"}
	}
	if ip := net.ParseIP(name); ip != nil {
		return &URLError{"this is not a host name or address"} // "1.2.3.4." and the like
	}
	return nil
}

// isNumberLabel says whether a C library could take a last label for a number: decimal, octal or hexadecimal.
func isNumberLabel(label string) bool {
	if label == "" {
		return false
	}
	if len(label) > 1 && (label[:2] == "0x" || label[:2] == "0X") {
		return strings.Trim(label[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
