package org

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// APIKey is a key as its managers see it: everything but the secret.
type APIKey struct {
	ID uuid.UUID
	KeySettings

	Label         string     // tf_<id>: what of the key is no secret
	Role          auth.Role  // the most that it ever is
	HolderID      uuid.UUID  // the member who saw the secret; the key is never more than he is now
	Suspended     bool       // the holder has left, so the key does nothing until somebody rotates it
	Expired       bool       // its time is over
	PreviousUntil *time.Time // until then the secret before holds as well; nil = it doesn't
	CreatedKind   auth.Kind
	CreatedBy     uuid.UUID
	LastUsedAt    *time.Time // to the minute; nil = never
	LastAddress   string
	Version       int
	Position      int64 // of the command's last event; 0 = nothing changed, or it was only read
	CreatedAt     time.Time
	UpdatedAt     time.Time
	RevokedAt     *time.Time // nil = it wasn't
	RevokedKind   auth.Kind  // of whoever revoked it; 0 value = it wasn't, or nobody kept who
	RevokedBy     uuid.UUID
}

// Expiry says when a key ends, if anything is said of it at all.
type Expiry struct {
	Said bool
	At   *time.Time // nil = never
}

// KeyDraft is what somebody says of a new key. Scopes may hold shorthands (auth.ParseScopes).
type KeyDraft struct {
	Name             string
	Scopes           []string
	Expiry           Expiry   // unsaid = the installation's usual lifetime
	AllowedAddresses []string // addresses and networks; none = from everywhere
	RateLimit        int      // 0 = the installation's
}

// KeyPatch is what somebody changes of a key; nil fields stay.
type KeyPatch struct {
	Name             *string
	Scopes           *[]string
	Expiry           Expiry
	AllowedAddresses *[]string
	RateLimit        *int // 0 = the installation's from now on
}

// keyRules are what an installation says of keys.
type keyRules struct {
	now      time.Time
	lifetime time.Duration // when nothing is said
	most     time.Duration // 0 = a key may be for ever
}

// settings checks a draft and returns what it comes to, with all that is wrong with it in one fault.
func (d KeyDraft) settings(rules keyRules) (KeySettings, error) {
	var s KeySettings
	if !d.Expiry.Said {
		at := rules.now.Add(rules.lifetime)
		d.Expiry = Expiry{Said: true, At: &at}
	}
	faults := KeyPatch{
		Name: &d.Name, Scopes: &d.Scopes, Expiry: d.Expiry, AllowedAddresses: &d.AllowedAddresses, RateLimit: &d.RateLimit,
	}.apply(&s, rules)
	if len(faults) > 0 {
		return KeySettings{}, account.Invalid(faults)
	}
	return s, nil
}

// apply changes the settings as the patch says and returns all that is wrong with it.
func (p KeyPatch) apply(s *KeySettings, rules keyRules) (faults []fault.Field) {
	if p.Name != nil {
		clean, problem := account.CleanName(*p.Name)
		if problem != "" {
			faults = append(faults, fault.Field{Pointer: "/name", Detail: problem})
		}
		s.Name = clean
	}
	if p.Scopes != nil {
		set, unknown := auth.ParseScopes(*p.Scopes)
		for _, i := range unknown {
			faults = append(faults, fault.Field{Pointer: fmt.Sprintf("/scopes/%d", i), Detail: "is no permission, no role and not read"})
		}
		if set.Empty() && len(unknown) == 0 {
			faults = append(faults, fault.Field{Pointer: "/scopes", Detail: "must name at least one scope"})
		}
		s.Scopes = set.List()
	}
	if p.Expiry.Said {
		if problem := rules.problem(p.Expiry.At); problem != "" {
			faults = append(faults, fault.Field{Pointer: "/expiresAt", Detail: problem})
		}
		s.ExpiresAt = instant(p.Expiry.At)
	}
	if p.AllowedAddresses != nil {
		s.AllowedAddresses = nil
		for i, text := range *p.AllowedAddresses {
			network, problem := parseNetwork(text)
			if problem != "" {
				faults = append(faults, fault.Field{Pointer: fmt.Sprintf("/allowedAddresses/%d", i), Detail: problem})
			} else if !slices.Contains(s.AllowedAddresses, network.String()) {
				s.AllowedAddresses = append(s.AllowedAddresses, network.String())
			}
		}
		if len(*p.AllowedAddresses) > limits.MaxKeyAddresses {
			faults = append(faults, fault.Field{Pointer: "/allowedAddresses", Detail: fmt.Sprintf("must have at most %d items", limits.MaxKeyAddresses)})
		}
	}
	if p.RateLimit != nil {
		if *p.RateLimit < 0 || *p.RateLimit > limits.MaxKeyRate {
			faults = append(faults, fault.Field{Pointer: "/rateLimit", Detail: fmt.Sprintf("must lie between 1 and %d", limits.MaxKeyRate)})
		}
		s.RateLimit = *p.RateLimit
	}
	return faults
}

