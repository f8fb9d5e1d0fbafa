package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/mail"
	"github.com/testflow/testflow/internal/org"
)

// recordSettings puts on record how this process was started otherwise than the one before: settings are the
// installation's most powerful change, and nobody does them through the API. Of a secret stands a fingerprint under a key
// of ours, so that one sees that it changed and nobody can try guesses.
func (p *platform) recordSettings(ctx context.Context) error {
	key, err := p.derived("fingerprints of settings")
	if err != nil {
		return err
	}
	settings := p.cfg.Settings(func(secret string) string {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(secret))
		return "fingerprint " + hex.EncodeToString(mac.Sum(nil)[:8])
	})
	if p.cfg.OwnDatabase {
		delete(settings, "DATABASE_URL")
	}
	changes, err := p.audit.RecordSettings(ctx, string(p.command), version(), settings)
	if err != nil {
		return fmt.Errorf("record the settings: %w", err)
	}
	switch {
	case len(changes) == len(settings) && !slices.ContainsFunc(changes, func(c audit.SettingChange) bool { return c.From != nil }):
		p.log.DebugContext(ctx, "settings are on record from now on; see testflow audit settings")
	case len(changes) > 0:
		names := make([]string, len(changes))
		for i, c := range changes {
			names[i] = c.Name
		}
		p.log.InfoContext(ctx, "settings are other than at the last start; see testflow audit settings", slog.Any("changed", names))
	}
	return nil
}

type auditSettingsCommand struct{}

// Run prints every change of the installation's settings, oldest first.
func (auditSettingsCommand) Run(ctx context.Context, t terminal) error {
	return withStore(ctx, t, func(ctx context.Context, dbs *databases, store *eventstore.Store, _ *slog.Logger) error {
		history, err := (&audit.Service{DB: dbs.main, Store: store}).SettingsHistory(ctx)
		if err != nil {
			return err
		}
		for _, e := range history {
			var d audit.SettingsChanged
			if err := e.Decode(&d); err != nil {
				return err
			}
			t.printf("%s  %s %s, position %d\n", e.RecordedAt.UTC().Format(time.RFC3339), d.Command, d.Version, e.Position)
			for _, c := range d.Changes {
				t.printf("    %s: %s → %s\n", c.Name, orUnset(c.From), orUnset(c.To))
			}
		}
		return nil
	})
}

func orUnset(value *string) string {
	if value == nil {
		return "unset"
	}
	return *value
}

type accountEraseCommand struct {
	Email string `arg:"" help:"E-mail address of the account, or its id."`
	Yes   bool   `help:"Do it. Without this it is only said what would be done."`
}

// Run forgets a person who asked the operator for it instead of the API.
func (a *accountEraseCommand) Run(ctx context.Context, t terminal) error {
	return withStoreConfig(ctx, t, func(ctx context.Context, c *config.Config, dbs *databases) error {
		store := eventstore.New(eventstore.Config{DB: dbs.main, Types: eventTypes(), Inline: inlineModels(), Now: time.Now, NewID: newID})
		if err := store.Sync(ctx); err != nil {
			return err
		}
		persons, err := account.NewPersons(dbs.main, nil, time.Now) // it destroys keys and opens none
		if err != nil {
			return err
		}
		data, err := openDataDir(c)
		if err != nil {
			return err
		}
		post := &mail.Service{DB: dbs.main, Kept: &mail.Outbox{Dir: data.outbox()}} // it forgets and sends nothing
		accounts := &account.Service{DB: dbs.main, Store: store, Persons: persons, Mail: post, NewID: newID}
		orgs := &org.Service{DB: dbs.main, Store: store, Accounts: accounts, DeletionGrace: c.Server.DeletionGrace, NewID: newID}
		who, err := a.find(ctx, accounts)
		if err != nil {
			return err
		}
		if !a.Yes {
			gone, err := orgs.GoneWith(ctx, who)
			if err != nil {
				return err
			}
			t.printf("%s would be erased, for good: account, sessions, memberships, invitations, and who they were in every event.\n", a.Email)
			for _, name := range gone {
				t.printf("Nobody else is in the organization %q: it would be deleted.\n", name)
			}
			t.printf("Say --yes to do it.\n")
			return nil
		}
		position, err := orgs.ErasePerson(ctx, who)
		var f *fault.Error
		if errors.As(err, &f) {
			return &cli.Exit{Code: cli.ExitUsage, Err: errors.New(f.Message)}
		}
		if err != nil {
			return err
		}
		t.printf("Erased at position %d. Running servers forget within seconds; backups hold the person's key until they are thrown away.\n", position)
		return nil
	})
}

func (a *accountEraseCommand) find(ctx context.Context, accounts *account.Service) (uuid.UUID, error) {
	if id, err := uuid.Parse(a.Email); err == nil {
		return id, nil
	}
	found, err := accounts.ByEmail(ctx, a.Email)
	if fault.KindOf(err) == fault.NotFound {
		return uuid.Nil, &cli.Exit{Code: cli.ExitUsage, Err: fmt.Errorf("there is no account with the address %s", a.Email)}
	}
	return found.ID, err
}
