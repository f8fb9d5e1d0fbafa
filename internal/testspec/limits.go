package testspec

import "time"

// The limits of a spec and of what a run of it may take. They are here and nowhere else; a refusal names the number.
// Rooms that need a smaller one (an operator's setting) take it as a value and never go above these.
const (
	// MaxSpecBytes bounds the JSON of one spec.
	MaxSpecBytes = 1 << 20
	// MaxSpecDepth bounds how deep a spec's JSON may nest, a JSON body included.
	MaxSpecDepth = 64
	// MaxSpecNodes bounds the number of JSON values in one spec.
	MaxSpecNodes = 20_000
	// MaxNumberLength bounds the characters of one number in a spec; MaxNumberExponent its decimal exponent. A longer
	// one could not be stored as jsonb.
	MaxNumberLength   = 100
	MaxNumberExponent = 1000

	// MaxSteps and MaxAssertions keep an attempt under the 90 000 events that its version range holds:
	// 100 × (1 + 200) = 20 100.
	MaxSteps      = 100
	MaxAssertions = 200 // a step
	MaxCaptures   = 50  // a step
	MaxVariables  = 200 // a spec

	MaxStepName      = 200      // characters
	MaxVariableName  = 64       // characters
	MaxVariableValue = 64 << 10 // bytes, of a spec's variable and of a captured value

	MaxURL         = 8 << 10   // bytes, before and after variables are put in
	MaxQueryValues = 200       // name=value pairs
	MaxHeaders     = 100       // header lines of a request
	MaxHeaderBytes = 32 << 10  // names and values of a request's headers, after variables
	MaxFormValues  = 500       // name=value pairs
	MaxRequestBody = 1 << 20   // bytes sent, after variables
	MaxProperty    = 1 << 10   // bytes of an assertion's or capture's property, so of a JSONPath too
	MaxExpected    = 64 << 10  // bytes of an assertion's expected value
	MaxPattern     = 1 << 10   // bytes of a regular expression
	MaxMatchInput  = 256 << 10 // bytes of text that a regular expression is run over

	// DefaultTimeout is a request's, unless it or the spec says less or more; MaxTimeout bounds a whole run.
	DefaultTimeout = 30 * time.Second
	MaxTimeout     = 5 * time.Minute

	DefaultMaxRedirects = 5
	MaxRedirects        = 20

	// MaxResponseBytes bounds a response's body, as received and again after decompression.
	MaxResponseBytes = 10 << 20
	// MaxStoredBody bounds the part of a body that is kept after the run.
	MaxStoredBody = 256 << 10
	// MaxResponseHeaderBytes bounds the header block that a target may send; Go's transport enforces it.
	MaxResponseHeaderBytes = 32 << 10
	// MaxStoredHeaders bounds the header lines of a response that are reported.
	MaxStoredHeaders = 100
	// MaxDecompressionRatio is checked once more than DecompressionFreeBytes came out of a body. Text that people send
	// seldom packs better than 50:1; DEFLATE's most is 1032:1.
	MaxDecompressionRatio  = 200
	DecompressionFreeBytes = 1 << 20
	// MaxContentEncodings bounds how many codings one body may be wrapped in.
	MaxContentEncodings = 2

	// MaxActual bounds the bytes of an actual or expected value in a result; what was cut is told.
	MaxActual = 1 << 10

	// MaxResponseDepth and MaxResponseNodes bound a response that is read as JSON; MaxSelected what a JSONPath may
	// select, MaxVisited what it may look at on the way, and SelectorTime how long it may take.
	MaxResponseDepth = 64
	MaxResponseNodes = 250_000
	MaxSelected      = 10_000
	MaxVisited       = 5_000_000
	SelectorTime     = time.Second
)
