package cli_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/seal/sealtest"
)

// verifying runs the command on files of one folder.
type verifying struct {
	t   *testing.T
	dir string
}

func (v verifying) file(name string, content []byte) string {
	v.t.Helper()
	path := filepath.Join(v.dir, name)
	require.NoError(v.t, os.WriteFile(path, content, 0o600))
	return path
}

func (v verifying) run(ctx context.Context, a cli.AuditVerify) (out string, code int) {
	v.t.Helper()
	var stdout, stderr bytes.Buffer
	err := a.Run(ctx, cli.Env{Stdout: &stdout, Stderr: &stderr, Now: time.Now})
	if err != nil {
		stderr.WriteString(err.Error())
	}
	return stdout.String() + stderr.String(), cli.ExitCodeOf(err)
}

func TestAuditVerify_saysInWordsAndExitCode(t *testing.T) {
	t.Parallel()
	m, err := sealtest.Export(20, 8, 10)
	require.NoError(t, err)
	v := verifying{t, t.TempDir()}
	good := v.file("good.ndjson", m.NDJSON)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(m.NDJSON)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	kept, err := json.Marshal(map[string]string{"note": m.Heads[0]})
	require.NoError(t, err)
	other, err := sealtest.Export(8, 8, 8)
	require.NoError(t, err)
	changed := v.file("changed.ndjson", bytes.Replace(m.NDJSON, []byte("Engines of 3"), []byte("Engines of 4"), 1))
	sealedForm, err := sealtest.ExportOpened(20, 8, 10)
	require.NoError(t, err)
	opened := v.file("opened.ndjson", sealedForm.NDJSON)
	signedForm, err := sealtest.ExportSigned(16, 8, 10)
	require.NoError(t, err)
	signed := v.file("signed.ndjson", signedForm.NDJSON)
	edited := v.file("edited.ndjson", bytes.Replace(signedForm.NDJSON, []byte(`"address":"192.0.2.7"`), []byte(`"address":"192.0.2.8"`), 1))
	notes := v.file("note.txt", []byte(m.Heads[1]))

	for name, c := range map[string]struct {
		command cli.AuditVerify
		code    int
		says    []string
	}{
		"honest":                  {cli.AuditVerify{Files: []string{good}}, 0, []string{"20, of them 16 proven by a seal", "not sealed    4 at the end", "no key given", "every sealed event is what was sealed"}},
		"packed":                  {cli.AuditVerify{Files: []string{v.file("good.gz", packed.Bytes())}}, 0, []string{"what was sealed"}},
		"with a known key":        {cli.AuditVerify{Files: []string{good}, Key: []string{m.Signer.Key().Fingerprint()}}, 0, []string{"the key that you know vouches"}},
		"with a key in a file":    {cli.AuditVerify{Files: []string{good}, Key: []string{v.file("key.txt", []byte("our key: "+m.Signer.Key().String()+"\n"))}}, 0, []string{"the key that you know vouches"}},
		"with kept seals":         {cli.AuditVerify{Files: []string{good}, Head: []string{v.file("kept.ndjson", append(kept, '\n')), notes}}, 0, []string{"2 agree with this history"}},
		"changed":                 {cli.AuditVerify{Files: []string{changed}}, 1, []string{"CHANGED  line 6, position 7", "NOT what was sealed"}},
		"with another's key":      {cli.AuditVerify{Files: []string{good}, Key: []string{other.Signer.Key().Fingerprint()}}, 1, []string{"none of the sealing keys"}},
		"opened":                  {cli.AuditVerify{Files: []string{opened}}, 0, []string{"readable addresses and agents are not covered: 20 events"}},
		"opened, strict":          {cli.AuditVerify{Files: []string{opened}, Strict: true}, 1, []string{"not covered: 20 events"}},
		"signed, strict":          {cli.AuditVerify{Files: []string{signed}, Strict: true, RequireSealed: true}, 0, []string{"25 lines are as the server wrote them", "address and agent of 16 events", "result        every event is what was sealed\n"}},
		"signed, edited":          {cli.AuditVerify{Files: []string{edited}}, 1, []string{"CHANGED  line 3, position 1: the line isn't as the server wrote it", "NOT what was sealed"}},
		"strict":                  {cli.AuditVerify{Files: []string{good}, Strict: true}, 0, []string{"what was sealed"}},
		"sealed to the end":       {cli.AuditVerify{Files: []string{good}, RequireSealed: true}, 1, []string{"4 events at the end are covered by no seal yet", "?upTo=32"}},
		"cut off":                 {cli.AuditVerify{Files: []string{v.file("cut.ndjson", m.NDJSON[:len(m.NDJSON)/2])}}, 2, []string{"cut off"}},
		"packed and cut off":      {cli.AuditVerify{Files: []string{v.file("cut.gz", packed.Bytes()[:packed.Len()/2])}}, 2, []string{"cut off"}},
		"no export":               {cli.AuditVerify{Files: []string{v.file("x.csv", []byte("position,type\n"))}}, 2, []string{"no audit export", "format=ndjson"}},
		"no file":                 {cli.AuditVerify{Files: []string{filepath.Join(v.dir, "nowhere")}}, 2, []string{"no such file"}},
		"a key that is none":      {cli.AuditVerify{Files: []string{good}, Key: []string{"sha256:12"}}, 2, []string{"neither a fingerprint"}},
		"a file without keys":     {cli.AuditVerify{Files: []string{good}, Key: []string{good}}, 2, []string{"neither a fingerprint"}},
		"a seal that is none":     {cli.AuditVerify{Files: []string{good}, Head: []string{good}}, 2, []string{"is no seal"}},
		"a file without seals":    {cli.AuditVerify{Files: []string{good}, Head: []string{v.file("empty", nil)}}, 2, []string{"no seals"}},
		"packed badly":            {cli.AuditVerify{Files: []string{v.file("bad.gz", []byte{0x1f, 0x8b, 1, 2, 3})}}, 2, []string{"unpack"}},
		"another one's log twice": {cli.AuditVerify{Files: []string{good, v.file("other.ndjson", other.NDJSON)}}, 2, []string{"the one before of"}},
	} {
		out, code := v.run(t.Context(), c.command)
		require.Equal(t, c.code, code, "%s: %s", name, out)
		if c.code == 2 {
			require.NotContains(t, out, "result  ", name)
			require.NotContains(t, out, "nothing is sealed yet", name)
		}
		for _, says := range c.says {
			require.Contains(t, out, says, name)
		}
	}
}

