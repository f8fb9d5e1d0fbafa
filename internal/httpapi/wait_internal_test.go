package httpapi

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPreferredWait(t *testing.T) {
	t.Parallel()
	const most = 60 * time.Second
	for text, want := range map[string]time.Duration{
		"wait=20": 20 * time.Second, `respond-async, wait="5"; foo=bar`: 5 * time.Second, "WAIT = 7": 7 * time.Second,
		"wait=60": most, "wait=61": most, "wait=7200": most, "wait=99999999999999999999999": most, // cut down, not ignored
		"wait=3, wait=9": 3 * time.Second, // the first counts
		"wait=0":         0, "wait=-1": 0, "wait=x": 0, "wait": 0, "wait=1.5": 0, "handling=strict": 0, "": 0,
	} {
		got, ok := preferredWait([]string{text}, most)
		assert.Equal(t, want, got, text)
		assert.Equal(t, want > 0, ok, text)
	}
	got, _ := preferredWait([]string{"respond-async", "wait=4"}, most)
	assert.Equal(t, 4*time.Second, got, "several fields are one list")
}
