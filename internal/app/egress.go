package app

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/netguard"
)

// egress is which addresses tests may call: what holds everywhere, and what each region adds.
type egress struct {
	all     netguard.Lists
	regions map[string]netguard.Lists
}

// readEgress reads the rules of the environment and adds every fault to faults.
func readEgress(c *config.Config, faults *config.Faults) egress {
	var e egress
	refuse := func(name string, err error) {
		if err != nil {
			faults.List = append(faults.List, config.Fault{Variable: name, Problem: "is not right: " + err.Error()})
		}
	}
	var err error
	e.all.Allow, err = netguard.ParseAllow(strings.Join(c.Server.EgressAllow, ","))
	refuse("TESTFLOW_EGRESS_ALLOW", err)
	e.all.Deny, err = netguard.ParseDeny(strings.Join(c.Server.EgressDeny, ","))
	refuse("TESTFLOW_EGRESS_DENY", err)
	e.regions, err = netguard.ParseRegions(c.Server.EgressRegions)
	refuse("TESTFLOW_EGRESS_REGIONS", err)
	return e
}

// loadConfig is config.Load, and the rules of egress are checked with the rest, so that all faults are told at once.
func loadConfig(command config.Command, environ []string) (*config.Config, error) {
	c, err := config.Load(command, environ)
	faults := &config.Faults{}
	if err != nil {
		if !errors.As(err, &faults) {
			return nil, err
		}
		// What egress says is told with the other faults.
		own := slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return !strings.HasPrefix(v, "TESTFLOW_EGRESS_") })
		if c, _ = config.Load(config.Print, own); c == nil {
			return nil, err
		}
	}
	readEgress(c, faults)
	if len(faults.List) > 0 {
		slices.SortStableFunc(faults.List, func(a, b config.Fault) int { return strings.Compare(a.Variable, b.Variable) })
		return nil, faults
	}
	return c, nil
}

// guard makes the dialler of a region.
func (e egress) guard(region string) *netguard.Guard {
	lists := e.all.With(e.regions[region])
	return netguard.New(netguard.Policy{Allow: lists.Allow, Deny: lists.Deny}, time.Now)
}

// checkURL is what is asked when a test is saved: it may run in any region, so one that lets the URL through is enough.
// What its own region refuses, its run is told.
func (e egress) checkURL(everywhere *netguard.Guard) func(raw string) error {
	guards := []*netguard.Guard{everywhere}
	for _, name := range netguard.RegionNames(e.regions) {
		guards = append(guards, e.guard(name))
	}
	return func(raw string) error {
		first := guards[0].CheckURL(raw)
		if first == nil {
			return nil
		}
		for _, g := range guards[1:] {
			if g.CheckURL(raw) == nil {
				return nil
			}
		}
		return first
	}
}