// What a verification keeps is what the next one holds the history against.
func TestAuditVerify_keepsTheLastSeal(t *testing.T) {
	t.Parallel()
	m, err := sealtest.Export(16, 8, 10)
	require.NoError(t, err)
	v := verifying{t, t.TempDir()}
	good, heads := v.file("good.ndjson", m.NDJSON), filepath.Join(v.dir, "heads.ndjson")
	for range 2 {
		out, code := v.run(t.Context(), cli.AuditVerify{Files: []string{good}, SaveHead: heads})
		require.Zero(t, code, out)
	}
	kept, err := cli.ReadHeads(heads)
	require.NoError(t, err)
	require.Equal(t, []string{m.Heads[1], m.Heads[1]}, kept)
	out, code := v.run(t.Context(), cli.AuditVerify{Files: []string{good}, Head: []string{heads}})
	require.Zero(t, code, out)
	require.Contains(t, out, "2 agree")
	// A history that was changed keeps nothing.
	changed := v.file("changed.ndjson", bytes.Replace(m.NDJSON, []byte("Engines of 3"), []byte("Engines of 4"), 1))
	before, err := os.ReadFile(heads)
	require.NoError(t, err)
	_, code = v.run(t.Context(), cli.AuditVerify{Files: []string{changed}, SaveHead: heads})
	require.Equal(t, 1, code)
	after, err := os.ReadFile(heads)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	big, err := sealtest.Export(2000, 500, 500)
	require.NoError(t, err)
	out, code = v.run(ctx, cli.AuditVerify{Files: []string{v.file("big.ndjson", big.NDJSON)}})
	require.Equal(t, 130, code, out)
	require.Contains(t, out, "nothing is proven")
}
