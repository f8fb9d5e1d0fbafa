package testspec

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// certificateField is one part of the source certificate.
type certificateField struct {
	partInfo
	read func(c *x509.Certificate, now time.Time) value
}

var certificateFields = []certificateField{
	{partInfo{"subject", "whom it is for, as RFC 2253 writes it: `CN=pets.example,O=Pets`", KindText}, func(c *x509.Certificate, _ time.Time) value { return value{v: c.Subject.String()} }},
	{partInfo{"subjectCommonName", "the common name in it", KindText}, func(c *x509.Certificate, _ time.Time) value { return wireText(c.Subject.CommonName, "there is none") }},
	{partInfo{"issuer", "who signed it, in the same form", KindText}, func(c *x509.Certificate, _ time.Time) value { return value{v: c.Issuer.String()} }},
	{partInfo{"issuerCommonName", "the common name in it", KindText}, func(c *x509.Certificate, _ time.Time) value { return wireText(c.Issuer.CommonName, "there is none") }},
	{partInfo{"notBefore", "from when it is valid", KindDate}, func(c *x509.Certificate, _ time.Time) value { return dateValue(c.NotBefore) }},
	{partInfo{"notAfter", "until when it is valid", KindDate}, func(c *x509.Certificate, _ time.Time) value { return dateValue(c.NotAfter) }},
	{partInfo{"daysUntilExpiry", "whole days from now until then, below 0 when it has expired", KindNumber}, func(c *x509.Certificate, now time.Time) value {
		return numberValue(wholeDays(c.NotAfter.Sub(now)))
	}},
	{partInfo{"serial", "the serial number, small hexadecimal digits", KindText}, func(c *x509.Certificate, _ time.Time) value { return value{v: fmt.Sprintf("%x", c.SerialNumber)} }},
	{partInfo{"sans", "the names, addresses, mail addresses and URIs that it is for, a list", KindList}, func(c *x509.Certificate, _ time.Time) value { return value{v: alternativeNames(c)} }},
	{partInfo{"fingerprint", "the SHA-256 of the certificate, 64 small hexadecimal digits", KindText}, func(c *x509.Certificate, _ time.Time) value { return value{v: Fingerprint(c)} }},
	{partInfo{"signatureAlgorithm", "such as `SHA256-RSA`", KindText}, func(c *x509.Certificate, _ time.Time) value { return value{v: c.SignatureAlgorithm.String()} }},
	{partInfo{"keyAlgorithm", "`RSA`, `ECDSA` or `Ed25519`", KindText}, func(c *x509.Certificate, _ time.Time) value { return value{v: c.PublicKeyAlgorithm.String()} }},
	{partInfo{"keySize", "the bits of its public key", KindNumber}, func(c *x509.Certificate, _ time.Time) value {
		if bits := keySize(c); bits > 0 {
			return numberValue(int64(bits))
		}
		return missing("the size of such a key is not known")
	}},
	{partInfo{"selfSigned", "whether it was signed by whom it is for; true or false", KindJSON}, func(c *x509.Certificate, _ time.Time) value {
		return value{v: string(c.RawSubject) == string(c.RawIssuer)}
	}},
	{partInfo{"pem", "the certificate itself", KindText}, func(c *x509.Certificate, _ time.Time) value {
		return value{v: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))}
	}},
}

func certificateParts() []partInfo {
	list := make([]partInfo, len(certificateFields))
	for i, f := range certificateFields {
		list[i] = f.partInfo
	}
	return list
}

func readCertificate(_ context.Context, s *Subject, p string) value {
	if s.Certificate == nil {
		return missing("the connection had no TLS")
	}
	for _, f := range certificateFields {
		if f.name == p {
			return f.read(s.Certificate, s.Now)
		}
	}
	return missing("there is no such field")
}

// wholeDays rounds down, so that a certificate that ended an hour ago has -1 days.
func wholeDays(d time.Duration) int64 {
	const day = 24 * time.Hour
	n := int64(d / day)
	if d%day < 0 {
		n--
	}
	return n
}

// Fingerprint returns the SHA-256 of a certificate, small hexadecimal digits.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func alternativeNames(c *x509.Certificate) []any {
	list := []any{}
	for _, n := range c.DNSNames {
		list = append(list, strings.ToValidUTF8(n, "\ufffd"))
	}
	for _, a := range c.IPAddresses {
		list = append(list, a.String())
	}
	for _, m := range c.EmailAddresses {
		list = append(list, strings.ToValidUTF8(m, "\ufffd"))
	}
	for _, u := range c.URIs {
		list = append(list, u.String())
	}
	return list
}

func keySize(c *x509.Certificate) int {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen()
	case *ecdsa.PublicKey:
		return k.Curve.Params().BitSize
	case ed25519.PublicKey:
		return 8 * len(k)
	default:
		return 0
	}
}
