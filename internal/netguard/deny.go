package netguard

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Denial shuts what is open otherwise, also what an allow rule opens: a range of addresses, a name, all names below one,
// or a port everywhere.
type Denial struct {
	Prefix netip.Prefix // of an address; zero when it is about a name, or about a port alone
	Name   string       // in small letters and ASCII, without a dot at the end; "" when it is about addresses
	Below  bool         // Name stands for the names below it, and not for itself
	Port   uint16       // 0 = every port
}

// String returns d in the form that ParseDeny reads.
func (d Denial) String() string {
	switch {
	case d.Prefix.IsValid():
		return Rule{Prefix: d.Prefix, Port: d.Port}.String()
	case d.Name == "":
		return ":" + strconv.Itoa(int(d.Port))
	}
	s := d.Name
	if d.Below {
		s = "*." + s
	}
	if d.Port != 0 {
		s += ":" + strconv.Itoa(int(d.Port))
	}
	return s
}

// ParseDeny reads an operator's list: comma-separated networks and addresses as ParseAllow takes them, names
// (`db.example`, `db.example:5432`), all names below one (`*.internal.example`), and ports (`:25`). All faulty entries are
// named in the one error.
func ParseDeny(list string) ([]Denial, error) {
	var denials []Denial
	var bad []string
	for _, entry := range strings.Split(list, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		d, ok := parseDenial(entry)
		if !ok {
			bad = append(bad, strconv.Quote(entry))
			continue
		}
		denials = append(denials, d)
	}
	if bad != nil {
		return nil, fmt.Errorf("not a network, a name or a port, such as 10.20.0.0/16, [fd00::/8]:443, db.example:5432, *.internal.example or :25: %s",
			strings.Join(bad, ", "))
	}
	return denials, nil
}

func parseDenial(s string) (Denial, bool) {
	if r, ok := parseRule(s); ok {
		return Denial{Prefix: r.Prefix, Port: r.Port}, true
	}
	var d Denial
	name, portText, hasPort := strings.Cut(s, ":")
	if hasPort {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || n == 0 {
			return Denial{}, false
		}
		d.Port = uint16(n)
	}
	if name == "" {
		return d, hasPort
	}
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		name, d.Below = rest, true
	}
	d.Name = plainName(name)
	// checkHost takes no address in disguise for a name.
	if d.Name == "" || checkHost(d.Name) != nil || strings.ContainsAny(d.Name, "*/ ") {
		return Denial{}, false
	}
	return d, true
}

// plainName writes a host's name as it is compared: in small letters and ASCII, without a dot at the end.
func plainName(host string) string {
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		host = ascii
	}
	return strings.TrimRight(strings.ToLower(host), ".")
}

// deniesName says whether d shuts host, whose form is plainName's, on port.
func (d Denial) deniesName(host string, port uint16) bool {
	if d.Name == "" || d.Port != 0 && d.Port != port {
		return false
	}
	if d.Below {
		return strings.HasSuffix(host, "."+d.Name)
	}
	return host == d.Name
}

// deniesAddr says whether d shuts ap, whose address is unmapped.
func (d Denial) deniesAddr(ap netip.AddrPort) bool {
	if d.Name != "" || d.Port != 0 && d.Port != ap.Port() {
		return false
	}
	return !d.Prefix.IsValid() || d.Prefix.Contains(ap.Addr())
}

// deniedName returns the refusal of a name that the operator denies, nil otherwise.
func (g *Guard) deniedName(host string, port uint16) error {
	if len(g.policy.Deny) == 0 {
		return nil
	}
	host = plainName(host)
	for _, d := range g.policy.Deny {
		if d.deniesName(host, port) {
			return &BlockedError{Reason: "the operator denies this host"}
		}
	}
	return nil
}

// deniedAddr says whether the operator denies ap, or an IPv4 address that a gateway would take out of it.
func (g *Guard) deniedAddr(ap netip.AddrPort) bool {
	for _, d := range g.policy.Deny {
		if d.deniesAddr(ap) {
			return true
		}
	}
	for _, inner := range carried(ap.Addr()) {
		for _, d := range g.policy.Deny {
			if d.deniesAddr(netip.AddrPortFrom(inner, ap.Port())) {
				return true
			}
		}
	}
	return false
}

// carried returns the IPv4 addresses that an IPv6 address holds in one of the known ways.
func carried(addr netip.Addr) []netip.Addr {
	if !addr.Is6() || !carriesIPv4(addr) {
		return nil
	}
	b := addr.As16()
	last := netip.AddrFrom4([4]byte(b[12:16]))
	switch {
	case netip.MustParsePrefix("2002::/16").Contains(addr):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	case netip.MustParsePrefix("2001::/32").Contains(addr): // Teredo: its server, and the client turned over
		var client [4]byte
		binary.BigEndian.PutUint32(client[:], ^binary.BigEndian.Uint32(b[12:16]))
		return []netip.Addr{netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4(client)}
	default:
		return []netip.Addr{last}
	}
}

// Lists are an operator's rules.
type Lists struct {
	Allow []Rule
	Deny  []Denial
}

// With returns l and more together.
func (l Lists) With(more Lists) Lists {
	return Lists{Allow: slices.Concat(l.Allow, more.Allow), Deny: slices.Concat(l.Deny, more.Deny)}
}

// ParseRegions reads what holds in single regions, beside what holds in all: regions with a semicolon or a line break
// between them, each `name: allow=… deny=…` with lists as ParseAllow and ParseDeny take them, without spaces in them. All
// faults are named in the one error.
func ParseRegions(text string) (map[string]Lists, error) {
	regions := map[string]Lists{}
	var bad []string
	refuse := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	for _, one := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		if strings.TrimSpace(one) == "" {
			continue
		}
		name, rest, ok := strings.Cut(one, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, "=, ") {
			refuse("%q is not a region with its rules, such as eu: allow=10.1.0.0/16 deny=*.corp.example", strings.TrimSpace(one))
			continue
		}
		if _, twice := regions[name]; twice {
			refuse("the region %s stands there twice", name)
			continue
		}
		var lists Lists
		words := strings.Fields(rest)
		if len(words) == 0 {
			refuse("the region %s has no rules", name)
		}
		for _, word := range words {
			kind, list, _ := strings.Cut(word, "=")
			var err error
			switch {
			case kind == "allow" && lists.Allow == nil:
				lists.Allow, err = ParseAllow(list)
			case kind == "deny" && lists.Deny == nil:
				lists.Deny, err = ParseDeny(list)
			default:
				err = fmt.Errorf("allow=… or deny=…, each once and without spaces, belongs where %q stands", word)
			}
			if err != nil {
				refuse("the region %s: %v", name, err)
			}
		}
		regions[name] = lists
	}
	if bad != nil {
		return nil, fmt.Errorf("%s", strings.Join(bad, "; "))
	}
	return regions, nil
}

// RegionNames returns the regions that have rules of their own, in order.
func RegionNames(regions map[string]Lists) []string { return slices.Sorted(maps.Keys(regions)) }
