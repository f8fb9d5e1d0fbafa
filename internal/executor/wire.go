package executor

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// wire is how a request's connection is made, with its variables put in. The zero value is what requests are without
// a word about it.
type wire struct {
	certificate, key, ca string // PEM
	minVersion           testspec.TLSVersion
	serverName           string
	proxy                *url.URL          // nil: none
	resolve              map[string]string // "host:port", as it is dialled, to an address
	ip                   testspec.IPVersion
}

// fingerprint is equal for those wires alone that may share connections; zero for the zero wire.
func (w *wire) fingerprint() [sha256.Size]byte {
	if w.plain() {
		return [sha256.Size]byte{}
	}
	h := sha256.New()
	addPart(h, w.certificate)
	addPart(h, w.key)
	addPart(h, w.ca)
	addPart(h, string(w.minVersion))
	addPart(h, w.serverName)
	addPart(h, string(w.ip))
	if w.proxy != nil {
		addPart(h, w.proxy.String()) // its credentials too
	} else {
		addPart(h, "")
	}
	for _, target := range slices.Sorted(maps.Keys(w.resolve)) {
		addPart(h, target)
		addPart(h, w.resolve[target])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func addPart(h hash.Hash, s string) {
	// A hash takes everything: its Write never fails. The length in front keeps "a"+"bc" from being "ab"+"c".
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
	_, _ = h.Write([]byte(s))
}

func (w *wire) plain() bool {
	return w.certificate == "" && w.ca == "" && w.minVersion == "" && w.serverName == "" && w.proxy == nil &&
		len(w.resolve) == 0 && w.ip == ""
}

// elsewhere is what of w goes along to another origin: not what proves who asks, and not the first origin's name.
func (w *wire) elsewhere() wire {
	next := *w
	next.certificate, next.key, next.serverName = "", "", ""
	return next
}

// network is a dialler's network of w's version of IP; base is "tcp" or "udp".
func (w *wire) network(base string) string {
	switch w.ip {
	case testspec.IPv4:
		return base + "4"
	case testspec.IPv6:
		return base + "6"
	default:
		return base
	}
}

// address is what to dial for addr, a "host:port".
func (w *wire) address(addr string) string {
	if len(w.resolve) == 0 {
		return addr
	}
	ip, ok := w.resolve[dialled(addr)]
	if !ok {
		return addr
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(ip, port)
}

// dialled writes a "host:port" as transports dial it: in small letters, names in ASCII.
func dialled(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return strings.ToLower(addr)
	}
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		host = ascii
	}
	return net.JoinHostPort(strings.ToLower(host), port)
}

// prepareWire puts variables into what is said of the connection. What is wrong is told without the values.
func (r *runner) prepareWire(p *prepared) *Error {
	w := &p.wire
	if ip := p.spec.IP(); ip != testspec.IPAuto {
		w.ip = ip
	}
	if p.spec.TLS != nil {
		if err := r.prepareTLS(p.spec.TLS, w); err != nil {
			return err
		}
	}
	if p.spec.Proxy != "" {
		if err := r.prepareProxy(p.spec.Proxy, w); err != nil {
			return err
		}
	}
	if len(p.spec.Resolve) > 0 {
		w.resolve = make(map[string]string, len(p.spec.Resolve))
	}
	for target, template := range p.spec.Resolve {
		text, err := r.scope.Expand(template, limits.MaxURL)
		if err != nil {
			return expandError("the address of "+target, err)
		}
		addr, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || addr.Zone() != "" {
			return badRequest("With its variables put in, what " + target + " resolves to is not an address.")
		}
		w.resolve[dialled(target)] = addr.String()
	}
	if p.spec.Version() == testspec.HTTP3 && p.url.Scheme != "https" {
		return badRequest("HTTP/3 needs a URL that begins with https://.")
	}
	return nil
}

func (r *runner) prepareTLS(t *testspec.TLS, w *wire) *Error {
	if t.MinVersion != testspec.TLS12 {
		w.minVersion = t.MinVersion
	}
	for _, one := range []struct {
		what, template string
		to             *string
	}{
		{"the client certificate", t.ClientCertificate, &w.certificate},
		{"the client key", t.ClientKey, &w.key},
		{"the CA", t.CA, &w.ca},
		{"the server name", t.ServerName, &w.serverName},
	} {
		text, err := r.scope.Expand(one.template, limits.MaxVariableValue)
		if err != nil {
			return expandError(one.what, err)
		}
		if one.template != "" && strings.TrimSpace(text) == "" {
			return badRequest("With its variables put in, " + one.what + " is empty.")
		}
		*one.to = strings.TrimSpace(text)
	}
	r.hide(w.key)
	if w.serverName != "" && !testspec.IsServerName(w.serverName) {
		return badRequest("With its variables put in, the server name is not the name of a host.")
	}
	return nil
}

func (r *runner) prepareProxy(template string, w *wire) *Error {
	// User and password are put in by themselves, so that any character may stand in them.
	scheme, rest, hasScheme := strings.Cut(template, "://")
	at := strings.LastIndexByte(rest, '@')
	var user *url.Userinfo
	if hasScheme && at >= 0 && strings.Contains(rest[:at], "{{") {
		name, password, hasPassword := strings.Cut(rest[:at], ":")
		texts := [2]string{name, password}
		for i, one := range texts {
			text, err := r.scope.Expand(one, limits.MaxURL)
			if err != nil {
				return expandError("the proxy", err)
			}
			if !strings.Contains(one, "{{") {
				if plain, err := url.PathUnescape(text); err == nil {
					text = plain
				}
			}
			texts[i] = text
		}
		user = url.User(texts[0])
		if hasPassword {
			user = url.UserPassword(texts[0], texts[1])
		}
		template = scheme + "://" + rest[at+1:]
	}
	raw, err := r.scope.Expand(template, limits.MaxURL)
	if err != nil {
		return expandError("the proxy", err)
	}
	proxy, err := testspec.ParseProxy(strings.TrimSpace(raw))
	if err != nil {
		return badRequest("With its variables put in, the proxy cannot be used: " + err.Error() + ".")
	}
	if user != nil {
		proxy.User = user
	}
	proxy.Path = ""
	// A proxy is dialled by us, so that the same is to be said of its address as of a target's; socks5 and its port aside.
	shape := &url.URL{Scheme: "http", Host: proxyAddress(proxy)}
	if err := r.checkURL(shape); err != nil {
		err.Message = "The proxy's address is refused. " + err.Message
		return err
	}
	if password, ok := proxy.User.Password(); ok {
		r.hide(password)
		r.hide(basicCredentials(proxy.User.Username(), password))
	}
	w.proxy = proxy
	return nil
}
