package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// Server are the flags of every command that talks to a server.
type Server struct {
	URL          string `help:"Server to talk to." env:"TESTFLOW_URL" default:"http://127.0.0.1:3000" placeholder:"URL"`
	APIKey       string `help:"API key to sign in with; better set TESTFLOW_API_KEY." name:"api-key" env:"TESTFLOW_API_KEY" hidden:""`
	Token        string `help:"Access token to sign in with." env:"TESTFLOW_TOKEN" placeholder:"TOKEN"`
	Email        string `help:"E-mail address to sign in with; the password is taken from TESTFLOW_PASSWORD." env:"TESTFLOW_EMAIL" placeholder:"ADDRESS"`
	Password     string `help:"Password for --email; better set TESTFLOW_PASSWORD." env:"TESTFLOW_PASSWORD" hidden:""`
	Organization string `help:"Organization to work in, by id, if you have several." name:"organization" env:"TESTFLOW_ORGANIZATION_ID" placeholder:"ID"`
}

const (
	// callTimeout is how long one request to the API may take.
	callTimeout = 30 * time.Second
	// answerLimit bounds what is read of an answer.
	answerLimit = 32 << 20
)

// session is a signed-in connection to a server's API.
type session struct {
	flags   Server
	http    *http.Client
	access  string // access token
	refresh string // of a sign-in with e-mail and password; empty otherwise
}

// problem is what the API answers when something is wrong (RFC 9457).
type problem struct {
	Status    int    `json:"status"`
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	RequestID string `json:"requestId"`
	Errors    []struct {
		Pointer   string `json:"pointer"`
		Parameter string `json:"parameter"`
		Detail    string `json:"detail"`
	} `json:"errors"`
}

// Error says what went wrong and how the server's operator finds it in the log.
func (p *problem) Error() string {
	var b strings.Builder
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if text == "" {
		text = http.StatusText(p.Status)
	}
	b.WriteString(clean(text))
	for _, e := range p.Errors {
		at := e.Pointer
		if at == "" {
			at = e.Parameter
		}
		fmt.Fprintf(&b, "\n  %s: %s", clean(at), clean(e.Detail))
	}
	if p.Code != "" {
		fmt.Fprintf(&b, " (%s", clean(p.Code))
		if p.RequestID != "" {
			fmt.Fprintf(&b, ", request %s", clean(p.RequestID))
		}
		b.WriteString(")")
	}
	return b.String()
}

// signIn checks the flags and signs in, if that takes a request.
func (s Server) signIn(ctx context.Context, env Env) (*session, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, usage("--url %q is no address; it looks like http://127.0.0.1:3000 (TESTFLOW_URL)", s.URL)
	}
	s.URL = strings.TrimRight(s.URL, "/")
	c := &session{flags: s, http: env.HTTP}
	if c.http == nil {
		c.http = &http.Client{Timeout: callTimeout}
	}
	if err := s.fromFiles(env); err != nil {
		return nil, err
	}
	c.flags = s
	switch {
	case s.APIKey != "":
		c.access = s.APIKey // as good as an access token wherever one goes
	case s.Token != "":
		c.access = s.Token
	case s.Email != "" && s.Password != "":
		return c, c.login(ctx)
	case s.Email != "":
		return nil, usage("set TESTFLOW_PASSWORD for %s", s.Email)
	default:
		return nil, usage("sign in with --email (TESTFLOW_EMAIL) and TESTFLOW_PASSWORD, or with an API key (TESTFLOW_API_KEY), or with an access token: --token (TESTFLOW_TOKEN)")
	}
	return c, nil
}

// fromFiles reads the secrets that are not set from the files that …_FILE variables name.
func (s *Server) fromFiles(env Env) error {
	if env.Getenv == nil || s.APIKey != "" || s.Token != "" || (s.Email != "" && s.Password != "") {
		return nil
	}
	for name, to := range map[string]*string{"TESTFLOW_API_KEY": &s.APIKey, "TESTFLOW_TOKEN": &s.Token, "TESTFLOW_PASSWORD": &s.Password} {
		path := env.Getenv(name + "_FILE")
		if path == "" {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return usage("%s_FILE cannot be read: %w", name, err)
		}
		*to = strings.TrimRight(string(content), "\r\n")
	}
	return nil
}

type tokens struct {
	AccessToken  string `json:"accessToken"`
	RefreshToken string `json:"refreshToken"`
}

func (c *session) login(ctx context.Context) error {
	var t tokens
	if err := c.call(ctx, http.MethodPost, "/api/auth/login", map[string]string{"email": c.flags.Email, "password": c.flags.Password}, &t); err != nil {
		if p, ok := errors.AsType[*problem](err); ok && p.Status == http.StatusUnauthorized {
			return couldNot("%s refuses %s with this password", c.flags.URL, c.flags.Email)
		}
		return err
	}
	c.access, c.refresh = t.AccessToken, t.RefreshToken
	return nil
}

// renew gets a new access token, by the refresh token or the password. ok is false when there is neither: the token
// was given from outside.
func (c *session) renew(ctx context.Context) (ok bool, err error) {
	if c.refresh == "" {
		return false, nil
	}
	var t tokens
	err = c.call(ctx, http.MethodPost, "/api/auth/refresh", map[string]string{"refreshToken": c.refresh}, &t)
	if p, isProblem := errors.AsType[*problem](err); isProblem && p.Status == http.StatusUnauthorized {
		return true, c.login(ctx)
	}
	if err != nil {
		return true, err
	}
	c.access, c.refresh = t.AccessToken, t.RefreshToken
	return true, nil
}

// signOut ends a sign-in that this command made.
func (c *session) signOut(ctx context.Context) error {
	if c.refresh == "" {
		return nil
	}
	return c.call(ctx, http.MethodPost, "/api/auth/logout", nil, nil)
}

// call sends a request and decodes the answer into out, if that isn't nil. A refusal of the server is a *problem.
func (c *session) call(ctx context.Context, method, path string, body, out any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.flags.URL+path, payload)
	if err != nil {
		return fmt.Errorf("prepare the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.access != "" {
		req.Header.Set("Authorization", "Bearer "+c.access)
	}
	if c.flags.Organization != "" {
		req.Header.Set("X-Organization-Id", c.flags.Organization)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }() // what was read was read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return couldNot("%s broke off its answer: %w", c.flags.URL, err)
	}
	if resp.StatusCode >= 400 {
		p := &problem{Status: resp.StatusCode}
		if json.Unmarshal(answer, p) != nil || p.Code == "" {
			return couldNot("%s answered %s to %s %s; is that a TestFlow server?", c.flags.URL, resp.Status, method, path)
		}
		p.Status = resp.StatusCode
		return &Exit{Code: ExitCouldNot, Err: p}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return couldNot("%s answered something unexpected to %s %s; is that a TestFlow server?", c.flags.URL, method, path)
	}
	return nil
}

// unreachable turns a network error into what to do about it.
func (c *session) unreachable(err error) error {
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return couldNot("nothing listens at %s; start TestFlow there (testflow up), or name another server with --url (TESTFLOW_URL)", c.flags.URL)
	case errors.As(err, &dns):
		return couldNot("there is no host %s; name another server with --url (TESTFLOW_URL)", dns.Name)
	case errors.Is(err, context.DeadlineExceeded):
		return couldNot("%s doesn't answer", c.flags.URL)
	}
	return couldNot("cannot reach %s: %w", c.flags.URL, err)
}
