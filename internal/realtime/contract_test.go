package realtime_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/testflow/testflow/openapi"
)

// contract is asyncapi.yaml's schemas, compiled. Every frame that a test reads is held against them.
var contract = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(openapi.AsyncYAML, &doc); err != nil {
		return nil, fmt.Errorf("asyncapi.yaml: %w", err)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("asyncapi.json", parsed); err != nil {
		return nil, err
	}
	schemas := map[string]*jsonschema.Schema{}
	all, _ := doc["components"].(map[string]any)["schemas"].(map[string]any)
	for name := range all {
		if schemas[name], err = c.Compile("asyncapi.json#/components/schemas/" + name); err != nil {
			return nil, err
		}
	}
	return schemas, nil
})

// seen are the types of frames that tests of this package have read.
var seen sync.Map

// honours holds a frame against the contract.
func honours(raw []byte) error {
	schemas, err := contract()
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	o, _ := v.(map[string]any)
	name, _ := o["type"].(string)
	schema := schemas[name]
	if schema == nil {
		return fmt.Errorf("no frame in asyncapi.yaml is called %q", name)
	}
	seen.Store(name, true)
	return schema.Validate(v)
}

func TestContract_refusesWhatItMust(t *testing.T) {
	t.Parallel()
	for _, frame := range []string{
		`{"type":"events","from":"a","events":[]}`, `{"type":"nothing"}`, `{"type":"error","code":"odd","message":"x"}`,
		`{"type":"events","from":"a","to":"b","events":[{"id":"x","type":"Run","position":1,"recordedAt":"2026-11-22T10:00:00.000Z","subject":"run/1","version":1,"data":{}}]}`,
		`{"type":"pong","at":"2026-11-22T10:00:00Z"}`,
	} {
		if honours([]byte(frame)) == nil {
			t.Errorf("%s passes", frame)
		}
	}
}
