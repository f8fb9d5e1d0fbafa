package vault

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRegion_keysAreApartAndRotate(t *testing.T) {
	t.Parallel()
	oldKey, newKey := GenerateMasterKey(), GenerateMasterKey()
	before, both := master(t, oldKey), master(t, newKey, oldKey)
	eu, err := before.Region("eu")
	require.NoError(t, err)
	sealed := eu.Seal([]byte("TFCANARY"), "org", "secret", "1")

	given, err := before.RegionKey("eu")
	require.NoError(t, err)
	worker, err := NewRing(given)
	require.NoError(t, err)
	plain, err := worker.Open(sealed, "org", "secret", "1")
	require.NoError(t, err)
	require.Equal(t, "TFCANARY", string(plain))
	_, err = worker.Open(sealed, "org", "secret", "2")
	require.ErrorIs(t, err, ErrSealBroken)

	us, err := before.Region("us")
	require.NoError(t, err)
	_, err = us.Open(sealed, "org", "secret", "1")
	require.ErrorIs(t, err, ErrUnknownKey)

	rotated, err := both.Region("eu")
	require.NoError(t, err)
	_, err = rotated.Open(sealed, "org", "secret", "1")
	require.NoError(t, err, "what the old key sealed")
	require.False(t, rotated.Current(sealed))
	again := rotated.Seal([]byte("TFCANARY"), "org", "secret", "1")
	require.True(t, rotated.Current(again))
	_, err = worker.Open(again, "org", "secret", "1")
	require.ErrorIs(t, err, ErrUnknownKey)
	next, err := both.RegionKey("eu")
	require.NoError(t, err)
	worker, err = NewRing(next + ", " + given)
	require.NoError(t, err)
	for _, s := range [][]byte{sealed, again} {
		_, err = worker.Open(s, "org", "secret", "1")
		require.NoError(t, err)
	}
	for _, bad := range []string{"", "abc", given + ","} {
		_, err = NewRing(bad)
		require.Error(t, err)
	}
}
