package executor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/limits"
)

// TestLimits_ofAnInstallation: what the operator lowered holds when a test runs, also for one that was saved before, and
// the refusal names the number.
func TestLimits_ofAnInstallation(t *testing.T) {
	target := targettest.New(t)
	h := target.NewHTTP3(t)
	const four = `{"steps":[{"request":{"method":"GET","url":"{{base}}/pets/1"}},{"request":{"method":"GET","url":"{{base}}/pets/1"}},{"request":{"method":"GET","url":"{{base}}/pets/1"}}]}`
	for name, c := range map[string]struct {
		lower limits.Tests
		spec  string
		code  executor.Code
		says  string
	}{
		"steps":          {limits.Tests{Steps: 2}, four, executor.CodeTooLarge, "at most 2 steps"},
		"just enough":    {limits.Tests{Steps: 3}, four, "", ""},
		"run time":       {limits.Tests{RunTime: 200 * time.Millisecond}, get("{{base}}/hostile/hang", ""), executor.CodeTimeout, "200ms"},
		"redirects":      {limits.Tests{Redirects: 1}, get("{{base}}/hostile/loop", ""), executor.CodeRedirects, "more than 1 times"},
		"headers":        {limits.Tests{ResponseHeaders: 2048}, get("{{base}}/cookies/set?who="+strings.Repeat("v", 3000), ""), executor.CodeTooLarge, "headers"},
		"headers, 2":     {limits.Tests{ResponseHeaders: 2048}, get("{{tls}}/cookies/set?who="+strings.Repeat("v", 3000), ""), executor.CodeTooLarge, "headers"},
		"headers, 3":     {limits.Tests{ResponseHeaders: 2048}, get(h.URL+"/cookies/set?who="+strings.Repeat("v", 3000), h3), executor.CodeTooLarge, "headers"},
		"as they were":   {limits.Tests{}, get("{{base}}/cookies/set?who="+strings.Repeat("v", 3000), ""), "", ""},
		"body":           {limits.Tests{ResponseBody: 5}, get("{{base}}/pets/1", ""), executor.CodeTooLarge, "5 bytes"},
		"ratio":          {limits.Tests{DecompressionRatio: 3}, get("{{base}}/hostile/bomb/gzip", ""), executor.CodeTooLarge, "3 times"},
		"selector time":  {limits.Tests{SelectorTime: time.Nanosecond}, `{"steps":[{"request":{"method":"GET","url":"{{base}}/pets/1"},"assertions":[{"source":"jsonpath","property":"$..[?@..id]","operator":"exists"}]}]}`, executor.CodeAssertion, ""},
		"no higher ones": {limits.Tests{ResponseBody: 1 << 40}, get("{{base}}/hostile/endless", ""), executor.CodeTooLarge, "10485760"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := executor.New(executor.Config{Guard: loopback(t), Now: time.Now, RootCAs: target.CAs, Limits: c.lower})
			t.Cleanup(e.Close)
			o := run(t, e, target, c.spec)
			if o.Code != c.code || !strings.Contains(o.message(), c.says) {
				t.Errorf("code %q (%v), want %q, %q", o.Code, o.Error, c.code, c.says)
			}
		})
	}
}
