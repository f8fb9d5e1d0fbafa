package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Limits are the operational limits of an installation that a setting changes, all in one place. Rooms get the values.
// What a test may be and what a target may cost is for ever the same, and stands in testspec's limits.go.
type Limits struct {
	// What a request to the API may be.
	RequestBody    Size          `env:"TESTFLOW_LIMIT_REQUEST_BODY" default:"1MiB" doc:"Body of an API request."`
	RequestTimeout time.Duration `env:"TESTFLOW_LIMIT_REQUEST_TIMEOUT" default:"30s" doc:"How long an API request may take; exports and waits have their own."`
	PageSize       int           `env:"TESTFLOW_LIMIT_PAGE_SIZE" default:"200" doc:"Items of a list in one answer."`
	MinPosition    time.Duration `env:"TESTFLOW_LIMIT_POSITION_WAIT" default:"2s" doc:"How long a GET waits for the position that it asks for."`
	Wait           time.Duration `env:"TESTFLOW_LIMIT_WAIT" default:"60s" doc:"How long Prefer: wait may wait for runs."`

	// What a target may send.
	ResponseBody Size `env:"TESTFLOW_LIMIT_RESPONSE_BODY" default:"10MiB" doc:"Bytes of a response, before and again after decompression; at most 10MiB."`
	ResponseKept Size `env:"TESTFLOW_LIMIT_RESPONSE_KEPT" default:"256KiB" doc:"Bytes of a response that are kept to look at; at most 256KiB."`

	// How a worker collects results.
	SinkDelay time.Duration `env:"TESTFLOW_LIMIT_SINK_DELAY" default:"5ms" doc:"How long a worker collects results before it appends them."`
	SinkRuns  int           `env:"TESTFLOW_LIMIT_SINK_RUNS" default:"200" doc:"Runs of one batch of results."`
	SinkBytes Size          `env:"TESTFLOW_LIMIT_SINK_BYTES" default:"8MiB" doc:"Bytes of one batch of results."`

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
	LiveRecheck       time.Duration `env:"TESTFLOW_LIMIT_LIVE_RECHECK" default:"4s" doc:"How often it is checked that a live connection's sign-in still holds."`
	LiveWriteTimeout  time.Duration `env:"TESTFLOW_LIMIT_LIVE_WRITE_TIMEOUT" default:"10s" doc:"How long a client may leave what it was sent unread before it is cut."`
	LiveCatchUpReader int           `env:"TESTFLOW_LIMIT_LIVE_CATCH_UP_READERS" default:"4" doc:"Live connections that read the log at the same time to catch up."`
}

func (l *Limits) check(faults *Faults) { eachNumber(reflect.ValueOf(l).Elem(), faults, 1) }

// eachNumber adds a fault for every number below least; one that did not parse was reported before.
func eachNumber(v reflect.Value, faults *Faults, least int64) {
	t := v.Type()
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("env")
		if v.Field(i).CanInt() && v.Field(i).Int() < least && !faults.has(name) {
			faults.add(name, "must be at least %d", least)
		}
	}
}

// Size is a number of bytes, written as 4096, 512KiB, 10MiB or 1GiB.
type Size int64

var units = []struct {
	suffix string
	factor int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}, {"", 1}}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.factor {
			return fmt.Errorf("no size: a number of bytes with KiB, MiB or GiB")
		}
		*s = Size(n * u.factor)
		return nil
	}
	return nil
}

// String writes the size in its largest whole unit.
func (s Size) String() string {
	for i := 2; i >= 0; i-- {
		if n := int64(s); n > 0 && n%units[i].factor == 0 {
			return strconv.FormatInt(n/units[i].factor, 10) + units[i].suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
