// Package limits holds the numbers that bound what people, clients and targets may do: all of them, in this one file.
//
// Settings are the ones that an operator changes; config reads them from the environment and app hands the values on.
// The constants are for ever the same, since a stored test must mean tomorrow what it means today; rooms use them by name.
// How the machinery runs inside (how often a heartbeat beats, how long a statement may take) is no limit of that sort and
// stands where it is used. The package imports nothing of ours and enforces nothing.
package limits

import "time"

// Settings are the limits of an installation that the environment changes. Field tags are as in config: env is the
// variable, default its value, doc what it bounds; least is the smallest value that is accepted, 1 where nothing is said, and most
// the largest.
type Settings struct {
	// What a request to the API may be.
	RequestBody    Size          `env:"TESTFLOW_LIMIT_REQUEST_BODY" default:"1MiB" doc:"Body of an API request."`
	RequestTimeout time.Duration `env:"TESTFLOW_LIMIT_REQUEST_TIMEOUT" default:"30s" doc:"How long an API request may take; exports and waits have their own."`
	PageSize       int           `env:"TESTFLOW_LIMIT_PAGE_SIZE" default:"200" doc:"Items of a list in one answer."`
	MinPosition    time.Duration `env:"TESTFLOW_LIMIT_POSITION_WAIT" default:"2s" doc:"How long a GET waits for the position that it asks for."`
	Wait           time.Duration `env:"TESTFLOW_LIMIT_WAIT" default:"60s" doc:"How long Prefer: wait may wait for runs."`

	// How long API keys live.
	KeyLifetime    time.Duration `env:"TESTFLOW_API_KEY_LIFETIME" default:"2160h" doc:"How long an API key lives when its maker says nothing."`
	KeyMaxLifetime time.Duration `env:"TESTFLOW_API_KEY_MAX_LIFETIME" default:"0" least:"0" doc:"How long an API key may live at most, counted from when its end is set; 0 = for ever."`

	// What a target may send.
	ResponseBody    Size `env:"TESTFLOW_LIMIT_RESPONSE_BODY" default:"10MiB" most:"10485760" doc:"Bytes of a response, before and again after decompression; at most 10MiB."`
	ResponseKept    Size `env:"TESTFLOW_LIMIT_RESPONSE_KEPT" default:"256KiB" most:"262144" doc:"Bytes of a response that are kept to look at; at most 256KiB."`
	ResponseHeaders Size `env:"TESTFLOW_LIMIT_RESPONSE_HEADERS" default:"32KiB" least:"1024" most:"32768" doc:"Bytes of a response's headers; at most 32KiB."`
	ResponseRatio   int  `env:"TESTFLOW_LIMIT_RESPONSE_RATIO" default:"200" most:"200" doc:"How many times its size a response may unpack to, once more than 1 MiB came out; at most 200."`
	Redirects       int  `env:"TESTFLOW_LIMIT_REDIRECTS" default:"20" most:"20" doc:"Redirects that a request may follow; at most 20."`

	// What a test may be, and a run of it take.
	Steps        int           `env:"TESTFLOW_LIMIT_STEPS" default:"100" most:"100" doc:"Steps of a test, setup and teardown included; at most 100."`
	Assertions   int           `env:"TESTFLOW_LIMIT_ASSERTIONS" default:"200" most:"200" doc:"Assertions of a step; at most 200."`
	Captures     int           `env:"TESTFLOW_LIMIT_CAPTURES" default:"50" most:"50" doc:"Captures of a step; at most 50."`
	RunTime      time.Duration `env:"TESTFLOW_LIMIT_RUN_TIME" default:"5m" least:"1000000000" most:"300000000000" doc:"How long a run may take; at most 5m."`
	SelectorTime time.Duration `env:"TESTFLOW_LIMIT_SELECTOR_TIME" default:"1s" least:"1000000" most:"1000000000" doc:"How long one JSONPath, XPath or selector may take; at most 1s."`

	// How a worker collects results.
	SinkDelay time.Duration `env:"TESTFLOW_LIMIT_SINK_DELAY" default:"5ms" doc:"How long a worker collects results before it appends them."`
	SinkRuns  int           `env:"TESTFLOW_LIMIT_SINK_RUNS" default:"200" doc:"Runs of one batch of results."`
	SinkBytes Size          `env:"TESTFLOW_LIMIT_SINK_BYTES" default:"8MiB" doc:"Bytes of one batch of results."`

	// How long what runs leave behind is kept.
	RetentionRuns   int `env:"TESTFLOW_RETENTION_RUN_DAYS" default:"90" least:"0" doc:"Days that runs are kept, with their events; 0 keeps them for ever. Analytics, usage and the audit trail stay."`
	RetentionBodies int `env:"TESTFLOW_RETENTION_BODY_DAYS" default:"30" least:"0" doc:"Days that the bodies of responses are kept; 0 keeps them as long as their runs."`

	// What the live stream may cost.
	LiveSockets       int           `env:"TESTFLOW_LIMIT_LIVE_SOCKETS" default:"5000" doc:"Live connections of one node."`
	LiveSocketsUser   int           `env:"TESTFLOW_LIMIT_LIVE_SOCKETS_USER" default:"20" doc:"Live connections of one user on one node."`
	LiveTopics        int           `env:"TESTFLOW_LIMIT_LIVE_TOPICS" default:"100" doc:"Topics of one live connection."`
	LiveFrame         Size          `env:"TESTFLOW_LIMIT_LIVE_FRAME" default:"16KiB" doc:"Frame that a client may send once it is signed in; before that, 1 KiB."`
	LiveFrameRate     int           `env:"TESTFLOW_LIMIT_LIVE_FRAME_RATE" default:"20" doc:"Frames a second that a client may send."`
	LiveFrameEvents   int           `env:"TESTFLOW_LIMIT_LIVE_FRAME_EVENTS" default:"500" doc:"Events in one frame to a client."`
	LiveQueueFrames   int           `env:"TESTFLOW_LIMIT_LIVE_QUEUE_FRAMES" default:"128" doc:"Frames that wait for a slow client before it is told of a gap."`
	LiveQueueBytes    Size          `env:"TESTFLOW_LIMIT_LIVE_QUEUE_BYTES" default:"1MiB" doc:"Bytes that wait for a slow client before it is told of a gap."`
	LiveCoalesce      time.Duration `env:"TESTFLOW_LIMIT_LIVE_COALESCE" default:"10ms" doc:"How long events that follow another are collected into one frame."`
	LiveRecentEvents  int           `env:"TESTFLOW_LIMIT_LIVE_RECENT_EVENTS" default:"4096" doc:"Events that a node keeps in memory for clients that resume."`
	LiveAuthTime      time.Duration `env:"TESTFLOW_LIMIT_LIVE_AUTH_TIME" default:"5s" doc:"How long a live connection may take to sign in."`
	LiveRecheck       time.Duration `env:"TESTFLOW_LIMIT_LIVE_RECHECK" default:"4s" doc:"How often it is checked that a live connection's sign-in still holds; at most 4s, since who is removed is cut off within 5 s."`
	LiveWriteTimeout  time.Duration `env:"TESTFLOW_LIMIT_LIVE_WRITE_TIMEOUT" default:"10s" doc:"How long a client may leave what it was sent unread before it is cut."`
	LiveCatchUpReader int           `env:"TESTFLOW_LIMIT_LIVE_CATCH_UP_READERS" default:"4" doc:"Live connections that read the log at the same time to catch up."`

	// How many requests may come. They hold over all nodes together; 0 = there is no such limit.
	RateRequests  int           `env:"RATE_LIMIT_MAX_REQUESTS" default:"100" least:"0" doc:"Requests of one user, or of one address without a good credential, in RATE_LIMIT_WINDOW. 0: any number, as with its siblings."`
	RateWindow    time.Duration `env:"RATE_LIMIT_WINDOW" default:"15m" least:"1000000000" doc:"Window of RATE_LIMIT_MAX_REQUESTS; it begins with the first request."`
	RateSignIns   int           `env:"RATE_LIMIT_AUTH_MAX_REQUESTS" default:"5" least:"0" doc:"Failed sign-ins, and other proofs of who somebody is, for one account from one address, in RATE_LIMIT_AUTH_WINDOW."`
	RateAddress   int           `env:"RATE_LIMIT_AUTH_MAX_PER_ADDRESS" default:"50" least:"0" doc:"The same from one address, whichever accounts they are for."`
	RateAccount   int           `env:"RATE_LIMIT_AUTH_MAX_PER_ACCOUNT" default:"50" least:"0" doc:"The same for one account from wherever; then only addresses that it was used from before may go on."`
	RateRefreshes int           `env:"RATE_LIMIT_REFRESH_MAX_REQUESTS" default:"60" least:"0" doc:"Refreshes of access tokens from one address, in RATE_LIMIT_AUTH_WINDOW."`
	RateAuth      time.Duration `env:"RATE_LIMIT_AUTH_WINDOW" default:"15m" least:"1000000000" doc:"Window of the limits of sign-ins and refreshes."`
	RateRuns      int           `env:"RATE_LIMIT_EXECUTION_MAX_REQUESTS" default:"10" least:"0" doc:"Requests of one member of an organization that start runs, in RATE_LIMIT_EXECUTION_WINDOW."`
	RateRunWindow time.Duration `env:"RATE_LIMIT_EXECUTION_WINDOW" default:"1m" least:"1000000000" doc:"Window of RATE_LIMIT_EXECUTION_MAX_REQUESTS."`
	RateKeys      int           `env:"RATE_LIMIT_API_KEY_MAX_REQUESTS" default:"1000" least:"0" doc:"Requests of one API key that has no limit of its own, in RATE_LIMIT_API_KEY_WINDOW."`
	RateKeyWindow time.Duration `env:"RATE_LIMIT_API_KEY_WINDOW" default:"15m" least:"1000000000" doc:"Window of RATE_LIMIT_API_KEY_MAX_REQUESTS and of the limits of single keys."`
}

