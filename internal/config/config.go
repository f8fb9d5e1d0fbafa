// Package config reads the environment once, checks it, and documents it by its own tags.
//
// All faults are reported at once, each with the variable's name and what would be right, and never with the value of a
// secret. Secrets can also come from a file named by the variable with _FILE behind it. The package gives values; it opens
// nothing, makes no secrets and reads no other file.
package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/testflow/testflow/internal/limits"
)

// minSecret is the least length of a signing secret in bytes, that of a SHA-256 hash; auth holds the same number.
const minSecret = 32

// Config is the whole environment. Field tags are the reference that `testflow config` prints: env is the variable,
// default its value when it is unset, doc what it does, and secret marks what is never printed and has a _FILE variant.
type Config struct {
	Server   Server
	Database Database
	Secrets  Secrets
	Mail     Mail
	Audit    Audit
	Worker   Worker
	Client   Client
	Log      Log
	Limits   limits.Settings

	// Warnings are what was found and does not stop a start, such as variables that nothing reads.
	Warnings []string `env:"-"`
	// OwnDatabase says that Database.URL is that of a Postgres of our own, which is another one with each start.
	OwnDatabase bool `env:"-"`
}

// Server is where the doors stand.
type Server struct {
	Port            int            `env:"PORT" default:"3000" doc:"Port of the API, the live stream and the pages. 0 takes a free one."`
	Host            string         `env:"TESTFLOW_HOST" doc:"Address to listen on. Unset: 127.0.0.1 for up, 0.0.0.0 for serve."`
	PublicURL       string         `env:"TESTFLOW_PUBLIC_URL" doc:"Address under which people reach this installation, for links and for the Origin check. Unset: http://<host>:<port>."`
	AllowedOrigins  []string       `env:"TESTFLOW_ALLOWED_ORIGINS" doc:"Other origins whose pages may call the API and open the live stream, comma-separated, such as https://status.example.com."`
	TrustedProxies  []netip.Prefix `env:"TESTFLOW_TRUSTED_PROXIES" doc:"Networks of reverse proxies whose X-Forwarded-For is believed, comma-separated, such as 10.0.0.0/8. Unset: nobody's is."`
	ShutdownTimeout time.Duration  `env:"TESTFLOW_SHUTDOWN_TIMEOUT" default:"30s" doc:"How long a stop waits for runs in flight before they end as inconclusive (shutdown)."`
	DrainDelay      time.Duration  `env:"TESTFLOW_DRAIN_DELAY" default:"0s" doc:"How long /readyz says 503 before a stop closes the listener, so that a load balancer notices."`
	Registration    string         `env:"TESTFLOW_REGISTRATION" doc:"Who may register after the first account: open (at once), confirm (by a code that is mailed, so that nobody learns who has an account), or invitation. Unset: open for up, invitation for serve."`
	LeakedPasswords string         `env:"TESTFLOW_LEAKED_PASSWORDS_FILE" doc:"File of SHA-1 hashes of leaked passwords, ordered by hash, as Have I Been Pwned gives it: what stands in it is refused. Unset: only what the built-in lists hold."`
	Invitation      time.Duration  `env:"TESTFLOW_INVITATION_LIFETIME" default:"168h" doc:"How long an invitation to an organization can be accepted."`
	DeletionGrace   time.Duration  `env:"TESTFLOW_ORG_DELETION_GRACE" default:"720h" doc:"How long a deleted organization is kept, frozen, and can be restored before it is erased. 0: until the next hourly housekeeping."`
	EgressAllow     []string       `env:"TESTFLOW_EGRESS_ALLOW" doc:"Networks that tests may call although they are private, comma-separated, each with an optional port: 10.20.0.0/16:443. Metadata services and what this service listens on are opened only by their exact address and port. Give all TESTFLOW_EGRESS_… to servers and workers alike."`
	EgressDeny      []string       `env:"TESTFLOW_EGRESS_DENY" doc:"What tests may not call, comma-separated; it wins over what is allowed: networks and addresses (10.66.0.0/16, 192.0.2.1:8443), names (db.example), all names below one (*.corp.example), ports (:2525). A name shuts that name; what it resolves to is shut by its network."`
	EgressRegions   string         `env:"TESTFLOW_EGRESS_REGIONS" doc:"Rules of single regions, beside those for all: eu: allow=10.1.0.0/16,10.2.3.4:443 deny=*.corp.example; us: deny=10.0.0.0/8."`
	MetricsToken    string         `env:"TESTFLOW_METRICS_TOKEN" secret:"true" doc:"Bearer token that /metrics asks for. Unset: /metrics answers loopback alone."`
}

