package postgres

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
)

// AdminSQLError says that the login may not do what a migration needs first. SQL is what an administrator of the server
// has to run, once; after that the same migration goes on.
type AdminSQLError struct {
	Database string   // the database that the administrator has to be connected to
	SQL      []string // statements without semicolon, in order
	Err      error    // the refusal
}

// Error returns one line; the statements are for the door to print.
func (e *AdminSQLError) Error() string {
	return fmt.Sprintf("the login may not prepare the database %q (%v): an administrator has to run %d statements first", e.Database, e.Err, len(e.SQL))
}

// Unwrap returns the server's refusal.
func (e *AdminSQLError) Unwrap() error { return e.Err }

// Script returns the statements as text to paste into psql.
func (e *AdminSQLError) Script() string {
	var b strings.Builder
	fmt.Fprintf(&b, "-- as an administrator, connected to the database %s\n", e.Database)
	for _, s := range e.SQL {
		b.WriteString(s + ";\n")
	}
	return b.String()
}

// roleNames are the roles of an installation, none of which anybody logs in as.
func roleNames(prefix string) []string {
	return []string{prefix + "_owner", prefix + "_api", prefix + "_system"}
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// databaseOf returns the name of the database in a URL or a keyword string.
func databaseOf(dsn string) (string, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "", fmt.Errorf("read the database URL: %w", err)
	}
	return cfg.Database, nil
}

// WithDatabase returns dsn, a URL or a keyword string, pointing at another database of the same server.
func WithDatabase(dsn, name string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		if _, err := pgx.ParseConfig(dsn); err != nil {
			return "", fmt.Errorf("read the database URL: %w", err)
		}
		return dsn + " dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(name) + "'", nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("read the database URL: %w", stripURL(err))
	}
	u.Path = "/" + name
	return u.String(), nil
}

// stripURL keeps a URL, which may hold a password, out of a message.
func stripURL(err error) error {
	if ue, ok := err.(*url.Error); ok { //nolint:errorlint // url.Parse returns it bare
		return ue.Err
	}
	return err
}

// prepareRoles makes the roles and what they need in the database that conn is connected to. It looks first and does
// only what is missing, so that a login which may do nothing of it can go on after an administrator has. more are
// statements that belong to the same errand.
func prepareRoles(ctx context.Context, conn *pgx.Conn, prefix string, ours bool, more ...string) error {
	todo, err := missingRoles(ctx, conn, prefix)
	if err != nil {
		return err
	}
	grants, err := missingGrants(ctx, conn, prefix, ours)
	if err != nil {
		return err
	}
	return execAll(ctx, conn, append(append(todo, grants...), more...))
}

// execAll runs statements one by one and turns a refusal into an AdminSQLError that carries it and all that follow.
func execAll(ctx context.Context, conn *pgx.Conn, statements []string) error {
	for i, s := range statements {
		_, err := conn.Exec(ctx, s)
		switch SQLState(err) {
		case "":
			if err != nil {
				return fmt.Errorf("prepare the database: %w", err)
			}
		case "42501", "0LP01": // insufficient_privilege, invalid_grant_operation
			return &AdminSQLError{Database: conn.Config().Database, SQL: statements[i:], Err: err}
		case "42710", "42P04", "23505": // duplicate: another process made it meanwhile
		default:
			return fmt.Errorf("prepare the database: %s: %w", s, err)
		}
	}
	return nil
}

// missingRoles returns the statements that make the roles and the login's membership in them.
func missingRoles(ctx context.Context, conn *pgx.Conn, prefix string) ([]string, error) {
	var login string
	var super bool
	var version int
	err := conn.QueryRow(ctx, `SELECT session_user, (SELECT rolsuper FROM pg_roles WHERE rolname = session_user), current_setting('server_version_num')::int`).
		Scan(&login, &super, &version)
	if err != nil {
		return nil, fmt.Errorf("ask who the login is: %w", err)
	}
	if version < 150000 {
		return nil, fmt.Errorf("the server is PostgreSQL %d: TestFlow needs 15 or newer", version/10000)
	}
	membership := "MEMBER"
	if version >= 160000 {
		membership = "SET" // from 16 on a member may be one that cannot SET ROLE
	}
	var todo []string
	for _, role := range roleNames(prefix) {
		var exists, member bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, role).Scan(&exists)
		if err != nil {
			return nil, fmt.Errorf("look for role %s: %w", role, err)
		}
		if exists {
			if err := conn.QueryRow(ctx, `SELECT pg_has_role(session_user, $1, $2)`, role, membership).Scan(&member); err != nil {
				return nil, fmt.Errorf("look for membership in %s: %w", role, err)
			}
		} else {
			todo = append(todo, "CREATE ROLE "+quote(role)+" NOLOGIN")
		}
		if !member && !super {
			todo = append(todo, "GRANT "+quote(role)+" TO "+quote(login))
		}
	}
	return todo, nil
}

// missingGrants returns the statements that let the roles work in the connected database. In one that is ours nobody
// else may connect or make temporary tables; privileges of others' databases are only added to, for our own roles.
func missingGrants(ctx context.Context, conn *pgx.Conn, prefix string, ours bool) ([]string, error) {
	db, roles := conn.Config().Database, roleNames(prefix)
	var todo []string
	has := func(role, on, privilege string) (ok bool, err error) {
		query := `SELECT has_database_privilege($1, $2, $3)`
		if on == "public" {
			query = `SELECT has_schema_privilege($1, $2, $3)`
		}
		err = conn.QueryRow(ctx, query, role, on, privilege).Scan(&ok)
		if SQLState(err) == "42704" { // the role is still to be made
			return false, nil
		}
		return ok, err
	}
	if ours {
		var open bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
			WHERE d.datname = current_database() AND a.grantee = 0)`).Scan(&open)
		if err != nil {
			return nil, fmt.Errorf("look at the privileges of %s: %w", db, err)
		}
		if open {
			todo = append(todo, "REVOKE ALL ON DATABASE "+quote(db)+" FROM PUBLIC")
		}
	}
	for _, want := range []struct{ role, on, privilege string }{
		{roles[0], db, "CREATE"},
		{roles[0], db, "TEMPORARY"},
		{roles[0], "public", "CREATE"},
		{roles[0], "public", "USAGE WITH GRANT OPTION"}, // the migrations hand it on
		{roles[1], db, "CONNECT"},
		{roles[2], db, "CONNECT"},
	} {
		ok, err := has(want.role, want.on, want.privilege)
		if err != nil {
			return nil, fmt.Errorf("look at the privileges of %s: %w", want.role, err)
		}
		if ok {
			continue
		}
		object := "DATABASE " + quote(db)
		if want.on == "public" {
			object = "SCHEMA public"
		}
		privilege, option, _ := strings.Cut(want.privilege, " ")
		todo = append(todo, strings.TrimSpace(fmt.Sprintf("GRANT %s ON %s TO %s %s", privilege, object, quote(want.role), option)))
	}
	return todo, nil
}
