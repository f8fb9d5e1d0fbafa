package testspec_test

import (
	"strings"
	"testing"

	"github.com/testflow/testflow/internal/testspec"
)

func TestParseKeyPair_withoutKey(t *testing.T) {
	t.Parallel()
	_, err := testspec.ParseKeyPair("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "")
	if err == nil || !strings.Contains(err.Error(), "has no key with it; give it as clientKey") {
		t.Error(err)
	}
}