// Database is where the log and the read models are.
type Database struct {
	URL          string `env:"DATABASE_URL" secret:"true" doc:"Postgres 15 to 18, as postgres://user:password@host:port/name. Unset: up starts a Postgres of its own."`
	AnalyticsURL string `env:"ANALYTICS_DATABASE_URL" secret:"true" doc:"Database of the analytics read models. Unset: <database>_analytics on the same server."`
	RolePrefix   string `env:"TESTFLOW_DB_ROLE_PREFIX" doc:"What the names of this installation's database roles begin with. Unset: the database's name."`
	MaxConns     int    `env:"TESTFLOW_DB_MAX_CONNS" default:"20" doc:"Connections that one process opens at most in each of its pools."`
	PGBin        string `env:"TESTFLOW_PG_BIN" doc:"Folder with initdb and postgres for a Postgres of our own. Unset: PATH, then the usual places."`
	DataDir      string `env:"TESTFLOW_DATA_DIR" doc:"Where up keeps its database and its secrets. Unset: /var/lib/testflow as root, otherwise the user's data folder."`
}

// Secrets are the keys that stand outside the database.
type Secrets struct {
	JWT       string `env:"JWT_SECRET" secret:"true" doc:"Signs access tokens, at least 32 bytes. Several, comma-separated: the first signs, all are accepted. Needed by serve; up makes one."`
	Refresh   string `env:"JWT_REFRESH_SECRET" secret:"true" doc:"Hashes refresh tokens, at least 32 bytes, several as with JWT_SECRET. Needed by serve; up makes one."`
	MasterKey string `env:"TESTFLOW_MASTER_KEY" secret:"true" doc:"Wraps the data keys of organizations and people: 32 bytes in base64, several, comma-separated: the first wraps, all open. Without it their secrets are lost, so keep a copy. Needed by serve; up makes one."`
}

// Audit is how the audit log is sealed.
type Audit struct {
	SealEvery time.Duration `env:"TESTFLOW_AUDIT_SEAL_EVERY" default:"10s" doc:"How often what is new in the audit log is sealed. Until then a change in the database leaves no trace."`
	HeadsFile string        `env:"TESTFLOW_AUDIT_HEADS_FILE" doc:"File to which every seal is added, a line each, for testflow audit verify --head. Put it where who runs the database cannot write. Unset: none."`
}

// Mail is how mail leaves.
type Mail struct {
	Host     string        `env:"TESTFLOW_SMTP_HOST" doc:"SMTP server that mail is handed to. Unset: up keeps mail as files in <data dir>/outbox (see testflow outbox), serve sends none."`
	SMTPPort int           `env:"TESTFLOW_SMTP_PORT" doc:"Port of the SMTP server. Unset: 587 for starttls, 465 for tls, 25 for none."`
	User     string        `env:"TESTFLOW_SMTP_USER" doc:"User at the SMTP server. Unset: mail is handed over without signing in."`
	Password string        `env:"TESTFLOW_SMTP_PASSWORD" secret:"true" doc:"Password of TESTFLOW_SMTP_USER."`
	From     string        `env:"TESTFLOW_SMTP_FROM" doc:"Sender of mail, such as TestFlow <testflow@example.com>. Needed with TESTFLOW_SMTP_HOST."`
	TLS      string        `env:"TESTFLOW_SMTP_TLS" default:"starttls" doc:"Encryption: starttls (nothing is sent without it), tls (from the first byte), or none, which sends no password."`
	Timeout  time.Duration `env:"TESTFLOW_SMTP_TIMEOUT" default:"15s" doc:"How long the SMTP server may take to connect and for each answer."`
}

// Worker is how runs are executed.
type Worker struct {
	Region      string `env:"TESTFLOW_REGION" default:"default" doc:"Region whose runs this process executes."`
	Concurrency int    `env:"TESTFLOW_WORKER_CONCURRENCY" default:"64" doc:"Runs that this process executes at the same time."`
	RegionKey   string `env:"TESTFLOW_REGION_KEY" secret:"true" doc:"Opens the secrets that tests of this region use: what testflow region key NAME prints on the server. Several, comma-separated: all open. Where TESTFLOW_MASTER_KEY is set it isn't needed; a worker should not have that."`
	Name        string `env:"TESTFLOW_WORKER_NAME" doc:"Name of this process in lists of workers. Unset: the host's name."`
}

