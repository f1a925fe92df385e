package clmctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// maxTargets bounds how many addresses one run probes: a /16 of IPv4.
const maxTargets = 1 << 16

// errTargets is wrapped when what is to be probed is no address, or too many.
var errTargets = errors.New("cannot be probed")

// targets are the addresses to probe, each once, in the order in which they
// were named.
type targets struct {
	port     uint16 // where none is given
	resolver coaplink.Resolver
	list     []netip.AddrPort
	seen     map[netip.AddrPort]bool
}

// add adds what a person wrote: an address, a host name or a subnet, the first
// two with or without a port.
func (t *targets) add(ctx context.Context, text string) error {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("%q %w: %w", text, errTargets, err)
		}
		return t.addPrefix(prefix.Masked())
	}
	if ip, err := netip.ParseAddr(text); err == nil {
		return t.put(netip.AddrPortFrom(ip, t.port))
	}
	if at, err := netip.ParseAddrPort(text); err == nil {
		return t.put(at)
	}
	found, err := t.resolve(ctx, text)
	if err != nil {
		return err
	}
	for _, at := range found {
		if err := t.put(at); err != nil {
			return err
		}
	}
	return nil
}

func (t *targets) addPrefix(prefix netip.Prefix) error {
	bits := prefix.Addr().BitLen() - prefix.Bits()
	if bits > 16 {
		return fmt.Errorf("%s %w: it has more than %d addresses", prefix, errTargets, maxTargets)
	}
	// The first and the last address of an IPv4 subnet are nobody's; a packet to
	// the last one would be everybody's.
	edges := prefix.Addr().Is4() && bits > 1
	last := 1<<bits - 1
	for i, ip := 0, prefix.Addr(); i <= last; i, ip = i+1, ip.Next() {
		if edges && (i == 0 || i == last) {
			continue
		}
		if err := t.put(netip.AddrPortFrom(ip, t.port)); err != nil {
			return err
		}
	}
	return nil
}

func (t *targets) put(at netip.AddrPort) error {
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	switch {
	case at.Addr().IsMulticast() || at.Addr().IsUnspecified() || at.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s %w: it is nobody's own address", at.Addr(), errTargets)
	case at.Port() == 0:
		return fmt.Errorf("%s %w: port 0", at, errTargets)
	case t.seen[at]:
		return nil
	case len(t.list) == maxTargets:
		return fmt.Errorf("%w: more than %d addresses", errTargets, maxTargets)
	}
	if t.seen == nil {
		t.seen = map[netip.AddrPort]bool{}
	}
	t.seen[at] = true
	t.list = append(t.list, at)
	return nil
}

// resolve returns the addresses of a host:port, or of a host at the usual port.
func (t *targets) resolve(ctx context.Context, text string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(text)
	if err != nil {
		host, service = text, strconv.Itoa(int(t.port))
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%.80q %w: %q is not a port", text, errTargets, service)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), uint16(port))}, nil
	}
	if !fleet.IsHostName(strings.TrimSuffix(host, ".")) {
		return nil, fmt.Errorf("%.80q %w: neither an address, a subnet nor a host name", text, errTargets)
	}
	found, err := t.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("%.80q %w: %w", text, errTargets, err)
	}
	out := make([]netip.AddrPort, len(found))
	for i, ip := range found {
		out[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return out, nil
}