// Keys of an organization; see decision 0017.
const (
	MaxKeys         = 200       // of an organization, revoked ones not counted
	MaxKeyAddresses = 50        // networks that a key is bound to
	MaxKeyRate      = 1_000_000 // requests that a key's own limit may say
	// MaxKeyOverlap bounds how long a key's secret goes on beside the one that replaces it; DefaultKeyOverlap is how long
	// it does when nothing is said.
	MaxKeyOverlap     = 7 * 24 * time.Hour
	DefaultKeyOverlap = 24 * time.Hour
	// MaxKeyNetworks are remembered of a key, and at most MaxNewKeyNetworks new ones an hour are told, so that whoever
	// changes his address with each request can't fill the log.
	MaxKeyNetworks    = 100
	MaxNewKeyNetworks = 20
	// KeyUsageDays are kept of a key's usage; one answer covers KeyUsageRange at most.
	KeyUsageDays  = 400
	KeyUsageRange = 92
)

// What a test may be, what a run of it may take, and what a target may send. A refusal names the number. A setting may ask
// for less and never for more.
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

	// MaxSteps counts setup, steps and teardown together, with the steps of fragments.
	MaxSteps      = 100
	MaxAssertions = 200 // a step
	MaxCaptures   = 50  // a step
	MaxVariables  = 200 // a spec

	// MaxRunEvents is what the steps and assertions of one attempt may come to; the attempt's start and end come on top, and
	// together they fit into the 90 000 events of its version range. A spec of which more can be foreseen is refused; a run
	// that would get there ends.
	MaxRunEvents = 89_900
	// MaxIterations bounds repeat and the rows of forEach; MaxTries the attempts of a retry.
	MaxIterations = 1000
	MaxTries      = 100
	// MaxFragmentDepth is how deep fragments may use fragments; MaxFragments how many a project has.
	MaxFragmentDepth = 3
	MaxFragments     = 200
	MaxSkipReason    = 200 // characters

	DefaultTries         = 10
	DefaultRetryDelay    = time.Second
	DefaultMaxRetryDelay = 30 * time.Second
	// TeardownGrace is what the teardown has beyond the time of its run; CancelGrace what it has when somebody cancels.
	TeardownGrace = 30 * time.Second
	CancelGrace   = 10 * time.Second
	// MaxRunBodies bounds the bodies of responses that are kept of one attempt. Over it only those of iterations that did
	// not pass are kept, up to twice as much.
	MaxRunBodies = 32 << 20

	MaxStepName      = 200      // characters
	MaxVariableName  = 64       // characters
	MaxVariableValue = 64 << 10 // bytes, of a spec's variable and of a captured value

	MaxURL         = 8 << 10   // bytes, before and after variables are put in
	MaxQueryValues = 200       // name=value pairs
	MaxHeaders     = 100       // header lines of a request
	MaxHeaderBytes = 32 << 10  // names and values of a request's headers, after variables
	MaxFormValues  = 500       // name=value pairs
	MaxParts       = 100       // of a multipart body
	MaxContentType = 200       // bytes of a body's or a part's content type
	MaxCredential  = 16 << 10  // bytes of one field of a request's auth, after variables: a key in PEM fits
	MaxSigningKey  = 8 << 10   // bytes of a private key in PEM: RSA of 8192 bits has 6.4 KiB, and more takes a second to sign
	MaxClaims      = 16 << 10  // bytes of the claims of a signed JWT, after variables
	MaxRequestBody = 1 << 20   // bytes sent, after variables
	MaxProperty    = 1 << 10   // bytes of an assertion's or capture's property, so of a JSONPath too
	MaxExpected    = 64 << 10  // bytes of an assertion's expected value
	MaxPattern     = 1 << 10   // bytes of a regular expression
	MaxMatchInput  = 256 << 10 // bytes of text that a regular expression is run over
	MaxFilters     = 20        // of an assertion or a capture
	MaxFilterArg   = 4 << 10   // bytes of a filter's argument
	MaxFiltered    = 10 << 20  // bytes of text that a filter makes

	// DefaultTimeout is a request's, unless it or the spec says less or more; MaxTimeout bounds a whole run.
	DefaultTimeout = 30 * time.Second
	MaxTimeout     = 5 * time.Minute

	// MaxTokenLife bounds how long a JWT that is signed here may live, and how long an access token is kept; DefaultTokenLife
	// is a JWT's when nothing is said, and an access token's whose endpoint doesn't say.
	MaxTokenLife     = 24 * time.Hour
	DefaultTokenLife = 5 * time.Minute
	// TokenSkew is how long before its end a kept access token is no longer used: clocks differ, and requests take time. Of
	// one that lives for less than ten times as long, a tenth of its life.
	TokenSkew = 30 * time.Second
	// MaxTokenAnswer bounds what a token endpoint may answer, in bytes; MaxTokens how many access tokens one worker keeps.
	MaxTokenAnswer = 64 << 10
	MaxTokens      = 10_000

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
	// MaxFilterCost bounds nodes^loops of a JSONPath: what one evaluation of a filter, which cannot be interrupted, may
	// look at.
	MaxFilterCost = 20_000_000
	// MaxExpression bounds an expression's text and MaxExpressionNodes its parts; MaxExpressionWork the values that it looks
	// at or makes, MaxExpressionText the bytes of text that it makes, and ExpressionTime how long it may take.
	MaxExpression      = 1 << 10
	MaxExpressionNodes = 300
	MaxExpressionWork  = 2_000_000
	MaxExpressionText  = 16 << 20
	ExpressionTime     = 500 * time.Millisecond
	// MaxSchemas are the JSON Schemas of a test, each of MaxSchemaBytes at most and together of MaxSchemasBytes, with
	// MaxSchemaValues JSON values in one. MaxSchemaNodes bounds the subschemas that one reaches, MaxSchemaExpansion those that
	// apply to one value with references followed; MaxSchemaSteps what judging a value may look at, and SchemaTime how long
	// it may take.
	MaxSchemas         = 50
	MaxSchemaBytes     = 64 << 10
	MaxSchemasBytes    = 256 << 10
	MaxSchemaValues    = 5000
	MaxSchemaNodes     = 500
	MaxSchemaExpansion = 5000
	MaxSchemaSteps     = 1_500_000
	SchemaTime         = 2 * time.Second
	// MaxShownSize bounds the work of measuring a value that is shown: it is written out until it is longer than this.
	MaxShownSize = 1 << 20

	// MaxMarkupBytes, MaxMarkupNodes and MaxMarkupDepth bound a response that is read as XML or HTML, whose trees take some
	// thirty times its length in memory. The parser of HTML stops at 512 by itself.
	MaxMarkupBytes = 4 << 20
	MaxMarkupNodes = 100_000
	MaxMarkupDepth = 256

	// JudgeTime bounds what the assertions and captures of one step may take together, so that 200 slow paths cannot hold
	// a worker for 200 × SelectorTime.
	JudgeTime = 5 * time.Second
	// ReevaluateTime bounds what one request to judge stored responses again may take, MaxReevaluated the runs that it may be
	// about, ReevaluateSlack how much later than its answer a response may have been judged: JudgeTime, and the wait for it.
	ReevaluateTime  = 10 * time.Second
	MaxReevaluated  = 200
	ReevaluateSlack = 10 * time.Second
	// MaxZstdWindow is what RFC 9659 lets a server use for content coding zstd.
	MaxZstdWindow = 8 << 20
	// MaxDrained is how much of a redirect's body is read to keep its connection.
	MaxDrained      = 16 << 10
	MaxResolve      = 50 // addresses that a request says itself
	MaxCertificates = 50 // PEM blocks of a client certificate or a CA
	// MaxTransports bounds the connection pools of one worker, one for each way to connect.
	MaxTransports = 1024
)

