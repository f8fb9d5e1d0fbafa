package auth

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
)

func codeOf(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Code
	}
	return ""
}

func TestKey_isReadAsItWasMinted(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(KeyPattern)
	for _, id := range []uuid.UUID{uuid.Nil, uuid.Max, uuid.Must(uuid.NewV7())} {
		key, hash := MintKey(id)
		require.Len(t, key, keyLength)
		require.True(t, LooksLikeKey(key))
		require.True(t, strings.HasPrefix(key, KeyLabel(id)+"_"))
		require.Equal(t, key, pattern.FindString("leaked: X-API-Key: "+key+"\n"), "scanners find it")
		gotID, gotHash, err := ParseKey(key)
		require.NoError(t, err)
		require.Equal(t, id, gotID)
		require.True(t, SameKeyHash(hash, gotHash))
		require.NotContains(t, string(hash), key)
		again, other := MintKey(id)
		require.NotEqual(t, key, again)
		require.False(t, SameKeyHash(hash, other))
	}
	_, a := MintKey(uuid.New())
	require.Len(t, a, 32)
	require.False(t, SameKeyHash(a, nil))
	require.False(t, SameKeyHash(nil, a))
}

// Every change of one character, every cut and every swap is told by the checksum, without a database.
func TestParseKey_tellsTypos(t *testing.T) {
	t.Parallel()
	key, _ := MintKey(uuid.Must(uuid.NewV7()))
	bad := map[string]string{
		"empty": "", "prefix": "tf_", "cut": key[:len(key)-1], "cut at the front": key[1:], "longer": key + "0",
		"space": key + " ", "NUL": key[:70] + "\x00" + key[71:], "upper prefix": "TF_" + key[3:], "no divider": strings.Replace(key[3:], "_", "0", 1),
		"other divider": key[:25] + "-" + key[26:], "letters of another alphabet": key[:30] + "é" + key[32:],
	}
	for i := range key {
		for _, c := range []byte("0Az_") {
			if key[i] != c {
				changed := []byte(key)
				changed[i] = c
				bad["character "+string(changed)] = string(changed)
			}
		}
	}
	for i := range len(key) - 1 {
		if key[i] != key[i+1] {
			b := []byte(key)
			b[i], b[i+1] = b[i+1], b[i]
			bad["swapped "+string(b)] = string(b)
		}
	}
	for name, text := range bad {
		_, _, err := ParseKey(text)
		require.Equal(t, "auth.api_key_malformed", codeOf(err), name)
		require.Equal(t, fault.Unauthenticated, fault.KindOf(err), name)
		require.NotContains(t, err.Error(), key[30:60], "an error shows no secret")
	}
}

// A number that doesn't fit its bytes is no second spelling of another.
func TestParseKey_oneSpellingEach(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		"tf_" + strings.Repeat("z", keyIDWidth) + "_" + strings.Repeat("0", keySecretWidth),
		"tf_" + strings.Repeat("0", keyIDWidth) + "_" + strings.Repeat("z", keySecretWidth),
	} {
		_, _, err := ParseKey(body + keyChecksum(body))
		require.Equal(t, "auth.api_key_malformed", codeOf(err))
	}
	for size, width := range map[int]int{16: keyIDWidth, 32: keySecretWidth, 4: keyChecksumWidth} {
		for _, raw := range [][]byte{make([]byte, size), bytes.Repeat([]byte{0xff}, size), append(make([]byte, size-1), 1)} {
			text := base62(raw, width)
			require.Len(t, text, width)
			back, ok := unbase62(text, size)
			require.True(t, ok)
			require.Equal(t, raw, back)
		}
	}
	_, ok := unbase62("aé", 16)
	require.False(t, ok)
}

func TestScopes(t *testing.T) {
	t.Parallel()
	require.Less(t, len(table), 64, "a set has a bit for each line of the table")
	s, unknown := ParseScopes([]string{"run.execute", "read"})
	require.Empty(t, unknown)
	require.Equal(t, ScopesOf(Viewer).Union(NewScopes(RunExecute)), s)
	require.True(t, s.Has(TestRead))
	require.False(t, s.Has(TestWrite))
	require.False(t, s.Has("no.such"))
	require.False(t, s.Has(AuditRead), "read is what a viewer may, not every permission that ends in it")
	for _, r := range Roles() {
		of, _ := ParseScopes([]string{string(r)})
		for _, g := range Grants() {
			require.Equal(t, r.May(g.Permission), of.Has(g.Permission), "%s %s", r, g.Permission)
		}
	}
	_, unknown = ParseScopes([]string{"run.read", "*", "", "Run.read", "apiKey"})
	require.Equal(t, []int{1, 2, 3, 4}, unknown)
	require.Equal(t, s, NewScopes(s.List()...))
	require.Equal(t, []Permission{RunExecute}, s.Without(ScopesOf(Viewer)).List())
	require.Equal(t, ScopesOf(Viewer), s.Intersect(ScopesOf(Viewer)))
	require.True(t, Scopes{}.Empty())
	require.True(t, NewScopes("dropped.permission").Empty())
	require.NotNil(t, Scopes{}.List())
}

// TestKeyMay_needsRoleAndScope holds each permission against every role with and without the scope.
func TestKeyMay_needsRoleAndScope(t *testing.T) {
	t.Parallel()
	org := uuid.New()
	for _, g := range Grants() {
		for _, r := range Roles() {
			for _, scopes := range []Scopes{{}, NewScopes(g.Permission), ScopesOf(Admin), ScopesOf(Admin).Without(NewScopes(g.Permission))} {
				key := Principal{Kind: APIKey, AccountID: uuid.New(), OrgID: org, Role: r, Scopes: scopes}
				want := r.May(g.Permission) && scopes.Has(g.Permission)
				require.Equal(t, want, key.May(g.Permission))
				_, err := Require(With(t.Context(), key), org, g.Permission)
				switch {
				case want:
					require.NoError(t, err)
				case r.May(g.Permission):
					require.Equal(t, "auth.scope_missing", codeOf(err))
				default:
					require.Equal(t, "auth.forbidden", codeOf(err))
				}
				_, err = Require(With(t.Context(), key), uuid.New(), g.Permission)
				require.Equal(t, fault.NotFound, fault.KindOf(err))
				person := Principal{Kind: User, AccountID: uuid.New(), OrgID: org, Role: r, Scopes: scopes}
				require.Equal(t, r.May(g.Permission), person.May(g.Permission), "scopes are a key's alone")
			}
		}
	}
}

func TestKeyID(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	require.Equal(t, id, Principal{Kind: APIKey, AccountID: id}.KeyID())
	require.Equal(t, uuid.Nil, Principal{Kind: User, AccountID: id}.KeyID())
}

// TestSameKeyHash_takesTheSameTime compares texts so long that a comparison that stops early would be a thousand times
// quicker, and takes the best of several tries, so that a busy machine changes nothing.
func TestSameKeyHash_takesTheSameTime(t *testing.T) {
	t.Parallel()
	const size, tries = 8 << 20, 7
	a, early, late := make([]byte, size), make([]byte, size), make([]byte, size)
	early[0], late[size-1] = 1, 1
	best := func(b []byte) time.Duration {
		shortest := time.Hour
		for range tries {
			start := time.Now()
			require.False(t, SameKeyHash(a, b))
			shortest = min(shortest, time.Since(start))
		}
		return shortest
	}
	first, last := best(early), best(late)
	require.Greater(t, 4*first, last, "a difference in the first byte took %s, one in the last %s", first, last)
}
