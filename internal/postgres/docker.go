package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

const (
	defaultDockerImage = "postgres:17"
	dockerAskLimit     = 10 * time.Second
	dockerPullLimit    = 5 * time.Minute
)

// useDocker makes ready to run the server in a container, the last resort where no binaries can be had. The docker
// client runs in the foreground as our child: it passes signals on, so the container stops with us as a process would.
// Data lies in <DataDir>/postgres-docker.
func (s *Server) useDocker(ctx context.Context) (password string, err error) {
	if v, err := clusterVersion(s.pg); err != nil || v != 0 {
		return "", errors.New("docker: the data here was written by a PostgreSQL of the machine")
	}
	if s.cfg.DockerImage == "" {
		s.cfg.DockerImage = defaultDockerImage
	}
	ask, cancel := context.WithTimeout(ctx, dockerAskLimit)
	defer cancel()
	if err := quietly(ask, "docker", "version"); err != nil {
		return "", err
	}
	if quietly(ask, "docker", "image", "inspect", s.cfg.DockerImage) != nil {
		s.cfg.Say("no PostgreSQL found: fetching the image " + s.cfg.DockerImage + " with docker")
		pull, cancel := context.WithTimeout(ctx, dockerPullLimit)
		defer cancel()
		if err := quietly(pull, "docker", "pull", "-q", s.cfg.DockerImage); err != nil {
			return "", err
		}
	}
	if err := s.removeContainer(ctx); err != nil { // of a predecessor that was killed with its docker client
		return "", err
	}
	dir := filepath.Join(s.cfg.DataDir, "postgres-docker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", dirError(s.cfg.DataDir, err)
	}
	password, err = s.ensurePassword(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return "", err
	}
	s.BinDir = "docker image " + s.cfg.DockerImage
	s.cleanup = s.removeContainer
	s.command = func(port int) *exec.Cmd {
		args := []string{
			"run", "--rm", "--name", s.containerName(), "--shm-size", "256m",
			"-p", "127.0.0.1:" + strconv.Itoa(port) + ":5432", "-v", dir + ":/var/lib/postgresql/data",
			"-e", "PGDATA=/var/lib/postgresql/data", "-e", "POSTGRES_USER=" + superuser, "-e", "POSTGRES_PASSWORD", "-e", "POSTGRES_INITDB_ARGS=--locale=C -E UTF8",
		}
		if runtime.GOOS == "linux" && os.Geteuid() != 0 {
			args = append(args, "--user", fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid()))
		}
		args = append(args, s.cfg.DockerImage, "postgres")
		set := s.settings(port)
		for _, k := range []string{"port", "listen_addresses", "unix_socket_directories"} {
			delete(set, k) // the image's own
		}
		for _, k := range sortedKeys(set) {
			args = append(args, "-c", k+"="+set[k])
		}
		cmd := exec.Command("docker", args...) //nolint:noctx // ends by Stop
		cmd.Env = append(os.Environ(), "POSTGRES_PASSWORD="+password)
		cmd.SysProcAttr = account{}.procAttr()
		return cmd
	}
	return password, nil
}

// containerName is the same for the same data directory, so that an orphan is found.
func (s *Server) containerName() string {
	sum := sha256.Sum256([]byte(s.cfg.DataDir))
	return "testflow-postgres-" + hex.EncodeToString(sum[:6])
}

// removeContainer stops the container in order, if it is there, and removes it.
func (s *Server) removeContainer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*stopTimeout)
	defer cancel()
	if quietly(ctx, "docker", "container", "inspect", s.containerName()) != nil {
		return nil
	}
	// --rm may have been quicker than us: gone is what counts.
	errStop := quietly(ctx, "docker", "stop", s.containerName())
	errRemove := quietly(ctx, "docker", "rm", "-f", s.containerName())
	if quietly(ctx, "docker", "container", "inspect", s.containerName()) != nil {
		return nil
	}
	return errors.Join(errStop, errRemove)
}

// awaitConnection waits until the server that is meant to stay answers: the image runs one before it, on first use.
func (s *Server) awaitConnection(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(orphanPoll)
	defer tick.Stop()
	for {
		conn, err := connect(ctx, s.adminURL())
		if err == nil {
			closeConn(ctx, conn)
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("the container ended: %w: %s", s.err, lastLines(s.tail.text(), 4))
		case <-ctx.Done():
			return fmt.Errorf("the container does not answer: %w", err)
		case <-tick.C:
		}
	}
}