// What people may name, set and have. Lengths are characters where nothing else is said.
const (
	MinPassword       = 10
	MaxPassword       = 128
	MinDistinct       = 5 // different characters in a password
	MaxPersonName     = 100
	MaxEmail          = 254 // bytes, RFC 5321
	MaxEmailLocalPart = 64  // bytes, RFC 5321

	MaxOrganizations = 50 // that a person may be in and still make another one
	MaxProjectName   = 100
	MaxTestName      = 200
	MaxDescription   = 2000 // of a project or a test
	MaxEnvironments  = 100  // of a project; one has MaxVariables at most
	MaxTests         = 5000 // of a project

	MaxSecrets        = 200      // of an environment, of a project, of an organization
	MaxSecretValue    = 64 << 10 // bytes: a key and a chain of certificates have room
	MaxSecretVersions = 10       // of a secret whose values are kept, for runs that are run again
	MaxSecretText     = 500      // characters of its description
	MaxTags           = 20       // of a test
	MaxTagLength      = 50
	MaxRegions        = 20  // of a test
	MaxSuiteRuns      = 500 // that one execution of a project's tests starts
)

// What a request to the API may be, and what one answer holds.
const (
	// DefaultPage and MaxPage are the items of a list, as openapi.yaml says.
	DefaultPage = 50
	MaxPage     = 200

	// MaxRequestHeaderBytes and ReadHeaderTime bound what somebody who never gets to a body can cost, IdleConnection how
	// long a kept connection may do nothing.
	MaxRequestHeaderBytes = 32 << 10
	ReadHeaderTime        = 10 * time.Second
	IdleConnection        = 2 * time.Minute
	// SlowClient is what a client may take to send a body or to read an answer, beyond the time that the request may take;
	// of an answer that is streamed, for each part.
	SlowClient = 30 * time.Second

	MaxJSONDepth   = 64 // of a body or a frame
	MaxJSONNodes   = 50_000
	MaxJSONNumber  = 100  // characters
	MaxFaults      = 100  // that one answer names
	MaxUserAgent   = 256  // bytes that are kept of it
	MaxTokenLength = 4096 // bytes of an access token; ours have about 500

	MaxSpan    = 5 * 366 * 24 * time.Hour // from one end of a query of analytics to the other
	MaxBuckets = 5000                     // of one answer

	// ExportPage is the events of an export that are held in memory at a time; a page that weighed more than
	// ExportPageBytes makes the next ones smaller.
	ExportPage      = 500
	ExportPageBytes = 4 << 20
	// ExportSealWait is how long an export waits until what it will show is sealed; then it goes on without.
	ExportSealWait = 5 * time.Second
	// MaxFilterValues is how many values of one sort a filter of the audit log takes.
	MaxFilterValues = 50
	// MaxRefusalSorts is how many sorts of refusals are counted at once, each of a principal, an operation and a reason.
	MaxRefusalSorts = 10_000
)

// LeastRetention is the fewest days that anything of runs is kept, whatever is set: one that is open may still end.
const LeastRetention = 3

// What a client of the live stream may do, beside the settings.
const (
	LiveFirstFrame   = 1 << 10 // bytes of a frame before sign-in
	LiveMistakes     = 10      // frames that make no sense
	LiveKernelBuffer = 256 << 10
	// LiveLingerBytes bounds what is read and thrown away of a frame that is too large, so that the close frame reaches
	// the client instead of a reset.
	LiveLingerBytes = 4 << 20
)
