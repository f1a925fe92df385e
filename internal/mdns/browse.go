package mdns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Browse asks on every interface who offers the service, listens until ctx
// ends, and returns the addresses that were named. Anybody on the link may have
// named any: they are to be probed, and not to be believed.
func Browse(ctx context.Context) ([]netip.AddrPort, error) {
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(group))
	var from []asking
	for _, l := range links() {
		for _, p := range l.prefixes {
			if !p.Addr().Is4() {
				continue
			}
			// The address chooses the interface.
			conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Addr(), 0)))
			if err == nil {
				from = append(from, asking{conn, l.prefixes})
			}
			break
		}
	}
	if len(from) == 0 {
		return nil, errors.New("no interface speaks multicast")
	}
	return browse(ctx, from, to)
}

// asking is a connection to a link.
type asking struct {
	conn     net.PacketConn
	prefixes []netip.Prefix
}

// browse asks on each link, and collects what comes back on all.
func browse(ctx context.Context, from []asking, to net.Addr) ([]netip.AddrPort, error) {
	query, err := browseQuery()
	if err != nil {
		return nil, err
	}
	answers := make(chan []netip.AddrPort)
	for _, l := range from {
		go func() { answers <- l.listen(ctx, query, to) }()
	}
	var out []netip.AddrPort
	for range from {
		for _, at := range <-answers {
			if !slices.Contains(out, at) && len(out) < maxFound {
				out = append(out, at)
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out, nil
}

// listen asks twice, since datagrams get lost, and returns the addresses of the
// link that are named there; others would have us send anything anywhere. It
// closes the connection.
func (l asking) listen(ctx context.Context, query []byte, to net.Addr) (out []netip.AddrPort) {
	defer func() { _ = l.conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	ask := func() { _, _ = l.conn.WriteTo(query, to) }
	ask()
	again := time.AfterFunc(time.Second, ask)
	defer again.Stop()
	buf := make([]byte, maxPacket)
	for len(out) < maxFound {
		n, _, err := l.conn.ReadFrom(buf)
		if err != nil {
			return out
		}
		named, err := parseAnswer(buf[:n])
		if err != nil {
			continue
		}
		for _, at := range named {
			if onLink(at.Addr(), l.prefixes) {
				out = append(out, at)
			}
		}
	}
	return out
}

func browseQuery() ([]byte, error) {
	name, err := dnsmessage.NewName(Service)
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET | cacheFlush}}}
	return m.Pack()
}

// parseAnswer returns the addresses and ports that a response names for
// instances of the service.
func parseAnswer(message []byte) ([]netip.AddrPort, error) {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil || !header.Response {
		return nil, errMessage
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, errMessage
	}
	ports, addresses := map[string][]uint16{}, map[string][]netip.Addr{}
	// Responders put the same records into either section.
	for _, section := range []struct {
		header func() (dnsmessage.ResourceHeader, error)
		skip   func() error
		end    func() error
	}{
		{p.AnswerHeader, p.SkipAnswer, p.SkipAllAuthorities},
		{p.AdditionalHeader, p.SkipAdditional, func() error { return nil }},
	} {
		for range maxRecords {
			h, err := section.header()
			if err != nil {
				break
			}
			if err := take(&p, h, section.skip, ports, addresses); err != nil {
				return nil, errMessage
			}
		}
		if err := section.end(); err != nil {
			break
		}
	}
	var out []netip.AddrPort
	for target, of := range ports {
		for _, port := range of {
			for _, ip := range addresses[target] {
				if ip.IsGlobalUnicast() && port != 0 {
					out = append(out, netip.AddrPortFrom(ip, port))
				}
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out), nil
}

// take reads one record.
func take(p *dnsmessage.Parser, h dnsmessage.ResourceHeader, skip func() error, ports map[string][]uint16, addresses map[string][]netip.Addr) error {
	name := strings.ToLower(h.Name.String())
	switch {
	case h.Type == dnsmessage.TypeSRV && strings.HasSuffix(name, "."+Service):
		r, err := p.SRVResource()
		if err == nil && h.TTL > 0 {
			target := strings.ToLower(r.Target.String())
			ports[target] = append(ports[target], r.Port)
		}
		return err
	case h.Type == dnsmessage.TypeA:
		r, err := p.AResource()
		if err == nil {
			addresses[name] = append(addresses[name], netip.AddrFrom4(r.A))
		}
		return err
	case h.Type == dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		if err == nil {
			addresses[name] = append(addresses[name], netip.AddrFrom16(r.AAAA).Unmap())
		}
		return err
	}
	return skip()
}
