package seal

// Format is the export that Verify reads: NDJSON, one object a line, each with a field "line" that says what it is.
//
//	header   what was exported: organizationId, after, upTo, exportedAt, and filter when it isn't the whole log
//	seals    Seals, after the header
//	start    Start, after the seals of a part that doesn't begin at the beginning
//	event    an event; data, stored.schema and stored.meta are what its hash covers; address and userAgent may be opened
//	head     HeadLine, in a whole log: every head, before the leaves that it covers
//	leaves   Leaves, in a whole log: after the events that they belong to
//	proof    Proof, in a filtered export: after the events, one for each
//	cursor   where another request can go on
//	end      how many events there were
//	signed   Signed, when the header says `signed`: after each page at the least and behind the end, over all lines since the last one
const Format = "testflow.audit.v1"

// The lines of an export.
const (
	LineHeader = "header"
	LineEvent  = "event"
	LineCursor = "cursor"
	LineEnd    = "end"
	LineSeals  = "seals"
	LineStart  = "start"
	LineHead   = "head"
	LineLeaves = "leaves"
	LineProof  = "proof"
	LineSigned = "signed"
)

// Signed is the signature of the lines between the one before it, or the header, and itself.
type Signed struct {
	Line     string `json:"line"`     // LineSigned
	Position int64  `json:"position"` // of the last event before it: where another request can go on
	Note     string `json:"note"`
	Marks    []byte `json:"marks"` // the first 8 bytes of the SHA-256 of each line
}

// Seals says how far the history was sealed when the export began. Events behind Position are not sealed yet.
type Seals struct {
	Line     string   `json:"line"` // LineSeals
	Keys     []string `json:"keys"` // statements, for ParseChain
	Size     int64    `json:"size"`
	Position int64    `json:"position"`
	Head     string   `json:"head,omitempty"` // the last head; absent when nothing is sealed
}

// Start is the tree of what came before this part. The heads that follow prove that it is the right one.
type Start struct {
	Line  string `json:"line"` // LineStart
	Size  int64  `json:"size"`
	Peaks []Hash `json:"peaks"`
	Head  string `json:"head,omitempty"` // the last head at or before Size; absent when there is none
}

// HeadLine is a signed head of the log.
type HeadLine struct {
	Line string `json:"line"` // LineHead
	Note string `json:"note"`
}

// Leaves are the leaves as the sealer stored them, of a stretch of positions, whether their events are there or not.
type Leaves struct {
	Line      string  `json:"line"` // LineLeaves
	First     int64   `json:"first"`
	Positions []int64 `json:"positions"`
	Hashes    []Hash  `json:"hashes"`
}

// Proof shows that an event is leaf number Leaf under the head of the export.
type Proof struct {
	Line     string `json:"line"` // LineProof
	Position int64  `json:"position"`
	Leaf     int64  `json:"leaf"`
	Hashes   []Hash `json:"hashes"`
}