// Client is how the command line reaches a server.
type Client struct {
	URL      string `env:"TESTFLOW_URL" default:"http://127.0.0.1:3000" doc:"Server that commands such as watch talk to."`
	APIKey   string `env:"TESTFLOW_API_KEY" secret:"true" doc:"API key that commands sign in with."`
	Token    string `env:"TESTFLOW_TOKEN" secret:"true" doc:"Access token that commands sign in with."`
	Email    string `env:"TESTFLOW_EMAIL" doc:"E-mail address that commands sign in with, together with TESTFLOW_PASSWORD."`
	Password string `env:"TESTFLOW_PASSWORD" secret:"true" doc:"Password for TESTFLOW_EMAIL."`
	Org      string `env:"TESTFLOW_ORGANIZATION_ID" doc:"Organization that commands work in, for users with several."`
}

// Log is what the process says of itself.
type Log struct {
	Level  slog.Level `env:"LOG_LEVEL" default:"info" doc:"Least level that is logged: debug, info, warn or error."`
	Format string     `env:"LOG_FORMAT" default:"auto" doc:"text, json, or auto: text on a terminal and json elsewhere."`
}

// Command is what the process is going to do; it decides what must be set.
type Command string

// The commands that read the environment.
const (
	Up      Command = "up"      // everything in one process; makes what is missing
	Serve   Command = "serve"   // doors, pulse, projections
	Work    Command = "worker"  // one region's runs
	Migrate Command = "migrate" // the schema
	Talk    Command = "client"  // a command that talks to a server through its API
	Print   Command = "config"  // prints the reference
)

// Load reads the environment (as os.Environ gives it) for the command. The error, if any, is a *Faults with every fault
// that was found.
func Load(command Command, environ []string) (*Config, error) {
	values := env.ToMap(environ)
	maps.DeleteFunc(values, func(_, value string) bool { return value == "" }) // set and empty is unset
	c, faults := &Config{}, &Faults{}
	known := readFiles(values, faults)

	opts := env.Options{Environment: values, DefaultValueTagName: "default"}
	if err := env.ParseWithOptions(c, opts); err != nil {
		faults.parse(err)
	}
	c.Warnings = unknown(values, known)
	c.check(command, faults)
	if len(faults.List) > 0 {
		slices.SortStableFunc(faults.List, func(a, b Fault) int { return strings.Compare(a.Variable, b.Variable) })
		return nil, faults
	}
	return c, nil
}

// readFiles puts the content of the files that …_FILE variables name into values, and returns every name that means
// something.
func readFiles(values map[string]string, faults *Faults) map[string]bool {
	known := map[string]bool{}
	for _, v := range Variables() {
		known[v.Name] = true
		if !v.Secret {
			continue
		}
		from := v.Name + "_FILE"
		known[from] = true
		path := values[from]
		if path == "" {
			continue
		}
		if values[v.Name] != "" {
			faults.add(from, "is set together with %s; set one of them", v.Name)
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			faults.add(from, "cannot be read: %v", err)
			continue
		}
		values[v.Name] = strings.TrimRight(string(content), "\r\n")
	}
	return known
}

// unknown lists variables that look like ours and that nothing reads: most often a typing error.
func unknown(values map[string]string, known map[string]bool) []string {
	var warnings []string
	for name := range values {
		ours := strings.HasPrefix(name, "TESTFLOW_") || strings.HasPrefix(name, "RATE_LIMIT_")
		if !ours || known[name] || strings.HasPrefix(name, "TESTFLOW_TEST_") || strings.HasPrefix(name, "TESTFLOW_MAKE_") {
			continue
		}
		warnings = append(warnings, name+" is set, and nothing reads it; `testflow config` lists the names")
	}
	slices.Sort(warnings)
	return warnings
}

