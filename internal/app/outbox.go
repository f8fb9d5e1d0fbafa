package app

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/mail"
)

type outboxCommand struct {
	List outboxListCommand `cmd:"" default:"1" help:"List the mails, the oldest first."`
	Show outboxShowCommand `cmd:"" help:"Print one mail, or the last one."`
}

type outboxListCommand struct{}

// Run lists the mails that up keeps where no SMTP server is set.
func (outboxListCommand) Run(t terminal) error {
	dir, all, err := readOutbox(t)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		t.printf("No mail in %s.\n", dir)
		return nil
	}
	w := tabwriter.NewWriter(t.out, 0, 4, 2, ' ', 0)
	for _, m := range all {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.At.Local().Format(time.DateTime), m.To, m.Subject, strings.TrimSuffix(m.File, ".eml"))
	}
	return w.Flush()
}

type outboxShowCommand struct {
	Mail string `arg:"" optional:"" help:"Name of the mail as the list shows it, or a part that no other has; the last one when it isn't given."`
}

// Run prints a mail.
func (o outboxShowCommand) Run(t terminal) error {
	dir, all, err := readOutbox(t)
	if err != nil {
		return err
	}
	var found []mail.Kept
	for _, m := range all {
		if strings.Contains(m.File, o.Mail) {
			found = append(found, m)
		}
	}
	if o.Mail == "" && len(found) > 1 {
		found = found[len(found)-1:]
	}
	switch len(found) {
	case 0:
		return &cli.Exit{Code: cli.ExitUsage, Err: fmt.Errorf("no such mail in %s; see: testflow outbox", dir)}
	case 1:
		m := found[0]
		t.printf("Date:    %s\nTo:      %s\nSubject: %s\nFile:    %s\n\n%s", m.At.Local().Format(time.RFC1123), m.To, m.Subject, filepath.Join(dir, m.File), m.Text)
		return nil
	}
	return &cli.Exit{Code: cli.ExitUsage, Err: fmt.Errorf("%d mails have %q in their names; give more of it", len(found), o.Mail)}
}

func readOutbox(t terminal) (dir string, all []mail.Kept, err error) {
	c, err := config.Load(config.Up, t.environ)
	if err != nil {
		return "", nil, err
	}
	data, err := openDataDir(c)
	if err != nil {
		return "", nil, err
	}
	all, err = mail.ReadOutbox(data.outbox())
	return data.outbox(), all, err
}

type accountCommand struct {
	Reset accountResetCommand `cmd:"" help:"Make a code with which a person sets a new password, for you to hand to them. It is good once, for an hour."`
	Erase accountEraseCommand `cmd:"" help:"Forget a person: their account, and who they were in every event. For good."`
}

type accountResetCommand struct {
	Email string `arg:"" help:"E-mail address of the account."`
}

// Run makes the code in the database; whoever can write to that could as well set the password.
func (a *accountResetCommand) Run(ctx context.Context, t terminal) error {
	return withStore(ctx, t, func(ctx context.Context, dbs *databases, store *eventstore.Store, log *slog.Logger) error {
		accounts := &account.Service{DB: dbs.main, Store: store, NewID: newID, Log: log}
		var code string
		err := dbs.main.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
			code, err = accounts.ResetCodeTx(ctx, tx, a.Email)
			return err
		})
		if fault.KindOf(err) == fault.NotFound {
			return &cli.Exit{Code: cli.ExitUsage, Err: fmt.Errorf("there is no account with the address %s", a.Email)}
		}
		if err != nil {
			return err
		}
		t.printf("%s\n", code)
		_, _ = fmt.Fprintf(t.err, "Good once, for an hour, as \"token\" of POST /api/auth/password/reset, with a \"newPassword\". It ends all sessions of %s.\n", a.Email)
		return nil
	})
}
