package coaplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Resolver looks up the addresses of a host name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// maxAddresses bounds how many addresses of one name are tried.
const maxAddresses = 8

// Dial connects to the device's address; a host name is looked up each time,
// and its addresses are tried in turn within the time for the handshake. The
// peer must prove the device's identity or a later (epoch, generation) of its
// name; else the error wraps enrol.ErrIdentity and names both. If nobody answers
// it wraps enrol.ErrUnreachable.
func (d *Dialer) Dial(ctx context.Context, device fleet.Device) (enrol.Device, error) {
	link, err := d.reach(ctx, device, d.dialAddress)
	if err != nil {
		return nil, err
	}
	return link, nil
}

// reach is Dial by one way to connect to an address.
func (d *Dialer) reach(ctx context.Context, device fleet.Device, dial dialFunc) (*link, error) {
	if err := device.Identity.Validate(); err != nil {
		return nil, fmt.Errorf("dial %s: %w", device.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.Timeouts.withDefaults().Handshake)
	defer cancel()
	addresses, err := d.resolve(ctx, device.Address)
	if err != nil {
		return nil, fmt.Errorf("%w: %s at %s: %w", enrol.ErrUnreachable, device.Identity, device.Address, err)
	}
	var failure error
	for i, address := range addresses {
		device.Address = address
		link, err := dialWithin(ctx, device, len(addresses)-i, dial)
		if err == nil {
			return link, nil
		}
		// That somebody else is there says more than that nobody is.
		if failure == nil || !errors.Is(failure, enrol.ErrIdentity) {
			failure = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failure
}

// dialFunc connects to the device's address, an IP address and port.
type dialFunc func(ctx context.Context, device fleet.Device) (*link, error)

// dialWithin leaves time for the other addresses that are left to try.
func dialWithin(ctx context.Context, device fleet.Device, left int, dial dialFunc) (*link, error) {
	if end, ok := ctx.Deadline(); ok && left > 1 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
		defer cancel()
	}
	return dial(ctx, device)
}

// resolve returns the IP addresses, with the port, that a host:port stands for.
func (d *Dialer) resolve(ctx context.Context, address string) ([]string, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q is not a port", service)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{address}, nil
	}
	var resolver Resolver = net.DefaultResolver
	if d.Resolver != nil {
		resolver = d.Resolver
	}
	found, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ip := range found {
		at := netip.AddrPortFrom(ip.Unmap(), uint16(port)).String()
		if !slices.Contains(out, at) && len(out) < maxAddresses {
			out = append(out, at)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return out, nil
}
