package app

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/postgres"
)

// banner is what `up` prints once everything runs: where it is and what to type next. It goes to standard output; the
// log goes to standard error.
type banner struct {
	url, dataDir string
	keysMade     bool
	server       *postgres.Server // nil when DATABASE_URL was given
	egress       []string
	demo         *demo
	requests     int // of one user in window; 0 = any number
	window       time.Duration
}

func (b banner) print(t terminal) {
	var s strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	line("")
	line("TestFlow %s is running.", version())
	line("")
	line("  API and live stream   %s/api     (WebSocket: %s/api/live)", b.url, "ws"+strings.TrimPrefix(b.url, "http"))
	line("  Try it in a browser   %s/api-docs", b.url)
	line("  Health and metrics    %s/health  %s/metrics", b.url, b.url)
	if b.server != nil {
		line("  Data                  %s  (PostgreSQL %d of our own)", b.dataDir, b.server.Version)
	} else {
		line("  Data                  the database of DATABASE_URL; keys in %s", b.dataDir)
	}
	if b.keysMade {
		line("")
		line("  The master key is in %s/secrets.json. Keep a copy elsewhere: what is sealed in the", b.dataDir)
		line("  database cannot be opened without it.")
	}
	if b.demo != nil {
		b.demo.describe(line, b.url, executable())
	}
	if len(b.egress) > 0 {
		line("")
		line("  Tests may call these private addresses: %s", strings.Join(b.egress, ", "))
		line("  To open others: TESTFLOW_EGRESS_ALLOW=127.0.0.1:8080,10.20.0.0/16:443")
	}
	if b.requests > 0 {
		line("")
		line("  A user may send %d requests in %s, as everywhere. To try it without limits:", b.requests, strings.TrimSuffix(b.window.String(), "0s"))
		line("  RATE_LIMIT_MAX_REQUESTS=0 RATE_LIMIT_EXECUTION_MAX_REQUESTS=0")
	}
	line("")
	line("Ctrl-C stops everything and keeps the data.")
	line("")
	t.printf("%s", s.String())
}

// executable is how the person who reads it can call this program: its path as it was typed, or just its name.
func executable() string {
	if len(os.Args) > 0 && os.Args[0] != "" {
		return os.Args[0]
	}
	return "testflow"
}
