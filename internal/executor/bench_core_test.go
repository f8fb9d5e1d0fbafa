package executor_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

// benchTarget makes a process the target of the benchmarks below, so that what it costs is not counted as the client's. It
// prints its address and ends when its input does.
const benchTarget = "TESTFLOW_TEST_BENCH_TARGET"

func serveBenchTarget() {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(1)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/pets/1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, targettest.Pet)
	})
	var waiting atomic.Int64
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) {
		waiting.Add(1)
		defer waiting.Add(-1)
		<-r.Context().Done()
	})
	mux.HandleFunc("/waiting", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strconv.FormatInt(waiting.Load(), 10))
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _ = os.Stdout.WriteString("http://" + l.Addr().String() + "\n")
	_ = srv.Serve(l)
}

// startBenchTarget starts it and returns its URL.
func startBenchTarget(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), benchTarget+"=1", "GOMAXPROCS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// BenchmarkOneCore compares the executor alone (one step, three assertions, a kept connection) with a bare loop of Go's
// client that decodes the same JSON, both on one core, in turns, and prints the medians. The target is a process of its own.
func BenchmarkOneCore(b *testing.B) {
	base := startBenchTarget(b)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const workers, rounds, each = 16, 7, 700 * time.Millisecond

	e := executor.New(executor.Config{Guard: loopback(b), Now: time.Now})
	defer e.Close()
	spec := mustRead(b, `{"steps":[{"request":{"method":"GET","url":"{{base}}/pets/1"},"assertions":[
		{"source":"status","operator":"equals","expected":200},
		{"source":"jsonpath","property":"$.id","operator":"isInteger"},
		{"source":"responseTime","operator":"lessThan","expected":5000,"severity":"soft"}]}]}`)
	in := executor.Input{RunID: uuid.New(), OrgID: uuid.New(), Spec: spec, Environment: map[string]string{"base": base}}
	ours := func() {
		if r := e.Run(context.Background(), in, nil); r.Status != executor.Passed {
			b.Error(r.Error)
		}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	defer client.CloseIdleConnections()
	bare := func() {
		if err := bareRequest(client, base+"/pets/1"); err != nil {
			b.Error(err)
		}
	}
	rate := func(one func()) float64 {
		var n atomic.Int64
		var wg sync.WaitGroup
		started := time.Now()
		for range workers {
			wg.Go(func() {
				for time.Since(started) < each {
					one()
					n.Add(1)
				}
			})
		}
		wg.Wait()
		return float64(n.Load()) / time.Since(started).Seconds()
	}
	for b.Loop() {
		var runs, requests, ratios []float64
		rate(ours)
		rate(bare)
		for range rounds {
			r, q := rate(ours), rate(bare)
			runs, requests, ratios = append(runs, r), append(requests, q), append(ratios, r/q)
		}
		b.ReportMetric(median(runs), "runs/s")
		b.ReportMetric(median(requests), "bare-requests/s")
		b.ReportMetric(median(ratios), "ratio")
		b.ReportMetric(0, "ns/op")
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

func bareRequest(client *http.Client, url string) error {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var doc map[string]any
	return json.Unmarshal(body, &doc)
}

// BenchmarkInFlight tells what a run costs in memory while its target thinks: heap and stacks of 1 000 of them.
func BenchmarkInFlight(b *testing.B) {
	base := startBenchTarget(b)
	const runs = 1000
	e := executor.New(executor.Config{Guard: loopback(b), Now: time.Now})
	defer e.Close()
	spec := mustRead(b, get("{{base}}/hang", `,"timeout":"4m"`))
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	waiting := func() int {
		resp, err := http.Get(base + "/waiting")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			b.Fatal(err)
		}
		n, err := strconv.Atoi(string(text))
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	for b.Loop() {
		waiting()
		before := used()
		ctx, stop := context.WithCancelCause(context.Background())
		var wg sync.WaitGroup
		for range runs {
			wg.Go(func() {
				e.Run(ctx, executor.Input{RunID: uuid.New(), OrgID: uuid.New(), Spec: spec, Environment: map[string]string{"base": base}}, nil)
			})
		}
		tick := time.NewTicker(20 * time.Millisecond)
		for waiting() < runs {
			<-tick.C
		}
		tick.Stop()
		b.ReportMetric(float64(used()-before)/runs/1024, "KiB/run-in-flight")
		b.ReportMetric(0, "ns/op")
		stop(executor.ErrCanceled)
		wg.Wait()
	}
	http.DefaultClient.CloseIdleConnections()
}
