package targettest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// The keys that AWS's documents use in their examples.
const (
	AWSAccessKeyID     = "AKIAIOSFODNN7EXAMPLE"
	AWSSecretAccessKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	AWSSessionToken    = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQW"
)

// aws checks a signature, below /aws/{service}/. It recomputes it from "Create a signed AWS API request" of the IAM
// User Guide and "Authenticating Requests (AWS Signature Version 4)" of the S3 API Reference.
func aws(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	service := strings.Split(strings.TrimPrefix(r.URL.Path, "/aws/"), "/")[0]
	sum := sha256.Sum256(body)
	payload := hex.EncodeToString(sum[:])
	if given := r.Header.Get("X-Amz-Content-Sha256"); given != "" || service == "s3" {
		if given != payload && given != "UNSIGNED-PAYLOAD" {
			reply(w, http.StatusBadRequest, map[string]any{"code": "XAmzContentSHA256Mismatch"})
			return
		}
		payload = given
	}
	given := r.Header.Get("Authorization")
	want, signed, err := Signature(r, AWSSecretAccessKey, payload)
	switch {
	case err != nil:
		reply(w, http.StatusForbidden, map[string]any{"code": "IncompleteSignature", "why": err.Error()})
	case !strings.HasPrefix(given, "AWS4-HMAC-SHA256 Credential="+AWSAccessKeyID+"/") || !strings.HasSuffix(given, "Signature="+want):
		reply(w, http.StatusForbidden, map[string]any{"code": "SignatureDoesNotMatch"})
	default:
		reply(w, http.StatusOK, map[string]any{
			"service": service, "signed": signed, "session": r.Header.Get("X-Amz-Security-Token") == AWSSessionToken,
			"payload": payload, "uri": r.RequestURI,
		})
	}
}

// Signature computes the signature that r's Authorization should have, and the names of the headers that it covers.
func Signature(r *http.Request, secret, payload string) (signature string, signed []string, err error) {
	fields := map[string]string{}
	for _, f := range strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return "", nil, fmt.Errorf("the credential is %q", fields["Credential"])
	}
	date, region, service := scope[1], scope[2], scope[3]
	at := r.Header.Get("X-Amz-Date")
	if !strings.HasPrefix(at, date) {
		return "", nil, fmt.Errorf("signed at %q for %q", at, date)
	}
	signed = strings.Split(fields["SignedHeaders"], ";")
	if !slices.IsSorted(signed) || !slices.Contains(signed, "host") || !slices.Contains(signed, "x-amz-date") {
		return "", nil, fmt.Errorf("the signed headers are %v", signed)
	}
	var headers strings.Builder
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		headers.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	rawPath, rawQuery, _ := strings.Cut(r.RequestURI, "?")
	if strings.HasPrefix(rawPath, "http") {
		u, err := url.Parse(rawPath)
		if err != nil {
			return "", nil, fmt.Errorf("read %q: %w", rawPath, err)
		}
		rawPath = u.EscapedPath()
	}
	canonical := strings.Join([]string{
		r.Method, canonicalURI(rawPath, service == "s3"), canonicalQuery(rawQuery), headers.String(), strings.Join(signed, ";"), payload,
	}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", at, strings.Join(scope[1:], "/"), hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{date, region, service, "aws4_request", toSign} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	return hex.EncodeToString(key), signed, nil
}

// canonicalURI: S3 encodes each byte of the decoded path once; others normalize what came and encode that again.
func canonicalURI(raw string, s3 bool) string {
	if s3 {
		plain, err := url.PathUnescape(raw)
		if err != nil {
			return raw
		}
		return uriEncode(plain, true)
	}
	clean := path.Clean(raw)
	if strings.HasSuffix(raw, "/") && clean != "/" {
		clean += "/"
	}
	return uriEncode(clean, true)
}

func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var pairs []string
	for _, pair := range strings.Split(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		// A plus is a plus here: AWS does not read it as a space.
		n, _ := url.PathUnescape(name)
		v, _ := url.PathUnescape(value)
		pairs = append(pairs, uriEncode(n, false)+"="+uriEncode(v, false))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// uriEncode is UriEncode() of the S3 API Reference.
func uriEncode(s string, slashes bool) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", c) >= 0 || slashes && c == '/' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
