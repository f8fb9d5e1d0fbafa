package app

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/config"
)

func TestEgress_faultsAreAllToldAtTheStart(t *testing.T) {
	t.Parallel()
	_, err := loadConfig(config.Up, []string{
		"PORT=-1", "TESTFLOW_EGRESS_ALLOW=10.0.0.0/33,10.0.0.0/8", "TESTFLOW_EGRESS_DENY=db.example,http://x", "TESTFLOW_EGRESS_REGIONS=eu: allow=127.1; us",
	})
	for _, want := range []string{"PORT", "TESTFLOW_EGRESS_ALLOW", `"10.0.0.0/33"`, "TESTFLOW_EGRESS_DENY", `"http://x"`, "TESTFLOW_EGRESS_REGIONS", `"127.1"`, `"us"`} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "db.example,")
}

func TestEgress_aRegionAddsToWhatHoldsEverywhere(t *testing.T) {
	t.Parallel()
	c, err := loadConfig(config.Up, []string{
		"TESTFLOW_EGRESS_ALLOW=10.0.0.0/8", "TESTFLOW_EGRESS_DENY=10.66.0.0/16,*.corp.example", "TESTFLOW_EGRESS_REGIONS=eu: allow=192.168.1.0/24,10.66.1.1 deny=10.2.0.0/16; us: deny=pay.example",
	})
	require.NoError(t, err)
	e := readEgress(c, &config.Faults{})
	for _, one := range []struct {
		region, address string
		open            bool
	}{
		{"default", "10.2.0.1:80", true},
		{"default", "192.168.1.1:80", false},
		{"default", "10.66.0.1:80", false},
		{"eu", "10.1.0.1:80", true},
		{"eu", "10.2.0.1:80", false},
		{"eu", "192.168.1.1:80", true},
		{"eu", "10.66.1.1:80", false},
		{"us", "192.168.1.1:80", false},
		{"us", "10.2.0.1:80", true},
	} {
		err := e.guard(one.region).CheckAddr(netip.MustParseAddrPort(one.address))
		require.Equal(t, one.open, err == nil, "%s in %s: %v", one.address, one.region, err)
	}
	require.Error(t, e.guard("us").CheckURL("https://pay.example/"))
	require.NoError(t, e.guard("eu").CheckURL("https://pay.example/"))
	require.Error(t, e.guard("us").CheckURL("https://a.corp.example/"))

	save := e.checkURL(e.guard(""))
	require.NoError(t, save("http://192.168.1.7/"), "eu may")
	require.NoError(t, save("https://pay.example/"))
	require.Error(t, save("https://a.corp.example/"))
	require.Error(t, save("http://192.168.2.7/"))

	var out bytes.Buffer
	require.NoError(t, config.WriteReference(&out, c))
	for _, want := range []string{"TESTFLOW_EGRESS_DENY = [10.66.0.0/16 *.corp.example]", "TESTFLOW_EGRESS_REGIONS = eu: allow=192.168.1.0/24"} {
		require.Contains(t, out.String(), want)
	}
}
