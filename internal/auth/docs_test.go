package auth

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPermissions_docsSayTheSame holds docs/permissions.md to the table; openapi.yaml is held to it in httpapi.
func TestPermissions_docsSayTheSame(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../../docs/permissions.md")
	require.NoError(t, err)
	require.Contains(t, string(docs), Markdown(), "put what auth.Markdown() returns into docs/permissions.md")
}
