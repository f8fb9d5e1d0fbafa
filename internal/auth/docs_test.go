package auth

import (
	"fmt"
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

// TestKeyPattern_docsSayTheSame holds what people paste into their scanners to what keys look like.
func TestKeyPattern_docsSayTheSame(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../../docs/api-keys.md")
	require.NoError(t, err)
	require.Contains(t, string(docs), "\n"+KeyPattern+"\n")
	require.Contains(t, string(docs), "regex = '''"+KeyPattern+"'''")
	require.Contains(t, string(docs), fmt.Sprintf("a key has %d characters", keyLength))
}
