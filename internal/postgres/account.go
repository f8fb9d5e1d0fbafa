package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// account is whom the server runs as: Postgres refuses root, so root lends it another account.
type account struct {
	name     string
	uid, gid int
	other    bool // not ours: files must be given to it
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{name: "uid " + strconv.Itoa(os.Geteuid()), uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("account %s: %w", name, err)
		}
		return account{name: name, uid: uid, gid: gid, other: true}, nil
	}
	return account{}, errors.New("PostgreSQL does not run as root, and there is no account postgres or nobody to run it as: start testflow as an ordinary user, or set DATABASE_URL")
}

// own gives a file or an empty directory to the account.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	if err := os.Chown(path, a.uid, a.gid); err != nil {
		return fmt.Errorf("give %s to %s: %w", path, a.name, err)
	}
	return nil
}

// canReach says in one line which directory keeps the account out of path.
func (a account) canReach(path string) error {
	if !a.other {
		return nil
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if ok && !passable(fi.Mode().Perm(), int(st.Uid), int(st.Gid), a) {
			return fmt.Errorf("the database runs as %q, which may not enter %s: choose another directory with TESTFLOW_DATA_DIR, or run `chmod a+x %s`", a.name, dir, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func passable(perm os.FileMode, uid, gid int, a account) bool {
	switch {
	case uid == a.uid:
		return perm&0o100 != 0
	case gid == a.gid:
		return perm&0o010 != 0
	default:
		return perm&0o001 != 0
	}
}

// DefaultDataDir returns where a server of our own keeps its data: /var/lib/testflow for root, else
// $XDG_DATA_HOME/testflow or ~/.local/share/testflow.
func DefaultDataDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/testflow", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "testflow"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home directory to keep data in (%w): set TESTFLOW_DATA_DIR", err)
	}
	return filepath.Join(home, ".local", "share", "testflow"), nil
}

// DefaultCacheDir returns where things that can be had again are kept: /var/cache/testflow for root, else the user's
// cache directory.
func DefaultCacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/testflow", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory (%w): set XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "testflow"), nil
}

// lockDir takes the data directory for this process; the kernel frees it when the process ends.
func lockDir(dir string) (*os.File, error) {
	name := filepath.Join(dir, "postgres.lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, dirError(dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			held, _ := os.ReadFile(name) // only to name the holder
			err = &InUseError{Dir: dir, PID: strings.TrimSpace(string(held))}
		} else {
			err = fmt.Errorf("lock %s: %w", dir, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(dirError(dir, err), f.Close())
	}
	return f, nil
}

// InUseError says that another testflow runs on the data directory.
type InUseError struct {
	Dir string
	PID string // of the holder, "" when unknown
}

// Error says what to do.
func (e *InUseError) Error() string {
	return fmt.Sprintf("another testflow (process %s) uses the data directory %s: stop it, or set TESTFLOW_DATA_DIR to another directory", e.PID, e.Dir)
}
