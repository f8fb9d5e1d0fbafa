package targettest

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/icholy/digest"
)

// User and Password are who may come in by Basic and Digest, ClientID and ClientSecret by OAuth 2. They hold what breaks
// careless encoding.
const (
	User         = "ada"
	UnicodeUser  = "Ådä"
	Password     = `p:ss "wörd" \`
	ClientID     = "checks & more"
	ClientSecret = "s3cret:+%/ü"
)

// authState is what the doors with credentials remember.
type authState struct {
	mu sync.Mutex
	// nonces are those that were given out, with the count of their last use.
	nonces map[string]int
	made   int
	// challenged counts the 401s of Digest by mark, a query parameter.
	challenged map[string]int
	// asked counts the requests to the token endpoint by realm, valid holds the tokens that are good.
	asked map[string]int
	valid map[string]string
}

func newAuthState() *authState {
	return &authState{nonces: map[string]int{}, challenged: map[string]int{}, asked: map[string]int{}, valid: map[string]string{}}
}

// SlowToken is how long the token endpoint thinks with answer=slow: long enough for others to come.
const SlowToken = 200 * time.Millisecond

// auth are the routes that look at who comes.
func (s *Server) auth(mux *http.ServeMux) {
	mux.HandleFunc("/auth/basic", basic)
	mux.HandleFunc("/auth/digest", s.authState.digest)
	mux.HandleFunc("/oauth/token", s.authState.token)
	mux.HandleFunc("/oauth/resource", s.authState.resource)
	mux.HandleFunc("/oauth/revoke", s.authState.revoke)
	mux.HandleFunc("/aws/", aws)
	mux.HandleFunc("/multipart", parts)
	mux.HandleFunc("/graphql", graphQL)
	mux.HandleFunc("/bytes", bytesRoute)
	// A redirect that carries the query on, as those that add a slash do.
	mux.HandleFunc("/carry", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		to := q.Get("to")
		q.Del("to")
		q.Set("a", "1")
		w.Header().Set("Location", to+"?"+q.Encode())
		w.WriteHeader(http.StatusFound)
	})
}

// TokenRequests is how often the token endpoint of this realm (its query parameter) was asked.
func (s *Server) TokenRequests(realm string) int {
	s.authState.mu.Lock()
	defer s.authState.mu.Unlock()
	return s.authState.asked[realm]
}

// reply writes v as JSON.
func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func basic(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	if !ok || user != UnicodeUser || password != Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="test", charset="UTF-8"`)
		reply(w, http.StatusUnauthorized, map[string]any{"user": nil})
		return
	}
	reply(w, http.StatusOK, map[string]any{"user": "in"})
}

// digest is a door with Digest. Its query says how: algorithm, qop, userhash, opaque, uses (of a nonce until it is
// stale), next (a nextnonce with each answer), user, and decoy (a Basic challenge in the same line before it). What a
// client answers is recomputed by a library that the client does not use.
func (s *authState) digest(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	user := User
	if q.Get("user") != "" {
		user = q.Get("user")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	given := r.Header.Get("Authorization")
	why := "nothing given"
	stale := false
	if given != "" {
		why, stale = s.checkDigest(r, q, given, user, body)
	}
	s.mu.Lock()
	if why != "" {
		s.challenged[q.Get("mark")]++
	}
	challenged := s.challenged[q.Get("mark")]
	s.mu.Unlock()
	if why == "" {
		if q.Get("next") != "" {
			w.Header().Set("Authentication-Info", `qop=auth, nextnonce="`+s.nonce()+`"`)
		}
		reply(w, http.StatusOK, map[string]any{"in": true, "body": string(body), "method": r.Method, "challenged": challenged})
		return
	}
	line := `Digest realm="te\"st", nonce="` + s.nonce() + `"`
	if q.Get("decoy") != "" {
		line = `Negotiate, Basic realm="a, b", Digest realm="x", nonce="n", algorithm=SHA-512-256, ` + line
	}
	if a := q.Get("algorithm"); a != "" {
		line += ", algorithm=" + a
	}
	if qop := q.Get("qop"); qop != "" {
		line += `, qop="` + qop + `"`
	}
	if q.Get("userhash") != "" {
		line += ", userhash=true"
	}
	if o := q.Get("opaque"); o != "" {
		line += `, opaque="` + o + `"`
	}
	if stale {
		line += ", stale=true"
	}
	w.Header().Add("WWW-Authenticate", line)
	reply(w, http.StatusUnauthorized, map[string]any{"in": false, "why": why})
}

func (s *authState) nonce() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	n := fmt.Sprintf("nonce-%d", s.made)
	s.nonces[n] = 0
	return n
}

