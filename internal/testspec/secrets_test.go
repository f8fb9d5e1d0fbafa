package testspec_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/testspec"
)

func TestSecretNames_findsThemAnywhere(t *testing.T) {
	t.Parallel()
	spec, err := testspec.Read([]byte(`{"steps":[{"request":{"method":"POST","url":"https://a.example/{{secrets.path}}","query":{"q":"{{ secrets.query }}"},
		"headers":{"X":["a","{{secrets.header}}{{secrets.path}}"]},"body":{"json":{"a":["{{secrets.body}}",{"b":"\u007b{secrets.escaped}}"}]}}},
		"assertions":[{"source":"body","operator":"contains","expected":"{{secrets.expected}} {{{{secrets.literal}}"}]}]}`), testspec.WithAnySecret())
	require.NoError(t, err)
	names := testspec.SecretNames(spec)
	require.Subset(t, names, []string{"body", "escaped", "expected", "header", "path", "query"})
	require.Equal(t, "body", names[0])
	require.Empty(t, testspec.SecretNames(testspec.Spec{}))
}

func TestValidate_secretsByName(t *testing.T) {
	t.Parallel()
	spec := []byte(`{"steps":[{"request":{"method":"GET","url":"https://a.example/{{secrets.token}}"}}]}`)
	_, err := testspec.Read(spec, testspec.WithAnyName())
	require.Error(t, err)
	_, err = testspec.Read(spec, testspec.WithSecrets("token"))
	require.NoError(t, err)
	_, err = testspec.Read(spec, testspec.WithSecrets("other"))
	require.Error(t, err)
}
