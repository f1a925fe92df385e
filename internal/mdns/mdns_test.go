package mdns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func announced() Announcement { return Announcement{Instance: "0123456789abcdef", Port: 5684} }

func query(t testing.TB, name string, kind dnsmessage.Type, class dnsmessage.Class, known ...dnsmessage.Resource) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: class}},
		Answers:   known,
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addresses() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	a := announced()
	ptr := func(ttl uint32) dnsmessage.Resource {
		return dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(Service), Class: dnsmessage.ClassINET, TTL: ttl},
			Body:   &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(a.instance())},
		}
	}
	for name, c := range map[string]struct {
		query  []byte
		legacy bool
		want   string // "", "multicast", "unicast"
	}{
		"the service":        {query(t, Service, dnsmessage.TypePTR, dnsmessage.ClassINET), false, "multicast"},
		"in capitals":        {query(t, strings.ToUpper(Service), dnsmessage.TypePTR, dnsmessage.ClassINET), false, "multicast"},
		"any type":           {query(t, Service, dnsmessage.TypeALL, dnsmessage.ClassANY), false, "multicast"},
		"unicast wished":     {query(t, Service, dnsmessage.TypePTR, dnsmessage.ClassINET|cacheFlush), false, "unicast"},
		"legacy":             {query(t, Service, dnsmessage.TypePTR, dnsmessage.ClassINET), true, "unicast"},
		"all services":       {query(t, serviceList, dnsmessage.TypePTR, dnsmessage.ClassINET), false, "multicast"},
		"the instance":       {query(t, a.instance(), dnsmessage.TypeSRV, dnsmessage.ClassINET), false, "multicast"},
		"the host":           {query(t, a.host(), dnsmessage.TypeA, dnsmessage.ClassINET), false, "multicast"},
		"known":              {query(t, Service, dnsmessage.TypePTR, dnsmessage.ClassINET, ptr(ttlShared)), false, ""},
		"known, nearly over": {query(t, Service, dnsmessage.TypePTR, dnsmessage.ClassINET, ptr(100)), false, "multicast"},
		"another service":    {query(t, "_http._tcp.local.", dnsmessage.TypePTR, dnsmessage.ClassINET), false, ""},
		"another type":       {query(t, Service, dnsmessage.TypeA, dnsmessage.ClassINET), false, ""},
		"another class":      {query(t, Service, dnsmessage.TypePTR, dnsmessage.ClassCHAOS), false, ""},
		"another instance":   {query(t, "x."+Service, dnsmessage.TypeSRV, dnsmessage.ClassINET), false, ""},
	} {
		r, err := a.answer(c.query, c.legacy, addresses())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := ""
		if r != nil {
			got = "multicast"
			if r.unicast {
				got = "unicast"
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if r == nil || name == "all services" {
			continue
		}
		found, err := parseAnswer(r.message)
		if want := "[192.0.2.7:5684 [2001:db8::7]:5684]"; err != nil || fmt.Sprint(found) != want {
			t.Errorf("%s: names %v, %v", name, found, err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(r.message); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.legacy != (m.ID == 7) || c.legacy != (len(m.Questions) == 1) || c.legacy && m.Answers[0].Header.TTL > ttlLegacy {
			t.Errorf("%s: %+v", name, m)
		}
	}
	response, err := a.message(0, dnsmessage.Question{}, false, addresses(), ttlShared, ttlHost)
	if err != nil {
		t.Fatal(err)
	}
	for _, junk := range [][]byte{nil, {0}, response} {
		if r, err := a.answer(junk, false, addresses()); err == nil || r != nil {
			t.Errorf("%x was answered", junk)
		}
	}
	goodbye, err := a.message(0, dnsmessage.Question{}, false, addresses(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := parseAnswer(goodbye); err != nil || len(found) > 0 {
		t.Errorf("a goodbye names %v, %v", found, err)
	}
}

// Responder and asker, over loopback instead of the group.
func TestBrowse(t *testing.T) {
	t.Parallel()
	listen := func() net.PacketConn {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	ctx, cancel := context.WithCancel(t.Context())
	device, sink := listen(), listen()
	defer func() { _ = sink.Close() }()
	to := device.LocalAddr()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a := announced()
		a.serve(ctx, device, sink.LocalAddr(), []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("192.0.2.7/24")})
	}()
	first := make([]byte, maxPacket)
	if n, _, err := sink.ReadFrom(first); err != nil {
		t.Fatal(err)
	} else if found, err := parseAnswer(first[:n]); err != nil || len(found) == 0 {
		t.Errorf("it announces %v, %v", found, err)
	}
	within, enough := context.WithTimeout(t.Context(), 30*time.Second)
	defer enough()
	asker := counting{listen(), enough}
	found, err := browse(within, []asking{{asker, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}}, to)
	if err != nil || fmt.Sprint(found) != "[192.0.2.7:5684]" {
		t.Errorf("found %v, %v", found, err)
	}
	cancel()
	<-done
	for {
		n, _, err := sink.ReadFrom(first)
		if err != nil {
			t.Fatal(err)
		}
		if found, err := parseAnswer(first[:n]); err == nil && len(found) == 0 {
			break // goodbye
		}
	}
}

// counting calls enough once something was read.
type counting struct {
	net.PacketConn
	enough func()
}

func (c counting) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err == nil {
		c.enough()
	}
	return n, from, err
}

// Attack: somebody behind a router asks with a forged source, or often, so that
// devices send to a victim.
func TestResponderIsNoAmplifier(t *testing.T) {
	t.Parallel()
	link := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::7/64")}
	for ip, want := range map[string]bool{"192.0.2.200": true, "198.51.100.1": false, "2001:db8::1": true, "2001:db8:1::1": false} {
		if onLink(netip.MustParseAddr(ip), link) != want {
			t.Errorf("%s is on the link: %v", ip, !want)
		}
	}
	now := time.Unix(1000, 0)
	l := limiter{now: func() time.Time { return now }}
	allowed := 0
	for range 1000 {
		if l.allow() {
			allowed++
		}
	}
	if allowed != 10 {
		t.Errorf("%d answers in a second", allowed)
	}
	now = now.Add(-time.Hour)
	if !l.allow() {
		t.Error("a clock that was set back silences it")
	}
}

func TestOnlyTheAddressThatIsListenedOn(t *testing.T) {
	t.Parallel()
	a := announced()
	link := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("192.0.2.8/24")}
	if got := a.addresses(link); len(got) != 2 {
		t.Errorf("all: %v", got)
	}
	a.Only = netip.MustParseAddr("192.0.2.8")
	if got := a.addresses(link); len(got) != 1 || got[0] != a.Only {
		t.Errorf("one: %v", got)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(query(f, Service, dnsmessage.TypePTR, dnsmessage.ClassINET), false)
	f.Add(query(f, serviceList, dnsmessage.TypeALL, dnsmessage.ClassANY), true)
	f.Fuzz(func(t *testing.T, data []byte, legacy bool) {
		r, err := announced().answer(data, legacy, addresses())
		if err == nil && r != nil && len(r.message) > maxPacket {
			t.Errorf("an answer of %d bytes", len(r.message))
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	m, err := announced().message(0, dnsmessage.Question{}, false, addresses(), ttlShared, ttlHost)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
	f.Add(query(f, Service, dnsmessage.TypePTR, dnsmessage.ClassINET))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, _ := parseAnswer(data)
		for _, at := range found {
			if at.Port() == 0 || !at.Addr().IsGlobalUnicast() {
				t.Errorf("%s", at)
			}
		}
	})
}
