package testspec

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/testflow/testflow/internal/limits"
)

// TLS is what a request brings into the handshake. Its texts are templates; a key is meant to come from a secret.
type TLS struct {
	// ClientCertificate and ClientKey are PEM and stand together: the certificate, behind it those that signed it, and
	// its key without a passphrase. Both may be one text that holds certificate and key.
	ClientCertificate string `json:"clientCertificate,omitempty"`
	ClientKey         string `json:"clientKey,omitempty"`
	// CA is PEM: the authorities that are trusted in place of the usual ones.
	CA string `json:"ca,omitempty"`
	// MinVersion is the oldest version that is accepted, "1.2" unless set.
	MinVersion TLSVersion `json:"minVersion,omitempty"`
	// ServerName is asked for, and the certificate checked for it, in place of the URL's host.
	ServerName string `json:"serverName,omitempty"`
}

// TLSVersion is a version of TLS.
type TLSVersion string

// The versions that a request may ask for at least. Older ones are never spoken.
const (
	TLS12 TLSVersion = "1.2"
	TLS13 TLSVersion = "1.3"
)

// TLSVersions lists every TLSVersion, for documents.
func TLSVersions() []string { return []string{string(TLS12), string(TLS13)} }

// IPVersion chooses among the addresses of a name.
type IPVersion string

// The versions. IPAuto takes what answers first.
const (
	IPAuto IPVersion = "auto"
	IPv4   IPVersion = "4"
	IPv6   IPVersion = "6"
)

// IPVersions lists every IPVersion, for documents.
func IPVersions() []string { return []string{string(IPAuto), string(IPv4), string(IPv6)} }

// ProxySchemes lists the sorts of proxies that a request may go through.
func ProxySchemes() []string { return []string{"http", "https", "socks5"} }

// ParseProxy reads a proxy's address, which has a scheme of ProxySchemes, a host, perhaps a port, a user and a
// password, and nothing else. The text of the error is a clause that holds nothing of the address.
func ParseProxy(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, &TemplateError{"a proxy is an address such as http://user:password@proxy.example:3128, its user and password percent-encoded"}
	case !slices.Contains(ProxySchemes(), u.Scheme):
		return nil, &TemplateError{"a proxy's address begins with http://, https:// or socks5://"}
	case u.Hostname() == "":
		return nil, &TemplateError{"a proxy's address names a host"}
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, &TemplateError{"a proxy's address has no path, query or fragment"}
	}
	return u, nil
}

// ParseKeyPair reads a client certificate and its key. The text of the error is a clause that holds nothing of either.
func ParseKeyPair(certificate, key string) (tls.Certificate, error) {
	alone := key == ""
	if alone {
		key = certificate
	}
	if why := pemFault(certificate, "client certificate", func(kind string) bool { return kind == "CERTIFICATE" }); why != "" {
		return tls.Certificate{}, &TemplateError{why}
	}
	if encryptedKey(key) {
		return tls.Certificate{}, &TemplateError{"the client key is encrypted; give it without its passphrase (openssl pkey -in key.pem)"}
	}
	if why := pemFault(key, "client key", func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") }); why != "" {
		if alone {
			why = "the client certificate has no key with it; give it as clientKey, or behind the certificate"
		}
		return tls.Certificate{}, &TemplateError{why}
	}
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	switch {
	case err == nil:
		return pair, nil
	case strings.Contains(err.Error(), "does not match"):
		return tls.Certificate{}, &TemplateError{"the client key does not belong to the client certificate"}
	default:
		return tls.Certificate{}, &TemplateError{"the client certificate and its key cannot be read: one of them is damaged, or of a kind that is not known"}
	}
}

// ParseCAs reads the authorities of a CA text. The text of the error is a clause that holds nothing of it.
func ParseCAs(text string) ([]*x509.Certificate, error) {
	if why := pemFault(text, "CA", func(kind string) bool { return kind == "CERTIFICATE" }); why != "" {
		return nil, &TemplateError{why}
	}
	var list []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return list, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &TemplateError{"certificate " + strconv.Itoa(len(list)+1) + " of the CA cannot be read: it is damaged, or of a kind that is not known"}
		}
		list = append(list, cert)
	}
}

// pemFault says what is wrong with a PEM text that should hold a block of one of the kinds, "" when nothing is.
func pemFault(text, what string, wanted func(kind string) bool) string {
	found, kinds := 0, 0
	for rest := []byte(text); ; kinds++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if wanted(block.Type) {
			found++
		}
	}
	switch {
	case found > limits.MaxCertificates:
		return "the " + what + " holds more than " + strconv.Itoa(limits.MaxCertificates) + " blocks"
	case found > 0:
		return ""
	case kinds > 0:
		return "the " + what + " is PEM, but of something else"
	default:
		return "the " + what + " is not PEM; it begins with -----BEGIN and keeps its line breaks"
	}
}