// check adds every fault of the values to faults. A variable that did not parse was reported before and holds its zero.
func (c *Config) check(command Command, faults *Faults) {
	if c.Server.Port < 0 || c.Server.Port > 65535 {
		faults.add("PORT", "must lie between 0 and 65535")
	}
	if h := c.Server.Host; h != "" && net.ParseIP(h) == nil && h != "localhost" {
		faults.add("TESTFLOW_HOST", "must be an IP address or localhost")
	}
	oneOf(faults, "TESTFLOW_REGISTRATION", c.Server.Registration, "", "open", "confirm", "invitation")
	oneOf(faults, "LOG_FORMAT", c.Log.Format, "", "auto", "text", "json")
	httpURL(faults, "TESTFLOW_PUBLIC_URL", c.Server.PublicURL, false)
	httpURL(faults, "TESTFLOW_URL", c.Client.URL, false)
	for _, origin := range c.Server.AllowedOrigins {
		httpURL(faults, "TESTFLOW_ALLOWED_ORIGINS", origin, true)
	}
	for name, v := range map[string]string{
		"DATABASE_URL": c.Database.URL, "ANALYTICS_DATABASE_URL": c.Database.AnalyticsURL,
	} {
		postgresURL(faults, name, v)
	}
	positive(faults, "TESTFLOW_DB_MAX_CONNS", int64(c.Database.MaxConns))
	positive(faults, "TESTFLOW_WORKER_CONCURRENCY", int64(c.Worker.Concurrency))
	if c.Server.Invitation < time.Minute {
		faults.add("TESTFLOW_INVITATION_LIFETIME", "must be at least a minute")
	}
	if c.Limits.LiveRecheck > 4*time.Second {
		faults.add("TESTFLOW_LIMIT_LIVE_RECHECK", "must be at most 4s: who is removed is cut off within 5 s")
	}
	if c.Server.DeletionGrace < 0 {
		faults.add("TESTFLOW_ORG_DELETION_GRACE", "must not be negative")
	}
	if c.Server.ShutdownTimeout < 0 {
		faults.add("TESTFLOW_SHUTDOWN_TIMEOUT", "must not be negative")
	}
	if !regionName(c.Worker.Region) {
		faults.add("TESTFLOW_REGION", "must be 1 to 40 lower-case letters, digits and hyphens, and begin with a letter")
	}
	if e := c.Audit.SealEvery; (e < 100*time.Millisecond || e > 24*time.Hour) && !faults.has("TESTFLOW_AUDIT_SEAL_EVERY") {
		faults.add("TESTFLOW_AUDIT_SEAL_EVERY", "must lie between 100ms and 24h")
	}
	eachLimit(reflect.ValueOf(c.Limits), faults)
	c.checkSecrets(command, faults)
	c.checkMail(command, faults)
}

func (c *Config) checkSecrets(command Command, faults *Faults) {
	text := func(part string) bool { return len(part) >= minSecret }
	key := func(part string) bool {
		raw, err := base64.StdEncoding.Strict().DecodeString(part)
		return err == nil && len(raw) == minSecret
	}
	for _, s := range []struct {
		name, value, form, recipe string
		good                      func(part string) bool
		optional                  bool
	}{
		{"JWT_SECRET", c.Secrets.JWT, "must have at least 32 bytes", "openssl rand -base64 48", text, false},
		{"JWT_REFRESH_SECRET", c.Secrets.Refresh, "must have at least 32 bytes", "openssl rand -base64 48", text, false},
		{"TESTFLOW_MASTER_KEY", c.Secrets.MasterKey, "must be 32 bytes in base64", "openssl rand -base64 32", key, false},
		{"TESTFLOW_REGION_KEY", c.Worker.RegionKey, "must be 32 bytes in base64", "testflow region key NAME, on the server", key, true},
	} {
		if s.value == "" {
			if command == Serve && !s.optional {
				faults.add(s.name, "is needed by serve; make one with: %s", s.recipe)
			}
			continue
		}
		for part := range strings.SplitSeq(s.value, ",") {
			if !s.good(strings.TrimSpace(part)) {
				faults.add(s.name, "%s; make one with: %s", s.form, s.recipe)
				break
			}
		}
	}
	if c.Secrets.JWT != "" && c.Secrets.JWT == c.Secrets.Refresh {
		faults.add("JWT_REFRESH_SECRET", "must differ from JWT_SECRET")
	}
	if c.Database.URL == "" && (command == Serve || command == Work || command == Migrate) {
		faults.add("DATABASE_URL", "is needed by %s; only up starts a Postgres of its own", command)
	}
}

// ListenAddress is host:port to listen on; the host's default depends on the command.
func (c *Config) ListenAddress(command Command) string {
	host := c.Server.Host
	switch {
	case host != "":
	case command == Up:
		host = "127.0.0.1"
	default:
		host = "0.0.0.0"
	}
	return net.JoinHostPort(host, strconv.Itoa(c.Server.Port))
}

// RegistrationPolicy says who may register after the first account: open, confirm or invitation.
func (c *Config) RegistrationPolicy(command Command) string {
	switch {
	case c.Server.Registration != "":
		return c.Server.Registration
	case command == Up:
		return "open"
	}
	return "invitation"
}

