package testspec

import (
	"encoding/json"
	"encoding/pem"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/limits"
)

// AuthType says how a request proves who asks.
type AuthType string

// The types of auth; authTypes says what each takes.
const (
	AuthNone              AuthType = "none"
	AuthBasic             AuthType = "basic"
	AuthBearer            AuthType = "bearer"
	AuthAPIKey            AuthType = "apiKey"
	AuthDigest            AuthType = "digest"
	AuthAWSSigV4          AuthType = "awsSigV4"
	AuthClientCredentials AuthType = "oauth2ClientCredentials" //nolint:gosec // the name of a type, no credential
	AuthPassword          AuthType = "oauth2Password"
	AuthJWT               AuthType = "jwt"
)

// Auth is how a request proves who asks: a type, and the fields that authTypes lists for it. All texts but Type, In,
// CredentialsIn and Algorithm are templates; nil is absent.
type Auth struct {
	Type AuthType `json:"type"`

	Username *string `json:"username,omitempty"`
	Password *string `json:"password,omitempty"`
	Token    *string `json:"token,omitempty"`

	// In is where the credential goes: header, query, and for an API key also cookie.
	In string `json:"in,omitempty"`
	// Name is that of the header, the query parameter or the cookie; Value an API key.
	Name  *string `json:"name,omitempty"`
	Value *string `json:"value,omitempty"`
	// Prefix stands before a JWT in a header; "Bearer" unless set, nothing when empty.
	Prefix *string `json:"prefix,omitempty"`

	AccessKeyID     *string `json:"accessKeyId,omitempty"`
	SecretAccessKey *string `json:"secretAccessKey,omitempty"`
	SessionToken    *string `json:"sessionToken,omitempty"`
	Region          *string `json:"region,omitempty"`
	Service         *string `json:"service,omitempty"`

	TokenURL     *string `json:"tokenUrl,omitempty"`
	ClientID     *string `json:"clientId,omitempty"`
	ClientSecret *string `json:"clientSecret,omitempty"`
	Scope        *string `json:"scope,omitempty"`
	Audience     *string `json:"audience,omitempty"`
	// Params are sent to the token endpoint besides.
	Params map[string]Values `json:"params,omitempty"`
	// CredentialsIn is where the client's id and secret go at the token endpoint: header (RFC 6749's preference, and
	// what is meant when nothing is said) or body.
	CredentialsIn string `json:"credentialsIn,omitempty"`

	Algorithm string `json:"algorithm,omitempty"`
	// Key is the secret of HS256 to HS512 as text, the private key in PEM of the others.
	Key   *string `json:"key,omitempty"`
	KeyID *string `json:"keyId,omitempty"`
	// Claims is a JSON object. Its iat, exp and nbf may be text relative to now: "now", "now+5m", "now-30s".
	Claims json.RawMessage `json:"claims,omitempty"`
	// Headers is a JSON object that is added to the JWT's header.
	Headers json.RawMessage `json:"headers,omitempty"`
	// ExpiresIn sets exp when the claims have none; 5 minutes unless set.
	ExpiresIn Duration `json:"expiresIn,omitzero"`
}

// AuthInfo describes a type of auth, for documents.
type AuthInfo struct {
	Type               AuthType
	Required, Optional []string // names of fields besides type
	Doc                string
	ins                []string // the values of in; the first is meant when nothing is said
}

// authTypes is the table of types; validation, documents and messages follow it.
var authTypes = []AuthInfo{
	{Type: AuthNone, Doc: "Nothing is added."},
	{Type: AuthBasic, Required: []string{"username", "password"}, Doc: "Basic (RFC 7617), in UTF-8."},
	{Type: AuthBearer, Required: []string{"token"}, Doc: "`Authorization: Bearer …` (RFC 6750)."},
	{
		Type: AuthAPIKey, Required: []string{"in", "name", "value"}, ins: []string{"header", "query", "cookie"},
		Doc: "A header, query parameter or cookie of your naming.",
	},
	{
		Type: AuthDigest, Required: []string{"username", "password"},
		Doc: "Digest (RFC 7616): MD5 and SHA-256, also -sess; qop auth and auth-int.",
	},
	{
		Type: AuthAWSSigV4, Required: []string{"accessKeyId", "secretAccessKey", "region", "service"}, Optional: []string{"sessionToken"},
		Doc: "AWS Signature Version 4, for S3 with its ways.",
	},
	{
		Type: AuthClientCredentials, Required: []string{"tokenUrl", "clientId", "clientSecret"},
		Optional: []string{"scope", "audience", "params", "credentialsIn"},
		Doc:      "OAuth 2 client credentials (RFC 6749, 4.4); the token is kept until it ends.",
	},
	{
		Type: AuthPassword, Required: []string{"tokenUrl", "username", "password"},
		Optional: []string{"clientId", "clientSecret", "scope", "audience", "params", "credentialsIn"},
		Doc:      "OAuth 2 password (RFC 6749, 4.3); the token is kept until it ends.",
	},
	{
		Type: AuthJWT, Required: []string{"algorithm", "key"},
		Optional: []string{"keyId", "claims", "headers", "expiresIn", "in", "name", "prefix"}, ins: []string{"header", "query"},
		Doc: "A JWT that is signed for each request.",
	},
}

