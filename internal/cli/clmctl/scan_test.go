package clmctl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// scannedPlant answers probes: who is at an address at the first, second... probe of
// it; the last one stays.
type scannedPlant struct {
	mu    sync.Mutex
	at    map[string][]coaplink.Probed
	asked map[string]int
}

func (p *scannedPlant) Probe(_ context.Context, address string) (coaplink.Probed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked == nil {
		p.asked = map[string]int{}
	}
	p.asked[address]++
	answers := p.at[address]
	if len(answers) == 0 {
		return coaplink.Probed{Address: address, Verdict: coaplink.Silent}, nil
	}
	a := answers[min(p.asked[address], len(answers))-1]
	a.Address = address
	return a, nil
}

func deviceID(name string, generation uint32) ibc.Identity {
	return ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: generation}
}

func proven(name string, generation uint32, key byte) coaplink.Probed {
	return coaplink.Probed{Verdict: coaplink.Proven, Identity: deviceID(name, generation), Key: [32]byte{key}}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	silent := coaplink.Probed{Verdict: coaplink.Silent}
	for name, c := range map[string]struct {
		plant map[string][]coaplink.Probed
		probe string // addresses, by their last number
		want  string
	}{
		"at home":  {map[string][]coaplink.Probed{"1": {proven("a", 2, 1)}}, "1", "1:known"},
		"moved":    {map[string][]coaplink.Probed{"5": {proven("a", 2, 1)}}, "5", "5:moved"},
		"later":    {map[string][]coaplink.Probed{"5": {proven("a", 3, 1)}}, "5", "5:moved"},
		"homeless": {map[string][]coaplink.Probed{"5": {proven("c", 1, 1)}}, "5", "5:moved"},
		"unknown":  {map[string][]coaplink.Probed{"5": {proven("z", 1, 1)}}, "5", "5:new"},
		"earlier":  {map[string][]coaplink.Probed{"5": {proven("a", 1, 1)}}, "5", "5:outdated"},
		// One device with two addresses has one key.
		"two interfaces":            {map[string][]coaplink.Probed{"1": {proven("a", 2, 1)}, "5": {proven("a", 2, 1)}}, "5", "5:also 1:known"},
		"two interfaces, elsewhere": {map[string][]coaplink.Probed{"5": {proven("a", 2, 1)}, "6": {proven("a", 2, 1)}}, "5 6", "5:moved 6:also"},
		// A copy has another, also where only the copy was asked for.
		"copy":            {map[string][]coaplink.Probed{"1": {proven("a", 2, 1)}, "5": {proven("a", 2, 2)}}, "5", "5:clone 1:clone"},
		"copy of a spare": {map[string][]coaplink.Probed{"5": {proven("z", 1, 1)}, "6": {proven("z", 1, 2)}}, "5 6", "5:clone 6:clone"},
		"copy, later key": {map[string][]coaplink.Probed{"1": {proven("a", 2, 1)}, "5": {proven("a", 3, 2)}}, "5", "5:clone 1:clone"},
		"three of them":   {map[string][]coaplink.Probed{"1": {proven("a", 2, 1)}, "5": {proven("a", 2, 2)}, "6": {proven("a", 2, 3)}}, "5 6", "5:clone 6:clone 1:clone"},
		// What looks like one for a moment.
		"moved meanwhile":     {map[string][]coaplink.Probed{"1": {proven("a", 2, 1), silent}, "5": {proven("a", 2, 2)}}, "1 5", "1:also 5:moved"},
		"restarted":           {map[string][]coaplink.Probed{"1": {proven("a", 2, 1), proven("a", 2, 2)}, "5": {proven("a", 2, 2)}}, "1 5", "1:known 5:also"},
		"somebody else there": {map[string][]coaplink.Probed{"1": {proven("b", 1, 7)}, "2": nil, "5": {proven("a", 2, 1)}}, "5", "5:moved 1:moved"},
		"impostor":            {map[string][]coaplink.Probed{"1": {{Verdict: coaplink.Impostor, Identity: deviceID("a", 2), Reason: errors.New("no")}}}, "1", "1:impostor"},
		// Whoever is found on the way is looked for at home, too.
		"copies on the way": {map[string][]coaplink.Probed{"1": {proven("b", 1, 7)}, "2": {proven("b", 1, 8)}, "5": {proven("a", 2, 1)}}, "5", "5:moved 1:clone 2:clone"},
		// An impostor at home proves nothing: the real one has moved.
		"impostor at home": {map[string][]coaplink.Probed{"1": {{Verdict: coaplink.Impostor, Identity: deviceID("a", 2), Reason: errors.New("no")}}, "5": {proven("a", 2, 1)}}, "5", "5:moved 1:impostor"},
		"stranger":         {map[string][]coaplink.Probed{"1": {{Verdict: coaplink.Stranger, Reason: errors.New("no")}}}, "1 2", "1:stranger"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := func(n string) netip.AddrPort { return netip.MustParseAddrPort("10.0.0." + n + ":5684") }
			p := &scannedPlant{at: map[string][]coaplink.Probed{}}
			for n, answers := range c.plant {
				p.at[at(n).String()] = answers
			}
			devices := map[string]fleet.Device{
				"a": {Name: "a", Identity: deviceID("a", 2), Address: at("1").String()},
				"b": {Name: "b", Identity: deviceID("b", 1), Address: at("2").String()},
				"c": {Name: "c", Identity: deviceID("c", 1)},
			}
			var list []netip.AddrPort
			for _, n := range strings.Fields(c.probe) {
				list = append(list, at(n))
			}
			s := &scan{prober: p, rate: 1000, timeout: time.Minute}
			answers, err := s.probe(t.Context(), list)
			if err != nil {
				t.Fatal(err)
			}
			found, err := s.judge(t.Context(), answers, devices, func(_ context.Context, address string) []netip.AddrPort {
				return []netip.AddrPort{netip.MustParseAddrPort(address)}
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(f.Address, "10.0.0."), ":5684")+":"+string(f.sight))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.1":                           "10.0.0.1:5684",
		"10.0.0.1:99":                        "10.0.0.1:99",
		"::ffff:10.0.0.1":                    "10.0.0.1:5684",
		"2001:db8::1":                        "[2001:db8::1]:5684",
		"[2001:db8::1]:1":                    "[2001:db8::1]:1",
		"10.0.0.6/30":                        "10.0.0.5:5684 10.0.0.6:5684",
		"10.0.0.6/31":                        "10.0.0.6:5684 10.0.0.7:5684",
		"10.0.0.6/32":                        "10.0.0.6:5684",
		"2001:db8::/127":                     "[2001:db8::]:5684 [2001:db8::1]:5684",
		"plc.plant":                          "10.0.0.9:5684",
		"plc.plant:7":                        "10.0.0.9:7",
		"10.0.0.1 10.0.0.1:5684 10.0.0.0/30": "10.0.0.1:5684 10.0.0.2:5684",
	} {
		s := &targets{port: devicePort, resolver: fixedNames{}}
		for _, one := range strings.Fields(text) {
			if err := s.add(t.Context(), one); err != nil {
				t.Errorf("%s: %v", text, err)
			}
		}
		if got := strings.Trim(fmt.Sprint(s.list), "[]"); got != strings.Trim(want, "[]") {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "10.0.0.0/15", "2001:db8::/64", "10.0.0.1/33", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255", "10.0.0.1:0", "a b", "x:y:z", "nowhere", "plc.plant:70000", "10.0.0.0/24:5684"} {
		s := &targets{port: devicePort, resolver: fixedNames{}}
		if err := s.add(t.Context(), text); !errors.Is(err, errTargets) {
			t.Errorf("%q: %v, %d addresses", text, err, len(s.list))
		}
	}
	s := &targets{port: devicePort}
	if err := s.add(t.Context(), "10.1.0.0/16"); err != nil || len(s.list) != 65534 {
		t.Errorf("a /16: %d, %v", len(s.list), err)
	}
	if err := s.add(t.Context(), "10.2.0.0/24"); !errors.Is(err, errTargets) {
		t.Errorf("more than a /16: %v", err)
	}
}

type fixedNames struct{}

func (fixedNames) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if host != "plc.plant" {
		return nil, errors.New("no such host")
	}
	return []netip.Addr{netip.MustParseAddr("10.0.0.9")}, nil
}

// The rate is kept, and a failure of this side ends the scan.
func TestScanEnds(t *testing.T) {
	t.Parallel()
	s := &targets{port: devicePort}
	if err := s.add(t.Context(), "10.0.0.0/24"); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no random")
	run := &scan{prober: failing{broken}, rate: 1000, timeout: time.Minute}
	if _, err := run.probe(t.Context(), s.list); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := run.probe(ctx, s.list); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	begun := time.Now()
	run = &scan{prober: &scannedPlant{}, rate: 100, timeout: time.Minute}
	if _, err := run.probe(t.Context(), s.list[:11]); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 90*time.Millisecond {
		t.Errorf("11 probes at 100 per second took %v", took)
	}
}

type failing struct{ err error }

func (f failing) Probe(_ context.Context, address string) (coaplink.Probed, error) {
	return coaplink.Probed{Address: address}, f.err
}

func FuzzTargets(f *testing.F) {
	for _, text := range []string{"10.0.0.1", "10.0.0.0/28", "[2001:db8::1%eth0]:1", "plc.plant", "::/120", "1.2.3.4:5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := &targets{port: devicePort, resolver: fixedNames{}}
		if err := s.add(t.Context(), text); err != nil {
			return
		}
		if len(s.list) == 0 || len(s.list) > maxTargets {
			t.Errorf("%q: %d addresses", text, len(s.list))
		}
		for _, at := range s.list {
			if at.Port() == 0 || at.Addr().IsMulticast() || at.Addr().IsUnspecified() {
				t.Errorf("%q: %s", text, at)
			}
		}
	})
}
