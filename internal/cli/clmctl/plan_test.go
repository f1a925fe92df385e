package clmctl

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

// fakeInventory is an inventory to plan with.
type fakeInventory struct {
	inventory
	devices []fleet.Device
	open    []string // devices with an open enrolment
	err     error
}

func (f *fakeInventory) ListDevices(context.Context, store.Filter) iter.Seq2[fleet.Device, error] {
	return func(yield func(fleet.Device, error) bool) {
		for _, d := range f.devices {
			if !yield(d, nil) {
				return
			}
		}
		if f.err != nil {
			yield(fleet.Device{}, f.err)
		}
	}
}

// DueJobs is as package storetest describes it.
func (f *fakeInventory) DueJobs(_ context.Context, _ store.Filter, now time.Time, longest time.Duration) ([]renewal.Job, error) {
	p := &plan{}
	for _, d := range f.devices {
		open := slices.Contains(f.open, d.Name)
		if !d.Paused && !d.Quarantined && (d.Tried() && d.Due(now) || open) && !fleet.Waits(d.NextAttempt, now, longest) {
			p.take(d)
		}
	}
	return p.due, f.err
}

func (f *fakeInventory) CountDevices(context.Context, store.Filter) (int, error) {
	return len(f.devices), nil
}

func (f *fakeInventory) OpenEnrolment(_ context.Context, device string) (*enrol.Enrolment, error) {
	if slices.Contains(f.open, device) {
		return &enrol.Enrolment{}, nil
	}
	return nil, fmt.Errorf("%s: %w", device, enrol.ErrNotFound)
}

// plant has one device of each kind.
func plant(now time.Time) *fakeInventory {
	certificate := func(from, to time.Duration) *fleet.Certificate {
		return &fleet.Certificate{NotBefore: now.Add(from), NotAfter: now.Add(to)}
	}
	return &fakeInventory{
		devices: []fleet.Device{
			{Name: "due", Certificate: certificate(-time.Hour, time.Hour), RenewAt: now.Add(-time.Minute)},
			{Name: "expired", Certificate: certificate(-2*time.Hour, -time.Hour), RenewAt: now.Add(-90 * time.Minute)},
			{Name: "fresh", Certificate: certificate(-time.Minute, time.Hour), RenewAt: now.Add(30 * time.Minute)},
			{Name: "half-renewed", Certificate: certificate(-time.Minute, time.Hour), RenewAt: now.Add(30 * time.Minute)},
			{Name: "half-enrolled"},
			{Name: "new"},
			{Name: "not-yet-enrolled", Attempts: 1, LastError: "its CSR was wrong"},
			{Name: "paused", Paused: true},
			{Name: "quarantined", Quarantined: true, LastError: "its CSR was wrong", Certificate: certificate(-2*time.Hour, -time.Hour)},
			{Name: "waiting", NextAttempt: now.Add(time.Minute), Certificate: certificate(-2*time.Hour, -time.Hour)},
		},
		open: []string{"half-renewed", "half-enrolled"},
	}
}

func (p *plan) reason(t *testing.T, device string) string {
	t.Helper()
	for _, o := range p.skipped {
		if o.Name == device {
			return o.reason
		}
	}
	t.Errorf("%s was not skipped", device)
	return ""
}

func TestPlans(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ctx := context.Background()
	for name, c := range map[string]struct {
		plan    func(inventory) (*plan, error)
		due     string
		reasons map[string]string
	}{
		"enrol": {
			func(i inventory) (*plan, error) { return planEnrol(ctx, i, store.Filter{}, now, enrol.DefaultPolicy()) },
			"expired half-enrolled new not-yet-enrolled",
			map[string]string{"due": "its certificate is valid until 2026-03-01T13:00:00Z", "paused": "paused", "waiting": "next try is at"},
		},
		"renew": {
			func(i inventory) (*plan, error) {
				return planRenew(ctx, i, store.Filter{Labels: map[string]string{"any": "one"}}, now, enrol.DefaultPolicy())
			},
			"due expired half-renewed half-enrolled not-yet-enrolled",
			map[string]string{
				"fresh": "not due until 2026-03-01T12:30:00Z", "new": "never enrolled", "paused": "paused",
				"quarantined": "its CSR was wrong", "waiting": "next try is at 2026-03-01T12:01:00Z",
			},
		},
		"renew, of the whole inventory": {
			func(i inventory) (*plan, error) {
				return planRenew(ctx, i, store.Filter{}, now, enrol.DefaultPolicy())
			},
			"due expired half-renewed half-enrolled not-yet-enrolled", nil,
		},
		"forced": {
			func(i inventory) (*plan, error) { return planForced(ctx, i, store.Filter{}) },
			"due expired fresh half-renewed half-enrolled new not-yet-enrolled waiting",
			map[string]string{"paused": "paused", "quarantined": "its CSR was wrong"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := plant(now)
			p, err := c.plan(i)
			if err != nil {
				t.Fatal(err)
			}
			var due []string
			for _, j := range p.due {
				due = append(due, j.Device)
			}
			if got := strings.Join(due, " "); got != c.due {
				t.Errorf("due %q, want %q", got, c.due)
			}
			if p.checked() != len(i.devices) {
				t.Errorf("%d due, %d skipped and %d others of %d", len(p.due), len(p.skipped), p.unnamed, len(i.devices))
			}
			for device, want := range c.reasons {
				if got := p.reason(t, device); !strings.Contains(got, want) {
					t.Errorf("%s: %q, want %q", device, got, want)
				}
			}
			if p.force != (name == "forced") {
				t.Errorf("force is %v", p.force)
			}
			i.err = enrol.ErrNotFound
			if _, err := c.plan(i); clikit.ExitCode(err) != clikit.ExitUsage {
				t.Errorf("unknown device: %v", err)
			}
		})
	}
}

func TestSelection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    selection
		want string // "" is an error
	}{
		{selection{}, "[] map[]"},
		{selection{all: true}, "[] map[]"},
		{selection{names: []string{"a", "b", "a"}}, "[a b] map[]"},
		{selection{selectors: []string{"line=3"}}, "[] map[line:3]"},
		{selection{selectors: []string{"line=3;cell=a", "site=x", "line=3"}}, "[] map[cell:a line:3 site:x]"},
		{selection{selectors: []string{"line="}}, "[] map[line:]"},
		{selection{names: []string{" A"}}, ""},
		{selection{names: []string{"a"}, all: true}, ""},
		{selection{names: []string{"a"}, selectors: []string{"line=3"}}, ""},
		{selection{all: true, selectors: []string{"line=3"}}, ""},
		{selection{selectors: []string{""}}, ""},
		{selection{selectors: []string{"line"}}, ""},
		{selection{selectors: []string{"line=3,cell=a"}}, ""},
		{selection{selectors: []string{"line=3", "line=4"}}, ""},
	} {
		f, err := c.s.filter()
		got := fmt.Sprint(f.Names, f.Labels)
		switch {
		case c.want == "" && clikit.ExitCode(err) != clikit.ExitUsage:
			t.Errorf("%+v: accepted, or another code: %v", c.s, err)
		case c.want != "" && (err != nil || got != c.want):
			t.Errorf("%+v: %s, %v", c.s, got, err)
		}
	}
}
