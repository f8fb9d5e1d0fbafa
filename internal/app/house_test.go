package app_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const module = "github.com/testflow/testflow/"

// A room of the house and what it stands on.
type room struct {
	name string
	may  []string // the rooms it may stand on; nil = every room
}

// plan says on which rooms each room may stand; docs/decisions and the README draw it. A room that is not on the plan
// fails the test: draw it here first, then build it. A name is the folder under internal/, or the folder itself for
// what lies beside internal/.
var plan = []room{
	// ground: knows nothing of ours
	{"fault", []string{}},
	{"limits", []string{}},
	{"config", []string{"limits"}},
	{"migrations", []string{}},
	{"openapi", []string{}},
	// ground: may say what a caller can do about it
	{"auth", []string{"limits", "fault"}},
	{"vault", []string{"limits", "fault"}},
	{"netguard", []string{"limits", "fault"}},
	{"seal", []string{"limits", "fault"}},
	{"testspec", []string{"limits", "fault"}},
	{"interchange", []string{"testspec", "limits", "fault"}},
	{"executor", []string{"testspec", "netguard", "vault", "limits", "fault"}},
	{"postgres", []string{"migrations", "limits", "fault"}},
	{"ratelimit", []string{"postgres", "limits", "fault"}},
	{"mail", []string{"postgres", "vault", "limits", "fault"}},
	// the log
	{"eventstore", []string{"seal", "postgres", "limits", "fault"}}, // what it hashes is what is verified: one function
	{"projection", []string{"eventstore", "postgres", "limits", "fault"}},
	// slices, lowest first; a slice sees only slices before it
	{"account", []string{"mail", "ratelimit", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"org", []string{"account", "mail", "ratelimit", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"project", []string{"org", "account", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"secret", []string{"project", "org", "account", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"apitest", []string{"secret", "project", "org", "account", "testspec", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"run", []string{"apitest", "secret", "project", "org", "account", "executor", "testspec", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"schedule", []string{"run", "apitest", "project", "org", "account", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"alert", []string{"run", "apitest", "project", "org", "account", "netguard", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"analytics", []string{"run", "apitest", "project", "org", "account", "projection", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	{"audit", []string{"seal", "eventstore", "postgres", "auth", "vault", "limits", "fault"}},
	// doors
	{"httpapi", []string{"account", "org", "project", "secret", "apitest", "run", "schedule", "alert", "analytics", "audit", "ratelimit", "testspec", "interchange", "auth", "vault", "limits", "fault", "openapi"}},
	{"dashboard", []string{"account", "org", "project", "apitest", "run", "schedule", "alert", "analytics", "audit", "testspec", "interchange", "auth", "limits", "fault", "openapi"}},
	{"realtime", []string{"eventstore", "auth", "limits", "fault"}},
	{"cli", []string{"executor", "testspec", "interchange", "netguard", "seal", "vault", "limits", "fault"}},
	// wiring: may see every room; the commands see wiring alone
	{"app", nil},
	{"cmd", []string{"app"}},
}

// owners says which rooms may use a library, packages below it included. A library that is not named is free.
var owners = map[string][]string{
	"github.com/labstack/echo":            {"httpapi", "dashboard"},
	"github.com/oapi-codegen":             {"httpapi"},
	"github.com/swaggo/files":             {"httpapi"},
	"github.com/olahol/melody":            {"realtime"},
	"github.com/golang-jwt/jwt":           {"auth", "executor"},
	"github.com/alexedwards/argon2id":     {"auth"},
	"code.dny.dev/ssrf":                   {"netguard"},
	"github.com/quic-go/quic-go":          {"executor"},
	"github.com/theory/jsonpath":          {"executor", "testspec"},
	"github.com/expr-lang/expr":           {"testspec"},
	"github.com/pressly/goose":            {"postgres"},
	"github.com/caarlos0/env":             {"config"},
	"github.com/DataDog/sketches-go":      {"analytics"},
	"github.com/gowebpki/jcs":             {"seal"},
	"golang.org/x/mod/sumdb":              {"seal", "audit"},
	"github.com/wneessen/go-mail":         {"mail"},
	"github.com/emersion/go-smtp":         {},
	"github.com/dunglas/httpsfv":          {"httpapi"},
	"github.com/trustelem/zxcvbn":         {"account", "auth"},
	"github.com/riverqueue/river":         {"run", "schedule", "alert", "mail", "account", "org", "audit", "postgres", "app"},
	"github.com/testcontainers":           {},
	"github.com/stretchr/testify":         {},
	"github.com/Shopify/toxiproxy":        {},
	"pgregory.net/rapid":                  {},
	"go.uber.org/goleak":                  {},
	"github.com/go-rod/rod":               {},
	"github.com/tsenart/vegeta/v12/lib":   {"app"},
	"github.com/prometheus/client_golang": {"app", "httpapi", "realtime", "run", "projection", "eventstore", "postgres"},

	"github.com/santhosh-tekuri/jsonschema/v6": {"testspec"},
}

// noDatabase are the rooms that must not know that there is a database.
var noDatabase = []string{
	"fault", "config", "openapi", "testspec", "interchange", "netguard", "executor", "auth", "vault",
	"httpapi", "dashboard", "realtime", "cli", "cmd",
}

// database are the libraries by which a room would know.
var database = []string{"database/sql", "github.com/jackc", "github.com/pressly/goose", "github.com/riverqueue"}

// TestHouse_roomsStandOnThePlan reads every import of every package of the module.
func TestHouse_roomsStandOnThePlan(t *testing.T) {
	t.Parallel()
	offences, files, err := inspect(os.DirFS("../.."))
	require.NoError(t, err)
	require.Greater(t, files, 3, "found no Go files: is the test where it thinks it is?")
	for _, o := range offences {
		t.Error(o)
	}
}

// TestHouse_planHasNoCircle: a room may stand only on rooms drawn before it.
func TestHouse_planHasNoCircle(t *testing.T) {
	t.Parallel()
	var drawn []string
	for _, r := range plan {
		require.NotContains(t, drawn, r.name, "drawn twice")
		for _, to := range r.may {
			require.Contains(t, drawn, to, "%s stands on %s, which is drawn above it or not at all", r.name, to)
		}
		drawn = append(drawn, r.name)
	}
	for _, rooms := range owners {
		for _, r := range rooms {
			require.Contains(t, drawn, r, "an owner that is not on the plan")
		}
	}
	for _, r := range noDatabase {
		require.Contains(t, drawn, r)
	}
}

// TestHouse_seesOffences shows that the test above can fail, once for each rule.
func TestHouse_seesOffences(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, imports, want string }{
		"a room that nobody drew":         {"internal/attic/a.go", "fmt", "not on the plan"},
		"a folder beside internal":        {"pkg/a.go", "fmt", "not on the plan"},
		"a slice that looks to its right": {"internal/project/a.go", module + "internal/run", "may not stand on run"},
		"ground that looks up":            {"internal/executor/a.go", module + "internal/run", "may not stand on run"},
		"audit that knows a slice":        {"internal/audit/a.go", module + "internal/org", "may not stand on org"},
		"a door that reads the log":       {"internal/httpapi/a.go", module + "internal/eventstore", "may not stand on eventstore"},
		"a door with SQL":                 {"internal/httpapi/a.go", "github.com/jackc/pgx/v5", "must not know the database"},
		"a door that enqueues":            {"internal/realtime/a.go", "github.com/riverqueue/river", "must not know the database"},
		"a slice that speaks HTTP":        {"internal/run/a.go", "github.com/labstack/echo/v4", "belongs to"},
		"a test library in the binary":    {"internal/run/a.go", "github.com/stretchr/testify/require", "belongs to"},
		"a test helper in the binary":     {"internal/run/a.go", module + "internal/postgres/pgtest", "is for tests alone"},
		"a command that skips the wiring": {"cmd/testflow/main.go", module + "internal/run", "may not stand on run"},
		"wiring used from below":          {"internal/run/a.go", module + "internal/app", "may not stand on app"},
		"an embed that knows more":        {"migrations/embed.go", module + "internal/postgres", "may not stand on postgres"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := fmt.Sprintf("package x\n\nimport _ %q\n", c.imports)
			offences, _, err := inspect(fstest.MapFS{c.file: {Data: []byte(src)}})
			require.NoError(t, err)
			require.Len(t, offences, 1)
			require.Contains(t, offences[0], c.want)
		})
	}
}

// inspect returns what breaks the plan in the module that lies in root, and how many files it read. Test files and
// helpers for tests (folders that end in "test": pgtest, targettest) may import what they like.
func inspect(root fs.FS) (offences []string, files int, err error) {
	err = fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || isHelper(p) || p == "tools") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		files++
		src, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		here := roomOf(p)
		i := slices.IndexFunc(plan, func(r room) bool { return r.name == here })
		if i < 0 {
			offences = append(offences, fmt.Sprintf("%s: room %q is not on the plan; draw it in internal/app/house_test.go first", p, here))
			return nil
		}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if o := offence(plan[i], imp); o != "" {
				offences = append(offences, p+": "+o)
			}
		}
		return nil
	})
	return offences, files, err
}

// offence says what is wrong with r importing imp, "" when nothing is.
func offence(r room, imp string) string {
	if inside, ours := strings.CutPrefix(imp, module); ours {
		to := roomOf(inside + "/x.go")
		switch {
		case isHelper(inside):
			return imp + " is for tests alone"
		case to == r.name || r.may == nil || slices.Contains(r.may, to):
			return ""
		}
		return fmt.Sprintf("%s may not stand on %s", r.name, to)
	}
	if slices.Contains(noDatabase, r.name) && slices.ContainsFunc(database, func(lib string) bool { return within(imp, lib) }) {
		return fmt.Sprintf("%s must not know the database, and imports %s", r.name, imp)
	}
	for lib, rooms := range owners {
		if within(imp, lib) && !slices.Contains(rooms, r.name) {
			return fmt.Sprintf("%s belongs to %v", lib, rooms)
		}
	}
	return ""
}

// roomOf names the room of a file by its path in the module: internal/run/… is run, cmd/testflow/… is cmd.
func roomOf(file string) string {
	parts := strings.Split(file, "/")
	if parts[0] == "internal" && len(parts) > 2 {
		return parts[1]
	}
	return parts[0]
}

// isHelper tells a package for tests, or one below it, by its folder: internal/postgres/pgtest. A room itself, such as
// apitest, is none.
func isHelper(dir string) bool {
	parts := strings.Split(dir, "/")
	for i, part := range parts {
		if strings.HasSuffix(part, "test") && i > 1 && parts[0] == "internal" {
			return true
		}
	}
	return false
}

// within tells whether package imp is lib or lies below it.
func within(imp, lib string) bool {
	return imp == lib || strings.HasPrefix(imp, lib+"/")
}