// extended finds a name beyond ASCII, which the library does not read.
var extended = regexp.MustCompile(`username\*=UTF-8''([^ ,]+)`)

// checkDigest says what is wrong with an answer, "" when nothing is, and whether its nonce was only too old.
func (s *authState) checkDigest(r *http.Request, q url.Values, given, user string, body []byte) (why string, stale bool) {
	if m := extended.FindStringSubmatch(given); m != nil {
		name, err := url.PathUnescape(m[1])
		if err != nil {
			return err.Error(), false
		}
		given = strings.Replace(given, m[0], `username="`+name+`"`, 1)
	}
	c, err := digest.ParseCredentials(given)
	if err != nil {
		return err.Error(), false
	}
	algorithm, session := strings.CutSuffix(q.Get("algorithm"), "-sess")
	newHash := map[string]func() hash.Hash{"": md5.New, "MD5": md5.New, "SHA-256": sha256.New}[algorithm]
	sum := func(text string) string {
		h := newHash()
		h.Write([]byte(text))
		return hex.EncodeToString(h.Sum(nil))
	}
	wantName := user
	if q.Get("userhash") != "" {
		wantName = sum(user + `:te"st`)
	}
	if c.Username != wantName || c.Realm != `te"st` || c.Algorithm != q.Get("algorithm") || c.Opaque != q.Get("opaque") || c.URI != r.RequestURI {
		return "a field is wrong: " + given, false
	}
	challenge := &digest.Challenge{Realm: c.Realm, Nonce: c.Nonce, Algorithm: algorithm, Opaque: c.Opaque}
	options := digest.Options{
		Method: r.Method, URI: r.RequestURI, Username: user, Password: Password, Count: c.Nc, Cnonce: c.Cnonce,
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(body))), nil },
	}
	if q.Get("qop") != "" {
		if !strings.Contains(q.Get("qop"), c.QOP) || c.QOP == "" {
			return "qop " + c.QOP, false
		}
		challenge.QOP = []string{c.QOP}
	}
	if session {
		options.A1 = sum(sum(user+`:te"st:`+Password) + ":" + c.Nonce + ":" + c.Cnonce)
	}
	want, err := digest.Digest(challenge, options)
	if err != nil {
		return err.Error(), false
	}
	if want.Response != c.Response {
		return "the response is wrong", false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.nonces[c.Nonce]
	uses, _ := strconv.Atoi(q.Get("uses"))
	switch {
	case !known:
		return "that nonce was not given", true
	case q.Get("qop") != "" && c.Nc != last+1:
		return fmt.Sprintf("nc is %d, not %d", c.Nc, last+1), false
	case q.Get("uses") != "" && last >= uses:
		return "the nonce is stale", true
	}
	s.nonces[c.Nonce]++
	return "", false
}

