package httpapi_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/testflow/testflow/internal/seal"
)

// What the API says of seals is enough to check every proof without us.
func TestSeals_canBeCheckedByAnybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	newest, _ := w.do(call{method: "GET", path: "/api/audit/events?limit=1", as: "admin-a"}).json["items"].([]any)[0].(map[string]any)
	path := fmt.Sprintf("/api/audit/events/%.0f/proof", newest["position"])
	got := w.do(call{method: "GET", path: path, as: "admin-a"})
	require.Equal(t, 409, got.status, "nothing is sealed yet: %s", got.text)
	require.Empty(t, w.do(call{method: "GET", path: "/api/audit/seals", as: "admin-a"}).json["items"])

	sealer := w.base.sealer
	require.NoError(t, sealer.Pass(t.Context()))
	for i := range 3 {
		made := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: fmt.Sprintf(`{"name":"Another %d"}`, i)})
		require.Equal(t, 201, made.status, made.text)
		require.NoError(t, sealer.Pass(t.Context()))
	}

	list := w.do(call{method: "GET", path: "/api/audit/seals?limit=3", as: "manager-a"})
	require.Equal(t, 200, list.status, list.text)
	require.Contains(t, list.header.Get("Link"), `rel="next"`)
	items, _ := list.json["items"].([]any)
	require.Len(t, items, 3)
	key, _ := list.json["keys"].([]any)[0].(map[string]any)
	statement, _ := key["statement"].(string)
	chain, err := seal.ParseChain([]string{statement})
	require.NoError(t, err)
	require.True(t, chain.Holds(key["fingerprint"].(string)))
	rest := w.do(call{method: "GET", path: "/api/audit/seals?limit=3&cursor=" + list.json["nextCursor"].(string), as: "manager-a"})
	require.Len(t, rest.json["items"], 1)

	var heads []seal.Head
	for _, item := range items {
		note, _ := item.(map[string]any)["note"].(string)
		h, _, err := chain.OpenHead(note)
		require.NoError(t, err)
		require.Equal(t, w.orgA, h.OrgID)
		heads = append(heads, h)
	}
	proof := w.do(call{method: "GET", path: path, as: "manager-a"})
	require.Equal(t, 200, proof.status, proof.text)
	content, err := hex.DecodeString(proof.json["contentHash"].(string))
	require.NoError(t, err)
	at := time.UnixMicro(int64(proof.json["recordedAtMicros"].(float64)))
	leaf := seal.Leaf(int64(proof.json["position"].(float64)), int(proof.json["version"].(float64)), at, seal.Hash(content))
	require.Equal(t, leaf.String(), proof.json["leafHash"])
	require.NoError(t, tlog.CheckRecord(hashes(t, proof.json["hashes"]), heads[0].Size, heads[0].Root, int64(proof.json["leaf"].(float64)), leaf))

	consistent := w.do(call{method: "GET", path: fmt.Sprintf("/api/audit/seals/consistency?from=%d", heads[2].Size), as: "manager-a"})
	require.Equal(t, 200, consistent.status, consistent.text)
	require.NoError(t, tlog.CheckTree(hashes(t, consistent.json["hashes"]), heads[0].Size, heads[0].Root, heads[2].Size, heads[2].Root))
	require.Equal(t, heads[2].Root.String(), consistent.json["fromRoot"])
	for _, bad := range []string{"from=0", "from=9&to=3", "from=1&to=1000000", ""} {
		require.Contains(t, []int{400, 422}, w.do(call{method: "GET", path: "/api/audit/seals/consistency?" + bad, as: "manager-a"}).status, bad)
	}

	// Another organization's tree is another's.
	other := w.do(call{method: "GET", path: "/api/audit/seals", as: "admin-b"})
	require.NotContains(t, other.text, w.orgA.String())
	require.Equal(t, 404, w.do(call{method: "GET", path: path, as: "admin-b"}).status)

	// The export of the door is what the verifier reads.
	export := w.do(call{method: "GET", path: "/api/audit/export?format=ndjson", as: "manager-a"})
	report, err := seal.Verify(t.Context(), strings.NewReader(export.text), seal.Options{Pins: []string{key["fingerprint"].(string)}})
	require.NoError(t, err)
	require.Empty(t, report.Findings)
	require.Positive(t, report.Sealed)
}

func hashes(t *testing.T, list any) (out []seal.Hash) {
	t.Helper()
	texts, ok := list.([]any)
	require.True(t, ok)
	for _, text := range texts {
		h, err := tlog.ParseHash(text.(string))
		require.NoError(t, err)
		out = append(out, h)
	}
	return out
}
