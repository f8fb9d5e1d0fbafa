package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/config"
)

// healthLimit bounds one question; it stays under the interval at which docker-compose.yml asks.
const healthLimit = 4 * time.Second

type healthCommand struct {
	URL string `arg:"" optional:"" help:"Address of the server; TESTFLOW_URL, or PORT of this machine, when it isn't given." placeholder:"URL"`
}

// Run asks a server whether it is ready: exit code 0 when it is, 3 with its own words when it isn't. It is the health check
// of containers, which hold no curl.
func (h *healthCommand) Run(ctx context.Context, t terminal) error {
	c, err := config.Load(config.Talk, t.environ)
	if err != nil {
		return err
	}
	address := h.URL
	if address == "" {
		address = c.Client.URL
		if !t.set("TESTFLOW_URL") {
			address = "http://127.0.0.1:" + strconv.Itoa(c.Server.Port)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+"/readyz?verbose", nil)
	if err != nil {
		return &cli.Exit{Code: cli.ExitUsage, Err: err}
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return fmt.Errorf("read the answer of %s: %w", address, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready (%d): %s", address, answer.StatusCode, body)
	}
	t.printf("ready: %s\n", address)
	return nil
}

// set tells whether the environment has a value under that name.
func (t terminal) set(name string) bool {
	for _, pair := range t.environ {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value != ""
		}
	}
	return false
}
