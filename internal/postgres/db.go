// Package postgres is the ground that everything stored stands on: pools bound to a role, transactions bound to a
// tenant, migrations and roles, LISTEN, error translation, and a Postgres server of our own for machines that have
// none. It knows no table of a slice and no event; SQL of a slice lives in the slice.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Defaults of Config.
const (
	defaultMaxConns          = 16
	defaultStatementTimeout  = 30 * time.Second
	defaultIdleInTransaction = 60 * time.Second
	defaultConnectTimeout    = 10 * time.Second
)

// Config says which database to open, and as whom.
type Config struct {
	URL            string        // postgres://…; its login is a member of the installation's roles
	RolePrefix     string        // of <prefix>_api and <prefix>_system; "" = the database's name
	MaxConns       int32         // of the API pool; 0 = 16
	SystemMaxConns int32         // of the System pool; 0 = MaxConns
	AppName        string        // application_name, for pg_stat_activity; "" = "testflow"
	StatementLimit time.Duration // statement_timeout of the API pool; 0 = 30 s, negative = none. System has none
	Logger         *slog.Logger  // nil = nothing is logged
	// Configure, when set, is called with each pool's configuration before it is opened (tracing).
	Configure func(*pgxpool.Config)
}

// DB is one database through two pools. Every connection of API acts as <prefix>_api, which row-level security binds
// to the tenant of its transaction: without InOrg it sees no tenant row at all. Every connection of System acts as
// <prefix>_system, which sees all tenants. Safe for concurrent use.
type DB struct {
	API    *pgxpool.Pool
	System *pgxpool.Pool

	prefix     string
	apiRole    string // quoted
	systemRole string // quoted
	log        *slog.Logger
}

