package executor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// The grants are written out here and not left to golang.org/x/oauth2: its errors carry the endpoint's answer, its
// token sources know neither an organization nor caps, and it takes no parameters with a password.

// grant is an access token of OAuth 2 (RFC 6749): by client credentials or by password.
type grant struct {
	endpoint *url.URL
	form     url.Values
	client   string // Basic of the client's id and secret; "" when they stand in form, or there are none

	held *token // that was put last
	anew bool   // a token was asked for again because of a 401
}

// token is an access token. It is not changed once made.
type token struct {
	value string
	until time.Time // when it is no longer used
}

func (e *authExpander) grant(a *testspec.Auth) credential {
	g := &grant{form: url.Values{}}
	g.endpoint = e.tokenEndpoint(a)
	set := func(name string, template *string, field string) {
		if v := e.text(template, field); template != nil && v != "" {
			g.form.Set(name, v)
		}
	}
	if a.Type == testspec.AuthClientCredentials {
		g.form.Set("grant_type", "client_credentials")
	} else {
		g.form.Set("grant_type", "password")
		g.form.Set("username", e.needed(a.Username, "username"))
		g.form.Set("password", e.text(a.Password, "password"))
	}
	set("scope", a.Scope, "scope")
	set("audience", a.Audience, "audience")
	id, secret := e.text(a.ClientID, "clientId"), e.text(a.ClientSecret, "clientSecret")
	switch {
	case id == "" && a.ClientID != nil:
		e.fail(badRequest("With its variables put in, the auth's clientId is empty."))
	case id == "":
	case secret != "" && !a.CredentialsInBody():
		// RFC 6749, 2.3.1: both are form-encoded first.
		g.client = "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
		e.runner.hide(strings.TrimPrefix(g.client, "Basic "))
	default:
		g.form.Set("client_id", id)
		if secret != "" {
			g.form.Set("client_secret", secret)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Params)) {
		for _, template := range a.Params[name] {
			v, err := e.runner.scope.Expand(template, limits.MaxCredential)
			if err != nil {
				e.fail(expandError("the auth's parameter "+name, err))
			}
			g.form.Add(name, v)
		}
	}
	if e.failed == nil && len(g.form.Encode()) > limits.MaxRequestBody {
		e.fail(badRequest("With its variables put in, the auth is too long."))
	}
	return g
}

func (e *authExpander) tokenEndpoint(a *testspec.Auth) *url.URL {
	raw := e.needed(a.TokenURL, "tokenUrl")
	if e.failed != nil {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || len(raw) > limits.MaxURL {
		e.fail(badRequest("With its variables put in, the auth's tokenUrl is not a URL."))
		return nil
	}
	u.Fragment, u.RawFragment, u.RawQuery = "", "", escapeQuery(u.RawQuery)
	if failed := e.runner.checkURL(u); failed != nil {
		e.fail(atEndpoint(failed))
	}
	return u
}

// atEndpoint says of a failure that it is the token endpoint's.
func atEndpoint(err *Error) *Error {
	err.Message = "At the token endpoint: " + err.Message
	return err
}

func (g *grant) put(ctx context.Context, x *exchanging, req *http.Request) *Error {
	t, err := x.runner.engine.tokens.get(ctx, g.key(x), x.runner.engine.cfg.Now, func(ctx context.Context) (*token, *Error) {
		return g.fetch(ctx, x)
	})
	if err != nil {
		return err
	}
	g.held = t
	x.runner.hide(t.value)
	x.setHeader(req, "Authorization", "Bearer "+t.value)
	return nil
}

// again asks once for another token when the target refuses the one it got: it may have been withdrawn.
func (g *grant) again(x *exchanging, _ *http.Request, resp *http.Response) bool {
	if resp.StatusCode != http.StatusUnauthorized || g.anew {
		return false
	}
	g.anew = true
	x.runner.engine.tokens.drop(g.key(x), g.held)
	return true
}

// key is everything that decides which token it is: whose it is, how the endpoint is reached, and what is sent to it.
func (g *grant) key(x *exchanging) tokenKey {
	return newTokenKey(x.runner.connectionKey(g.way(x)), g.endpoint.String(), g.client, g.form.Encode())
}

// way is how the token endpoint is reached: as the request says, its client certificate included, since both were named
// by the test. Only the name that TLS asks for is of the target alone.
func (g *grant) way(x *exchanging) *prepared {
	p := x.prepared
	if hostPort(g.endpoint) != hostPort(x.url) {
		p.wire.serverName = ""
	}
	return &p
}

// fetch asks the token endpoint, through the guard and under caps as all else.
func (g *grant) fetch(ctx context.Context, x *exchanging) (*token, *Error) {
	engine := x.runner.engine
	connections, failed := x.runner.connections(ctx, g.way(x), g.endpoint)
	if failed != nil {
		return nil, failed
	}
	body := g.form.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.endpoint.String(), strings.NewReader(body))
	if err != nil {
		return nil, badRequest("With its variables put in, the auth's tokenUrl is not a URL.")
	}
	req.Header = http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"},
		"Accept-Encoding": {acceptedEncodings}, "User-Agent": {engine.cfg.UserAgent},
	}
	if g.client != "" {
		req.Header.Set("Authorization", g.client)
	}
	trace := newTracer(engine.cfg.Now)
	resp, err := connections.RoundTrip(req.WithContext(trace.attach(ctx)))
	if err != nil {
		return nil, atEndpoint(trace.demanded(x.runner.failed(ctx, err, trace.phase()), err))
	}
	defer func() { _ = resp.Body.Close() }() // what matters was read
	got, err := readBody(resp, http.MethodPost, limits.MaxTokenAnswer)
	if err != nil {
		return nil, atEndpoint(classify(ctx, err, PhaseDownload))
	}
	return readToken(resp.StatusCode, got.body, engine.cfg.Now())
}