func (r keyRules) problem(at *time.Time) string {
	switch {
	case at == nil && r.most > 0:
		return "This installation has no keys for ever: say when it ends, at most " + days(r.most) + " from now."
	case at == nil:
		return ""
	case !at.After(r.now):
		return "must lie in the future"
	case at.Year() > 9999:
		return "must lie before the year 10000"
	case r.most > 0 && at.After(r.now.Add(r.most)):
		return "must lie within " + days(r.most) + " from now"
	}
	return ""
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

// instant is how an instant is kept: to the millisecond, which is what answers show.
func instant(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	kept := at.UTC().Truncate(time.Millisecond)
	return &kept
}

// parseNetwork reads an address or a network. One spelling each: IPv4 inside IPv6 is IPv4, and no bit is set behind the
// mask, since whoever writes 10.0.0.1/8 may mean two things.
func parseNetwork(text string) (network netip.Prefix, problem string) {
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, "must have no zone"
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), ""
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, "must be an IP address or a network such as 192.0.2.0/24 or 2001:db8::/48"
	}
	if p.Addr().Is4In6() {
		const mapped = 96 // bits before the IPv4 address
		if p.Bits() < mapped {
			return netip.Prefix{}, "must be written as IPv4"
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	if p != p.Masked() {
		return netip.Prefix{}, "has bits behind its mask; the network is " + p.Masked().String()
	}
	return p, ""
}

// clientAddress reads the address of a caller; the zero Addr when there is none.
func clientAddress(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// addressAllowed reports whether a key may be used from an address. A caller whose address nobody knows is nowhere.
func addressAllowed(allowed []string, addr netip.Addr) bool {
	if len(allowed) == 0 {
		return true
	}
	return addr.IsValid() && slices.ContainsFunc(allowed, func(text string) bool {
		network, err := netip.ParsePrefix(text)
		return err == nil && network.Contains(addr)
	})
}

// networkOf is the neighbourhood of an address that counts as one place: /24, or /64 of IPv6. Empty without an address.
func networkOf(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	bits := 64
	if addr.Is4() {
		bits = 24
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return network.String()
}

// reach is all that a key, or whoever manages keys, can do: nobody makes, changes or rotates a key that reaches further.
type reach struct {
	scopes auth.Scopes
	until  *time.Time // nil = for ever
	from   []string   // networks; none = everywhere
	rate   int        // 0 = the installation's
}

// reachOf is that of a key: what its scopes and its role both allow.
func reachOf(s KeySettings, role auth.Role) reach {
	return reach{
		scopes: auth.NewScopes(s.Scopes...).Intersect(auth.ScopesOf(role)), until: s.ExpiresAt, from: s.AllowedAddresses, rate: s.RateLimit,
	}
}

// beyond says in what k reaches further than r, empty = in nothing.
func (r reach) beyond(k reach) string {
	var more []string
	if over := k.scopes.Without(r.scopes).List(); len(over) > 0 {
		names := make([]string, len(over))
		for i, perm := range over {
			names[i] = string(perm)
		}
		more = append(more, "it may do what you may not ("+strings.Join(names, ", ")+")")
	}
	if r.until != nil && (k.until == nil || k.until.After(*r.until)) {
		more = append(more, "it lives longer than your key, which ends at "+r.until.Format(time.RFC3339))
	}
	if len(r.from) > 0 && (len(k.from) == 0 || slices.ContainsFunc(k.from, func(network string) bool { return !within(r.from, network) })) {
		more = append(more, "it works from addresses from which yours doesn't")
	}
	if r.rate > 0 && (k.rate == 0 || k.rate > r.rate) {
		more = append(more, fmt.Sprintf("it may ask more often than yours, which has %d requests", r.rate))
	}
	return strings.Join(more, "; ")
}

// within reports whether one of the networks holds all of another one.
func within(networks []string, inner string) bool {
	i, err := netip.ParsePrefix(inner)
	return err == nil && slices.ContainsFunc(networks, func(outer string) bool {
		o, err := netip.ParsePrefix(outer)
		return err == nil && o.Bits() <= i.Bits() && o.Contains(i.Addr())
	})
}

// lower is the lesser of two roles; what is no role is less than every other.
func lower(a, b auth.Role) auth.Role {
	switch {
	case a.AtLeast(b):
		return b
	case b.AtLeast(a):
		return a
	}
	return ""
}

func keyAboveYours(more string) *fault.Error {
	return fault.New(fault.Forbidden, "api_key.above_yours", "This key would reach further than you: %s.", more)
}

func keyNotFound() *fault.Error {
	return fault.New(fault.NotFound, "api_key.not_found", "There is no such API key.")
}

// equal reports whether nothing differs.
func (s KeySettings) equal(o KeySettings) bool {
	same := s.ExpiresAt == nil && o.ExpiresAt == nil || s.ExpiresAt != nil && o.ExpiresAt != nil && s.ExpiresAt.Equal(*o.ExpiresAt)
	return same && s.Name == o.Name && s.RateLimit == o.RateLimit && slices.Equal(s.Scopes, o.Scopes) && slices.Equal(s.AllowedAddresses, o.AllowedAddresses)
}