// AuthTypes lists every type with its fields, for documents.
func AuthTypes() []AuthInfo { return authTypes }

// JWTAlgorithms lists the algorithms that a JWT can be signed with, for documents.
func JWTAlgorithms() []string {
	return []string{
		"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	}
}

// grantParams are what the grant itself sends to a token endpoint.
var grantParams = []string{"grant_type", "client_id", "client_secret", "scope", "audience", "username", "password"}

// Place returns where the credential goes: In, or what is meant when nothing is said.
func (a Auth) Place() string {
	if a.In == "" {
		return "header"
	}
	return a.In
}

// CredentialsInBody returns whether the client's id and secret go into the body at the token endpoint.
func (a Auth) CredentialsInBody() bool { return a.CredentialsIn == "body" }

// ParseNumericDate reads iat, exp and nbf as claims may write them: "now", "now+5m" or "now-30s". ok is false when s is
// written in another way.
func ParseNumericDate(s string, now time.Time) (at time.Time, ok bool) {
	rest, found := strings.CutPrefix(s, "now")
	if !found {
		return time.Time{}, false
	}
	if rest == "" {
		return now, true
	}
	if rest[0] != '+' && rest[0] != '-' {
		return time.Time{}, false
	}
	d, err := ParseDuration(rest[1:])
	if err != nil {
		return time.Time{}, false
	}
	if rest[0] == '-' {
		d = -d
	}
	return now.Add(time.Duration(d)), true
}

func (v *validator) auth(r Request, requestAt string) {
	a := r.Auth
	if a == nil {
		return
	}
	at := requestAt + "/auth"
	i := slices.IndexFunc(authTypes, func(t AuthInfo) bool { return t.Type == a.Type })
	if i < 0 {
		names := make([]string, len(authTypes))
		for i, t := range authTypes {
			names[i] = string(t.Type)
		}
		v.refuse(at+"/type", "This is one of %s.", strings.Join(names, ", "))
		return
	}
	info := authTypes[i]
	v.authFields(a, info, at)
	v.authChoices(a, info, at)
	switch a.Type {
	case AuthBasic:
		if a.Username != nil && strings.Contains(literals(*a.Username), ":") {
			v.refuse(at+"/username", "A user name of Basic holds no colon.")
		}
	case AuthClientCredentials, AuthPassword:
		v.grant(a, at)
	case AuthJWT:
		v.jwt(a, at)
	default: // has no more than its fields
	}
	if a.Type != AuthNone {
		v.authBeside(r, a, requestAt)
	}
}

// authFields refuses what is missing, what belongs to another type, and texts that are no templates.
func (v *validator) authFields(a *Auth, info AuthInfo, at string) {
	value := reflect.ValueOf(*a)
	for i := range value.NumField() {
		name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		if name == "type" {
			continue
		}
		field, here := value.Field(i), at+"/"+name
		required := slices.Contains(info.Required, name)
		switch {
		case field.IsZero() && required:
			v.refuse(here, "Auth of type %s needs this.", info.Type)
			continue
		case field.IsZero():
			continue
		case !required && !slices.Contains(info.Optional, name):
			v.refuse(here, "Auth of type %s does not have this; %s.", info.Type, info.takes())
			continue
		}
		text, ok := field.Interface().(*string)
		switch {
		case !ok:
		case len(*text) > limits.MaxCredential:
			v.refuse(here, "This has at most %d bytes.", limits.MaxCredential)
		case *text == "" && required && name != "password":
			v.refuse(here, "This is not empty.")
		default:
			v.template(*text, here)
		}
	}
}

// takes says in a message which fields a type has.
func (i AuthInfo) takes() string {
	all := slices.Concat(i.Required, i.Optional)
	if len(all) == 0 {
		return "it has no fields"
	}
	return "it has " + strings.Join(all, ", ")
}

// authChoices checks in, name and prefix.
func (v *validator) authChoices(a *Auth, info AuthInfo, at string) {
	if len(info.ins) == 0 {
		return
	}
	if !slices.Contains(info.ins, a.Place()) {
		v.refuse(at+"/in", "This is one of %s.", strings.Join(info.ins, ", "))
		return
	}
	if a.Place() != "header" && a.Prefix != nil {
		v.refuse(at+"/prefix", "Only a header has a prefix.")
	}
	if a.Name == nil {
		if a.Type == AuthJWT && a.Place() == "query" {
			v.refuse(at+"/name", "A JWT in the query needs the parameter's name.")
		}
		return
	}
	if len(References(*a.Name)) > 0 {
		return // seen when its value is there
	}
	if why := RefusedCredentialName(a.Place(), *a.Name); why != "" {
		v.refuse(at+"/name", "%s", why)
	}
}

// RefusedCredentialName says why a header, query parameter or cookie (place) of this name cannot carry a credential, ""
// when it can.
func RefusedCredentialName(place, name string) string {
	switch place {
	case "header":
		return refusedHeader(name)
	case "cookie":
		if !IsToken(name) {
			return "This is not the name of a cookie."
		}
	default:
		if name == "" {
			return "A name is not empty."
		}
	}
	return ""
}

// grant checks what a token endpoint is asked with.
func (v *validator) grant(a *Auth, at string) {
	if a.TokenURL != nil && *a.TokenURL != "" && v.wellFormed(*a.TokenURL) {
		v.url(*a.TokenURL, at+"/tokenUrl")
	}
	if a.CredentialsIn != "" && a.CredentialsIn != "header" && a.CredentialsIn != "body" {
		v.refuse(at+"/credentialsIn", "This is one of header, body.")
	}
	if a.ClientID == nil && (a.ClientSecret != nil || a.CredentialsIn != "") {
		v.refuse(at+"/clientId", "A client's secret needs its id.")
	}
	v.pairs(a.Params, at+"/params", limits.MaxQueryValues, "parameters")
	for _, name := range sorted(a.Params) {
		if slices.Contains(grantParams, name) {
			v.refuse(at+"/params/"+escapePointer(name), "This parameter comes from the other fields.")
		}
	}
}

// wellFormed says whether template has been found fit by authFields, so that url doesn't name its faults again.
func (v *validator) wellFormed(template string) bool {
	quiet := &validator{known: v.known, anyName: v.anyName}
	return quiet.template(template, "")
}

func (v *validator) jwt(a *Auth, at string) {
	known := slices.Contains(JWTAlgorithms(), a.Algorithm)
	if !known && a.Algorithm != "" {
		v.refuse(at+"/algorithm", "This is one of %s.", strings.Join(JWTAlgorithms(), ", "))
	}
	if known && a.Key != nil && len(References(*a.Key)) == 0 && *a.Key != "" && !strings.HasPrefix(a.Algorithm, "HS") {
		if block, _ := pem.Decode([]byte(*a.Key)); block == nil {
			v.refuse(at+"/key", "%s needs a private key in PEM.", a.Algorithm)
		}
	}
	if time.Duration(a.ExpiresIn) > limits.MaxTokenLife {
		v.refuse(at+"/expiresIn", "A token lives at most %s.", Duration(limits.MaxTokenLife))
	}
	v.jwtObject(a.Headers, at+"/headers", func(name string, _ *node) string {
		switch {
		case name == "alg":
			return "This header comes from algorithm."
		case name == "kid" && a.KeyID != nil:
			return "This header comes from keyId."
		}
		return ""
	})
	v.jwtObject(a.Claims, at+"/claims", func(name string, n *node) string {
		if name != "iat" && name != "exp" && name != "nbf" || n.kind == 'n' || n.kind == '0' {
			return ""
		}
		if n.kind == 's' {
			if _, ok := ParseNumericDate(n.text, time.Time{}); ok || len(References(n.text)) > 0 {
				return ""
			}
		}
		return `This is a number of seconds since 1970, null, or text such as "now", "now+5m" and "now-30s".`
	})
	if a.ExpiresIn > 0 && a.Claims != nil {
		if tree, _, err := readTree(a.Claims, limits.MaxClaims); err == nil && slices.Contains(tree.keys, "exp") {
			v.refuse(at+"/expiresIn", "The claims have an exp already.")
		}
	}
}

// jwtObject checks a JSON object of templates, and each of its members with check.
func (v *validator) jwtObject(raw json.RawMessage, at string, check func(name string, n *node) string) {
	if raw == nil {
		return
	}
	if len(raw) > limits.MaxClaims {
		v.refuse(at, "This has at most %d bytes.", limits.MaxClaims)
		return
	}
	tree, _, err := readTree(raw, limits.MaxClaims)
	if err != nil || tree.kind != '{' {
		v.refuse(at, "An object belongs here.")
		return
	}
	v.jsonTemplate(raw, at)
	for i, name := range tree.keys {
		if why := check(name, tree.kids[i]); why != "" {
			v.refuse(at+"/"+escapePointer(name), "%s", why)
		}
	}
}

// authBeside refuses what would stand beside the credential in the same place.
func (v *validator) authBeside(r Request, a *Auth, at string) {
	for _, name := range sorted(r.Headers) {
		mine := a.Place() == "header" && a.Name != nil && strings.EqualFold(name, *a.Name)
		if mine || strings.EqualFold(name, "Authorization") {
			v.refuse(at+"/headers/"+escapePointer(name), "The request has auth of type %s already; take one of the two away.", a.Type)
		}
	}
	if a.Place() == "query" && a.Name != nil && r.Query[*a.Name] != nil {
		v.refuse(at+"/query/"+escapePointer(*a.Name), "The request has auth of type %s already; take one of the two away.", a.Type)
	}
}

// literals returns the text of a template without its references.
func literals(template string) string {
	parts, err := parseTemplate(template)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.lit)
	}
	return b.String()
}
