package executor_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/netguard"
	"github.com/testflow/testflow/internal/testspec"
	"github.com/testflow/testflow/internal/vault"
)

// loopback lets tests reach the target.
func loopback(tb testing.TB) *netguard.Guard {
	tb.Helper()
	return netguard.New(netguard.Policy{Allow: []netguard.Rule{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}}, time.Now)
}

func newEngine(tb testing.TB, target *targettest.Server) *executor.Engine {
	tb.Helper()
	e := executor.New(executor.Config{Guard: loopback(tb), Now: time.Now, RootCAs: target.CAs})
	tb.Cleanup(e.Close)
	return e
}

// names are the variables that specs of tests may use.
func names(target *targettest.Server) map[string]string {
	return map[string]string{
		"base": target.URL, "tls": target.TLSURL, "other": target.OtherURL, "expired": target.ExpiredURL,
		"wrongName": target.WrongNameURL, "notTls": target.NotTLSURL, "http1Only": target.HTTP1OnlyURL,
		"refused": target.RefusedURL, "mutual": target.MutualURL, "selfSigned": target.SelfSignedURL, "old": target.OldURL,
		"tls12": target.TLS12URL, "required": target.RequiredURL, "hang": target.HangURL, "garbage": target.GarbageURL, "cut": target.CutURL, "hugeChain": target.HugeChainURL,
	}
}

// secrets are what specs of tests may use to come in at the target's doors.
func secrets() map[string]vault.Secret {
	return map[string]vault.Secret{
		"password": vault.NewSecret(targettest.Password), "clientSecret": vault.NewSecret(targettest.ClientSecret),
		"awsSecret": vault.NewSecret(targettest.AWSSecretAccessKey), "awsSession": vault.NewSecret(targettest.AWSSessionToken),
		"apiKey": vault.NewSecret(apiKeyCanary),
	}
}

const apiKeyCanary = "TFCANARY key+/=&1"

func mustRead(tb testing.TB, spec string) testspec.Spec {
	tb.Helper()
	s, err := testspec.Read([]byte(spec), testspec.WithAnyName(), testspec.WithAnySecret())
	if err != nil {
		b, _ := json.Marshal(err)
		tb.Fatalf("spec: %v %s", err, b)
	}
	return s
}

// outcome is a run with all that was observed.
type outcome struct {
	executor.Result
	steps    []executor.StepFinished
	verdicts []executor.AssertionEvaluated
}

// message is what the error says, "" without one.
func (o outcome) message() string {
	if o.Error == nil {
		return ""
	}
	return o.Error.Message
}

func run(tb testing.TB, e *executor.Engine, target *targettest.Server, spec string) outcome {
	tb.Helper()
	return runContext(context.Background(), tb, e, target, spec)
}

func runContext(ctx context.Context, tb testing.TB, e *executor.Engine, target *targettest.Server, spec string) outcome {
	tb.Helper()
	var o outcome
	var given map[string]vault.Secret
	if strings.Contains(spec, "{{secrets.") {
		given = secrets()
	}
	o.Result = e.Run(ctx, executor.Input{
		RunID: uuid.New(), OrgID: uuid.MustParse("0192f0c1-0000-7000-8000-000000000001"),
		Spec: mustRead(tb, spec), Environment: names(target), Secrets: given, Region: "here",
	}, func(ob executor.Observation) {
		switch v := ob.(type) {
		case executor.StepFinished:
			o.steps = append(o.steps, v)
		case executor.AssertionEvaluated:
			o.verdicts = append(o.verdicts, v)
		}
	})
	return o
}

// get is a spec of one GET.
func get(u, rest string) string {
	b, _ := json.Marshal(u)
	return `{"steps":[{"request":{"method":"GET","url":` + string(b) + rest + `}}]}`
}
