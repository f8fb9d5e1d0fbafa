// Package account holds people: their sign-in, their sessions and the keys that seal what is personal in events. It knows
// no organization: org, which stands on it, puts registration and sign-in together. Accounts, sessions and refresh tokens
// are plain tables, since a password and a token must not stand in a log that never forgets; what happened to them does.
package account

import (
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/vault"
)

// Account is a person, as they are shown to themselves.
type Account struct {
	ID            uuid.UUID
	Email         string // normalized: see NormalizeEmail
	EmailVerified bool   // they have shown that they read its mail
	Name          string
	Operator      bool // of this installation
	CreatedAt     time.Time
}

// Registration is what a person says of themselves.
type Registration struct {
	Email    string
	Name     string
	Password vault.Secret
	// Organization is the name of theirs, which makes no good password either; may be empty.
	Organization string
}

// normalized returns r as it is stored, and every fault in it, with pointers into the API's body.
func (r Registration) normalized(policy PasswordPolicy) (Registration, []fault.Field) {
	var faults []fault.Field
	at := func(pointer, detail string) {
		faults = append(faults, fault.Field{Pointer: pointer, Detail: detail})
	}
	email, err := NormalizeEmail(r.Email)
	if err != nil {
		at("/email", "This is no e-mail address.")
	}
	name, problem := CleanName(r.Name)
	if problem != "" {
		at("/name", problem)
	}
	for _, problem := range policy.problems(r.Password.Reveal(), about{email: email, name: name, organization: r.Organization}) {
		at("/password", problem)
	}
	return Registration{Email: email, Name: name, Password: r.Password, Organization: r.Organization}, faults
}

// domains reads a domain as a browser does and holds it to what DNS can hold.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// NormalizeEmail returns the form in which an address is stored and compared: without white space around it, in lower
// case and NFC, its domain in ASCII. It returns an error for what is no plain address.
func NormalizeEmail(address string) (string, error) {
	if !utf8.ValidString(address) { // lowering would mend it
		return "", errors.New("not an address")
	}
	address = strings.ToLower(norm.NFC.String(strings.TrimSpace(address)))
	if len(address) > limits.MaxEmail || strings.ContainsFunc(address, unicode.IsControl) {
		return "", errors.New("not an address")
	}
	parsed, err := mail.ParseAddress(address)
	if err != nil {
		return "", fmt.Errorf("not an address: %w", err)
	}
	local, domain, ok := strings.Cut(parsed.Address, "@")
	if !ok || parsed.Address != address || len(local) > limits.MaxEmailLocalPart { // a display name, quotes or a second @
		return "", errors.New("not a plain address")
	}
	domain, err = domains.ToASCII(domain)
	if err != nil {
		return "", fmt.Errorf("domain of an address: %w", err)
	}
	labels := strings.Split(domain, ".")
	if len(labels) < 2 || slices.Contains(labels, "") {
		return "", errors.New("domain of an address: it needs at least two labels")
	}
	normalized := local + "@" + domain
	if len(normalized) > limits.MaxEmail {
		return "", errors.New("not an address")
	}
	return normalized, nil
}

// CleanName returns a name of a person or thing as it is stored: NFC, one line, without white space around it. problem is
// empty or one sentence for people.
func CleanName(name string) (clean, problem string) {
	clean = strings.TrimSpace(norm.NFC.String(name))
	switch n := utf8.RuneCountInString(clean); {
	case !utf8.ValidString(name):
		return "", "This isn't valid UTF-8."
	case n == 0:
		return "", "Say a name."
	case n > limits.MaxPersonName:
		return "", fmt.Sprintf("A name has at most %d characters.", limits.MaxPersonName)
	case strings.ContainsFunc(clean, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) && r != joiner }), joinsNothing(clean):
		return "", "A name has no control characters, and none that nobody sees."
	}
	return clean, ""
}

// joiner makes one emoji of two, as in 👩‍💻. All else that has no shape (Unicode's Cf: of no width, or turning the direction
// of what follows) makes one name look like another.
const joiner = '\u200d'

// joinsNothing reports whether a joiner stands elsewhere than between two symbols.
func joinsNothing(name string) bool {
	runes := []rune(name)
	for i, r := range runes {
		if r != joiner {
			continue
		}
		if i == 0 || i == len(runes)-1 || !isEmojiPart(runes[i-1]) || !isEmojiPart(runes[i+1]) {
			return true
		}
	}
	return false
}

// isEmojiPart reports whether r is a symbol, a tone of skin or the mark that asks for colour.
func isEmojiPart(r rune) bool {
	const colour = '\ufe0f'
	return unicode.Is(unicode.So, r) || unicode.Is(unicode.Sk, r) || r == colour
}

// passwordProblems returns one sentence for each rule that a password breaks. email is the normalized address or empty.
func passwordProblems(password, email string) []string {
	var problems []string
	n := utf8.RuneCountInString(password)
	switch {
	case !utf8.ValidString(password):
		return []string{"This isn't valid UTF-8."}
	case n < limits.MinPassword:
		problems = append(problems, fmt.Sprintf("A password has at least %d characters.", limits.MinPassword))
	case n > limits.MaxPassword:
		return []string{fmt.Sprintf("A password has at most %d characters.", limits.MaxPassword)}
	}
	folded := strings.ToLower(norm.NFKC.String(password))
	local, _, _ := strings.Cut(email, "@")
	if email != "" && (folded == email || folded == local || strings.Trim(strings.Replace(folded, local, "", 1), "0123456789!.@-_") == "") {
		problems = append(problems, "A password isn't the e-mail address.")
	}
	if isTrivial(folded) {
		problems = append(problems, "This password is among the first that somebody would try.")
	}
	return problems
}

// trivial are the stems that stand first in every list of passwords.
var trivial = []string{
	"password", "passwort", "passw0rd", "p@ssword", "p@ssw0rd", "qwerty", "qwertz", "azerty", "asdfgh", "letmein", "iloveyou", "welcome",
	"admin", "administrator", "monkey", "dragon", "football", "baseball", "sunshine", "princess", "superman", "changeme", "secret", "testflow", "1q2w3e4r", "1qaz2wsx", "abc123",
}

// runs are rows of keys and characters of which a piece makes no password.
var runs = []string{"abcdefghijklmnopqrstuvwxyz", "01234567890123456789", "qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm", "1234567890-=", "!@#$%^&*()_+"}

// isTrivial reports whether the lower-case password is few characters, one of a row, or a well-known word and a number.
func isTrivial(folded string) bool {
	distinct := map[rune]bool{}
	for _, r := range folded {
		distinct[r] = true
	}
	if len(distinct) < limits.MinDistinct {
		return true
	}
	for _, row := range runs {
		if strings.Contains(row, folded) || strings.Contains(reversed(row), folded) {
			return true
		}
	}
	bare := strings.Trim(folded, "0123456789!?.,*#$@-_+ ")
	for _, word := range trivial {
		if folded == word || bare == word || strings.ReplaceAll(bare, word, "") == "" {
			return true
		}
	}
	return false
}

func reversed(s string) string {
	r := []rune(s)
	slices.Reverse(r)
	return string(r)
}

// passwordForHash returns what is hashed: the same text however a keyboard composed its accents.
func passwordForHash(p vault.Secret) string { return norm.NFKC.String(p.Reveal()) }
