package executor_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

// TestAttack_twoPeopleAtOnce: many runs at the same time, of people in one organization and in two, with the same names of
// variables, captures and cookies at the same target, over every version of HTTP: nobody meets what is another's.
func TestAttack_twoPeopleAtOnce(t *testing.T) {
	target := targettest.New(t)
	h := target.NewHTTP3(t)
	e := newEngine(t, target)
	orgs := []uuid.UUID{uuid.New(), uuid.New()}
	const steps = `{"steps":[
		{"request":{"method":"GET","url":"{{at}}/cookies/set?session={{me}}","httpVersion":"{{v}}"}},
		{"request":{"method":"GET","url":"{{at}}/cookies/set?of-{{me}}=1","httpVersion":"{{v}}"}},
		{"request":{"method":"POST","url":"{{at}}/echo","httpVersion":"{{v}}","headers":{"X-Me":"{{me}}"},"body":{"json":{"me":"{{me}}"}}},
		 "assertions":[{"source":"jsonpath","property":"$.headers.cookie","operator":"equals","expected":"session={{me}}; of-{{me}}=1"},
			{"source":"jsonpath","property":"$.headers['x-me']","operator":"equals","expected":"{{me}}"}],
		 "captures":[{"name":"kept","source":"jsonpath","property":"$.headers.cookie"}]},
		{"request":{"method":"GET","url":"{{at}}/text","query":{"s":"{{kept}}"},"httpVersion":"{{v}}"},
		 "assertions":[{"source":"body","operator":"equals","expected":"session={{me}}; of-{{me}}=1"}]}]}`
	ways := []struct{ at, version string }{{target.URL, "1.1"}, {target.TLSURL, "2"}, {target.TLSURL, "auto"}, {h.URL, "3"}}
	var wg sync.WaitGroup
	for i := range 120 {
		wg.Go(func() {
			way := ways[i%len(ways)]
			me := fmt.Sprintf("person-%d-of-them", i)
			o := runWith(t, e, target, orgs[i/len(ways)%2], strings.ReplaceAll(steps, "{{v}}", way.version), map[string]string{"at": way.at, "me": me})
			if o.Status != executor.Passed {
				t.Errorf("run %d: %+v", i, o.Error)
			}
			for _, c := range o.Captures {
				if c.Name == "kept" && string(c.Value) != `"session=`+me+"; of-"+me+`=1"` {
					t.Errorf("run %d kept %s", i, c.Value)
				}
			}
		})
	}
	wg.Wait()
}
