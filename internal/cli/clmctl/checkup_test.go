package clmctl

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func testCheckup(t *testing.T, now time.Time) *checkup {
	t.Helper()
	return &checkup{app: &app{Deps: Deps{Now: func() time.Time { return now }}}, site: &site{
		Config: Config{Alerts: alertsConfig{CAExpiry: 30 * 24 * time.Hour}}, dir: dataDir(t.TempDir()),
	}}
}

// verdicts are those about one check, joined.
func (c *checkup) verdicts(check string) string {
	var out []string
	for _, f := range c.found {
		if f.Check == check {
			out = append(out, string(f.Outcome))
		}
	}
	return strings.Join(out, " ")
}

func TestCheckExpiry(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, c := range []struct {
		begun, left time.Duration
		want        string
	}{
		{365 * day, 365 * day, "ok"},
		{700 * day, 29 * day, "warn"},
		{365 * day, -time.Second, "fail"},
		{-time.Hour, 365 * day, "fail"},
		{5 * time.Minute, 5 * time.Minute, "ok"}, // a lab's
		{9 * time.Minute, time.Minute, "warn"},
	} {
		k := testCheckup(t, now)
		k.checkExpiry("x", "remedy", &x509.Certificate{NotBefore: now.Add(-c.begun), NotAfter: now.Add(c.left)})
		if got := k.verdicts("x"); got != c.want {
			t.Errorf("begun %v ago, %v left: %s, want %s", c.begun, c.left, got, c.want)
		}
	}
}

func TestCheckClock(t *testing.T) {
	t.Parallel()
	now := time.Now() // as the files of the test have it
	for _, c := range []struct {
		skew   time.Duration
		latest time.Duration
		want   string
	}{
		{time.Second, 0, "ok"},
		{-time.Minute, 0, "warn"},
		{time.Hour, 0, "fail"},
		{0, time.Hour, "ok fail"},
	} {
		k := testCheckup(t, now)
		k.caDate, k.caSkew, k.latest = now.Add(-c.skew), c.skew, now.Add(c.latest)
		k.checkClock(t.Context())
		// Whether this machine is synchronised comes last.
		got := k.verdicts("clock")
		if got = got[:strings.LastIndex(got, " ")]; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestTally(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	valid := &fleet.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	ended := &fleet.Certificate{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}
	var n tally
	for _, d := range []fleet.Device{
		{Name: "a", Address: "a:1", Certificate: valid, RenewAt: now.Add(time.Minute)},
		{Name: "b", Address: "a:1", Certificate: valid, RenewAt: now.Add(-time.Minute)},
		{Name: "c", Address: "a:1", Certificate: valid, RenewAt: now.Add(-30 * time.Minute)},
		{Name: "d", Address: "a:1", Certificate: ended, LastError: "no answer"},
		{Name: "e", Quarantined: true},
		{Name: "f", Paused: true, Address: "a:1"},
	} {
		n.add(d, now)
	}
	if n.total != 6 || n.operational != 3 || n.expired != 1 || n.never != 2 || n.failing != 1 || n.quarantined != 1 || n.paused != 1 || n.homeless != 1 {
		t.Errorf("%+v", n)
	}
	if len(n.overdue) != 1 || n.overdue[0] != "c" || n.late != 30*time.Minute {
		t.Errorf("overdue: %v, %v", n.overdue, n.late)
	}
}

// doors answers a handshake by its address.
type doors map[string]coaplink.Probed

func (d doors) Probe(_ context.Context, address string) (coaplink.Probed, error) {
	if address == "192.0.2.99:1" {
		return coaplink.Probed{}, errors.New("of this side")
	}
	p, ok := d[address]
	if !ok {
		return coaplink.Probed{Address: address, Verdict: coaplink.Silent}, nil
	}
	return p, nil
}

func TestKnock(t *testing.T) {
	t.Parallel()
	id := func(name string, generation uint32) ibc.Identity {
		return ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: generation}
	}
	answers := doors{
		"192.0.2.1:1": {Verdict: coaplink.Proven, Identity: id("plc", 2)},
		"192.0.2.2:1": {Verdict: coaplink.Proven, Identity: id("plc", 3)},
		"192.0.2.3:1": {Verdict: coaplink.Proven, Identity: id("plc", 1)},
		"192.0.2.4:1": {Verdict: coaplink.Proven, Identity: id("other", 2)},
		"192.0.2.5:1": {Verdict: coaplink.Proven, Identity: id("plc", 2), Refuses: true},
		"192.0.2.6:1": {Verdict: coaplink.Impostor, Identity: id("plc", 2)},
		"192.0.2.7:1": {Verdict: coaplink.Stranger},
		"192.0.2.8:1": {Verdict: coaplink.Silent, Closed: true},
		"192.0.2.9:1": {Verdict: coaplink.Silent, NoRoute: true},
	}
	resolve := func(_ context.Context, address string) ([]netip.AddrPort, error) {
		var out []netip.AddrPort
		for text := range strings.SplitSeq(address, ",") {
			at, err := netip.ParseAddrPort(text)
			if err != nil {
				return nil, err
			}
			out = append(out, at)
		}
		return out, nil
	}
	for address, want := range map[string]condition{
		"": noAddress, "nowhere": noSuchHost,
		"192.0.2.1:1": answersAsItself, "192.0.2.2:1": answersAsItself, "192.0.2.3:1": answersOutdated, "192.0.2.4:1": answersAsOther,
		"192.0.2.5:1": answersRefusing, "192.0.2.6:1": answersFalsely, "192.0.2.7:1": answersForeign, "192.0.2.8:1": closedPort, "192.0.2.9:1": noRoute,
		"192.0.2.10:1": noAnswer,
		// Of several addresses, that at which the device is; else the one that says most.
		"192.0.2.10:1,192.0.2.1:1": answersAsItself, "192.0.2.10:1,192.0.2.7:1,192.0.2.8:1": answersForeign,
	} {
		got, err := knock(t.Context(), answers, resolve, []fleet.Device{{Name: "plc", Identity: id("plc", 2), Address: address}})
		if err != nil || got[0].condition != want {
			t.Errorf("%q: %s, %v; want %s", address, got[0].condition, err, want)
		}
		if want != answersAsItself && want.remedy("plc") == "" {
			t.Errorf("%s has no remedy", want)
		}
	}
	if _, err := knock(t.Context(), answers, resolve, []fleet.Device{{Name: "plc", Address: "192.0.2.99:1"}}); err == nil {
		t.Error("a fault of this side is not told")
	}
}

func TestBytesText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 64 << 20: "64 MiB", 1 << 62: "4 EiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// A maintenance window must be shorter than what a certificate lasts that is
// due when it begins.
func TestCheckMaintenance(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) // a Monday
	for _, c := range []struct {
		life time.Duration
		want string
	}{
		{0, "ok"}, {30 * 24 * time.Hour, "ok"}, {24 * time.Hour, "warn"}, {16 * time.Hour, "fail"},
	} {
		k := testCheckup(t, now)
		var err error
		if k.site.Limits.Calendar, err = parseMaintenance([]string{"Sat 22:00-06:00"}, "UTC"); err != nil {
			t.Fatal(err)
		}
		k.site.Policy.Window.To = 0.5
		k.checkMaintenance(c.life)
		if got := k.verdicts("maintenance"); got != c.want {
			t.Errorf("%v: %s, want %s: %+v", c.life, got, c.want, k.found)
		}
	}
	k := testCheckup(t, now)
	if k.checkMaintenance(time.Hour); len(k.found) != 0 {
		t.Errorf("no windows: %+v", k.found)
	}
}
