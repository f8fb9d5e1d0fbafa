package auth

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneTime(t *testing.T) {
	t.Parallel()
	token, hash := MintOneTime("a")
	require.Len(t, token, 4+43)
	require.Len(t, hash, 32)
	again, ok := HashOneTime("a", "\n "+token+" ")
	require.True(t, ok, "people copy more than the code")
	require.Equal(t, hash, again)
	elsewhere, ok := HashOneTime("b", token)
	require.True(t, ok)
	require.NotEqual(t, hash, elsewhere, "a code is for one purpose")
	require.NotContains(t, token, hex.EncodeToString(hash)[:16])
	for _, bad := range []string{"", "tfo_", token[:46], token + "A", strings.Replace(token, "tfo_", "tfr_", 1), "tfo_" + strings.Repeat("=", 43), token[:46] + string(other(token[46]))} {
		_, ok := HashOneTime("a", bad)
		require.False(t, ok, "%q", bad)
	}
	seen := map[string]bool{}
	for range 1000 {
		token, _ := MintOneTime("a")
		require.False(t, seen[token])
		seen[token] = true
	}
}
