package seal_test

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/testflow/testflow/internal/seal"
)

// The example of RFC 8785, section 3.2: what everybody else makes of it.
func TestCanonical_isRFC8785(t *testing.T) {
	t.Parallel()
	got, err := seal.Canonical([]byte(`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`))
	require.NoError(t, err)
	// 333333333.33333329 is no double: RFC 8785 would round it, and a changed digit would go unseen.
	require.Equal(t, `{"literals":[null,true,false],"numbers":["\u000033333333333333329e-8",1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`, string(got)) //nolint:testifylint // the bytes, not what they mean
	_, err = seal.Canonical([]byte(`{"a":1,"a":2}`))
	require.Error(t, err, "a key twice")
	_, err = seal.Canonical([]byte(`{"a":`))
	require.Error(t, err)
}

// However a number is written it hashes the same, and another number never does.
func TestCanonical_tellsNumbersApart(t *testing.T) {
	t.Parallel()
	of := func(n string) string {
		got, err := seal.Canonical([]byte(`{"n":` + n + `}`))
		require.NoError(t, err, n)
		return string(got)
	}
	for _, same := range [][]string{{"1", "1.0", "10e-1", "0.1E1"}, {"9007199254740993", "9007199254740993.00", "900719925474099.3e1"}, {"0", "-0", "0.000", "0e9"}, {"1e400", "10e399"}, {"100", "1e2", "100.0"}, {"1e21", "1000000000000000000000"}} {
		for _, n := range same {
			require.Equal(t, of(same[0]), of(n), n)
		}
	}
	for _, other := range [][2]string{
		{"9007199254740992", "9007199254740993"},
		{"0.1", "0.10000000000000000001"},
		{"1e400", "1e401"},
		{"1e-400", "0"},
		{"123456789012345678", "123456789012345679"},
		{"9007199254740993", `"9007199254740993"`},
		{"-1", "1"},
		{"5e-324", "4.9e-324"},
	} {
		require.NotEqual(t, of(other[0]), of(other[1]), other)
	}
	require.Equal(t, `{"n":-12345.5}`, of("-12345.5"))
}

// Every field changes the hash.
func TestContentHash_coversEveryField(t *testing.T) {
	t.Parallel()
	base := seal.Content{OrgID: uuid.New(), StreamID: uuid.New(), Kind: "org", Type: "org.renamed", Schema: 1, Meta: json.RawMessage(`{"actorKind":"user","address":"sealed:x"}`), Data: json.RawMessage(`{"name":"A"}`)}
	seen := map[seal.Hash]string{}
	add := func(name string, c seal.Content) {
		h, err := c.Hash()
		require.NoError(t, err)
		require.Empty(t, seen[h], name)
		seen[h] = name
	}
	add("base", base)
	for name, change := range map[string]func(*seal.Content){
		"org": func(c *seal.Content) { c.OrgID = uuid.New() }, "stream": func(c *seal.Content) { c.StreamID = uuid.New() },
		"kind": func(c *seal.Content) { c.Kind = "project" }, "type": func(c *seal.Content) { c.Type = "org.made" }, "schema": func(c *seal.Content) { c.Schema = 2 },
		"actor": func(c *seal.Content) { c.Meta = json.RawMessage(`{"actorKind":"apiKey","address":"sealed:x"}`) }, "address": func(c *seal.Content) { c.Meta = json.RawMessage(`{"actorKind":"user","address":"sealed:y"}`) },
		"data": func(c *seal.Content) { c.Data = json.RawMessage(`{"name":"B"}`) }, "data added": func(c *seal.Content) { c.Data = json.RawMessage(`{"name":"A","x":null}`) },
	} {
		c := base
		change(&c)
		add(name, c)
	}
	same := base
	same.Data = json.RawMessage("{ \"name\" : \"\\u0041\" }")
	h, err := same.Hash()
	require.NoError(t, err)
	require.Equal(t, "base", seen[h], "spelling is nothing")

	at := time.UnixMicro(1_700_000_000_123_456)
	leaf := seal.Leaf(7, 3, at, h)
	require.NotEqual(t, leaf, seal.Leaf(8, 3, at, h))
	require.NotEqual(t, leaf, seal.Leaf(7, 4, at, h))
	require.NotEqual(t, leaf, seal.Leaf(7, 3, at.Add(time.Microsecond), h))
	require.NotEqual(t, leaf, seal.Leaf(7, 3, at, seal.Hash{}))
	require.Equal(t, "76e3b7e3", hex.EncodeToString(func() []byte { l := seal.Leaf(1, 1, time.UnixMicro(1), seal.Hash{}); return l[:4] }()), "for ever the same bytes")
}

