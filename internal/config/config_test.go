package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const long = "0123456789abcdef0123456789abcdef"

func TestLoad_nothingSet_hasTheDefaults(t *testing.T) {
	t.Parallel()
	c, err := Load(Up, nil)
	require.NoError(t, err)
	require.Equal(t, 3000, c.Server.Port)
	require.Equal(t, 30*time.Second, c.Server.ShutdownTimeout)
	require.EqualValues(t, 16<<10, c.Limits.LiveFrame)
	require.Equal(t, "INFO", c.Log.Level.String())
	require.Equal(t, "127.0.0.1:3000", c.ListenAddress(Up))
	require.Equal(t, "0.0.0.0:3000", c.ListenAddress(Serve))
	require.Equal(t, "open", c.RegistrationPolicy(Up))
	require.Equal(t, "invitation", c.RegistrationPolicy(Serve))
	require.Empty(t, c.Warnings)
}

func TestLoad_manyFaults_areReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Load(Serve, []string{
		"PORT=http", "LOG_LEVEL=loud", "TESTFLOW_SHUTDOWN_TIMEOUT=soon", "JWT_SECRET=hunter2", "TESTFLOW_LIMIT_LIVE_FRAME=big",
		"TESTFLOW_TRUSTED_PROXIES=everybody", "TESTFLOW_LIMIT_PAGE_SIZE=-1", "TESTFLOW_LIMIT_SINK_RUNS=0", "DATABASE_URL=mysql://root:hunter2@db/x",
		"TESTFLOW_REGION=Nord!", "TESTFLOW_ALLOWED_ORIGINS=https://a.example/,https://b.example", "TESTFLOW_REGISTRATION=closed",
	})
	var faults *Faults
	require.ErrorAs(t, err, &faults)
	got := map[string]int{}
	for _, f := range faults.List {
		got[f.Variable]++
	}
	require.Equal(t, map[string]int{
		"PORT": 1, "LOG_LEVEL": 1, "TESTFLOW_SHUTDOWN_TIMEOUT": 1, "JWT_SECRET": 1, "JWT_REFRESH_SECRET": 1, "TESTFLOW_MASTER_KEY": 1,
		"TESTFLOW_LIMIT_LIVE_FRAME": 1, "TESTFLOW_TRUSTED_PROXIES": 1, "TESTFLOW_LIMIT_PAGE_SIZE": 1, "TESTFLOW_LIMIT_SINK_RUNS": 1,
		"DATABASE_URL": 1, "TESTFLOW_REGION": 1, "TESTFLOW_ALLOWED_ORIGINS": 1, "TESTFLOW_REGISTRATION": 1,
	}, got)
	require.NotContains(t, err.Error(), "hunter2", "a fault never shows a secret")
}

func TestLoad_secretFromFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(long+"\n"), 0o600))

	c, err := Load(Up, []string{"JWT_SECRET_FILE=" + path})
	require.NoError(t, err)
	require.Equal(t, long, c.Secrets.JWT)

	_, err = Load(Up, []string{"JWT_SECRET_FILE=" + path, "JWT_SECRET=" + long})
	require.ErrorContains(t, err, "JWT_SECRET_FILE is set together with JWT_SECRET")
	_, err = Load(Up, []string{"JWT_SECRET_FILE=" + path + ".missing"})
	require.ErrorContains(t, err, "JWT_SECRET_FILE cannot be read")
}

func TestLoad_masterKeyIsThirtyTwoBytesInBase64(t *testing.T) {
	t.Parallel()
	const key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	for _, good := range []string{key, key + ", " + key} {
		_, err := Load(Up, []string{"TESTFLOW_MASTER_KEY=" + good})
		require.NoError(t, err)
	}
	for _, bad := range []string{long, key + ",", "MDEyMzQ1", key[:len(key)-1]} {
		_, err := Load(Up, []string{"TESTFLOW_MASTER_KEY=" + bad})
		require.ErrorContains(t, err, "openssl rand -base64 32", bad)
	}
}

