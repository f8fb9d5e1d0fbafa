package seal_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/testflow/testflow/internal/seal"
	"github.com/testflow/testflow/internal/seal/sealtest"
)

func madeSigned(tb testing.TB, n, span, page int) sealtest.Made {
	tb.Helper()
	m, err := sealtest.ExportSigned(n, span, page)
	require.NoError(tb, err)
	return m
}

// What people read of an export whose lines are signed is covered to the last byte.
func TestSigned_anHonestExportIsCoveredWhole(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, span, page int }{{1, 1, 1}, {40, 7, 10}, {300, 10, 100}} {
		m := madeSigned(t, c.n, c.span, c.page)
		r, err := seal.Verify(t.Context(), bytes.NewReader(m.NDJSON), seal.Options{Pins: []string{m.Signer.Key().String()}, Kept: m.Heads})
		require.NoError(t, err)
		require.Empty(t, r.Findings, c)
		require.EqualValues(t, c.n, r.OpenedSigned)
		require.Zero(t, r.Opened)
		require.EqualValues(t, bytes.Count(m.NDJSON, []byte("\n"))-bytes.Count(m.NDJSON, []byte(`"line":"signed"`)), r.SignedLines)
		require.EqualValues(t, c.n/c.span*c.span, r.Sealed)
		crlf, err := seal.Verify(t.Context(), bytes.NewReader(bytes.ReplaceAll(m.NDJSON, []byte("\n"), []byte("\r\n"))), seal.Options{})
		require.NoError(t, err)
		require.Empty(t, crlf.Findings, "how lines end says nothing")
	}
}

