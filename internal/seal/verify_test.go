package seal_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/testflow/testflow/internal/seal"
	"github.com/testflow/testflow/internal/seal/sealtest"
)

func made(tb testing.TB, n, span, page int) sealtest.Made {
	tb.Helper()
	m, err := sealtest.Export(n, span, page)
	require.NoError(tb, err)
	return m
}

func TestVerify_anHonestExport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, span, page int }{{1, 1, 1}, {1, 2, 1}, {40, 7, 10}, {64, 64, 64}, {100, 1, 33}, {300, 10, 100}} {
		m := made(t, c.n, c.span, c.page)
		r, err := seal.Verify(t.Context(), bytes.NewReader(m.NDJSON), seal.Options{Pins: []string{m.Signer.Key().String()}, Kept: m.Heads})
		require.NoError(t, err)
		require.Empty(t, r.Findings, c)
		require.EqualValues(t, c.n, r.Events)
		require.EqualValues(t, c.n/c.span*c.span, r.Sealed)
		require.EqualValues(t, c.n%c.span, r.Unsealed)
		require.Equal(t, len(m.Heads), r.KeptChecked)
		require.Zero(t, r.Opened)
	}
}

// Whatever single bit of an export is flipped, either the verifier says so or the events say what they said before.
func TestVerify_noFlippedBitIsMissed(t *testing.T) {
	t.Parallel()
	m := made(t, 12, 4, 6)
	want := said(m.NDJSON)
	rapid.Check(t, func(rt *rapid.T) {
		changed := bytes.Clone(m.NDJSON)
		at := rapid.IntRange(0, len(changed)-1).Draw(rt, "at")
		changed[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		r, err := seal.Verify(t.Context(), bytes.NewReader(changed), seal.Options{Kept: m.Heads})
		if err == nil && len(r.Findings) == 0 {
			require.Equal(rt, want, said(changed))
		}
	})
}

// said is what the events of an export say, in one spelling.
func said(export []byte) string {
	var out strings.Builder
	for line := range bytes.Lines(export) {
		var e map[string]any
		if json.Unmarshal(line, &e) != nil || e["line"] != "event" {
			continue
		}
		canonical, err := seal.Canonical(line)
		if err != nil {
			canonical = []byte("unreadable")
		}
		out.WriteString(strings.ToLower(string(canonical)) + "\n") // of hashes and ids
	}
	return out.String()
}

// What is done to the file itself is found and placed too; what is no export is told from what was changed.
func TestVerify_theFile(t *testing.T) {
	t.Parallel()
	m := made(t, 12, 4, 6)
	lines := strings.SplitAfter(string(m.NDJSON), "\n")
	at := func(prefix string) int {
		for i, l := range lines {
			if strings.Contains(l, prefix) {
				return i
			}
		}
		t.Fatal(prefix)
		return 0
	}
	without := func(i int) string { return strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), "") }
	swapped := func(i, j int) string {
		out := append([]string{}, lines...)
		out[i], out[j] = out[j], out[i]
		return strings.Join(out, "")
	}
	event := at(`"position":5,`)
	for name, c := range map[string]struct{ file, want string }{
		"an event left out":            {without(event), "position 5: the event is gone"},
		"two swapped":                  {swapped(event, event+1), "line 6, position 5: the event stands behind position 7"},
		"an event twice":               {strings.Join(append(append([]string{}, lines[:event+1]...), lines[event:]...), ""), "line 6, position 5: the event stands behind position 5"},
		"a head left out":              {without(at(`"line":"head"`)), "the seals before number 2 are missing"},
		"leaves left out":              {without(at(`"line":"leaves"`)), "position 1: the hash that the sealer stored of the event was taken away"},
		"a key twice":                  {strings.Replace(string(m.NDJSON), `"type":"thing.renamed"`, `"type":"thing.removed","type":"thing.renamed"`, 1), "stands in it twice"},
		"a key in another case beside": {strings.Replace(string(m.NDJSON), `"type":"thing.renamed"`, `"Type":"thing.removed","type":"thing.renamed"`, 1), `a field "Type"`},
		"another actor shown":          {strings.Replace(string(m.NDJSON), `"kind":"apiKey"`, `"kind":"system"`, 1), "shows another actor"},
		"another address shown":        {strings.Replace(string(m.NDJSON), `"address":"192.0.2.7","contentHash"`, `"address":"192.0.2.8","contentHash"`, 1), "shows another address"},
		"other data shown than proven": {strings.Replace(strings.Replace(string(m.NDJSON), `"stored":{`, `"stored":{"data":{"from":"Engines of 0","to":"Engines, “new” & improved","n":[0,9007199254740993,0.5]},`, 1), `Engines of 0","n`, `Forged","n`, 1), "line 3, position 1: the event's stored form can't be read"},
		"an array":                     {"[\n", "format=ndjson"},
		"another id":                   {strings.Replace(string(m.NDJSON), `.1","line":"event"`, `.2","line":"event"`, 1), "id isn't its stream and version"},
		"fewer events at the end":      {strings.Replace(string(m.NDJSON), `"events":12`, `"events":11`, 1), "it says that there are 11 events, and there are 12"},
		"cut off":                      {strings.Join(lines[:len(lines)-2], ""), "cut off"},
		"cut off in a line":            {string(m.NDJSON[:len(m.NDJSON)/2]), "cut off"},
		"empty":                        {"", "it is empty"},
		"something else":               {`{"a":1}`, "stands outside an export"},
		"CSV":                          {"position,recordedAt\n1,2\n", "no JSON object"},
		"another format":               {strings.Replace(string(m.NDJSON), "testflow.audit.v1", "testflow.audit.v9", 1), "this version verifies"},
		"a line of another kind":       {strings.Replace(string(m.NDJSON), `"line":"cursor"`, `"line":"corsair"`, 1), `"corsair"`},
		"without seals":                {without(at(`"line":"seals"`)), "no seals behind the header"},
	} {
		r, err := seal.Verify(t.Context(), strings.NewReader(c.file), seal.Options{})
		said := fmt.Sprint(r.Findings, err)
		require.True(t, err != nil || len(r.Findings) > 0, name)
		require.Contains(t, said, c.want, name)
	}
}

// The tail that no seal covers is told, and a newer kept seal shows that it was covered once.
func TestVerify_sealsTakenFromTheFile_areMissedByWhoKeptOne(t *testing.T) {
	t.Parallel()
	m := made(t, 12, 4, 6)
	short := made(t, 8, 8, 8) // only to have lines that are not m's
	require.NotEqual(t, m.OrgID, short.OrgID)
	r, err := seal.Verify(t.Context(), bytes.NewReader(short.NDJSON), seal.Options{Kept: m.Heads[2:]})
	require.NoError(t, err)
	require.Len(t, r.Findings, 1)
	require.Contains(t, r.Findings[0].String(), "no sealing key of this installation signed it")
	r, err = seal.Verify(t.Context(), bytes.NewReader(short.NDJSON), seal.Options{Pins: []string{m.Signer.Key().Fingerprint()}})
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(r.Findings), "none of the sealing keys of this export is the one that you know")
}

func BenchmarkVerify(b *testing.B) {
	m := made(b, 5000, 1000, 500)
	b.SetBytes(int64(len(m.NDJSON)))
	for b.Loop() {
		r, err := seal.Verify(b.Context(), bytes.NewReader(m.NDJSON), seal.Options{})
		if err != nil || len(r.Findings) > 0 {
			b.Fatal(r.Findings, err)
		}
	}
	b.ReportMetric(5000*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
