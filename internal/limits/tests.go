package limits

import "time"

// Tests are the settings that lower what a test may be and a run of it take. A zero leaves the constant of limits.go,
// which is also the most that a setting may say.
type Tests struct {
	Steps, Assertions, Captures int
	Redirects                   int
	RunTime                     time.Duration
	SelectorTime                time.Duration // of one path, selector or pattern
	ResponseBody, ResponseKept  Size
	ResponseHeaders             Size
	DecompressionRatio          int
}

// OrMost returns t with the constants where it says nothing, or too much.
func (t Tests) OrMost() Tests {
	lower(&t.Steps, MaxSteps)
	lower(&t.Assertions, MaxAssertions)
	lower(&t.Captures, MaxCaptures)
	lower(&t.Redirects, MaxRedirects)
	lower(&t.RunTime, MaxTimeout)
	lower(&t.SelectorTime, SelectorTime)
	lower(&t.ResponseBody, MaxResponseBytes)
	lower(&t.ResponseKept, MaxStoredBody)
	lower(&t.ResponseHeaders, MaxResponseHeaderBytes)
	lower(&t.DecompressionRatio, MaxDecompressionRatio)
	return t
}

func lower[N int | Size | time.Duration](n *N, most N) {
	if *n <= 0 || *n > most {
		*n = most
	}
}
