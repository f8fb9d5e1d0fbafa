package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	signer "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/testflow/testflow/internal/testspec"
)

// sigV4 signs requests with AWS Signature Version 4, through AWS's own signer.
type sigV4 struct {
	once
	credentials     aws.Credentials
	region, service string
}

// payloadHeader tells S3 the hash of the body; a request may set it to UNSIGNED-PAYLOAD.
const payloadHeader = "X-Amz-Content-Sha256"

func (e *authExpander) sigV4(a *testspec.Auth) credential {
	s := &sigV4{
		credentials: aws.Credentials{
			AccessKeyID: e.line(a.AccessKeyID, "accessKeyId"), SecretAccessKey: e.needed(a.SecretAccessKey, "secretAccessKey"),
		},
		region: e.line(a.Region, "region"), service: e.line(a.Service, "service"),
	}
	if token := e.text(a.SessionToken, "sessionToken"); token != "" {
		s.credentials.SessionToken = e.line(a.SessionToken, "sessionToken")
		e.runner.hide(s.credentials.SessionToken)
	}
	return s
}

// ofS3 says whether the service has S3's ways: paths are encoded once and stay as they are, and the hash of the body
// stands in a header.
func (s *sigV4) ofS3() bool {
	return s.service == "s3" || strings.HasPrefix(s.service, "s3-") || s.service == "s3express"
}

func (s *sigV4) put(ctx context.Context, x *exchanging, req *http.Request) *Error {
	payload := req.Header.Get(payloadHeader)
	if payload == "" {
		sum := sha256.Sum256(x.body)
		payload = hex.EncodeToString(sum[:])
		if s.ofS3() {
			req.Header.Set(payloadHeader, payload)
		}
	}
	signed := req.Clone(ctx)
	// HTTP/2 cuts the one into pieces, and load balancers rewrite the other.
	signed.Header.Del("Cookie")
	signed.Header.Del("Accept-Encoding")
	canonicalPath(signed.URL, s.ofS3())
	credentials := s.credentials
	session := "X-Amz-Security-Token"
	if s.service == "s3express" {
		session = "X-Amz-S3session-Token"
		if credentials.SessionToken != "" {
			signed.Header.Set(session, credentials.SessionToken)
		}
		credentials.SessionToken = ""
	}
	err := signer.NewSigner().SignHTTP(ctx, credentials, signed, payload, s.service, s.region, x.runner.engine.cfg.Now(),
		func(o *signer.SignerOptions) { o.DisableURIPathEscaping = s.ofS3() })
	if err != nil {
		return &Error{Code: CodeInternal, Phase: PhasePrepare, Message: "The request could not be signed."}
	}
	// What was signed is what is sent, but for the path: there the server makes the same of what the test wrote.
	req.URL.RawQuery, req.Host = signed.URL.RawQuery, signed.Host
	req.Header.Set("X-Amz-Date", signed.Header.Get("X-Amz-Date"))
	if s.credentials.SessionToken != "" {
		x.setHeader(req, session, s.credentials.SessionToken)
	}
	line := signed.Header.Get("Authorization")
	x.setHeader(req, "Authorization", line)
	if _, signature, ok := strings.Cut(line, "Signature="); ok {
		x.runner.hide(signature)
	}
	return nil
}

// canonicalPath makes of u's path what is signed. S3 decodes a path and encodes it strictly, slash by slash; the other
// services take dot segments and double slashes out, and the signer encodes what is left once more.
func canonicalPath(u *url.URL, s3 bool) {
	if s3 {
		// As a RawPath, so that EscapedPath gives it back; it is one that decodes to Path.
		u.RawPath = strictPath(u.Path)
		return
	}
	escaped := u.EscapedPath()
	clean := path.Clean(escaped)
	if strings.HasSuffix(escaped, "/") && clean != "/" {
		clean += "/"
	}
	if clean == escaped {
		return
	}
	if plain, err := url.PathUnescape(clean); err == nil {
		u.Path, u.RawPath = plain, clean
	}
}

// strictPath percent-encodes all but RFC 3986's unreserved characters and the slash.
func strictPath(p string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(p) {
		c := p[i]
		if c == '/' || c == '-' || c == '.' || c == '_' || c == '~' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}