// token is a token endpoint. Its query says how: realm (whose tokens), in (header or body: where the client's
// credentials must stand), life (expires_in), and answer (something else than a token).
func (s *authState) token(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	realm := q.Get("realm")
	s.mu.Lock()
	s.asked[realm]++
	n := s.asked[realm]
	s.mu.Unlock()
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		reply(w, http.StatusBadRequest, map[string]any{"error": "invalid_request"})
		return
	}
	switch q.Get("answer") {
	case "":
	case "html":
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<h1>TFTARGET</h1>")
		return
	case "empty":
		reply(w, http.StatusOK, map[string]any{})
		return
	case "mac":
		reply(w, http.StatusOK, map[string]any{"access_token": "x", "token_type": "mac"})
		return
	case "injection":
		reply(w, http.StatusOK, map[string]any{"access_token": "x\r\nX-Injected: 1", "token_type": "bearer"})
		return
	case "bomb":
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(Encode("gzip", make([]byte, 20<<20)))
		return
	case "redirect":
		http.Redirect(w, r, "/oauth/token", http.StatusTemporaryRedirect)
		return
	case "strange":
		reply(w, http.StatusBadRequest, map[string]any{"error": "TFTARGET"})
		return
	case "hang":
		<-r.Context().Done()
		return
	case "slow":
		wait(r, SlowToken)
	}
	id, secret, inHeader := r.BasicAuth()
	if inHeader {
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	if id != ClientID || secret != ClientSecret || inHeader != (q.Get("in") != "body") {
		reply(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": "TFTARGET " + secret})
		return
	}
	if r.PostForm.Get("grant_type") == "password" && (r.PostForm.Get("username") != User || r.PostForm.Get("password") != Password) {
		reply(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	value := fmt.Sprintf("token-%s-%d", realm, n)
	s.mu.Lock()
	s.valid[value] = r.PostForm.Get("grant_type") + " " + r.PostForm.Get("scope") + " " + r.PostForm.Get("audience") + " " + strings.Join(r.PostForm["extra"], ",")
	s.mu.Unlock()
	answer := map[string]any{"access_token": value, "token_type": "bearer"}
	if life, err := strconv.Atoi(q.Get("life")); err == nil {
		answer["expires_in"] = life
	}
	reply(w, http.StatusOK, answer)
}

// resource takes the tokens that are good and says how one was asked for.
func (s *authState) resource(w http.ResponseWriter, r *http.Request) {
	value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	how, ok := s.valid[value]
	s.mu.Unlock()
	if !ok {
		reply(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	reply(w, http.StatusOK, map[string]any{"how": how, "token": value})
}

// revoke makes all tokens of a realm bad.
func (s *authState) revoke(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for value := range s.valid {
		if strings.HasPrefix(value, "token-"+r.URL.Query().Get("realm")+"-") {
			delete(s.valid, value)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// parts tells what a multipart body holds.
func parts(w http.ResponseWriter, r *http.Request) {
	reader, err := r.MultipartReader()
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"error": err.Error()})
		return
	}
	list := []map[string]any{}
	for {
		part, err := reader.NextPart()
		if err != nil {
			break
		}
		data, err := io.ReadAll(part)
		if err != nil {
			reply(w, http.StatusBadRequest, map[string]any{"error": err.Error()})
			return
		}
		sum := sha256.Sum256(data)
		// As it was sent: FileName would leave folders out.
		_, params, _ := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		list = append(list, map[string]any{
			"name": params["name"], "file": params["filename"], "type": part.Header.Get("Content-Type"), "size": len(data),
			"sha256": hex.EncodeToString(sum[:]), "text": strings.ToValidUTF8(string(data), "?"),
		})
	}
	reply(w, http.StatusOK, map[string]any{"parts": list})
}

// graphQL tells the operation that was sent, as GraphQL over HTTP has it.
func graphQL(w http.ResponseWriter, r *http.Request) {
	var operation struct {
		Query         string          `json:"query"`
		Variables     json.RawMessage `json:"variables"`
		OperationName string          `json:"operationName"`
	}
	switch r.Method {
	case http.MethodPost:
		if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" || json.NewDecoder(r.Body).Decode(&operation) != nil {
			reply(w, http.StatusBadRequest, map[string]any{"errors": []any{map[string]any{"message": "not an operation"}}})
			return
		}
	default:
		q := r.URL.Query()
		operation.Query, operation.OperationName = q.Get("query"), q.Get("operationName")
		if v := q.Get("variables"); v != "" {
			operation.Variables = json.RawMessage(v)
		}
	}
	w.Header().Set("Content-Type", "application/graphql-response+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{
		"method": r.Method, "query": operation.Query, "variables": operation.Variables, "operationName": operation.OperationName,
		"accept": r.Header.Get("Accept"),
	}})
}

// bytesRoute tells the hash of the body.
func bytesRoute(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	sum := sha256.Sum256(data)
	reply(w, http.StatusOK, map[string]any{"sha256": hex.EncodeToString(sum[:]), "size": len(data), "type": r.Header.Get("Content-Type")})
}
