package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/seal"
	"github.com/testflow/testflow/internal/vault"
)

type auditCommand struct {
	Verify   cli.AuditVerify      `cmd:"" help:"Check an export of the audit log, offline: every event is what was sealed, or the places where it isn't."`
	Keys     auditKeysCommand     `cmd:"" help:"Show the keys that seal the audit log, or change to a new one."`
	Settings auditSettingsCommand `cmd:"" help:"Show every change of this installation's settings, with what was and what is."`
}

type auditKeysCommand struct {
	List   auditKeysListCommand   `cmd:"" help:"Show every sealing key with its fingerprint: what an auditor keeps."`
	Rotate auditKeysRotateCommand `cmd:"" help:"Change to a new sealing key. The old one signs it, and its private half is destroyed; what it sealed stays valid."`
}

type auditKeysListCommand struct{}

// Run prints a line a key. It needs no master key.
func (auditKeysListCommand) Run(ctx context.Context, t terminal) error {
	return withSealingKeys(ctx, t, false, func(ctx context.Context, keys *audit.SealingKeys) error {
		all, err := keys.List(ctx)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			t.printf("There is no sealing key yet: the first seal makes it, some seconds after the first event.\n")
			return nil
		}
		w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "NUMBER\tSINCE\tRETIRED\tFINGERPRINT\tPUBLIC KEY")
		for _, k := range all {
			retired := "in use"
			if k.RetiredAt != nil {
				retired = k.RetiredAt.Format(time.RFC3339)
			}
			_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", k.Number, k.CreatedAt.Format(time.RFC3339), retired, k.Key.Fingerprint(), k.Key)
		}
		return w.Flush()
	})
}

type auditKeysRotateCommand struct{}

// Run makes the new key and prints its fingerprint.
func (auditKeysRotateCommand) Run(ctx context.Context, t terminal) error {
	return withSealingKeys(ctx, t, true, func(ctx context.Context, keys *audit.SealingKeys) error {
		made, err := keys.Rotate(ctx)
		if err != nil {
			return err
		}
		t.printf("Sealing key %d signs from now on: %s\n", made.Number, made.Key.Fingerprint())
		if made.Number > 1 {
			t.printf("The key before it vouches for it, so a fingerprint that an auditor kept goes on being good.\n")
		}
		return nil
	})
}

// withSealingKeys calls fn with the keys of the database; opened says that private ones are needed.
func withSealingKeys(ctx context.Context, t terminal, opened bool, fn func(context.Context, *audit.SealingKeys) error) error {
	return withStoreConfig(ctx, t, func(ctx context.Context, c *config.Config, dbs *databases) error {
		keys := &audit.SealingKeys{DB: dbs.main, Now: time.Now}
		if opened {
			if err := fillOwnSecrets(c); err != nil {
				return err
			}
			master, err := vault.NewMaster(c.Secrets.MasterKey)
			if err != nil {
				return fmt.Errorf("TESTFLOW_MASTER_KEY: %w", err)
			}
			keys.Master = master
		}
		return fn(ctx, keys)
	})
}

// fillOwnSecrets takes the keys of the data directory where the environment has none.
func fillOwnSecrets(c *config.Config) error {
	if c.Secrets.MasterKey != "" {
		return nil
	}
	dir, err := openDataDir(c)
	if err != nil {
		return err
	}
	secrets, _, err := dir.secrets()
	if err != nil {
		return err
	}
	secrets.fill(c)
	return nil
}

// buildSealer makes what seals the audit log.
func (p *platform) buildSealer() error {
	master, err := vault.NewMaster(p.cfg.Secrets.MasterKey)
	if err != nil {
		return fmt.Errorf("TESTFLOW_MASTER_KEY: %w", err)
	}
	keys := &audit.SealingKeys{DB: p.db.main, Master: master, Now: time.Now}
	cfg := audit.SealerConfig{DB: p.db.main, Keys: keys, Now: time.Now, Every: p.cfg.Audit.SealEvery, Log: p.room("sealer")}
	if name := p.cfg.Audit.HeadsFile; name != "" {
		cfg.Published = func(_ context.Context, h seal.Head, note string) error { return keepHead(name, h, note) }
	}
	p.sealer = audit.NewSealer(cfg)
	p.audit.Signer, p.audit.Settle = keys.Signer, p.sealer.Settle
	p.runSealer = &audit.RunSealer{DB: p.db.main, Store: p.store, Now: time.Now, Log: p.room("sealer")}
	return nil
}

// keepHead adds a head to a file, in one write, so that several processes may share it.
func keepHead(name string, h seal.Head, note string) (err error) {
	line, err := json.Marshal(map[string]any{"organizationId": h.OrgID, "size": h.Size, "time": h.Time, "note": note})
	if err != nil {
		return fmt.Errorf("encode the seal: %w", err)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // the operator names it, and a seal is no secret
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(append(line, '\n'))
	return err
}