// DataDir is where up keeps its database and its secrets: TESTFLOW_DATA_DIR, /var/lib/testflow as root, otherwise
// testflow in the user's data folder. home and getenv are os.UserHomeDir's answer and the environment.
func (c *Config) DataDir(root bool, home string, getenv func(string) string) string {
	switch {
	case c.Database.DataDir != "":
		return c.Database.DataDir
	case root:
		return "/var/lib/testflow"
	case getenv("XDG_DATA_HOME") != "":
		return getenv("XDG_DATA_HOME") + "/testflow"
	case runtime.GOOS == "darwin":
		return home + "/Library/Application Support/testflow"
	}
	return home + "/.local/share/testflow"
}

func oneOf(faults *Faults, name, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		faults.add(name, "must be %s", strings.Join(slices.DeleteFunc(allowed, func(s string) bool { return s == "" }), " or "))
	}
}

// eachLimit adds a fault for every number below what its tag least says, 1 when it says nothing, or above most; one that did not parse
// was reported before.
func eachLimit(v reflect.Value, faults *Faults) {
	t := v.Type()
	for i := range t.NumField() {
		name, least := t.Field(i).Tag.Get("env"), int64(1)
		if text := t.Field(i).Tag.Get("least"); text != "" {
			least, _ = strconv.ParseInt(text, 10, 64) // a test reads them all
		}
		if v.Field(i).CanInt() && v.Field(i).Int() < least && !faults.has(name) {
			faults.add(name, "must be at least %v", reflect.ValueOf(least).Convert(t.Field(i).Type))
		}
		most, err := strconv.ParseInt(t.Field(i).Tag.Get("most"), 10, 64)
		if err == nil && v.Field(i).CanInt() && v.Field(i).Int() > most && !faults.has(name) {
			faults.add(name, "must be at most %v", reflect.ValueOf(most).Convert(t.Field(i).Type))
		}
	}
}

func positive(faults *Faults, name string, n int64) {
	if n < 1 && !faults.has(name) {
		faults.add(name, "must be at least 1")
	}
}

// httpURL checks an address; originOnly allows scheme and host alone, as browsers send in Origin.
func httpURL(faults *Faults, name, value string, originOnly bool) {
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		faults.add(name, "must be an address such as https://testflow.example.com")
	case u.User != nil:
		faults.add(name, "must not hold a user or password")
	case originOnly && (u.Path != "" || u.RawQuery != "" || u.Fragment != ""):
		faults.add(name, "must be scheme and host alone, without a path or a slash at the end")
	}
}

func postgresURL(faults *Faults, name, value string) {
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || strings.Trim(u.Path, "/") == "" {
		faults.add(name, "must be an address such as postgres://user:password@host:5432/testflow") // never the value: it holds a password
	}
}

func regionName(s string) bool {
	if len(s) < 1 || len(s) > 40 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

// Fault is one variable that is wrong.
type Fault struct {
	Variable string
	Problem  string // lower case, without the value
}

// Faults is every fault of an environment.
type Faults struct{ List []Fault }

// Error lists the faults, one a line.
func (f *Faults) Error() string {
	lines := make([]string, 0, len(f.List)+1)
	lines = append(lines, "the environment is not right:")
	for _, one := range f.List {
		lines = append(lines, "  "+one.Variable+" "+one.Problem)
	}
	return strings.Join(lines, "\n")
}

func (f *Faults) add(variable, format string, args ...any) {
	f.List = append(f.List, Fault{Variable: variable, Problem: fmt.Sprintf(format, args...)})
}

func (f *Faults) has(variable string) bool {
	return slices.ContainsFunc(f.List, func(one Fault) bool { return one.Variable == variable })
}

// parse adds what the parser found, by the names of variables instead of fields, and without the values.
func (f *Faults) parse(err error) {
	var all env.AggregateError
	if !errors.As(err, &all) {
		f.add("environment", "cannot be read: %v", err)
		return
	}
	byField := map[string]Variable{}
	for _, v := range Variables() {
		byField[v.field] = v
	}
	for _, one := range all.Errors {
		var parse env.ParseError
		if !errors.As(one, &parse) {
			f.add("environment", "cannot be read: %v", one)
			continue
		}
		v, ok := byField[parse.Name]
		if !ok {
			f.add(parse.Name, "cannot be read")
			continue
		}
		f.add(v.Name, "must be %s", wanted(parse.Type))
	}
}

func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a duration such as 30s or 5m"
	case reflect.TypeFor[slog.Level]():
		return "debug, info, warn or error"
	case reflect.TypeFor[limits.Size]():
		return "a size such as 512KiB or 10MiB"
	case reflect.TypeFor[netip.Prefix](), reflect.TypeFor[[]netip.Prefix]():
		return "networks such as 10.0.0.0/8"
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	default:
		return "of another form (" + t.String() + ")"
	}
}
