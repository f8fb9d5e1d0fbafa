package account

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/vault"
)

func TestNormalizeEmail(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ada@example.com":                "ada@example.com",
		"  ADA@Example.COM\n":            "ada@example.com",
		"ada+tag@mail.example.co":        "ada+tag@mail.example.co",
		"a@b.c":                          "a@b.c",
		"jo\u0301@example.com":           "jó@example.com", // composed differently, the same address
		"ada@b\u00fccher.example":        "ada@xn--bcher-kva.example",
		"ada@xn--bcher-kva.example":      "ada@xn--bcher-kva.example",
		"ADA@B\u00dcCHER.EXAMPLE":        "ada@xn--bcher-kva.example",
		"first.last@sub.domain.org":      "first.last@sub.domain.org",
		"o'brien@example.com":            "o'brien@example.com",
		strings.Repeat("a", 64) + "@b.c": strings.Repeat("a", 64) + "@b.c",
	} {
		got, err := NormalizeEmail(in)
		require.NoError(t, err, "%q", in)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{
		"", " ", "ada", "@example.com", "ada@", "ada@localhost", "ada@.com", "ada@com.", "ada@a..b", "a@b@c.d", "ada@[127.0.0.1]",
		"Ada <ada@example.com>", "<ada@example.com>", `"a b"@example.com`, "ada @example.com", "ada@exa mple.com", "ada@example.com,bob@example.com",
		"ada@example.com\x00", "ada\r\nBcc: x@example.com", "ada@-example.com", "ada@example.com/x", "\xff@example.com", ".ada@example.com", "ada..b@example.com",
		strings.Repeat("a", 65) + "@b.c", "a@" + strings.Repeat("b", 250) + ".c", "ada@" + strings.Repeat(strings.Repeat("b", 60)+".", 5) + "com",
	} {
		_, err := NormalizeEmail(bad)
		require.Error(t, err, "%q", bad)
	}
	rapid.Check(t, func(t *rapid.T) {
		once, err := NormalizeEmail(rapid.StringMatching(`\PC{0,20}@[A-Za-zäß.-]{1,20}`).Draw(t, "address"))
		if err != nil {
			return
		}
		twice, err := NormalizeEmail(once)
		if err != nil || once != twice {
			t.Fatalf("%q becomes %q, %v", once, twice, err)
		}
	})
}

func TestPasswordRules(t *testing.T) {
	t.Parallel()
	const email = "ada.lovelace@example.com"
	for _, good := range []string{
		"marble otter sunset", "xK9!mmQ2vp", "пароль-не-простой", "日本語のパスワードです", strings.Repeat("ab3!e", 25) + "xyz",
		"my password is long enough to be fine", "ada.lovelace likes engines",
	} {
		require.Empty(t, passwordProblems(good, email), "%q", good)
	}
	for _, bad := range []string{
		"", "short", "123456789", strings.Repeat("ab3!e", 26), strings.Repeat("日", 129),
		"aaaaaaaaaaaa", "abababababab", "1234567890", "12345678901", "0987654321", "abcdefghij", "ABCDEFGHIJKL", "qwertyuiop", "poiuytrewq",
		"password123", "Password1234!", "passwordpassword", "qwerty123456", "letmein12345", "Testflow2026", "administrator",
		email, strings.ToUpper(email), "ada.lovelace", "ada.lovelace123", "Ada.Lovelace!!", "valid but for \xff this",
	} {
		require.NotEmpty(t, passwordProblems(bad, email), "%q", bad)
	}
	require.NotContains(t, strings.Join(passwordProblems("TFCANARY", ""), " "), "TFCANARY", "the value is never repeated")
	require.Equal(t, passwordForHash(vault.NewSecret("jo\u0301")), passwordForHash(vault.NewSecret("j\u00f3")), "however it was composed")
}

func TestCleanName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{" Ada  Lovelace ": "Ada  Lovelace", "Ana\u0308": "An\u00e4", strings.Repeat("é", 100): strings.Repeat("é", 100), "👩‍💻": "👩‍💻", "👩🏽‍💻": "👩🏽‍💻", "❤️‍🔥": "❤️‍🔥"} {
		got, problem := CleanName(in)
		require.Empty(t, problem)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"", "  ", strings.Repeat("é", 101), "a\x00b", "a\nb", "a\u202eb", "\xff", "\u200b\u200b", "zw\u200bsp", "\u200d", "a\u200db", "👩\u200d", "\ufeffAda", "a\u00adb", "a\u200eb"} {
		_, problem := CleanName(bad)
		require.NotEmpty(t, problem, "%q", bad)
	}
}

func TestClient_fingerprint(t *testing.T) {
	t.Parallel()
	home := Client{Address: "192.0.2.7", Agent: "Firefox"}
	require.Equal(t, home.fingerprint(), Client{Address: "::ffff:192.0.2.7", Agent: "Firefox", Request: "another"}.fingerprint())
	require.NotEqual(t, home.fingerprint(), Client{Address: "192.0.2.8", Agent: "Firefox"}.fingerprint())
	require.NotEqual(t, home.fingerprint(), Client{Address: "192.0.2.7", Agent: "curl"}.fingerprint())
	six := Client{Address: "2001:db8:1:2::1", Agent: "Firefox"}
	require.Equal(t, six.fingerprint(), Client{Address: "2001:db8:1:2:ffff::9", Agent: "Firefox"}.fingerprint(), "an IPv6 host has a /64")
	require.NotEqual(t, six.fingerprint(), Client{Address: "2001:db8:1:3::1", Agent: "Firefox"}.fingerprint())
}

func TestFailuresWorthAnEvent(t *testing.T) {
	t.Parallel()
	n := 0
	for i := range 10_001 {
		if failureWorthAnEvent(i) {
			n++
		}
	}
	require.Equal(t, 5+11, n, "1 to 5, then 8 to 8192: ten thousand guesses write sixteen events")
}

func TestCutAgent(t *testing.T) {
	t.Parallel()
	require.Len(t, cutAgent(strings.Repeat("x", 1000)), limits.MaxUserAgent)
	require.Equal(t, "a\uFFFDb", cutAgent("a\xffb\x00"))
}
