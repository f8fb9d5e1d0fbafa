package eventtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/eventstore/eventtest"
)

type renamed struct {
	Name string `json:"name"`
}

func (*renamed) EventType() string { return "thing.renamed" }

// faults is a test that keeps its failures.
type faults struct {
	testing.TB
	found []string
}

func (f *faults) Helper() {}
func (f *faults) Errorf(format string, args ...any) {
	f.found = append(f.found, fmt.Sprintf(format, args...))
}

func TestSamples_liftsAndFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	types := []eventstore.Type{{
		Name: "thing.renamed", Lane: eventstore.Ledger, Schema: 2, Visibility: eventstore.VisibleOrganization, New: func() eventstore.Data { return &renamed{} },
		Upcast: map[int]func(json.RawMessage) (json.RawMessage, error){1: func(old json.RawMessage) (json.RawMessage, error) {
			var v struct{ Title string }
			if err := json.Unmarshal(old, &v); err != nil {
				return nil, err
			}
			return json.Marshal(renamed{v.Title})
		}},
	}}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"whole":    {map[string]string{"thing.renamed.v1.json": `{"title":"a"}`, "thing.renamed.v2.json": `{"name":"b"}`}, ""},
		"missing":  {map[string]string{"thing.renamed.v2.json": `{"name":"b"}`}, "schema 1 has no sample"},
		"unknown":  {map[string]string{"thing.renamed.v1.json": `{"title":"a"}`, "thing.renamed.v2.json": `{"name":"b","more":1}`}, "unknown field"},
		"orphaned": {map[string]string{"thing.renamed.v1.json": `{"title":"a"}`, "thing.renamed.v2.json": `{"name":"b"}`, "thing.gone.v1.json": `{}`}, "stored events are for ever"},
	} {
		dir := t.TempDir()
		for file, data := range c.files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(data), 0o600))
		}
		f := &faults{TB: t}
		samples := eventtest.Samples(f, types, dir)
		if c.want == "" {
			require.Empty(t, f.found)
			require.Equal(t, &renamed{"a"}, samples[0].Data, "lifted from schema 1")
			require.Equal(t, &renamed{"b"}, samples[1].Data)
			continue
		}
		require.Len(t, f.found, 1, name)
		require.Contains(t, f.found[0], c.want, name)
	}
}
