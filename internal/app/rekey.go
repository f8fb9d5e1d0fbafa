package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/vault"
)

type secretsCommand struct {
	Rekey secretsRekeyCommand `cmd:"" help:"Wrap every stored key with the first key of TESTFLOW_MASTER_KEY, so that the others can be taken away."`
}

type regionCommand struct {
	Key regionKeyCommand `cmd:"" help:"Print TESTFLOW_REGION_KEY for the workers of a region. It opens that region's secrets and nothing else."`
}

type regionKeyCommand struct {
	Name string `arg:"" help:"Name of the region, such as default."`
}

// Run prints the key that the first master key gives.
func (r *regionKeyCommand) Run(t terminal) error {
	c, err := config.Load(config.Print, t.environ)
	if err != nil {
		return err
	}
	if err := fillOwnSecrets(c); err != nil {
		return err
	}
	master, err := vault.NewMaster(c.Secrets.MasterKey)
	if err != nil {
		return fmt.Errorf("TESTFLOW_MASTER_KEY: %w", err)
	}
	key, err := master.RegionKey(r.Name)
	if err != nil {
		return err
	}
	t.printf("%s\n", key)
	return nil
}

type secretsRekeyCommand struct{}

// Run wraps everything anew and prints how much of each there was. It may be stopped and begun again, beside servers and
// workers; when nothing is left to do it says so.
func (secretsRekeyCommand) Run(ctx context.Context, t terminal) error {
	return withStoreConfig(ctx, t, func(ctx context.Context, c *config.Config, dbs *databases) error {
		if err := fillOwnSecrets(c); err != nil {
			return err
		}
		master, err := vault.NewMaster(c.Secrets.MasterKey)
		if err != nil {
			return fmt.Errorf("TESTFLOW_MASTER_KEY: %w", err)
		}
		for _, kind := range wrappedKeys {
			looked, changed, err := rewrap(ctx, dbs.main, master, kind)
			if err != nil {
				return err
			}
			t.printf("%-26s %d of %d wrapped anew\n", kind.what, changed, looked)
		}
		resealed, err := secret.RekeyGrants(ctx, dbs.main, master.Region)
		if err != nil {
			return err
		}
		t.printf("%-26s %d sealed anew\n", "secrets of regions", resealed)
		t.printf("The first key of TESTFLOW_MASTER_KEY opens all that is stored. When every server has it in front, and this command finds nothing\n" +
			"more to do, take the others away; give the workers their new key first: testflow region key NAME\n")
		return nil
	})
}

// wrappedKind is a table of keys that the master key wraps: its column of ids, and what stands before the id in what a key
// is bound to.
type wrappedKind struct{ what, table, id, owner string }

var wrappedKeys = []wrappedKind{
	{"keys of organizations", "public.org_keys", "org_id", "org"},
	{"keys of people", "public.person_keys", "account_id", "person"},
	{"keys of mail on its way", "public.outgoing_mails", "mail_id", "mail"},
	{"keys that seal the log", "es.sealing_key", "number", "sealing key"},
}

// rewrapBatch is how many keys are wrapped anew in one transaction.
const rewrapBatch = 500

// rewrap wraps the keys of one table that the first master key doesn't wrap. Each is written only if it is still what was
// read, so that a change meanwhile wins.
func rewrap(ctx context.Context, db *postgres.DB, master *vault.Master, kind wrappedKind) (looked, changed int, err error) {
	after := ""
	for {
		type wrapped struct {
			id  string
			key []byte
		}
		var batch []wrapped
		err := db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `SELECT `+kind.id+`::text, wrapped_key FROM `+kind.table+`
				WHERE wrapped_key IS NOT NULL AND `+kind.id+`::text > $1 ORDER BY `+kind.id+`::text LIMIT $2`, after, rewrapBatch)
			if err != nil {
				return fmt.Errorf("read %s: %w", kind.what, err)
			}
			batch, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (w wrapped, err error) { return w, r.Scan(&w.id, &w.key) })
			if err != nil {
				return fmt.Errorf("read %s: %w", kind.what, err)
			}
			for _, w := range batch {
				again, isNew, err := master.Rewrap(w.key, kind.owner, w.id)
				if errors.Is(err, vault.ErrUnknownKey) {
					return fmt.Errorf("%s: that of %s is wrapped by a key that is not in TESTFLOW_MASTER_KEY; put it behind the new one: new,old", kind.what, w.id)
				}
				if err != nil {
					return fmt.Errorf("%s: that of %s: %w", kind.what, w.id, err)
				}
				if !isNew || bytes.Equal(again, w.key) {
					continue
				}
				tag, err := tx.Exec(ctx, `UPDATE `+kind.table+` SET wrapped_key = $1 WHERE `+kind.id+`::text = $2 AND wrapped_key = $3`, again, w.id, w.key)
				if err != nil {
					return fmt.Errorf("write %s: %w", kind.what, err)
				}
				changed += int(tag.RowsAffected())
			}
			return nil
		})
		if err != nil {
			return looked, changed, err
		}
		if looked += len(batch); len(batch) < rewrapBatch {
			return looked, changed, nil
		}
		after = batch[len(batch)-1].id
	}
}
