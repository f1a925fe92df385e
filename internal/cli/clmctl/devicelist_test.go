package clmctl

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

func listed(now time.Time) []fleet.Device {
	full := fullDevice(now) // quarantined, behind, failing, operational, line=3, at 192.0.2.1
	certificate := func(left time.Duration) *fleet.Certificate {
		return &fleet.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(left)}
	}
	device := func(name string) fleet.Device {
		return fleet.Device{Name: name, Identity: ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: 1}}
	}
	bare, due, expired, paused := device("plc-0002"), device("plc-0003"), device("plc-0004"), device("plc-0005")
	due.Certificate, due.RenewAt, due.Address = certificate(2*time.Hour), now.Add(-time.Minute), "10.0.0.3:5684"
	expired.Certificate, expired.RenewAt = certificate(-time.Minute), now.Add(-30*time.Minute)
	paused.Certificate, paused.RenewAt, paused.Paused = certificate(3*time.Hour), now.Add(-time.Minute), true
	gone := device("plc-0006")
	gone.Certificate, gone.Decommissioned = certificate(4*time.Hour), now.Add(-time.Minute)
	return []fleet.Device{full, bare, due, expired, paused, gone}
}

func sequence(devices []fleet.Device) func(func(fleet.Device, error) bool) {
	return func(yield func(fleet.Device, error) bool) {
		for _, d := range devices {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func lastDigits(devices []fleet.Device) string {
	var b strings.Builder
	for _, d := range devices {
		b.WriteString(d.Name[len(d.Name)-1:])
	}
	return b.String()
}

func TestDeviceListFinds(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		search, states string
		want           string
	}{
		{"", "", "123456"},
		{"PLC-0002", "", "2"},
		{"press", "", "1"},
		{"line=3", "", "1"},
		{"cn=<CA>", "", "1"},
		{"ab00", "", "1"},
		{"no answer|192.0.2", "", "1"},
		{"no answer|10.0.0", "", ""},
		{"e1.g3", "", "1"},
		{"3\n1", "", ""},
		{"", "operational", "135"},
		{"", "not-operational", "24"},
		{"", "due", "34"},
		{"", "failing", "1"},
		{"", "expired", "4"},
		{"", "quarantined", "1"},
		{"", "paused|expired", "45"},
		{"", "behind", "1"},
		{"plc-0005", "paused", "5"},
		{"plc-0005", "expired", ""},
		{"", "decommissioned", "6"},
		{"", "decommissioned|paused", "56"},
	} {
		o := listOptions{}
		if c.search != "" {
			o.search = strings.Split(c.search, "|")
		}
		if c.states != "" {
			o.states = strings.Split(c.states, "|")
		}
		found, err := store.Collect(o.wanted(sequence(listed(now)), now))
		if err != nil || lastDigits(found) != c.want {
			t.Errorf("%q %q: %s, %v; want %s", c.search, c.states, lastDigits(found), err, c.want)
		}
	}
	for _, state := range deviceStates() {
		found, err := store.Collect(listOptions{states: []string{state}}.wanted(sequence(listed(now)), now))
		if err != nil || len(found) == 0 || len(found) == 6 {
			t.Errorf("%s: %s", state, lastDigits(found))
		}
	}
}

func TestDeviceListSorts(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for key, want := range map[string]string{
		"name": "123456", "not_after": "413562", "renew_at": "435126", "address": "312456", "asset": "123456", "attempts": "123456",
		"next_attempt": "123456", "enrolled_at": "123456", "state": "246351",
	} {
		devices := listed(now)
		slices.SortStableFunc(devices, sortBy(key, now))
		if got := lastDigits(devices); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	for _, key := range sortKeys() {
		if err := (listOptions{sort: key}).check(); err != nil {
			t.Error(err)
		}
	}
}