// rolePrefix is what a role prefix may be: it is written into SQL as an identifier and must leave room for "_system".
var rolePrefix = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,50}$`)

// Open opens both pools and proves that the login may act as both roles. The caller closes the DB.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	base, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	prefix, err := PrefixOf(cfg.URL, cfg.RolePrefix)
	if err != nil {
		return nil, err
	}
	db := &DB{
		prefix:     prefix,
		apiRole:    pgx.Identifier{prefix + "_api"}.Sanitize(),
		systemRole: pgx.Identifier{prefix + "_system"}.Sanitize(),
	}
	if db.log = cfg.Logger; db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = defaultMaxConns
	}
	if cfg.SystemMaxConns <= 0 {
		cfg.SystemMaxConns = cfg.MaxConns
	}
	limit := cfg.StatementLimit
	if limit == 0 {
		limit = defaultStatementTimeout
	}
	db.API, err = openPool(ctx, base.Copy(), cfg, prefix+"_api", cfg.MaxConns, max(limit, 0))
	if err != nil {
		return nil, err
	}
	db.System, err = openPool(ctx, base.Copy(), cfg, prefix+"_system", cfg.SystemMaxConns, 0)
	if err != nil {
		db.API.Close()
		return nil, err
	}
	return db, nil
}

// Close closes both pools and waits for the connections that are out.
func (d *DB) Close() {
	d.API.Close()
	d.System.Close()
}

// RolePrefix returns the prefix of this installation's roles.
func (d *DB) RolePrefix() string { return d.prefix }

// Ping asks the database for an answer over the system pool.
func (d *DB) Ping(ctx context.Context) error { return d.System.Ping(ctx) }

// PrefixOf returns the role prefix of an installation: the given one, else the name of the database in url.
func PrefixOf(url, prefix string) (string, error) {
	if prefix == "" {
		cfg, err := pgx.ParseConfig(url)
		if err != nil {
			return "", fmt.Errorf("read the database URL: %w", err)
		}
		prefix = cfg.Database
	}
	if !rolePrefix.MatchString(prefix) {
		return "", fmt.Errorf("role prefix %q: use lower-case letters, digits and _, at most 51, and set TESTFLOW_DB_ROLE_PREFIX where the database's name is none", prefix)
	}
	return prefix, nil
}

func openPool(ctx context.Context, pc *pgxpool.Config, cfg Config, role string, maxConns int32, statementLimit time.Duration) (*pgxpool.Pool, error) {
	pc.MaxConns = maxConns
	pc.MaxConnLifetime = time.Hour
	pc.MaxConnLifetimeJitter = 10 * time.Minute
	pc.MaxConnIdleTime = 15 * time.Minute
	tuneConn(pc.ConnConfig, cfg.AppName)
	// As a start parameter the role is also what RESET ROLE and the end of a transaction return to.
	pc.ConnConfig.RuntimeParams["role"] = role
	pc.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = milliseconds(defaultIdleInTransaction)
	if statementLimit > 0 {
		pc.ConnConfig.RuntimeParams["statement_timeout"] = milliseconds(statementLimit)
	}
	pc.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		registerTypes(conn.TypeMap())
		return nil
	}
	if cfg.Configure != nil {
		cfg.Configure(pc)
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the pool of %s: %w", role, err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect as %s: %w", role, explainConnect(err))
	}
	return pool, nil
}

// tuneConn sets what every connection of ours has, whoever it acts as.
func tuneConn(cc *pgx.ConnConfig, appName string) {
	if appName == "" {
		appName = "testflow"
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = defaultConnectTimeout
	}
	cc.RuntimeParams["application_name"] = appName
	cc.RuntimeParams["timezone"] = "UTC"
}

// registerTypes makes ids travel as they are and timestamps arrive in UTC, whatever the machine's zone.
func registerTypes(m *pgtype.Map) {
	registerUUIDs(m)
	m.RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}})
	m.RegisterType(&pgtype.Type{Name: "_timestamptz", OID: pgtype.TimestamptzArrayOID, Codec: &pgtype.ArrayCodec{
		ElementType: &pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}},
	}})
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%d", d.Milliseconds()) }

// ErrNotMigrated says that the database has none of TestFlow's roles yet: run `testflow migrate up`.
var ErrNotMigrated = errors.New("the database is not set up: run `testflow migrate up`")

// explainConnect turns "role does not exist" into ErrNotMigrated, and anything else that keeps us from connecting into
// one line that says what to do.
func explainConnect(err error) error {
	if SQLState(err) == "22023" { // invalid value for parameter "role"
		return &connectError{text: ErrNotMigrated.Error(), err: errors.Join(ErrNotMigrated, err)}
	}
	var ce *pgconn.ConnectError
	if !errors.As(err, &ce) || ce.Config == nil {
		return err
	}
	return &connectError{text: connectText(ce), err: err}
}

// connectError is err in other words.
type connectError struct {
	text string
	err  error
}

func (e *connectError) Error() string { return e.text }
func (e *connectError) Unwrap() error { return e.err }

func connectText(ce *pgconn.ConnectError) string {
	c := ce.Config
	server := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	switch SQLState(ce) {
	case "":
	case "3D000":
		return fmt.Sprintf("the server %s has no database %q: create it (createdb), or correct DATABASE_URL", server, c.Database)
	case "28P01", "28000":
		return fmt.Sprintf("the server %s doesn't let user %q in (%s): correct DATABASE_URL", server, c.User, serverSays(ce))
	case "53300":
		return fmt.Sprintf("the server %s has no connection left (%s): raise its max_connections, or lower TESTFLOW_DB_MAX_CONNS", server, serverSays(ce))
	default:
		return fmt.Sprintf("the server %s refuses the connection (%s)", server, serverSays(ce))
	}
	var (
		dns *net.DNSError
		op  *net.OpError
	)
	switch {
	case errors.As(ce, &dns):
		return fmt.Sprintf("the database's host %q is not known (%s): correct DATABASE_URL", c.Host, dns.Err)
	case errors.Is(ce, context.DeadlineExceeded):
		return fmt.Sprintf("the database at %s doesn't answer in time: start it, or correct DATABASE_URL", server)
	case errors.As(ce, &op):
		return fmt.Sprintf("the database at %s doesn't answer (%s): start it, or correct DATABASE_URL", server, op.Err)
	default:
		return strings.Join(strings.Fields(ce.Error()), " ")
	}
}

// serverSays is the server's own message.
func serverSays(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Message
	}
	return "no message"
}
