package analytics

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Percentiles of merged sketches are within 1 % of the true value, whatever the values and however they were divided.
func TestSketch_percentiles_areWithinOnePercent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(1, 300_000_000), 1, 400).Draw(t, "values")
		parts := rapid.IntRange(1, 8).Draw(t, "parts")
		merged, err := newSketch()
		require.NoError(t, err)
		for i := range parts {
			part, err := newSketch()
			require.NoError(t, err)
			for j := i; j < len(values); j += parts {
				require.NoError(t, part.add(values[j]))
			}
			require.NoError(t, merged.merge(part.encode()))
		}
		slices.Sort(values)
		for _, q := range []float64{0.5, 0.9, 0.95, 0.99} {
			got, err := merged.quantiles(q)
			require.NoError(t, err)
			want := float64(values[int(math.Floor(q*float64(len(values)-1)))])
			require.InDelta(t, want, got[0], want*0.01+1e-6, "p%v of %d values", q*100, len(values))
		}
	})
}

// The same values make the same bytes, however they came: a rebuild is compared by checksum.
func TestSketch_encoding_dependsOnTheValuesAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, 300_000_000), 1, 200).Draw(t, "values")
		cuts := rapid.SliceOfN(rapid.Bool(), len(values), len(values)).Draw(t, "cuts")
		whole, err := newSketch()
		require.NoError(t, err)
		for _, v := range slices.Backward(values) {
			require.NoError(t, whole.add(v))
		}
		var stored []byte // as the projection does it: add a batch, merge what was stored, store
		batch, err := newSketch()
		require.NoError(t, err)
		for i, v := range values {
			require.NoError(t, batch.add(v))
			if cuts[i] || i == len(values)-1 {
				require.NoError(t, batch.merge(stored))
				stored = batch.encode()
				batch, err = newSketch()
				require.NoError(t, err)
			}
		}
		require.True(t, bytes.Equal(whole.encode(), stored))
	})
}
