// Command pgwrap runs a command, usually `go test ./...`, with one Postgres for all its packages and stops it again.
package main

import (
	"os"

	"github.com/testflow/testflow/internal/postgres/pgtest"
)

func main() { os.Exit(pgtest.Wrap(os.Stderr, os.Args[1:])) }
