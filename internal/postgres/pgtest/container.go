package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/testcontainers/testcontainers-go"
	tcpostgres "github.com/testcontainers/testcontainers-go/modules/postgres"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	defaultImage = "postgres:17-alpine"
	// healthLimit bounds the question whether Docker is there: without it the answer takes under a millisecond.
	healthLimit = 5 * time.Second
	// readyLimit bounds a container's start once its image is there.
	readyLimit = 20 * time.Second
	// containerLimit bounds all of it, fetching the image too: where no registry answers, other ways remain.
	containerLimit = 90 * time.Second
)

// startContainer runs TESTFLOW_TEST_PG_IMAGE (postgres:17-alpine) in Docker. It ends with the process: by stop, or by
// testcontainers' reaper, without which a process that nobody stops doesn't start one.
func startContainer(ctx context.Context, stops bool) (_ *server, err error) {
	if !stops && testcontainers.ReadConfig().Config.RyukDisabled {
		return nil, errors.New("docker: with the reaper (Ryuk) disabled only `make test` runs a container")
	}
	ctx, cancelAll := context.WithTimeout(ctx, containerLimit)
	defer cancelAll()
	defer func() {
		// testcontainers panics where the environment names no usable Docker host.
		if p := recover(); p != nil {
			err = fmt.Errorf("docker: %v", p)
		}
	}()
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	defer provider.Close()
	asked, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	if err := provider.Health(asked); err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	image := os.Getenv("TESTFLOW_TEST_PG_IMAGE")
	if image == "" {
		image = defaultImage
	}
	c, err := tcpostgres.Run(ctx, image,
		tcpostgres.WithDatabase("testflow"), tcpostgres.WithUsername("testflow"), tcpostgres.WithPassword("testflow"),
		testcontainers.WithCmd("postgres", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
			"-c", "max_connections=300", "-c", "max_locks_per_transaction=128"),
		testcontainers.WithWaitStrategyAndDeadline(readyLimit,
			wait.ForLog("database system is ready to accept connections").WithOccurrence(2), wait.ForListeningPort("5432/tcp")),
	)
	stop := func(ctx context.Context) error {
		return testcontainers.TerminateContainer(c, testcontainers.StopContext(ctx))
	}
	if err != nil {
		if c != nil {
			_ = stop(ctx) // the start's error says more
		}
		return nil, fmt.Errorf("container of %s: %w", image, err)
	}
	url, err := c.ConnectionString(ctx, "sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("container of %s: %w", image, err)
	}
	s, err := given(url)
	if err != nil {
		return nil, err
	}
	s.what, s.stop = "a container of "+image, stop
	return s, nil
}
