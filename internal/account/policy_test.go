package account

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPolicy_refusesWhatIsGuessedFirst(t *testing.T) {
	t.Parallel()
	ada := about{email: "ada.lovelace@engines.example", name: "Ada Lovelace", organization: "Difference Engines"}
	for _, bad := range []string{
		"Password123!", "P@ssw0rd2026", "qwerty12345", "iloveyou22", "letmein2024!", "Summer2026!", "Tr0ub4dour&3", "hunter2hunter2", "trustno1trustno1",
		"zaq12wsxCDE#", "basketball99", "monkey123456", "1234567890a", "abc abc abc abc abc", strings.Repeat("pa55w0rd", 16),
		"correct horse battery staple", "Correct-Horse-Battery-Staple-1", "correct_horse.battery staple!", "c0rrecth0rsebatterystaple", "Tr0ub4dor&3", "thisismypassword",
		"This is my password!", "kx7qwkx7qwkx7qw", "passwordpassword1", "letmeinplease", "qwertyuiopasdf", "iloveyousomuch", "my password is secure", "i am the admin", "open the door",
		"may the force be with you", "to be or not to be", "the quick brown fox", "lorem ipsum dolor", "winter is coming", "I hate passwords", "passwordispassword",
		"this is a secret", "ilovemydog2020", "hello darkness my old friend", "once upon a time", "neveragain2026", "what is this", "ada lovelace is my name",
		"lovelace1815", "Engines2026", "Lovelace!!", "differenceengines", "ada.lovelace@engines.example", "testflow2026", "TestFlow!!99",
	} {
		require.NotEmpty(t, PasswordPolicy{}.problems(bad, ada), "%q", bad)
	}
	for _, good := range []string{
		"seven brave otters swim", "marble-otter-sunset-violin-7", "green tractor paints loudly", "four tiny robots argue", "kettle orbit plywood", "xK9!mmQ2vp",
		"my horse eats purple tractors", "velvet hammer 93 quickly", "plum-gravel-seventeen", "pjnqm wtzrk", "hJ3-vTq-92x", "rusty anchors hum at dawn", "j8#Kd92!xQ7r", "Berlin-2026-xyz-tram", "новый крепкий пароль 7", "日本語のとても長い合言葉",
		strings.Repeat("abc ", 12) + "xq7#Kd92!vTr Zp otters swim brave seven", rep("k3", 20) + "seven brave otters swim in the canal at noon today!!",
	} {
		require.Empty(t, PasswordPolicy{}.problems(good, ada), "%q", good)
	}
	someone := about{email: "z@engines.example", name: "Zyxanthia Quorbling", organization: "Vrelmak Works"}
	for _, known := range []string{"Zyxanthia1815", "zyxanthiaquorbling", "Vrelmak2026", "quorbling99"} {
		require.NotEmpty(t, PasswordPolicy{}.problems(known, someone), "%q is made of what is known of the person", known)
		require.Empty(t, PasswordPolicy{}.problems(known, ada), "%q says nothing of another", known)
	}
}

func rep(s string, n int) string { return strings.Repeat(s, n) }

// The longest password that is looked at costs a bounded time, whatever it is made of.
func TestPolicy_costIsBounded(t *testing.T) {
	t.Parallel()
	words := about{email: strings.Repeat("a.", 30) + "@" + strings.Repeat("b.", 30) + "example", name: strings.Repeat("a ", 50), organization: strings.Repeat("b ", 50)}.words()
	require.LessOrEqual(t, len(words), maxWords)
	for _, base := range []string{"aB3$", "a1", "pa55w0rd", "4@8({[<", "aaaa", "日本", "1990", "q1w2e3", "\u0301", "$$@@!!"} {
		password := []rune(strings.Repeat(base, 128))[:128]
		start := time.Now()
		guessable(string(password), words)
		require.Less(t, time.Since(start), 5*time.Second, base) // some 30 ms on a machine that has nothing else to do
	}
}

func leakedFile(t *testing.T, end string, passwords ...string) string {
	t.Helper()
	var lines []string
	for i, p := range passwords {
		sum := sha1.Sum([]byte(p))
		lines = append(lines, fmt.Sprintf("%s:%d", strings.ToUpper(hex.EncodeToString(sum[:])), 7*i*i+1))
	}
	slices.Sort(lines)
	path := filepath.Join(t.TempDir(), "leaked.txt")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, end)), 0o600))
	return path
}

func TestLeakedPasswords(t *testing.T) {
	t.Parallel()
	var in []string
	for i := range 5000 {
		in = append(in, fmt.Sprint("leaked password ", i))
	}
	for name, end := range map[string]string{"unix": "\n", "as it is downloaded": "\r\n"} {
		for _, n := range []int{1, 2, 3, 17, 5000} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				t.Parallel()
				l, err := OpenLeakedPasswords(leakedFile(t, end, in[:n]...))
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, l.Close()) })
				for _, p := range in[:n] {
					has, err := l.Has(p)
					require.NoError(t, err)
					require.True(t, has, p)
				}
				for i := range 300 {
					has, err := l.Has(fmt.Sprint("a fresh one ", i))
					require.NoError(t, err)
					require.False(t, has)
				}
				problems, err := PasswordPolicy{Leaked: l}.leaked(in[0])
				require.NoError(t, err)
				require.Len(t, problems, 1)
				require.NotContains(t, problems[0], in[0])
			})
		}
	}
}

func TestLeakedPasswords_wrongFiles(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("A", 40)
	for name, content := range map[string]string{
		"empty": "", "text": "password\n", "passwords beside hashes": hash + " password\n", "lower case": strings.ToLower(hash) + ":1\n",
		"out of order": strings.Repeat("B", 40) + ":1\n" + hash + ":1\n", "too long": strings.Repeat("A", 400), "another hash": strings.Repeat("A", 32) + ":2\n",
		"cut at the end": hash + ":1\nBBBB",
	} {
		path := filepath.Join(t.TempDir(), "list")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := OpenLeakedPasswords(path)
		require.ErrorIs(t, err, errNotOrdered, name)
	}
	_, err := OpenLeakedPasswords(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestDevice(t *testing.T) {
	t.Parallel()
	for agent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                                                  "Firefox on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0":               "Edge on Windows",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Safari/605.1.15":                   "Safari on macOS",
		"Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36":                            "Chrome on Android",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1": "Safari on iPhone",
		"Mozilla/4.0": "browser", "curl/8.5.0": "curl 8.5.0", "TestFlow/v0.1.0 (x)": "TestFlow 0.1.0", "": "unknown device", "\r\nBcc: x": "unknown device", "<b>x</b>": "unknown device",
	} {
		require.Equal(t, want, Device(agent), agent)
	}
}
