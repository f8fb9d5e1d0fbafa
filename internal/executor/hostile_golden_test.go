package executor_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

// everythingHostile is all that a target can do to a client, by name: the routes of hostile.go, and the origins that are
// hostile by TLS, HTTP/2 or HTTP/3.
func everythingHostile(target *targettest.Server, h3s *targettest.HTTP3) map[string]hostileCase {
	all := map[string]hostileCase{}
	for path, code := range targettest.Hostile() {
		all["h1-"+strings.ReplaceAll(strings.TrimPrefix(path, "/hostile/"), "/", "-")] = hostileCase{target.URL + path, code, ""}
	}
	for name, o := range target.Origins {
		rest := ""
		if o.Body {
			rest = `,"body":{"text":"` + strings.Repeat("x", 1000) + `"}`
		}
		all[name] = hostileCase{o.URL + "/", o.Code, rest}
	}
	for name, o := range h3s.Hostile {
		all[name] = hostileCase{o.URL + "/", o.Code, h3}
	}
	return all
}

type hostileCase struct{ url, code, rest string }

// spec is one request; what must end by its deadline gets a short one, all else must end well before a long one.
func (c hostileCase) spec() string {
	limit := "15s"
	if c.code == "timeout" {
		limit = "400ms"
	}
	s := get(c.url, c.rest+`,"timeout":"`+limit+`"`)
	if strings.Contains(c.rest, `"body"`) {
		s = strings.Replace(s, `"GET"`, `"POST"`, 1)
	}
	return s
}

// TestHostile_golden: each hostile behaviour ends typed and soon, as testdata/golden/hostile/<name>.json says.
func TestHostile_golden(t *testing.T) {
	target := targettest.New(t)
	targettest.Arm()
	all := everythingHostile(target, target.NewHTTP3(t))
	files, err := filepath.Glob("testdata/golden/hostile/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(all) && !*update {
		t.Errorf("%d golden results for %d behaviours", len(files), len(all))
	}
	e := newEngine(t, target)
	for name, c := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			o := run(t, e, target, c.spec())
			if took := time.Since(started); took > 12*time.Second {
				t.Errorf("took %s", took)
			}
			if string(o.Code) != c.code {
				t.Errorf("code %q (%v), want %q", o.Code, o.Error, c.code)
			}
			got := hostilePortrait(t, o)
			path := "testdata/golden/hostile/" + name + ".json"
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, got, 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// hostilePortrait is an outcome without what depends on when the target was cut off.
func hostilePortrait(t *testing.T, o outcome) []byte {
	t.Helper()
	doc := map[string]any{"status": o.Status, "code": o.Code}
	if o.Error != nil {
		doc["message"] = o.Error.Message
	}
	// How far a run had got when its time was over depends on the machine.
	if o.Error != nil && o.Code != executor.CodeTimeout {
		doc["phase"] = o.Error.Phase
	}
	if len(o.steps) == 1 && o.Code != executor.CodeTimeout {
		if r := o.steps[0].Response; r != nil {
			told := map[string]any{"statusCode": r.StatusCode, "httpVersion": r.HTTPVersion, "redirects": len(r.Redirects), "bodyTruncated": r.BodyTruncated}
			if o.Code == "" || o.Code == executor.CodeTooLarge {
				told["size"] = r.Size
			}
			doc["response"] = told
		}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
