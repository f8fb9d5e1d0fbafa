package testspec_test

import (
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

func TestOverLimits_namesPlaceAndNumber(t *testing.T) {
	t.Parallel()
	const assertion = `{"source":"status","operator":"equals","expected":200}`
	const capture = `{"name":"c%","source":"body"}`
	step := `{"request":{"method":"GET","url":"http://a.example","maxRedirects":4,"timeout":"40s"},"assertions":[` + assertion + `,` + assertion + `],
		"captures":[` + strings.Replace(capture, "%", "1", 1) + `,` + strings.Replace(capture, "%", "2", 1) + `]}`
	spec := `{"timeout":"2m","setup":[` + step + `],"steps":[` + step + `,` + step + `]}`
	s, err := testspec.Read([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	lower := limits.Tests{Steps: 2, Assertions: 1, Captures: 1, Redirects: 3, RunTime: 30 * time.Second}
	want := map[string]string{"/steps": "at most 2 steps here, and this one 3", "/timeout": "30s"}
	for _, at := range []string{"/setup/0", "/steps/0", "/steps/1"} {
		want[at+"/assertions"], want[at+"/captures"] = "at most 1 assertions", "at most 1 captures"
		want[at+"/request/maxRedirects"], want[at+"/request/timeout"] = "at most 3 redirects", "30s"
	}
	for name, faults := range map[string]map[string]string{"run": {}, "save": {}} {
		list := testspec.OverLimits(s, lower)
		if name == "save" {
			list = testspec.Validate(s, testspec.WithLimits(lower))
		}
		for _, f := range list {
			faults[f.Pointer] = f.Detail
		}
		if len(faults) != len(want) {
			t.Errorf("%s: %v", name, faults)
		}
		for at, text := range want {
			if !strings.Contains(faults[at], text) {
				t.Errorf("%s, %s: %q, want %q", name, at, faults[at], text)
			}
		}
	}
	for _, none := range []limits.Tests{{}, (limits.Tests{}).OrMost(), {Steps: 1000, Assertions: 1000}} {
		if faults := testspec.Validate(s, testspec.WithLimits(none)); faults != nil {
			t.Errorf("%+v: %v", none, faults)
		}
	}
}
