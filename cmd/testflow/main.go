// Command testflow is the platform in one binary: server, worker and command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/testflow/testflow/internal/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly stop; from then on the next one ends the process at once.
	context.AfterFunc(ctx, stop)
	code := app.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
