package app

import "github.com/testflow/testflow/internal/limits"

// testLimits are the settings that lower what a test may be and a run of it take.
func testLimits(s limits.Settings) limits.Tests {
	return limits.Tests{
		Steps: s.Steps, Assertions: s.Assertions, Captures: s.Captures, Redirects: s.Redirects, RunTime: s.RunTime,
		SelectorTime: s.SelectorTime, ResponseBody: s.ResponseBody, ResponseKept: s.ResponseKept,
		ResponseHeaders: s.ResponseHeaders, DecompressionRatio: s.ResponseRatio,
	}.OrMost()
}
