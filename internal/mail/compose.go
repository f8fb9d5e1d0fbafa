package mail

import (
	"fmt"
	"net/mail"
	"strings"

	gomail "github.com/wneessen/go-mail"
)

// Sender is who mail comes from.
type Sender struct{ address *mail.Address }

// NewSender reads an address such as "TestFlow <testflow@example.com>".
func NewSender(from string) (Sender, error) {
	a, err := mail.ParseAddress(from)
	if err != nil {
		return Sender{}, fmt.Errorf("the sender is no address: %w", err)
	}
	a.Name = OneLine(a.Name)
	return Sender{a}, nil
}

// domain is where Message-IDs come from.
func (s Sender) domain() string {
	_, domain, _ := strings.Cut(s.address.Address, "@")
	return domain
}

// compose makes the mail of a letter: the same Message-ID and date however often it is made.
func (s Sender) compose(l Letter, encoding gomail.Encoding) (*gomail.Msg, error) {
	if err := l.clean(); err != nil {
		return nil, &Refused{Err: err}
	}
	m := gomail.NewMsg(gomail.WithEncoding(encoding), gomail.WithNoDefaultUserAgent())
	m.FromMailAddress(s.address)
	m.ToMailAddress(&mail.Address{Name: l.ToName, Address: l.To})
	m.Subject(l.Subject)
	m.SetMessageIDWithValue(l.ID.String() + "@" + s.domain())
	m.SetDateWithValue(l.At.UTC())
	// Nobody's vacation message shall answer.
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetGenHeader("X-Auto-Response-Suppress", "All")
	m.SetBodyString(gomail.TypeTextPlain, l.Text)
	return m, nil
}