// encryptedKey says whether a PEM text holds a key with a passphrase, of PKCS #8 or of the older form.
func encryptedKey(text string) bool {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return false
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
}

// IP returns the chosen version of IP, IPAuto when none is.
func (r Request) IP() IPVersion {
	if r.IPVersion == "" {
		return IPAuto
	}
	return r.IPVersion
}

// wire checks how a request's connection is made.
func (v *validator) wire(r Request, at string) {
	v.tls(r.TLS, at+"/tls")
	if !slices.Contains(IPVersions(), string(r.IP())) {
		v.refuse(at+"/ipVersion", "This is one of %s.", strings.Join(IPVersions(), ", "))
	}
	v.proxy(r, at)
	v.resolve(r.Resolve, at+"/resolve")
	if r.Version() == HTTP3 && strings.HasPrefix(r.URL, "http://") {
		v.refuse(at+"/httpVersion", "HTTP/3 needs a URL that begins with https://.")
	}
}

func (v *validator) tls(t *TLS, at string) {
	if t == nil {
		return
	}
	if t.MinVersion != "" && !slices.Contains(TLSVersions(), string(t.MinVersion)) {
		v.refuse(at+"/minVersion", "This is one of %s; older versions are not spoken.", strings.Join(TLSVersions(), ", "))
	}
	plain := true
	for _, one := range []struct{ name, text string }{
		{"clientCertificate", t.ClientCertificate},
		{"clientKey", t.ClientKey},
		{"ca", t.CA},
		{"serverName", t.ServerName},
	} {
		if len(one.text) > limits.MaxVariableValue {
			v.refuse(at+"/"+one.name, "This has at most %d bytes.", limits.MaxVariableValue)
			return
		}
		if !v.template(one.text, at+"/"+one.name) {
			plain = false
		}
	}
	if t.ClientKey != "" && t.ClientCertificate == "" {
		v.refuse(at+"/clientCertificate", "A client key needs its certificate.")
		return
	}
	if !plain {
		return
	}
	if t.ClientCertificate != "" && isPlain(t.ClientCertificate) && isPlain(t.ClientKey) {
		if _, err := ParseKeyPair(t.ClientCertificate, t.ClientKey); err != nil {
			v.refuse(at+"/clientCertificate", "%s.", sentence(err.Error()))
		}
	}
	if t.CA != "" && isPlain(t.CA) {
		if _, err := ParseCAs(t.CA); err != nil {
			v.refuse(at+"/ca", "%s.", sentence(err.Error()))
		}
	}
	if t.ServerName != "" && isPlain(t.ServerName) && !IsServerName(t.ServerName) {
		v.refuse(at+"/serverName", "This is the name of a host, without a port.")
	}
}

// IsServerName says whether s may be asked for in a handshake: a host's name or an address.
func IsServerName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// isPlain says whether a template refers to nothing.
func isPlain(s string) bool { return !strings.Contains(s, "{{") }

func (v *validator) proxy(r Request, at string) {
	if r.Proxy == "" {
		return
	}
	if len(r.Proxy) > limits.MaxURL {
		v.refuse(at+"/proxy", "A proxy's address has at most %d bytes.", limits.MaxURL)
		return
	}
	if v.template(r.Proxy, at+"/proxy") && isPlain(r.Proxy) {
		if _, err := ParseProxy(r.Proxy); err != nil {
			v.refuse(at+"/proxy", "%s.", sentence(err.Error()))
		}
	}
	if r.Version() == HTTP3 {
		v.refuse(at+"/proxy", "HTTP/3 does not go through a proxy.")
	}
	if len(r.Resolve) > 0 {
		v.refuse(at+"/resolve", "Behind a proxy it is the proxy that looks names up; a request has proxy or resolve.")
	}
}

func (v *validator) resolve(m map[string]string, at string) {
	if len(m) > limits.MaxResolve {
		v.refuse(at, "There are at most %d of these.", limits.MaxResolve)
		return
	}
	for _, target := range sorted(m) {
		here := at + "/" + escapePointer(target)
		if !isHostPort(target) {
			v.refuse(here, "The name here is host:port, such as pets.example:443.")
		}
		if v.template(m[target], here) && isPlain(m[target]) {
			if a, err := netip.ParseAddr(m[target]); err != nil || a.Zone() != "" {
				v.refuse(here, "The value is an address, such as 10.1.2.3 or 2001:db8::1.")
			}
		}
	}
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == port
}