func TestLoad_emptyIsUnset(t *testing.T) {
	t.Parallel()
	c, err := Load(Up, []string{"PORT=", "DATABASE_URL="})
	require.NoError(t, err)
	require.Equal(t, 3000, c.Server.Port)
}

func TestLoad_typingErrorsWarn(t *testing.T) {
	t.Parallel()
	c, err := Load(Up, []string{"TESTFLOW_SHUTDOWN_TIMEOUTS=3s", "TESTFLOW_TEST_PG=local", "HOME=/root"})
	require.NoError(t, err)
	require.Len(t, c.Warnings, 1)
	require.Contains(t, c.Warnings[0], "TESTFLOW_SHUTDOWN_TIMEOUTS")
}

func TestWriteReference_namesEverythingAndNoSecret(t *testing.T) {
	t.Parallel()
	c, err := Load(Up, []string{"JWT_SECRET=" + long, "PORT=4000"})
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, WriteReference(&b, c))
	for _, v := range Variables() {
		require.Contains(t, b.String(), v.Name)
	}
	require.Contains(t, b.String(), "PORT (default 3000) = 4000")
	require.Contains(t, b.String(), "JWT_SECRET [secret] = •••")
	require.NotContains(t, b.String(), long)
	require.NotContains(t, b.String(), "LOG_LEVEL (default info) =", "a default is not repeated")
	require.NotContains(t, b.String(), "TESTFLOW_LIMIT_WAIT (default 60s) =")
}

// What is switched off by 0 doesn't look as if it stood at its default.
func TestReference_zeroIsAValue(t *testing.T) {
	t.Parallel()
	c, err := Load(Up, []string{"RATE_LIMIT_AUTH_MAX_PER_ADDRESS=0", "TESTFLOW_ORG_DELETION_GRACE=0", "TESTFLOW_RETENTION_BODY_DAYS=0"})
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, WriteReference(&b, c))
	require.Contains(t, b.String(), "RATE_LIMIT_AUTH_MAX_PER_ADDRESS (default 50) = 0\n")
	require.Contains(t, b.String(), "TESTFLOW_ORG_DELETION_GRACE (default 720h) = 0s\n")
	require.Contains(t, b.String(), "TESTFLOW_RETENTION_BODY_DAYS (default 30) = 0\n")
	require.NotContains(t, b.String(), "TESTFLOW_DRAIN_DELAY (default 0s) =")
	settings := c.Settings(func(string) string { return "" })
	require.Equal(t, "0", settings["RATE_LIMIT_AUTH_MAX_PER_ADDRESS"])
	require.Equal(t, "0s", settings["TESTFLOW_ORG_DELETION_GRACE"])
	require.NotContains(t, settings, "TESTFLOW_SMTP_PORT")
}

func TestVariables_areDocumentedAndDistinct(t *testing.T) {
	t.Parallel()
	names, fields := map[string]bool{}, map[string]string{}
	for _, v := range Variables() {
		require.NotEmpty(t, v.Name)
		require.NotEmpty(t, v.Doc, v.Name)
		require.True(t, strings.HasSuffix(v.Doc, "."), v.Name)
		require.False(t, names[v.Name], v.Name)
		names[v.Name] = true
		// Parse errors name the field alone, so fields that can fail to parse must have distinct names.
		kind := reflect.TypeFor[Config]().FieldByIndex(v.index).Type
		if kind.Kind() != reflect.String && kind != reflect.TypeFor[[]string]() {
			require.Empty(t, fields[v.field], v.Name)
			fields[v.field] = v.Name
		}
	}
}

// A setting without effect is a lie: each is read by app, or by the command line under its own name.
func TestVariables_areReadSomewhere(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, room := range []string{"../app", "../cli", "."} {
		files, err := filepath.Glob(room + "/*.go")
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			code.Write(text)
		}
	}
	for _, v := range Variables() {
		inApp := regexp.MustCompile(`\.` + v.field + `\b`).MatchString(code.String())
		inCLI := v.Group == "Client" && strings.Count(code.String(), `"`+v.Name+`"`) > 1
		require.True(t, inApp || inCLI, "%s (%s.%s) is read nowhere", v.Name, v.Group, v.field)
	}
}
