// Package eventtest holds the stored shapes of events to their samples: testdata/events/<type>.v<schema>.json beside a
// slice, the data of one event as that schema wrote it, never edited once it has landed. It is for tests only.
package eventtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/testflow/testflow/internal/eventstore"
)

// Sample is the data of one event, as it was stored and as it is read.
type Sample struct {
	Type   eventstore.Type
	Schema int             // that wrote it
	Stored json.RawMessage // as in the file
	Lifted json.RawMessage // to the current schema
	Data   eventstore.Data // decoded, a pointer
}

var fileName = regexp.MustCompile(`^(.+)\.v(\d+)\.json$`)

// Samples reads the samples in the directories that the globs match, lifts and decodes each, and fails the test when a
// type lacks one of a schema, when one doesn't decode into what is registered to the last field, and when one belongs to
// no type. They are returned in the order of types, by schema.
func Samples(tb testing.TB, types []eventstore.Type, globs ...string) []Sample {
	tb.Helper()
	files := map[string]string{}
	for _, glob := range globs {
		paths, err := filepath.Glob(filepath.Join(glob, "*.json"))
		if err != nil {
			tb.Fatal(err)
		}
		for _, path := range paths {
			name := filepath.Base(path)
			if files[name] != "" {
				tb.Errorf("%s and %s are samples of the same event", files[name], path)
			}
			files[name] = path
		}
	}
	var samples []Sample
	for _, t := range types {
		for schema := 1; schema <= t.Schema; schema++ {
			name := fmt.Sprintf("%s.v%d.json", t.Name, schema)
			path, ok := files[name]
			if !ok {
				tb.Errorf("%s schema %d has no sample: add testdata/events/%s to its slice", t.Name, schema, name)
				continue
			}
			delete(files, name)
			s, err := read(t, schema, path)
			if err != nil {
				tb.Errorf("%s: %v", path, err)
				continue
			}
			samples = append(samples, s)
		}
	}
	for name, path := range files {
		m := fileName.FindStringSubmatch(name)
		if m == nil {
			tb.Errorf("%s: a sample is called <type>.v<schema>.json", path)
			continue
		}
		if n, err := strconv.Atoi(m[2]); err != nil || n < 1 {
			tb.Errorf("%s: schemas count from 1", path)
			continue
		}
		tb.Errorf("%s: nobody registers %s with that schema, but stored events are for ever", path, m[1])
	}
	return samples
}

func read(t eventstore.Type, schema int, path string) (Sample, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Sample{}, err
	}
	s := Sample{Type: t, Schema: schema, Stored: raw, Data: t.New()}
	if s.Lifted, err = t.Lift(schema, raw); err != nil {
		return Sample{}, err
	}
	strict := json.NewDecoder(bytes.NewReader(s.Lifted))
	strict.DisallowUnknownFields()
	if err := strict.Decode(s.Data); err != nil {
		return Sample{}, fmt.Errorf("decode: %w", err)
	}
	return s, nil
}
