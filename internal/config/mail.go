package config

import (
	"net/mail"
	"strings"
)

// checkMail adds what is wrong with the settings of mail. Whoever sends mail must say where people find the installation:
// what a mail tells them to call must not be guessed.
func (c *Config) checkMail(command Command, faults *Faults) {
	m := &c.Mail
	oneOf(faults, "TESTFLOW_SMTP_TLS", m.TLS, "", "starttls", "tls", "none")
	if m.SMTPPort < 0 || m.SMTPPort > 65535 {
		faults.add("TESTFLOW_SMTP_PORT", "must lie between 1 and 65535")
	}
	if m.Timeout <= 0 && !faults.has("TESTFLOW_SMTP_TIMEOUT") {
		faults.add("TESTFLOW_SMTP_TIMEOUT", "must be more than 0s")
	}
	if m.From != "" {
		if _, err := mail.ParseAddress(m.From); err != nil {
			faults.add("TESTFLOW_SMTP_FROM", "must be an address such as TestFlow <testflow@example.com>")
		}
	}
	if m.Host == "" {
		if command == Serve && c.Server.Registration == "confirm" {
			faults.add("TESTFLOW_REGISTRATION", "must not be confirm without TESTFLOW_SMTP_HOST: the codes couldn't be sent")
		}
		return
	}
	if strings.ContainsAny(m.Host, ":/@ ") && !strings.Contains(m.Host, "::") {
		faults.add("TESTFLOW_SMTP_HOST", "must be a name or an IP address alone; the port is TESTFLOW_SMTP_PORT")
	}
	if m.From == "" {
		faults.add("TESTFLOW_SMTP_FROM", "is needed with TESTFLOW_SMTP_HOST: an address such as TestFlow <testflow@example.com>")
	}
	if (m.User == "") != (m.Password == "") {
		faults.add("TESTFLOW_SMTP_USER", "and TESTFLOW_SMTP_PASSWORD go together")
	}
	if m.TLS == "none" && m.User != "" {
		faults.add("TESTFLOW_SMTP_TLS", "must not be none together with TESTFLOW_SMTP_USER: the password could be read on the way")
	}
	if command == Serve && c.Server.PublicURL == "" {
		faults.add("TESTFLOW_PUBLIC_URL", "is needed with TESTFLOW_SMTP_HOST: mails tell people where to go")
	}
}

// PortOrUsual is the port of the SMTP server, that of its encryption when none is set.
func (m Mail) PortOrUsual() int {
	switch {
	case m.SMTPPort != 0:
		return m.SMTPPort
	case m.TLS == "tls":
		return 465
	case m.TLS == "none":
		return 25
	}
	return 587
}
