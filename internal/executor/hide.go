package executor

import (
	"net/url"
	"strings"
	"unicode"

	"github.com/testflow/testflow/internal/testspec"
)

// credentialWords are the words of a name that say that its value proves who asks: of a query parameter, a field of a
// body, a cookie or a capture. "key" alone is too common a word; it counts beside another one.
var credentialWords = map[string]bool{
	"token": true, "jwt": true, "secret": true, "password": true, "passwd": true, "passphrase": true, "pwd": true, "credential": true,
	"credentials": true, "authorization": true, "auth": true, "bearer": true, "session": true, "sessionid": true, "sid": true, "apikey": true,
	"cookie": true, "csrf": true, "xsrf": true, "otp": true, "signature": true, "sig": true, "accesstoken": true, "refreshtoken": true, "idtoken": true,
}

// namesCredential says whether a name such as accessToken, api_key or X-Amz-Signature is one of a credential.
func namesCredential(name string) bool {
	words := wordsOf(name)
	for i, w := range words {
		if credentialWords[w] || w == "key" && i > 0 && (words[i-1] == "api" || words[i-1] == "access" || words[i-1] == "private") {
			return true
		}
	}
	return false
}

// wordsOf splits a name at what is no letter and before each capital that follows a small letter, in lower case.
func wordsOf(name string) []string {
	var b strings.Builder
	small := false
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r):
			r = ' '
		case unicode.IsUpper(r) && small:
			b.WriteByte(' ')
		}
		small = unicode.IsLower(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.Fields(b.String())
}

// hidesCapture says whether what c keeps is for the next steps alone, because it says so, because its name or where it comes from says that
// it is a credential, or because raw, its value in JSON, looks like a signed token.
func hidesCapture(c testspec.Capture, raw []byte) bool {
	if c.Secret || namesCredential(c.Name) || namesCredential(c.Property) {
		return true
	}
	text := strings.Trim(string(raw), `"`)
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") >= 2
}

// showURL writes u for people: the values of query parameters that hold credentials are hidden.
func showURL(u *url.URL) string { return showURLWithout(u, nil) }

// showURLWithout is showURL, which also hides the parameters of these names.
func showURLWithout(u *url.URL, names map[string]string) string {
	if u.RawQuery == "" {
		return u.String()
	}
	pairs := strings.Split(u.RawQuery, "&")
	changed := false
	for i, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			if _, named := names[plain]; ok && value != "" && (named || namesCredential(plain)) {
				pairs[i], changed = name+"="+hidden, true
			}
		}
	}
	if !changed {
		return u.String()
	}
	shown := *u
	shown.RawQuery = strings.Join(pairs, "&")
	return shown.String()
}
