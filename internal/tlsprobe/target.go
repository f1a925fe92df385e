package tlsprobe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// maxEndpoint bounds an endpoint in bytes: a host of 255, a colon, a port.
const maxEndpoint = 261

// maxAllowed bounds what an operator may allow.
const maxAllowed = 256

// Allowed is what an operator allows devices to name beside their own address.
type Allowed struct {
	networks []netip.Prefix
	names    []string // lower case, without final dot
}

// ParseAllowed parses networks (CIDR), addresses and host names.
func ParseAllowed(entries []string) (Allowed, error) {
	var a Allowed
	if len(entries) > maxAllowed {
		return a, fmt.Errorf("%d entries, at most %d are allowed", len(entries), maxAllowed)
	}
	for _, e := range entries {
		if p, err := netip.ParsePrefix(e); err == nil {
			a.networks = append(a.networks, p.Masked())
			continue
		}
		if ip, err := netip.ParseAddr(e); err == nil {
			ip = ip.Unmap().WithZone("")
			a.networks = append(a.networks, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		name := fold(e)
		if !isHostName(name) {
			return a, fmt.Errorf("%.80q is no network, address or host name", e)
		}
		a.names = append(a.names, name)
	}
	return a, nil
}

func (a Allowed) name(host string) bool { return slices.Contains(a.names, fold(host)) }

func (a Allowed) address(ip netip.Addr) bool {
	return slices.ContainsFunc(a.networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func fold(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// isHostName reports whether s is a host name by its letters (RFC 1123 section
// 2.1); a last label of digits alone would be an address in disguise.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' ||
			strings.ContainsFunc(l, func(r rune) bool {
				return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
			}) {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// ParseEndpoint splits [host]:port. The port is a number from 1 to 65535, the
// host empty, an address or a host name.
func ParseEndpoint(endpoint string) (host, port string, err error) {
	if len(endpoint) > maxEndpoint {
		return "", "", fmt.Errorf("an endpoint of %d bytes", len(endpoint))
	}
	host, port, err = net.SplitHostPort(endpoint)
	if err != nil {
		return "", "", fmt.Errorf("%.80q is not host:port", endpoint)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", "", fmt.Errorf("%.80q: the port is no number from 1 to 65535", endpoint)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !isHostName(host) {
		return "", "", fmt.Errorf("%.80q: the host is no address and no host name", endpoint)
	}
	return host, port, nil
}

// target is where to connect, and as whose server.
type target struct {
	addresses []string // host:port with an address, in the order of trying
	name      string   // for SNI, "" for none
}

// resolve decides where an endpoint is. Errors wrap enrol.ErrNotProbed if it
// must not be contacted; any other one may be over the next time.
func (p *Prober) resolve(ctx context.Context, q enrol.Probe) (target, error) {
	host, port, err := ParseEndpoint(q.Endpoint)
	if err != nil {
		return target{}, fmt.Errorf("%w: %w", enrol.ErrNotProbed, err)
	}
	var t target
	ip, notIP := netip.ParseAddr(host)
	if host != "" && notIP != nil {
		t.name = host
	} else if len(q.Names) > 0 {
		t.name = q.Names[0]
	}
	own, _, err := net.SplitHostPort(q.Device.Address)
	if err != nil {
		return target{}, fmt.Errorf("%w: the device has no address", enrol.ErrNotProbed)
	}
	switch {
	// A server that listens on every address of the device is at its own.
	case host == "", notIP == nil && ip.IsUnspecified(), fold(host) == fold(own):
		host = own
	case notIP == nil && (q.Vouched || p.Allowed.address(ip.Unmap().WithZone(""))), notIP != nil && (q.Vouched || p.Allowed.name(host)):
	case notIP == nil:
		// Its own address perhaps, and in the inventory by a name.
		own, err := p.lookup(ctx, own)
		if err != nil {
			return target{}, err
		}
		if !slices.Contains(own, ip.Unmap()) {
			return target{}, fmt.Errorf("%w: %s is not the device's own address, and not allowed", enrol.ErrNotProbed, q.Endpoint)
		}
	case slices.ContainsFunc(q.Names, func(n string) bool { return fold(n) == fold(host) }):
		host = own // one of its own names, which is not looked up
	default:
		return target{}, fmt.Errorf("%w: %s is not the device's own address, and not allowed", enrol.ErrNotProbed, q.Endpoint)
	}
	addresses, err := p.lookup(ctx, host)
	if err != nil {
		return target{}, err
	}
	for _, a := range addresses {
		t.addresses = append(t.addresses, net.JoinHostPort(a.String(), port))
	}
	return t, nil
}

// maxAddresses bounds how many addresses of a name are tried.
const maxAddresses = 4

func (p *Prober) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	found, err := p.resolver().LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found[:min(len(found), maxAddresses)], nil
}
