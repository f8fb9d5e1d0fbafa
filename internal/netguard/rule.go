package netguard

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Rule opens a range of addresses, on one port or on all.
type Rule struct {
	Prefix netip.Prefix
	Port   uint16 // 0 = every port
}

// String returns r in the form that ParseAllow reads.
func (r Rule) String() string {
	s := r.Prefix.String()
	if r.Prefix.IsSingleIP() {
		s = r.Prefix.Addr().String()
	}
	if r.Port == 0 {
		return s
	}
	if r.Prefix.Addr().Is6() {
		s = "[" + s + "]"
	}
	return s + ":" + strconv.Itoa(int(r.Port))
}

// Matches says whether r opens ap, whose address is unmapped.
func (r Rule) Matches(ap netip.AddrPort) bool {
	return (r.Port == 0 || r.Port == ap.Port()) && r.Prefix.Contains(ap.Addr())
}

// ParseAllow reads an operator's list: comma-separated `10.20.0.0/16:443`, `127.0.0.1:8080`, `10.1.2.3`,
// `[fd00:1::/64]:443`, `fd00:1::/64`. Metadata services, and addresses that this service listens on, are opened only
// by an entry for exactly that address with its port. All faulty entries are named in the one error.
func ParseAllow(list string) ([]Rule, error) {
	var rules []Rule
	var bad []string
	for _, entry := range strings.Split(list, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		r, ok := parseRule(entry)
		if !ok {
			bad = append(bad, strconv.Quote(entry))
			continue
		}
		rules = append(rules, r)
	}
	if bad != nil {
		return nil, fmt.Errorf("not an address or range with an optional port, such as 10.20.0.0/16:443 or [fd00:1::/64]:443: %s",
			strings.Join(bad, ", "))
	}
	return rules, nil
}

func parseRule(s string) (Rule, bool) {
	rangeText, portText := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return Rule{}, false
		}
		rangeText = s[1:end]
		if rest := s[end+1:]; rest != "" {
			if rest[0] != ':' || len(rest) == 1 {
				return Rule{}, false
			}
			portText = rest[1:]
		}
	} else if strings.Count(s, ":") == 1 {
		rangeText, portText, _ = strings.Cut(s, ":")
		if portText == "" {
			return Rule{}, false
		}
	}
	var r Rule
	if portText != "" {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || n == 0 {
			return Rule{}, false
		}
		r.Port = uint16(n)
	}
	if strings.Contains(rangeText, "/") {
		p, err := netip.ParsePrefix(rangeText)
		if err != nil || p.Addr().Is4In6() || p != p.Masked() {
			return Rule{}, false
		}
		r.Prefix = p
		return r, true
	}
	a, err := netip.ParseAddr(rangeText)
	if err != nil || a.Zone() != "" {
		return Rule{}, false
	}
	a = a.Unmap()
	r.Prefix = netip.PrefixFrom(a, a.BitLen())
	return r, true
}
