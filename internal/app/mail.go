package app

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/mail"
)

// ownSender is who mail comes from that stays on this machine.
const ownSender = "TestFlow <testflow@localhost>"

// buildMail makes what sends mail: over SMTP where a server is set; `up` keeps it as files otherwise, and `serve` sends none.
func (p *platform) buildMail(jobs *river.Client[pgx.Tx]) error {
	m := p.cfg.Mail
	p.mail = &mail.Service{DB: p.db.main, Master: p.master, Jobs: jobs, Now: time.Now, NewID: newID, Log: p.room("mail")}
	from, err := mail.NewSender(cmp.Or(m.From, ownSender))
	if err != nil {
		return fmt.Errorf("TESTFLOW_SMTP_FROM: %w", err)
	}
	if p.command == config.Up {
		dir, err := openDataDir(p.cfg)
		if err != nil {
			return err
		}
		p.mail.Kept = &mail.Outbox{Dir: dir.outbox(), From: from}
	}
	switch {
	case m.Host != "":
		out, err := mail.NewSMTP(mail.SMTPConfig{
			Host: m.Host, Port: m.PortOrUsual(), User: m.User, Password: m.Password, TLS: mail.TLSMode(m.TLS), Timeout: m.Timeout, From: from,
		})
		if err != nil {
			return fmt.Errorf("TESTFLOW_SMTP_…: %w", err)
		}
		p.mail.Out = out
	case p.mail.Kept != nil:
		p.mail.Out = p.mail.Kept
	}
	return nil
}

// outbox is the folder of the mails that stay on this machine.
func (d *dataDir) outbox() string { return filepath.Join(d.path, "outbox") }

// announceMail says what an installation without mail can't do.
func (p *platform) announceMail(ctx context.Context) {
	if !p.mail.Enabled() {
		p.log.WarnContext(ctx, "no mail is sent: set TESTFLOW_SMTP_HOST. Until then addresses stay unverified, a forgotten password is reset with `testflow account reset`, and an invitation's code is shown to whoever invites")
	}
}
