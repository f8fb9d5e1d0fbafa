package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// prepareDir makes the data directory and lets the server's account reach it.
func (s *Server) prepareDir() error {
	dir := s.cfg.DataDir
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the server's account must pass through
		return dirError(dir, err)
	}
	probe, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return dirError(dir, err)
	}
	err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	if err != nil {
		return dirError(dir, err)
	}
	return s.acct.canReach(dir)
}

func dirError(dir string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("cannot write to the data directory %s (%w): make it writable, or set TESTFLOW_DATA_DIR to one that is", dir, err)
}

// chooseBinaries finds binaries that can run the cluster that is there, or a new one.
func (s *Server) chooseBinaries() error {
	want, err := clusterVersion(s.pg)
	if err != nil {
		return err
	}
	all, err := s.get.find()
	if err != nil {
		return err
	}
	pick := all[0]
	if i := slices.IndexFunc(all, func(b Binaries) bool { return b.Version == want }); i >= 0 {
		pick = all[i]
	}
	s.BinDir, s.Version = pick.Dir, pick.Version
	if want != 0 && want != s.Version {
		return fmt.Errorf("the data in %s was written by PostgreSQL %d, but only %d was found (%s): install PostgreSQL %d or point TESTFLOW_PG_BIN at it, or set TESTFLOW_DATA_DIR to an empty directory to start afresh",
			s.cfg.DataDir, want, s.Version, s.BinDir, want)
	}
	return s.acct.canReach(s.BinDir)
}

// clusterVersion returns the major version that wrote a cluster, 0 when there is none yet.
func clusterVersion(pg string) (int, error) {
	b, err := os.ReadFile(filepath.Join(pg, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		if entries, err := os.ReadDir(pg); err == nil && len(entries) > 0 {
			return 0, fmt.Errorf("%s is not empty and not a PostgreSQL cluster: move it away, or set TESTFLOW_DATA_DIR to another directory", pg)
		}
		return 0, nil
	}
	if err != nil {
		return 0, dirError(pg, err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s/PG_VERSION is damaged: restore the directory from a backup, or move it away to start afresh", pg)
	}
	return v, nil
}

// ensureCluster runs initdb on first use and returns the superuser's password. initdb works beside and is renamed, so
// that a kill in the middle leaves nothing that looks like a cluster.
func (s *Server) ensureCluster(ctx context.Context) (string, error) {
	password, err := s.ensurePassword(filepath.Join(s.pg, "PG_VERSION"))
	if err != nil {
		return "", err
	}
	if v, err := clusterVersion(s.pg); err != nil || v != 0 {
		return password, err
	}
	fresh := s.pg + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	pwfile := filepath.Join(s.cfg.DataDir, "postgres.pwfile") // initdb's own copy: it runs as another account
	if err := writeFile(pwfile, []byte(password+"\n")); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	defer os.Remove(pwfile)
	if err := errors.Join(s.acct.own(fresh), s.acct.own(pwfile)); err != nil {
		return "", err
	}
	auth := "scram-sha-256"
	args := []string{"-D", fresh, "-U", superuser, "--pwfile=" + pwfile, "-E", "UTF8", "--locale=C"}
	if s.cfg.Throwaway {
		args = append(args, "--no-sync")
		auth = "password" // thousands of short connections: no key derivation for each
	}
	args = append(args, "-A", auth)
	cmd := exec.CommandContext(ctx, filepath.Join(s.BinDir, "initdb"), args...) //nolint:gosec // our own arguments
	cmd.Dir, cmd.Env = s.cfg.DataDir, serverEnv()
	cmd.SysProcAttr = s.acct.procAttr()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a database cluster in %s: %w: %s", s.cfg.DataDir, err, lastLines(string(out), 3))
	}
	if err := os.RemoveAll(s.pg); err != nil { // at most an empty directory: clusterVersion saw to that
		return "", dirError(s.cfg.DataDir, err)
	}
	if err := os.Rename(fresh, s.pg); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	return password, nil
}

// ensurePassword returns the superuser's password, a new one while the file marker, which a cluster has, isn't there.
func (s *Server) ensurePassword(marker string) (string, error) {
	file := filepath.Join(s.cfg.DataDir, "postgres.password")
	if _, err := os.Lstat(marker); err == nil {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("the password of the database in %s cannot be read (%w): restore postgres.password, or move %s away to start afresh", s.cfg.DataDir, err, s.cfg.DataDir)
		}
		return strings.TrimSpace(string(b)), nil
	}
	password := rand.Text()
	if err := writeFile(file, []byte(password+"\n")); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	return password, nil
}

// writeFile writes a file that only its owner reads, and makes sure that it is on the disk.
func writeFile(name string, data []byte) (err error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}
