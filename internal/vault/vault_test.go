package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

func master(t *testing.T, keys ...string) *Master {
	t.Helper()
	m, err := NewMaster(strings.Join(keys, ","))
	require.NoError(t, err)
	return m
}

func TestNewMaster_refusesWhatIsNoKey(t *testing.T) {
	t.Parallel()
	good := GenerateMasterKey()
	raw, err := base64.StdEncoding.DecodeString(good)
	require.NoError(t, err)
	for _, bad := range []string{
		"", "abc", good + ",", good + "," + good, good[:len(good)-2],
		base64.StdEncoding.EncodeToString(raw[:31]), base64.StdEncoding.EncodeToString(append(raw, 0)), strings.TrimRight(good, "="),
	} {
		_, err := NewMaster(bad)
		require.Error(t, err, "%q", bad)
		require.NotContains(t, err.Error(), good[:8])
	}
	require.NotEqual(t, good, GenerateMasterKey())
}

func TestMaster_rotation(t *testing.T) {
	t.Parallel()
	oldKey, newKey := GenerateMasterKey(), GenerateMasterKey()
	key, wrapped, err := master(t, oldKey).NewDataKey("person", "1")
	require.NoError(t, err)
	sealed := key.SealText("ada@example.com", "e-mail")

	both := master(t, newKey, oldKey)
	rewrapped, changed, err := both.Rewrap(wrapped, "person", "1")
	require.NoError(t, err)
	require.True(t, changed)
	_, changed, err = both.Rewrap(rewrapped, "person", "1")
	require.NoError(t, err)
	require.False(t, changed, "a second time changes nothing")

	after := master(t, newKey)
	_, err = after.Unwrap(wrapped, "person", "1")
	require.ErrorIs(t, err, ErrUnknownKey)
	same, err := after.Unwrap(rewrapped, "person", "1")
	require.NoError(t, err)
	plain, err := same.OpenText(sealed, "e-mail")
	require.NoError(t, err)
	require.Equal(t, "ada@example.com", plain, "values need not be sealed anew")
}

func TestMaster_aWrappedKeyOpensForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	m := master(t, GenerateMasterKey())
	_, wrapped, err := m.NewDataKey("person", "1")
	require.NoError(t, err)
	for _, owner := range [][]string{nil, {"person", "2"}, {"org", "1"}, {"person", "1", ""}, {"person1"}, {"person", "", "1"}} {
		_, err = m.Unwrap(wrapped, owner...)
		require.ErrorIs(t, err, ErrSealBroken, "%v", owner)
	}
	_, err = m.Unwrap(nil, "person", "1")
	require.ErrorIs(t, err, ErrSealBroken)
	_, _, err = m.Rewrap(wrapped, "person", "2")
	require.ErrorIs(t, err, ErrSealBroken)
}

func TestKey_sealsAndOpens(t *testing.T) {
	t.Parallel()
	m := master(t, GenerateMasterKey())
	key, _, err := m.NewDataKey("org", "1")
	require.NoError(t, err)
	another, _, err := m.NewDataKey("org", "1")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		context := rapid.SliceOf(rapid.String()).Draw(t, "context")
		elsewhere := rapid.SliceOf(rapid.String()).Draw(t, "elsewhere")
		sealed := key.Seal(plain, context...)
		if len(plain) > 4 && bytes.Contains(sealed, plain) {
			t.Fatal("the plain text shows")
		}
		if bytes.Equal(sealed, key.Seal(plain, context...)) {
			t.Fatal("the same twice: the nonce is not random")
		}
		got, err := key.Open(sealed, context...)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("got %x, %v", got, err)
		}
		if fmt.Sprintf("%q", context) != fmt.Sprintf("%q", elsewhere) {
			if _, err := key.Open(sealed, elsewhere...); err == nil {
				t.Fatal("opens in another context")
			}
		}
		if _, err := another.Open(sealed, context...); err == nil {
			t.Fatal("opens with another key")
		}
		broken := bytes.Clone(sealed)
		broken[rapid.IntRange(0, len(sealed)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := key.Open(broken, context...); err == nil {
			t.Fatal("opens though a bit is wrong")
		}
		if _, err := key.Open(sealed[:rapid.IntRange(0, len(sealed)-1).Draw(t, "length")], context...); err == nil {
			t.Fatal("opens though it is cut")
		}
	})
}

func TestKey_text(t *testing.T) {
	t.Parallel()
	key, _, err := master(t, GenerateMasterKey()).NewDataKey()
	require.NoError(t, err)
	sealed := key.SealText("192.0.2.1")
	require.True(t, IsSealedText(sealed))
	require.False(t, IsSealedText("192.0.2.1"))
	plain, err := key.OpenText(sealed)
	require.NoError(t, err)
	require.Equal(t, "192.0.2.1", plain)
	for _, bad := range []string{"", "192.0.2.1", "sealed:", "sealed:!", sealed + "A", strings.TrimPrefix(sealed, "sealed:")} {
		_, err = key.OpenText(bad)
		require.ErrorIs(t, err, ErrSealBroken, "%q", bad)
	}
}

func TestSecret_showsItselfToNobody(t *testing.T) {
	t.Parallel()
	const canary = "TFCANARY-vault-secret"
	s := NewSecret(canary)
	inside := struct {
		Token Secret            `json:"token" yaml:"token"`
		Map   map[string]Secret `json:"map" yaml:"map"`
		Key   map[Secret]int    `json:"key" yaml:"-"`
		Ref   *Secret           `json:"ref" yaml:"ref"`
	}{s, map[string]Secret{"a": s}, map[Secret]int{s: 1}, &s}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		fmt.Fprintf(&out, verb+verb+verb, s, inside, []any{s, &s})
	}
	for _, format := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		text, err := format(inside)
		require.NoError(t, err)
		out.Write(text)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", slog.Any("secret", s), slog.Any("inside", inside), slog.Any("ref", &s))
	}
	fmt.Fprintln(&out, fmt.Errorf("wrap: %v", s), fmt.Sprint(s))
	require.NotContains(t, out.String(), canary)
	require.NotContains(t, out.String(), fmt.Sprintf("%x", canary))
	require.Contains(t, out.String(), hidden)
	require.Equal(t, canary, s.Reveal())

	var in struct{ Password Secret }
	require.NoError(t, json.Unmarshal([]byte(`{"password":"x y"}`), &in))
	require.Equal(t, "x y", in.Password.Reveal())
	require.False(t, in.Password.IsEmpty())
	require.True(t, Secret{}.IsEmpty())
}
