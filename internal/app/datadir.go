package app

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/vault"
)

// dataDir is the folder in which `up` keeps its database and its secrets. A database of our own locks it.
type dataDir struct{ path string }

// openDataDir makes the folder of the settings where it is missing.
func openDataDir(c *config.Config) (*dataDir, error) {
	root := os.Geteuid() == 0
	home, err := os.UserHomeDir()
	if err != nil && c.Database.DataDir == "" && !root {
		return nil, errors.New("no home directory is known; set TESTFLOW_DATA_DIR to a folder that you may write to")
	}
	abs, err := filepath.Abs(c.DataDir(root, home, os.Getenv))
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	if err := os.MkdirAll(abs, 0o755); err != nil { //nolint:gosec // the database's own user has to pass through; what is secret in it has its own mode
		return nil, fmt.Errorf("the data directory %s cannot be made (%w); set TESTFLOW_DATA_DIR to a folder that you may write to", abs, cause(err))
	}
	return &dataDir{path: abs}, nil
}

// ownSecrets are the keys that `up` makes for itself and the demo's password.
type ownSecrets struct {
	JWT          string `json:"jwtSecret"`
	Refresh      string `json:"jwtRefreshSecret"`
	MasterKey    string `json:"masterKey"`
	DemoPassword string `json:"demoPassword"`
}

// secrets reads the keys of an earlier start or makes them. The file is written before it is used and synced to disk: a
// lost master key is lost data. made reports whether this start made them.
func (d *dataDir) secrets() (s ownSecrets, made bool, err error) {
	path := filepath.Join(d.path, "secrets.json")
	raw, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(raw, &s); err != nil || s.JWT == "" || s.Refresh == "" || s.MasterKey == "" || s.DemoPassword == "" {
			return s, false, fmt.Errorf("%s is damaged; put its backup back (without it, what is sealed in the database cannot be opened)", path)
		}
		return s, false, nil
	case errors.Is(err, fs.ErrPermission):
		return s, false, fmt.Errorf("%s belongs to another user (%w); start as that user, or set TESTFLOW_DATA_DIR to a folder of your own", path, cause(err))
	case !errors.Is(err, fs.ErrNotExist):
		return s, false, fmt.Errorf("read %s: %w", path, cause(err))
	}
	if _, err := os.Stat(filepath.Join(d.path, "postgres")); err == nil {
		return s, false, fmt.Errorf("%s is missing, and there is a database beside it; put its backup back, or start anew with another TESTFLOW_DATA_DIR", path)
	}
	s = ownSecrets{JWT: key48(), Refresh: key48(), MasterKey: vault.GenerateMasterKey(), DemoPassword: rand.Text()}
	raw, err = json.MarshalIndent(s, "", "  ") //nolint:gosec // this file is where they are kept
	if err != nil {
		return s, false, fmt.Errorf("encode the secrets: %w", err)
	}
	return s, true, writeSynced(path, append(raw, '\n'))
}

// prepare makes the keys where there is no database yet. A command that makes a database without them would leave a
// directory that `up` takes for one that has lost its keys. Where there is a database, its keys are none of its business.
func (d *dataDir) prepare() error {
	if _, err := os.Stat(filepath.Join(d.path, "postgres")); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, _, err := d.secrets()
	return err
}

// writeSynced writes a file that only its owner may read, whole or not at all, and onto the disk.
func writeSynced(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be written (%w); set TESTFLOW_DATA_DIR to a folder that you may write to", filepath.Dir(path), cause(err))
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone after the rename, and then it fails
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, cause(err))
	}
	return nil
}

func key48() string {
	raw := make([]byte, 48)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the program instead
	return base64.RawURLEncoding.EncodeToString(raw)
}

// fill puts the keys into the settings where the environment doesn't set them.
func (s ownSecrets) fill(c *config.Config) {
	for _, p := range []struct {
		to   *string
		from string
	}{{&c.Secrets.JWT, s.JWT}, {&c.Secrets.Refresh, s.Refresh}, {&c.Secrets.MasterKey, s.MasterKey}} {
		if *p.to == "" {
			*p.to = p.from
		}
	}
}

// cause strips the operation and path from a file error, which the message around it says better.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