// Whatever single bit is flipped, readable addresses too, the verifier says so or the events say what they said before.
func TestSigned_noFlippedBitIsMissed(t *testing.T) {
	t.Parallel()
	m := madeSigned(t, 12, 4, 6)
	want := said(m.NDJSON)
	rapid.Check(t, func(rt *rapid.T) {
		changed := bytes.Clone(m.NDJSON)
		at := rapid.IntRange(0, len(changed)-1).Draw(rt, "at")
		changed[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		r, err := seal.Verify(t.Context(), bytes.NewReader(changed), seal.Options{Kept: m.Heads})
		if err == nil && len(r.Findings) == 0 && r.Opened == 0 {
			require.Equal(rt, want, said(changed))
		}
	})
}

// What is done to the file is named by its line, whether a hash of the history covers it or not.
func TestSigned_namesTheLine(t *testing.T) {
	t.Parallel()
	m := madeSigned(t, 12, 4, 6)
	lines := strings.SplitAfter(string(m.NDJSON), "\n")
	at := func(text string, nth int) int {
		for i, l := range lines {
			if strings.Contains(l, text) {
				if nth--; nth == 0 {
					return i
				}
			}
		}
		t.Fatal(text)
		return 0
	}
	changed := func(i int, from, to string) string {
		out := append([]string{}, lines...)
		require.Contains(t, out[i], from)
		out[i] = strings.Replace(out[i], from, to, 1)
		return strings.Join(out, "")
	}
	without := func(gone ...int) string {
		var out strings.Builder
		for i, l := range lines {
			for _, g := range gone {
				if i == g {
					l = ""
				}
			}
			out.WriteString(l)
		}
		return out.String()
	}
	swapped := func(i, j int) string {
		out := append([]string{}, lines...)
		out[i], out[j] = out[j], out[i]
		return strings.Join(out, "")
	}
	doubled := func(i int) string {
		return strings.Join(append(append([]string{}, lines[:i+1]...), lines[i:]...), "")
	}
	other := madeSigned(t, 12, 4, 6)
	otherLines := strings.SplitAfter(string(other.NDJSON), "\n")
	third, last := at(`"position":5,"rec`, 1), at(`"position":23,"rec`, 1)
	sig, sig2, sig3, sig4 := at(`"line":"signed"`, 1), at(`"line":"signed"`, 2), at(`"line":"signed"`, 3), at(`"line":"signed"`, 4)
	for name, c := range map[string]struct {
		file string
		want []string
	}{
		"an address":                  {changed(third, "192.0.2.7", "192.0.2.8"), []string{fmt.Sprintf("line %d, position 5: the line isn't as the server wrote it", third+1)}},
		"an agent":                    {changed(last, "curl/8", "curl/9"), []string{fmt.Sprintf("line %d, position 23: the line isn't as the server wrote it", last+1)}},
		"two addresses":               {strings.ReplaceAll(changed(third, "192.0.2.7", "192.0.2.8"), lines[last], strings.Replace(lines[last], "192.0.2.7", "192.0.2.9", 1)), []string{"position 5: the line", "position 23: the line"}},
		"an address taken away":       {changed(third, `"address":"192.0.2.7",`, ""), []string{"position 5: the line isn't as the server wrote it"}},
		"when it was exported":        {changed(0, "2026-11-22", "2026-11-23"), []string{"line 1: the line isn't as the server wrote it"}},
		"an event left out":           {without(third), []string{fmt.Sprintf("line %d, position 7: a line that the server wrote before this one was taken away", third+1)}},
		"the last of a section":       {without(sig - 1), []string{fmt.Sprintf("line %d: a line that the server wrote before this one was taken away", sig)}},
		"an event twice":              {doubled(third), []string{fmt.Sprintf("line %d, position 5: the server didn't write this line", third+2)}},
		"two swapped":                 {swapped(third, third+1), []string{fmt.Sprintf("line %d, position 7: the server wrote this line behind the next one", third+1)}},
		"a signature left out":        {without(sig), []string{"the signatures of the sections 1 to 1 before this one are missing"}},
		"all but the last left out":   {without(sig, sig2, sig3), []string{"the signatures of the sections 1 to 3 before this one are missing"}},
		"the last signature left out": {without(sig4), []string{"the export was cut off"}},
		"all signatures left out":     {without(sig, sig2, sig3, sig4), []string{"the export was cut off"}},
		"a signature and its lines":   {strings.Join(append(append([]string{}, lines[:sig+1]...), lines[sig2+1:]...), ""), []string{"the signatures of the sections 2 to 2 before this one are missing"}},
		"a signature twice":           {doubled(sig), []string{"the signature of section 1 stands behind the one of section 1"}},
		"a signature of another file": {strings.Replace(string(m.NDJSON), lines[sig], otherLines[sig], 1), []string{"the export's sealing key didn't sign it"}},
		"a signature changed":         {changed(sig, `section 1\n`, `section 2\n`), []string{"the export's sealing key didn't sign it"}},
		"its position":                {changed(sig, `"position":11`, `"position":13`), []string{"it says position 11, the line around it 13"}},
		"its marks":                   {changed(sig, `"marks":"`, `"marks":"AAAAAAAA`), []string{"the marks beside the signature were changed"}},
		"its marks and a line":        {strings.Replace(changed(sig, `"marks":"`, `"marks":"AAAAAAAA`), "192.0.2.7", "192.0.2.8", 1), []string{fmt.Sprintf("something in lines 1 to %d isn't as the server wrote it", sig)}},
		"a field beside":              {changed(sig, `"marks":`, `"x":1,"marks":`), []string{`it has a field "x"`}},
		"a signature written anew":    {changed(sig, `{"line":"signed"`, `{"line": "signed"`), []string{"the signatures of the sections 1 to 1", "a signature of lines that isn't written as one"}},
		"said not to be signed":       {changed(0, `,"signed":true`, ""), []string{"whose header doesn't say that there are any"}},
		"said to be another export":   {changed(0, `"exportId":"`, `"exportId":"01981a52-6a7e-7cc1-9df0-3fb7e25c0a11","x":"`), []string{"the signature is of another export", "line 1: the line isn't as the server wrote it"}},
		"something behind the end":    {string(m.NDJSON) + lines[third], []string{"it stands outside an export"}},
		"no JSON any more":            {changed(third, `"id":`, `id:`), []string{fmt.Sprintf("line %d: the line isn't as the server wrote it", third+1)}},
	} {
		r, err := seal.Verify(t.Context(), strings.NewReader(c.file), seal.Options{})
		said := fmt.Sprint(r.Findings, err)
		require.True(t, err != nil || len(r.Findings) > 0, name)
		for _, want := range c.want {
			require.Contains(t, said, want, name)
		}
	}

	// Who takes every trace of the signatures away has an export without any: it verifies, and says what isn't covered.
	bare := strings.Replace(without(sig, sig2, sig3, sig4), `,"signed":true`, "", 1)
	r, err := seal.Verify(t.Context(), strings.NewReader(bare), seal.Options{})
	require.NoError(t, err)
	require.Empty(t, r.Findings)
	require.EqualValues(t, 12, r.Opened)
	require.Zero(t, r.SignedLines)
}

// Another key than the one that seals, also one that did before, can't sign the lines.
func TestSigned_byTheNewestKeyAlone(t *testing.T) {
	t.Parallel()
	m := madeSigned(t, 12, 4, 6)
	next, err := seal.NewSigner()
	require.NoError(t, err)
	st, err := seal.NewStatement(2, next, m.Signer, time.Now())
	require.NoError(t, err)
	quoted := func(s string) string { return strings.ReplaceAll(s, "\n", `\n`) }
	rotated := strings.Replace(string(m.NDJSON), `"keys":["`+quoted(m.Keys[0])+`"`, `"keys":["`+quoted(m.Keys[0])+`","`+quoted(st.Note)+`"`, 1)
	require.NotEqual(t, string(m.NDJSON), rotated)
	r, err := seal.Verify(t.Context(), strings.NewReader(rotated), seal.Options{})
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(r.Findings), "the export's sealing key didn't sign it")
	require.Zero(t, r.SignedLines)
}
