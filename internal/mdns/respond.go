package mdns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Respond announces a device on every interface until ctx ends, and then says
// goodbye. It answers questions as they come, and looks once a minute whether
// interfaces or their addresses have changed.
func Respond(ctx context.Context, a Announcement, log *slog.Logger) {
	var wg sync.WaitGroup
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(group))
	running := map[string]func(){} // by interface and addresses
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	for {
		present := map[string]bool{}
		for _, l := range links() {
			key := l.key()
			present[key] = true
			if running[key] != nil || len(a.addresses(l.prefixes)) == 0 {
				continue
			}
			conn, err := net.ListenMulticastUDP("udp4", &l.ifi, to)
			if err != nil {
				log.Warn("cannot announce the device", "interface", l.ifi.Name, "error", err)
				continue
			}
			one, stop := context.WithCancel(ctx)
			running[key] = stop
			log.Info("announcing the device by mDNS", "interface", l.ifi.Name, "instance", a.Instance)
			wg.Go(func() { a.serve(one, conn, to, l.prefixes) })
		}
		for key, stop := range running {
			if !present[key] {
				stop()
				delete(running, key)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			wg.Wait()
			return
		}
	}
}

// link is an interface with addresses of its own.
type link struct {
	ifi      net.Interface
	prefixes []netip.Prefix
}

func (l link) key() string {
	key := l.ifi.Name
	for _, p := range l.prefixes {
		key += " " + p.String()
	}
	return key
}

// links returns the interfaces that speak multicast over IPv4.
func links() []link {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []link
	for _, ifi := range interfaces {
		if ifi.Flags&(net.FlagUp|net.FlagMulticast|net.FlagLoopback) != net.FlagUp|net.FlagMulticast {
			continue
		}
		addresses, err := ifi.Addrs()
		if err != nil {
			continue
		}
		l := link{ifi: ifi}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				l.prefixes = append(l.prefixes, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
			}
		}
		if slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
			out = append(out, l)
		}
	}
	return out
}

// serve announces the device on one link, and answers questions there.
func (a Announcement) serve(ctx context.Context, conn net.PacketConn, to net.Addr, prefixes []netip.Prefix) {
	addresses := a.addresses(prefixes)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() { _ = conn.Close() }()
	say := func(shared, host uint32) {
		if m, err := a.message(0, dnsmessage.Question{}, false, addresses, shared, host); err == nil {
			_, _ = conn.WriteTo(m, to)
		}
	}
	say(ttlShared, ttlHost)
	defer say(0, 0)
	limit := limiter{now: time.Now}
	buf := make([]byte, maxPacket)
	for ctx.Err() == nil {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		asker, ok := from.(*net.UDPAddr)
		if !ok || !onLink(asker.AddrPort().Addr().Unmap(), prefixes) {
			continue
		}
		r, err := a.answer(buf[:n], asker.Port != mdnsPort, addresses)
		if err != nil || r == nil || !limit.allow() {
			continue
		}
		target := to
		if r.unicast {
			target = from
		}
		_, _ = conn.WriteTo(r.message, target)
	}
}

const mdnsPort = 5353

// addresses are those that are announced.
func (a Announcement) addresses(prefixes []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, p := range prefixes {
		if only := a.Only; !only.IsValid() || only.IsUnspecified() || only == p.Addr() {
			out = append(out, p.Addr())
		}
	}
	return out
}

// onLink reports whether an address is of the link (RFC 6762 section 11): who
// is not must not make the device send anything anywhere.
func onLink(ip netip.Addr, prefixes []netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Masked().Contains(ip) })
}

// limiter allows ten answers a second.
type limiter struct {
	now   func() time.Time
	since time.Time
	given int
}

func (l *limiter) allow() bool {
	if now := l.now(); now.Sub(l.since) >= time.Second || now.Before(l.since) {
		l.since, l.given = now, 0
	}
	l.given++
	return l.given <= 10
}