// tokenAnswer is what a token endpoint answers, RFC 6749, 5.
type tokenAnswer struct {
	AccessToken string          `json:"access_token"` //nolint:tagliatelle // RFC 6749 has it so
	TokenType   string          `json:"token_type"`   //nolint:tagliatelle // RFC 6749 has it so
	ExpiresIn   json.RawMessage `json:"expires_in"`   //nolint:tagliatelle // RFC 6749 has it so
	Error       string          `json:"error"`
}

// grantErrors are RFC 6749's words for why there is no token. Another word is the endpoint's, and is not passed on.
var grantErrors = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
}

// readToken reads an answer of status and body that came at now.
func readToken(status int, body []byte, now time.Time) (*token, *Error) {
	refuse := func(message string) (*token, *Error) {
		return nil, &Error{Code: CodeAuth, Phase: PhasePrepare, Message: message}
	}
	var answer tokenAnswer
	readable := json.Unmarshal(body, &answer) == nil
	switch {
	case readable && slices.Contains(grantErrors, answer.Error):
		return refuse("The token endpoint gives no token: " + answer.Error + ".")
	case status != http.StatusOK:
		return refuse("The token endpoint gives no token; it answers with status " + strconv.Itoa(status) + ".")
	case !readable:
		return refuse("The token endpoint's answer is not the JSON of a token.")
	case answer.AccessToken == "":
		return refuse("The token endpoint's answer holds no access_token.")
	case answer.TokenType != "" && !strings.EqualFold(answer.TokenType, "bearer"):
		return refuse("The token endpoint gives a token of another type than Bearer.")
	case len(answer.AccessToken) > limits.MaxCredential || !visible(answer.AccessToken):
		return refuse("The token endpoint gives a token that cannot stand in a header.")
	}
	life := tokenLife(answer.ExpiresIn)
	return &token{value: answer.AccessToken, until: now.Add(life - min(limits.TokenSkew, life/10))}, nil
}

// tokenLife reads expires_in: a number, or text with one as some endpoints have it.
func tokenLife(raw json.RawMessage) time.Duration {
	seconds, err := json.Number(strings.Trim(string(raw), `"`)).Float64()
	if err != nil || seconds < 0 {
		return limits.DefaultTokenLife
	}
	return time.Duration(min(seconds, limits.MaxTokenLife.Seconds()) * float64(time.Second))
}

// visible says whether s is made of visible ASCII alone.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
