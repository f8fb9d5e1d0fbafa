package app

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/cli"
)

func TestHealth_saysWhetherTheServerIsReady(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		code   int
		says   string
	}{
		"ready":    {http.StatusOK, cli.ExitOK, ""},
		"draining": {http.StatusServiceUnavailable, cli.ExitCouldNot, "is not ready (503): the database is away"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/readyz" {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte("the database is away"))
			}))
			t.Cleanup(server.Close)
			var out, errs bytes.Buffer
			term := terminal{out: &out, err: &errs, environ: []string{"TESTFLOW_URL=" + server.URL}}

			err := (&healthCommand{}).Run(t.Context(), term)
			if c.code == cli.ExitOK {
				require.NoError(t, err)
				require.Contains(t, out.String(), "ready: "+server.URL)
				return
			}
			require.Equal(t, c.code, term.fail(t.Context(), err))
			require.Contains(t, errs.String(), c.says)
		})
	}
}

func TestHealth_asksThePortOfThisMachine(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	term := terminal{out: &out, err: &errs, environ: []string{"PORT=1"}} // nothing listens there
	err := (&healthCommand{}).Run(t.Context(), term)
	require.ErrorContains(t, err, "127.0.0.1:1")
	require.Equal(t, cli.ExitCouldNot, term.fail(t.Context(), err))
}
