package fleet

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseName(t *testing.T) {
	for _, good := range []string{"cn:plc 1", "dns:plc-0001.bilbao", "ip:192.0.2.1", "ip:2001:db8::1", "uri:urn:dev:mac:0024befffe804ff1"} {
		n, err := ParseName(good)
		if err != nil || n.String() != good {
			t.Errorf("%s: %v, %v", good, n, err)
		}
	}
	for _, bad := range []string{
		"", "plc", "cn:", "dns:-a", "dns:a..b", "dns:1.2.3.4", "dns:a_b", "dns:*.a", "ip:192.0.2.01", "ip:2001:DB8::1", "ip:fe80::1%eth0",
		"uri:relative", "uri:urn:a b", "mail:a@b", "cn:a;b", "cn:ä", "cn:" + strings.Repeat("a", 65), "uri:urn:" + strings.Repeat("a", 255), "cn:a\n",
	} {
		if n, err := ParseName(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v, %v", bad, n, err)
		}
	}
}

func TestParseNames(t *testing.T) {
	names, err := ParseNames("cn:plc-1; dns:plc-1 ;;ip:192.0.2.1")
	if err != nil || len(names) != 3 || names[2].Kind != KindIP {
		t.Errorf("%v, %v", names, err)
	}
	for _, bad := range []string{"cn:a;cn:a", "cn:a;xxx"} {
		if _, err := ParseNames(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	many := make([]string, MaxNames+1)
	for i := range many {
		many[i] = "cn:a" + strings.Repeat("b", i)
	}
	if _, err := ParseNames(strings.Join(many, ";")); !errors.Is(err, ErrName) {
		t.Error(err)
	}
}

func TestDefaultNames(t *testing.T) {
	if got := DefaultNames("plc-1.plant"); len(got) != 2 || got[1] != (Name{KindDNS, "plc-1.plant"}) {
		t.Errorf("%v", got)
	}
	if got := DefaultNames("urn:dev:mac:00"); len(got) != 1 || got[0] != (Name{KindCN, "urn:dev:mac:00"}) {
		t.Errorf("%v", got)
	}
}

func FuzzParseNames(f *testing.F) {
	f.Add("cn:a;dns:a.b;ip:192.0.2.1;uri:urn:a:b")
	f.Fuzz(func(t *testing.T, s string) {
		names, err := ParseNames(s)
		if err != nil {
			return
		}
		for _, n := range names {
			if back, err := ParseName(n.String()); err != nil || back != n {
				t.Errorf("%q: %v, %v", n, back, err)
			}
		}
	})
}

func TestProfiles(t *testing.T) {
	d := Device{Name: "plc-1", Labels: map[string]string{"line": "3", "site": "bilbao"}}
	profiles := []Profile{
		{Name: "line4", Match: map[string]string{"line": "4"}},
		{Name: "line3", Match: map[string]string{"line": "3"}, Subject: []Attribute{{"CN", "{name}.plant"}}, SANs: []Name{{KindURI, "urn:plant:{name}"}}},
		{Name: "rest"},
	}
	p, err := SelectProfile(profiles, d).For(d)
	if err != nil || p.Name != "line3" || p.Subject[0].Value != "plc-1.plant" || p.SANs[0].Value != "urn:plant:plc-1" {
		t.Errorf("%+v, %v", p, err)
	}
	if profiles[1].Subject[0].Value != "{name}.plant" {
		t.Error("the template was changed")
	}
	if p := SelectProfile(profiles[:1], d); p.Name != "" {
		t.Errorf("%+v", p)
	}
	for what, bad := range map[string]Profile{
		"key":       {Key: "dsa"},
		"subject":   {Subject: []Attribute{{"SN", "1"}}},
		"empty":     {Subject: []Attribute{{"O", ""}}},
		"cn as san": {SANs: []Name{{KindCN, "a"}}},
		"usage":     {KeyUsage: []string{"certSign"}},
		"ext usage": {ExtKeyUsage: []string{"any"}},
	} {
		if err := bad.Validate(); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := (Profile{SANs: []Name{{KindDNS, "{name}"}}}).For(Device{Name: "a:b"}); !errors.Is(err, ErrName) {
		t.Error("a SAN that is no host name")
	}
}

func TestRenewAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		received := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "received"), 0)
		lifetime := time.Duration(rapid.Int64Range(int64(time.Minute), int64(2*365*24*time.Hour)).Draw(t, "lifetime"))
		backdated := time.Duration(rapid.Int64Range(0, int64(lifetime)).Draw(t, "backdated"))
		c := Certificate{NotBefore: received.Add(-backdated), NotAfter: received.Add(lifetime), SHA256: [32]byte{byte(lifetime)}}
		at := DefaultWindow().RenewAt("plc", c, received)
		part := float64(at.Sub(received)) / float64(lifetime)
		if part < 0.33-1e-6 || part > 0.50+1e-6 {
			t.Fatalf("at %.3f of the lifetime", part)
		}
	})
}

// TestRenewalsSpread: devices commissioned in one moment do not renew in one.
func TestRenewalsSpread(t *testing.T) {
	received := time.Unix(1e9, 0)
	var buckets [10]int
	for i := range 1000 {
		c := Certificate{NotBefore: received, NotAfter: received.Add(1000 * time.Second), SHA256: [32]byte{byte(i), byte(i >> 8)}}
		at := DefaultWindow().RenewAt("plc", c, received).Sub(received).Seconds()
		buckets[int((at-330)/15)]++
	}
	for i, n := range buckets {
		if n < 50 || n > 150 {
			t.Errorf("tenth %d of the window has %d of 1000", i, n)
		}
	}
}

func TestDueWithWrongClocks(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	d := Device{Certificate: &Certificate{NotBefore: now, NotAfter: now.Add(24 * time.Hour)}, RenewAt: now.Add(10 * time.Hour)}
	if d.Due(now) {
		t.Error("due at once")
	}
	d.RenewAt = now.AddDate(70, 0, 0) // written by a clock in 2096
	if !d.Due(now) {
		t.Error("a renewal time that its schedule does not allow counts as now")
	}
	if (Device{}).Due(now) != true {
		t.Error("no certificate")
	}
}
