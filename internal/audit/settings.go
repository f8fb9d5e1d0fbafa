package audit

import (
	"context"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
)

// Installation is whose log the settings stand in: the installation's, which is no organization, so that no member of
// one sees them. Its operator reads them with `testflow audit settings`.
var Installation = uuid.MustParse("00000000-0000-8000-8000-000000000001")

// RecordSettings records how the settings of a process that starts differ from those that were recorded last, and returns
// that; nothing when they are the same. The first time it is all of them. Secrets come in as fingerprints.
func (s *Service) RecordSettings(ctx context.Context, command, version string, now map[string]string) (changes []SettingChange, err error) {
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		// Two processes that start together compare one after the other.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(21575, 110)`); err != nil {
			return err
		}
		_, last, err := s.settings(ctx, tx)
		if err != nil {
			return err
		}
		changes = settingChanges(last, now)
		if len(changes) == 0 {
			return nil
		}
		_, err = s.Store.Append(ctx, tx, stream(Installation), eventstore.AnyVersion, nil, SettingsChanged{Command: command, Version: version, Changes: changes})
		return err
	})
	return changes, err
}

// SettingsHistory returns every change of the installation's settings, oldest first. It asks nobody for a permission: it
// is for who can read the database.
func (s *Service) SettingsHistory(ctx context.Context) (history []eventstore.Event, err error) {
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		history, _, err = s.settings(ctx, tx)
		return err
	})
	return history, err
}

// settings reads the history, and folds it to what was recorded last.
func (s *Service) settings(ctx context.Context, tx pgx.Tx) (history []eventstore.Event, last map[string]string, err error) {
	at := stream(Installation)
	if history, err = s.Store.Read(ctx, tx, at.OrgID, at.ID); err != nil {
		return nil, nil, err
	}
	last = map[string]string{}
	for _, e := range history {
		var d SettingsChanged
		if err := e.Decode(&d); err != nil {
			return nil, nil, err
		}
		for _, c := range d.Changes {
			delete(last, c.Name)
			if c.To != nil {
				last[c.Name] = *c.To
			}
		}
	}
	return history, last, nil
}

func settingChanges(last, now map[string]string) (changes []SettingChange) {
	names := maps.Clone(last)
	maps.Copy(names, now)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, had := last[name]
		is, has := now[name]
		if had == has && was == is {
			continue
		}
		c := SettingChange{Name: name}
		if had {
			c.From = &was
		}
		if has {
			c.To = &is
		}
		changes = append(changes, c)
	}
	return changes
}
