package netguard

import "net/netip"

// metadata are the addresses under which clouds hand out credentials. They stay shut under a rule for a range.
var metadata = addrSet(
	"169.254.169.254",    // AWS, Azure, GCP, DigitalOcean, OpenStack, Hetzner
	"169.254.169.253",    // AWS: Route 53 resolver
	"169.254.169.123",    // AWS: time
	"169.254.170.2",      // AWS: ECS task credentials
	"169.254.170.23",     // AWS: EKS pod identity
	"169.254.42.42",      // Scaleway
	"169.254.0.23",       // Tencent
	"100.100.100.200",    // Alibaba
	"168.63.129.16",      // Azure wire server: a public address
	"192.0.0.192",        // Oracle classic
	"fd00:ec2::254",      // AWS
	"fd00:ec2::23",       // AWS: EKS pod identity
	"fd00:c1::a9fe:a9fe", // Oracle
	"fd00:42::42",        // Scaleway
	"fd20:ce::254",       // GCP
)

// metadataNames are names that clouds answer for themselves: they mean a metadata service to a proxy, whatever we find.
var metadataNames = map[string]bool{
	"metadata.google.internal": true, "metadata.goog": true, "metadata": true, "instance-data": true,
	"instance-data.ec2.internal": true, "metadata.tencentyun.com": true, "metadata.platformequinix.com": true,
}

func addrSet(list ...string) map[netip.Addr]bool {
	set := make(map[netip.Addr]bool, len(list))
	for _, s := range list {
		set[netip.MustParseAddr(s)] = true
	}
	return set
}

// special names the reason why addr is refused where a plainer one than "special-purpose" can be given, and finds what
// the registries don't list; "" otherwise. addr is unmapped.
func special(addr netip.Addr) string {
	switch {
	case addr.IsUnspecified():
		return "unspecified addresses are not allowed"
	case addr.IsLoopback():
		return "loopback addresses are not allowed"
	case addr.IsPrivate():
		return "private addresses are not allowed"
	case addr.IsLinkLocalUnicast():
		return "link-local addresses are not allowed"
	case addr.IsMulticast():
		return "multicast addresses are not allowed"
	case addr.Is6() && carriesIPv4(addr):
		return "IPv6 addresses that carry an IPv4 address are not allowed"
	case addr.Is6() && !globalUnicast6.Contains(addr):
		return "only global unicast IPv6 addresses are allowed"
	}
	return ""
}

var (
	globalUnicast6 = netip.MustParsePrefix("2000::/3")
	// carriers6 are the ranges whose addresses hold an IPv4 address that a gateway would take out.
	carriers6 = []netip.Prefix{
		netip.MustParsePrefix("::/96"),           // IPv4-compatible
		netip.MustParsePrefix("::ffff:0:0:0/96"), // IPv4-translated (SIIT)
		netip.MustParsePrefix("64:ff9b::/96"),    // NAT64
		netip.MustParsePrefix("64:ff9b:1::/48"),  // NAT64, local use
		netip.MustParsePrefix("2001::/32"),       // Teredo
		netip.MustParsePrefix("2002::/16"),       // 6to4
	}
)

// carriesIPv4 says whether addr holds an IPv4 address in one of the known ways, ISATAP's interface ids included.
func carriesIPv4(addr netip.Addr) bool {
	for _, p := range carriers6 {
		if p.Contains(addr) {
			return true
		}
	}
	b := addr.As16()
	return (b[8] == 0x00 || b[8] == 0x02) && b[9] == 0x00 && b[10] == 0x5e && b[11] == 0xfe
}

// badPorts are the ports that the Fetch standard ("port blocking") shuts, since what listens there takes lines of text
// and would take a request for commands.
var badPorts = portSet(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
	103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
	526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045,
	4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080)

func portSet(list ...uint16) map[uint16]bool {
	set := make(map[uint16]bool, len(list))
	for _, p := range list {
		set[p] = true
	}
	return set
}
