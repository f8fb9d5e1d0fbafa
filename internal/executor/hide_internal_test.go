package executor

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/testspec"
)

func TestHidesCapture_knowsCredentials(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		capture testspec.Capture
		value   string
		hidden  bool
	}{
		{testspec.Capture{Name: "accessToken", Source: "jsonpath", Property: "$.a"}, `"x"`, true},
		{testspec.Capture{Name: "t", Source: "jsonpath", Property: "$.data.access_token"}, `"x"`, true},
		{testspec.Capture{Name: "a", Source: "header", Property: "Set-Cookie"}, `"x"`, true},
		{testspec.Capture{Name: "a", Source: "header", Property: "X-Api-Key"}, `"x"`, true},
		{testspec.Capture{Name: "login", Source: "jsonpath", Property: "$.user['PASSWORD']"}, `"x"`, true},
		{testspec.Capture{Name: "a", Source: "body"}, `"eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."`, true},
		{testspec.Capture{Name: "petId", Source: "jsonpath", Property: "$.id"}, `7`, false},
		{testspec.Capture{Name: "author", Source: "jsonpath", Property: "$.author"}, `"Ada"`, false},
		{testspec.Capture{Name: "key", Source: "jsonpath", Property: "$.items[0].key"}, `"PROJ-1"`, false},
		{testspec.Capture{Name: "monkey", Source: "header", Property: "Location"}, `"/a.b.c"`, false},
	} {
		assert.Equal(t, c.hidden, hidesCapture(c.capture, []byte(c.value)), "%+v", c.capture)
	}
}

func TestShowURL_hidesCredentialsInTheQuery(t *testing.T) {
	t.Parallel()
	for given, shown := range map[string]string{
		"https://a.example/x?page=2&api_key=TFCANARY&b":               "https://a.example/x?page=2&api_key=•••&b",
		"https://a.example/x?X-Amz-Signature=TFCANARY":                "https://a.example/x?X-Amz-Signature=•••",
		"https://a.example/x?access%5Ftoken=TFCANARY%26&access_token": "https://a.example/x?access%5Ftoken=•••&access_token",
		"https://a.example/x?tokenize=no&keyword=a%20b&empty_token=":  "https://a.example/x?tokenize=no&keyword=a%20b&empty_token=",
		"https://a.example/x": "https://a.example/x",
	} {
		u, err := url.Parse(given)
		require.NoError(t, err)
		assert.Equal(t, shown, showURL(u))
		assert.Equal(t, given, u.String(), "what is sent stays as it is")
	}
}
