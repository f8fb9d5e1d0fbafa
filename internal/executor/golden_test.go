package executor_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/testspec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden runs each testdata/golden/<name>.spec.json and compares all that is observable of the run, times left
// out, with <name>.json.
func TestGolden(t *testing.T) {
	target := targettest.New(t)
	targettest.Arm()
	specs, err := filepath.Glob("testdata/golden/*.spec.json")
	if err != nil || len(specs) == 0 {
		t.Fatalf("no specs: %v", err)
	}
	for _, path := range specs {
		name := strings.TrimSuffix(filepath.Base(path), ".spec.json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			// An engine of its own, so that no connection is left over from another test.
			got := portrait(t, target, run(t, newEngine(t, target), target, string(spec)))
			golden := strings.TrimSuffix(path, ".spec.json") + ".json"
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// portrait writes an outcome without what differs from run to run.
func portrait(t *testing.T, target *targettest.Server, o outcome) []byte {
	t.Helper()
	steps := make([]any, len(o.steps))
	for i, s := range o.steps {
		steps[i] = portraitStep(t, s, o.verdicts)
	}
	doc := map[string]any{
		"status": o.Status, "code": o.Code, "error": o.Error, "failedStep": o.FailedStep,
		"stepsRun": o.StepsRun, "stepsSkipped": o.StepsSkipped, "assertions": o.Assertions,
		"assertionsFailed": o.AssertionsFailed, "softFailed": o.SoftFailed, "captures": captures(o.Captures), "steps": steps,
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		t.Fatal(err)
	}
	text := buf.String()
	urls := names(target)
	for _, name := range slices.Sorted(maps.Keys(urls)) {
		text = strings.ReplaceAll(text, urls[name], "{{"+name+"}}")
		text = strings.ReplaceAll(text, url.QueryEscape(urls[name]), "{{"+name+"}}")
	}
	return []byte(text)
}

func portraitStep(t *testing.T, s executor.StepFinished, verdicts []executor.AssertionEvaluated) map[string]any {
	t.Helper()
	step := map[string]any{
		"index": s.Index, "name": s.Name, "status": s.Status, "error": s.Error, "request": s.Request,
		"assertions": s.Assertions, "failed": s.Failed, "softFailed": s.SoftFailed, "captures": captures(s.Captures),
	}
	if s.Request != nil {
		for i, h := range s.Request.Headers {
			if h.Name == "X-Amz-Date" {
				s.Request.Headers[i].Value = "•"
			}
		}
	}
	if s.Iteration > 0 {
		step["iteration"] = s.Iteration
	}
	if s.Phase != testspec.PhaseSteps {
		step["phase"] = s.Phase
	}
	if s.Tries > 1 {
		step["tries"] = s.Tries
	}
	if r := s.Response; r != nil {
		headers := []executor.Header{}
		for _, h := range r.Headers {
			if h.Name == "Date" {
				h.Value = "•"
			}
			headers = append(headers, h)
		}
		redirects := r.Redirects
		step["response"] = map[string]any{
			"statusCode": r.StatusCode, "httpVersion": r.HTTPVersion, "url": r.URL, "headers": headers,
			"headersTruncated": r.HeadersTruncated, "size": r.Size, "wireSize": r.WireSize > 0, "sha256": hex.EncodeToString(r.SHA256[:]),
			"bodyLength": len(r.Body), "bodyTruncated": r.BodyTruncated, "contentType": r.ContentType,
			"tls": r.TLS != nil, "redirects": redirects, "reused": r.Reused,
		}
	}
	list := []any{}
	for _, v := range verdicts {
		if v.Step != s.Index || v.Iteration != s.Iteration {
			continue
		}
		if v.Source == "responseTime" {
			v.Actual.JSON, v.Actual.Size = nil, 0
			v.Message, _, _ = strings.Cut(v.Message, ", ")
		}
		list = append(list, v)
	}
	step["verdicts"] = list
	return step
}

func captures(list []executor.Captured) map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	for _, c := range list {
		m[c.Name] = c.Value
	}
	return m
}
