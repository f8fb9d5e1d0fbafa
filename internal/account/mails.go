package account

import (
	"fmt"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/mail"
)

// curl is a line that works when it is pasted, with what a mail carries in its body: a code in an address would end in
// logs and histories of browsers.
func (s *Service) curl(path, body string) string {
	// An address may hold quotes, bars and dollars; the shell must see none of them.
	quoted := strings.ReplaceAll(body, "'", `'\''`)
	return fmt.Sprintf("    curl %s%s -H 'Content-Type: application/json' \\\n      -d '%s'", s.Mail.PublicURL(), path, quoted)
}

// letter puts the parts of a mail together; each is a paragraph.
func (s *Service) letter(kind string, a Account, keep time.Duration, subject string, paragraphs ...string) mail.Message {
	text := "Hello " + mail.OneLine(a.Name) + ",\n\n" + strings.Join(paragraphs, "\n\n") + "\n\n-- \nTestFlow at " + s.Mail.PublicURL() + "\n"
	return mail.Message{Kind: kind, To: a.Email, ToName: a.Name, AccountID: a.ID, Subject: subject, Text: text, KeepFor: keep}
}

// origin says where a request came from, in a line of a mail. An agent is whatever somebody sent, so it is told as a device.
func (c Client) origin() string {
	where := "an unknown address"
	if c.Address != "" {
		where = "the address " + mail.OneLine(c.Address)
	}
	return fmt.Sprintf("It was asked for from %s (%s).", where, Device(c.Agent))
}

func (s *Service) verifyMail(a Account, code string) mail.Message {
	return s.letter("account.verify", a, verifyLifetime, "Verify your e-mail address for TestFlow",
		"somebody, most likely you, made an account with this address. To show that it is yours, send this code within 48 hours:",
		"    "+code,
		"This line does it:",
		s.curl("/api/auth/email/verify", `{"token": "`+code+`"}`),
		"If it wasn't you, do nothing.")
}

func (s *Service) resetMail(a Account, code string, from Client) mail.Message {
	return s.letter("account.reset", a, resetLifetime, "Set a new password for TestFlow",
		"somebody, most likely you, has forgotten the password of this account. "+from.origin()+" With this code you can set a new one within an hour, once:",
		"    "+code,
		"This line does it, with a password of your choice in it:",
		s.curl("/api/auth/password/reset", `{"token": "`+code+`", "newPassword": "…"}`),
		"It ends every session of yours. If it wasn't you, do nothing: without the code, nothing changes.")
}

func (s *Service) passwordChangedMail(a Account, from Client) mail.Message {
	return s.letter("account.password_changed", a, 7*24*time.Hour, "Your TestFlow password was changed",
		"the password of your account was changed just now, and other sessions of yours were ended. "+from.origin(),
		"If it wasn't you, set a new password at once: ask for a code with this line, and look at the audit log afterwards.",
		s.curl("/api/auth/password/forgot", `{"email": "`+a.Email+`"}`))
}

func (s *Service) refreshReusedMail(a Account, from Client) mail.Message {
	return s.letter("account.refresh_reused", a, 7*24*time.Hour, "A session of yours was ended for your safety",
		"a refresh token of one of your sessions was used a second time. That happens when somebody has copied it, and seldom when a program of yours has gone back to an old copy. "+from.origin(),
		"The session was ended, whoever held it: sign in again. If you don't know that address, change your password.")
}

func (s *Service) registrationTriedMail(a Account, from Client) mail.Message {
	return s.letter("account.registration_tried", a, 24*time.Hour, "You have a TestFlow account already",
		"somebody, most likely you, tried to register with this address. "+from.origin()+" There is an account already: sign in to it. If you have forgotten the password, this line sends you a code for a new one:",
		s.curl("/api/auth/password/forgot", `{"email": "`+a.Email+`"}`),
		"If it wasn't you, do nothing: nobody was told that there is an account.")
}

func (s *Service) confirmMail(c Candidate, code string) mail.Message {
	a := Account{Email: c.reg.Email, Name: c.reg.Name}
	return s.letter("account.confirm", a, confirmLifetime, "Confirm your TestFlow account",
		"somebody, most likely you, registered with this address. To make the account, send this code together with the password that you chose, within 24 hours:",
		"    "+code,
		"This line does it, with your password in it:",
		s.curl("/api/auth/register/confirm", `{"token": "`+code+`", "password": "…"}`),
		"If it wasn't you, do nothing: no account was made.")
}
