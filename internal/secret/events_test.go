package secret

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEvents_everyTypeHasItsSample holds the stored shape of events: testdata/events/<type>.v<schema>.json is the data of one,
// never edited once it has landed.
func TestEvents_everyTypeHasItsSample(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/events/*.json")
	require.NoError(t, err)
	require.Len(t, files, len(Types()), "one sample a type")
	for _, typ := range Types() {
		sample, err := os.ReadFile("testdata/events/" + typ.Name + ".v1.json")
		require.NoError(t, err)
		data := typ.New()
		require.Equal(t, typ.Name, data.EventType())
		strict := json.NewDecoder(bytes.NewReader(sample))
		strict.DisallowUnknownFields()
		require.NoError(t, strict.Decode(data), typ.Name)
		again, err := json.Marshal(data)
		require.NoError(t, err)
		require.JSONEq(t, string(sample), string(again), typ.Name)
	}
}