// The frontier's root is tlog's root at every size, and what it completes is what tlog stores.
func TestFrontier_isTheTreeOfRFC6962(t *testing.T) {
	t.Parallel()
	var stored []seal.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]seal.Hash, error) {
		out := make([]seal.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	f := &seal.Frontier{}
	empty, err := tlog.TreeHash(0, reader)
	require.NoError(t, err)
	require.Equal(t, empty, f.Root())
	for n := range int64(600) {
		leaf := tlog.RecordHash([]byte{byte(n), byte(n >> 8)})
		hashes, err := tlog.StoredHashesForRecordHash(n, leaf, reader)
		require.NoError(t, err)
		stored = append(stored, hashes...)
		f.Add(leaf, func(level int, at int64, h seal.Hash) {
			require.Equal(t, stored[tlog.StoredHashIndex(level, at)], h)
		})
		want, err := tlog.TreeHash(n+1, reader)
		require.NoError(t, err)
		require.Equal(t, want, f.Root(), n)

		var peaks []seal.Hash
		seal.PeakAt(n+1, func(level int, at int64) { peaks = append(peaks, stored[tlog.StoredHashIndex(level, at)]) })
		again, ok := seal.NewFrontier(n+1, peaks)
		require.True(t, ok)
		require.Equal(t, f.Root(), again.Root())
	}
	_, ok := seal.NewFrontier(3, f.Peaks()[:1])
	require.False(t, ok)
}

func signer(t testing.TB) *seal.Signer {
	t.Helper()
	s, err := seal.NewSigner()
	require.NoError(t, err)
	return s
}

func statement(t testing.TB, n int, s, old *seal.Signer) string {
	t.Helper()
	st, err := seal.NewStatement(n, s, old, time.Now())
	require.NoError(t, err)
	return st.Note
}

func TestChain_takesOnlyKeysThatVouchForEachOther(t *testing.T) {
	t.Parallel()
	a, b, c, thief := signer(t), signer(t), signer(t), signer(t)
	good := []string{statement(t, 1, a, nil), statement(t, 2, b, a), statement(t, 3, c, b)}
	chain, err := seal.ParseChain(good)
	require.NoError(t, err)
	require.Equal(t, good, chain.Notes())
	for _, s := range []*seal.Signer{a, b, c} {
		require.True(t, chain.Holds(s.Key().Fingerprint()))
		require.True(t, chain.Holds(s.Key().String()))
		require.True(t, seal.IsPin(s.Key().Fingerprint()))
	}
	require.False(t, chain.Holds(thief.Key().Fingerprint()))
	newest, ok := chain.Newest()
	require.True(t, ok)
	require.Equal(t, c.Key().String(), newest.Key.String())

	cut := func(s, from, to string) string { return strings.Replace(s, from, to, 1) }
	for name, bad := range map[string][]string{
		"one left out":               {good[0], good[2]},
		"swapped":                    {good[1], good[0]},
		"a thief in the middle":      {good[0], statement(t, 2, thief, thief)},
		"a thief who follows nobody": {good[0], statement(t, 2, thief, nil)},
		"begins in the middle":       good[1:],
		"another number":             {cut(good[0], "\n1\n", "\n2\n")},
		"another time":               {cut(good[0], "\ntime 2", "\ntime 3")},
		"without the old signature":  {good[0], good[1][:strings.LastIndex(strings.TrimSpace(good[1]), "\n")+1]},
		"nonsense":                   {"x"},
	} {
		_, err := seal.ParseChain(bad)
		require.Error(t, err, name)
	}

	private := a.Private()
	again, err := seal.ParseSigner(private, a.Key())
	require.NoError(t, err)
	require.Equal(t, a.Key().String(), again.Key().String())
	_, err = seal.ParseSigner(private, b.Key())
	require.Error(t, err)
	_, err = seal.ParseSigner("TFCANARY-nonsense", b.Key())
	require.Error(t, err)
	require.NotContains(t, err.Error(), "TFCANARY")
}

func TestHead_isRefusedWhenAnythingInItChanged(t *testing.T) {
	t.Parallel()
	a, b := signer(t), signer(t)
	chain, err := seal.ParseChain([]string{statement(t, 1, a, nil), statement(t, 2, b, a)})
	require.NoError(t, err)
	h := seal.Head{OrgID: uuid.New(), Number: 3, Size: 17, Root: seal.Hash{1}, Position: 99, Time: time.Now().UTC().Truncate(time.Microsecond), Previous: seal.Hash{2}}
	for i, s := range []*seal.Signer{a, b} {
		signed, err := h.Sign(s)
		require.NoError(t, err)
		got, key, err := chain.OpenHead(signed)
		require.NoError(t, err)
		require.Equal(t, h, got)
		require.Equal(t, i+1, key)
		// Any byte of it: another text, another signature, or nothing that can be read; the dash is the note's own.
		for at := range signed {
			for _, bit := range []byte{1, 2, 32} {
				changed := []byte(signed)
				changed[at] ^= bit
				opened, _, err := chain.OpenHead(string(changed))
				require.Error(t, err, "%q → %+v", changed, opened)
			}
		}
	}
	signed, err := h.Sign(signer(t))
	require.NoError(t, err)
	_, _, err = chain.OpenHead(signed)
	require.ErrorContains(t, err, "no sealing key of this installation")
}

func TestCanonical_neverPanics(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		raw := []byte(rapid.StringOf(rapid.RuneFrom([]rune(`{}[]",:\u0019.-+eE abtrue`))).Draw(rt, "raw"))
		_, _ = seal.Canonical(raw)
		_, _ = seal.Verify(t.Context(), strings.NewReader(string(raw)), seal.Options{})
	})
}
