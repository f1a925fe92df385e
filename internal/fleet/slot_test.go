package fleet_test

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// plan is the renewals of a fleet, in order.
type plan []time.Time

func (p plan) index(at time.Time) int {
	return sort.Search(len(p), func(i int) bool { return !p[i].Before(at) })
}

func (p plan) count(from, to time.Time) (int, error) { return p.index(to) - p.index(from), nil }

func (p *plan) add(at time.Time) { *p = slices.Insert(*p, p.index(at), at) }

// densest is the most renewals in any time of a length.
func (p plan) densest(length time.Duration) int {
	most := 0
	for i, at := range p {
		most = max(most, p.index(at.Add(length))-i)
	}
	return most
}

func certificate(i int, received time.Time, lifetime time.Duration) fleet.Certificate {
	return fleet.Certificate{NotBefore: received.Add(-time.Minute), NotAfter: received.Add(lifetime), SHA256: [32]byte{byte(i), byte(i >> 8), byte(i >> 16)}}
}

// TestPlaceKeepsTheRate: a fleet that was commissioned in one hour plans its
// renewals at no more than what the CA takes, and they stay in their window.
func TestPlaceKeepsTheRate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lifetime time.Duration
		within   time.Duration // of the commissioning
		rate     fleet.Rate
		devices  int
	}{
		{24 * time.Hour, time.Hour, fleet.Rate{N: 100, Per: time.Hour}, 280},
		{24 * time.Hour, time.Hour, fleet.Rate{N: 2000, Per: 24 * time.Hour}, 230},
		{2 * time.Minute, time.Second, fleet.Rate{N: 5, Per: time.Second}, 70},
		{730 * 24 * time.Hour, time.Hour, fleet.Rate{N: 100, Per: 24 * time.Hour}, 8700},
		{90 * 24 * time.Hour, 24 * time.Hour, fleet.Rate{N: 10, Per: time.Minute}, 4400},
	} {
		t.Run(fmt.Sprint(tt.lifetime, tt.rate), func(t *testing.T) {
			t.Parallel()
			begin := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
			limits := fleet.Limits{Rate: tt.rate}
			var hashed, placed plan
			for i := range tt.devices {
				received := begin.Add(tt.within * time.Duration(i) / time.Duration(tt.devices))
				c := certificate(i, received, tt.lifetime)
				name := fmt.Sprint("plc-", i)
				at, err := fleet.DefaultWindow().Place(name, c, received, limits, placed.count)
				if err != nil {
					t.Fatal(err)
				}
				if part := float64(at.Sub(received)) / float64(tt.lifetime); part < 0.33-1e-6 || part > 0.50+1e-6 {
					t.Fatalf("at %.4f of the lifetime", part)
				}
				placed.add(at)
				hashed.add(fleet.DefaultWindow().RenewAt(name, c, received))
			}
			if got := placed.densest(tt.rate.Per); got > tt.rate.N {
				t.Errorf("%d renewals planned within %v", got, tt.rate.Per)
			}
			t.Logf("densest %v: by hash alone %d, placed %d, the CA takes %d", tt.rate.Per, hashed.densest(tt.rate.Per), placed.densest(tt.rate.Per), tt.rate.N)
		})
	}
}

// TestPlaceOverfull: where there is no room the time stays as it is.
func TestPlaceOverfull(t *testing.T) {
	t.Parallel()
	received := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	c := certificate(1, received, 24*time.Hour)
	full := func(time.Time, time.Time) (int, error) { return 1 << 30, nil }
	limits := fleet.Limits{Rate: fleet.Rate{N: 100, Per: time.Hour}}
	want := fleet.DefaultWindow().RenewAt("plc", c, received)
	if at, err := fleet.DefaultWindow().Place("plc", c, received, limits, full); err != nil || !at.Equal(want) {
		t.Errorf("%s, %v; want %s", at, err, want)
	}
	broken := errors.New("disk")
	at, err := fleet.DefaultWindow().Place("plc", c, received, limits, func(time.Time, time.Time) (int, error) { return 0, broken })
	if !errors.Is(err, broken) || !at.Equal(want) {
		t.Errorf("%s, %v", at, err)
	}
	if at, err := fleet.DefaultWindow().Place("plc", c, received, fleet.Limits{}, full); err != nil || !at.Equal(want) {
		t.Errorf("without a rate: %s, %v", at, err)
	}
}

// TestPlace: a renewal is never planned outside its window, nor in a
// maintenance window that leaves room.
func TestPlace(t *testing.T) {
	t.Parallel()
	calendars := []fleet.Calendar{
		{}, calendar(t, time.UTC, "00:00-20:00"), calendar(t, time.UTC, "Mon-Fri 22:00-04:00", "Sat,Sun 00:00-24:00"),
		calendar(t, time.UTC, "2026-12-24T00:00/2027-06-01T06:00"),
	}
	rapid.Check(t, func(rt *rapid.T) {
		received := time.Unix(rapid.Int64Range(1790000000, 1800000000).Draw(rt, "received"), 0)
		lifetime := time.Duration(rapid.Int64Range(int64(2*time.Minute), int64(2*365*24*time.Hour)).Draw(rt, "lifetime"))
		limits := fleet.Limits{
			Rate:     fleet.Rate{N: rapid.IntRange(0, 1e6).Draw(rt, "n"), Per: time.Duration(rapid.Int64Range(int64(time.Second), int64(366*24*time.Hour)).Draw(rt, "per"))},
			Calendar: rapid.SampledFrom(calendars).Draw(rt, "calendar"),
		}
		filled := rapid.Float64Range(0, 1.5).Draw(rt, "filled")
		calls := 0
		planned := func(from, to time.Time) (int, error) {
			calls++
			return int(filled * float64(limits.Rate.N) * float64(to.Sub(from)) / float64(limits.Rate.Per)), nil
		}
		w := fleet.DefaultWindow()
		at, err := w.Place("plc", certificate(int(lifetime), received, lifetime), received, limits, planned)
		if err != nil || calls > 2100 {
			rt.Fatal(err, calls)
		}
		if part := float64(at.Sub(received)) / float64(lifetime); part < w.From-1e-6 || part > w.To+1e-6 {
			rt.Fatalf("at %.4f of the lifetime", part)
		}
		window := fleet.Span{From: received.Add(time.Duration(float64(lifetime) * w.From)), To: received.Add(time.Duration(float64(lifetime) * w.To))}
		if _, closed := limits.Calendar.Within(at); closed && len(limits.Calendar.Free(window)) > 0 {
			rt.Fatalf("planned at %s, in a maintenance window", at)
		}
	})
}

// TestMaintenanceKeepsTheSpread: whom a maintenance window displaces is spread
// over the rest, not put at its end.
func TestMaintenanceKeepsTheSpread(t *testing.T) {
	t.Parallel()
	received := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	limits := fleet.Limits{Calendar: calendar(t, time.UTC, "08:00-10:00")} // of 07:55 to 12:00
	var p plan
	for i := range 1000 {
		at, err := fleet.DefaultWindow().Place("plc", certificate(i, received, 24*time.Hour), received, limits, p.count)
		if err != nil {
			t.Fatal(err)
		}
		p.add(at)
	}
	if got := p.densest(10 * time.Minute); got > 130 { // 80 on average
		t.Errorf("%d of 1000 within ten minutes", got)
	}
}

// outage is the share of a fleet of one-day certificates whose certificates end
// in an outage of the CA, after a month in which it answered.
func outage(w fleet.Window, length time.Duration) float64 {
	const devices, lifetime = 2000, 24 * time.Hour
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	down := begin.AddDate(0, 0, 30)
	expired := 0
	for i := range devices {
		received := begin.Add(time.Hour * time.Duration(i) / devices)
		for n := 0; ; n++ {
			c := certificate(i<<8|n, received, lifetime)
			at := w.RenewAt(fmt.Sprint("plc-", i), c, received)
			if at.Before(down) {
				received = at
				continue
			}
			if c.NotAfter.Before(down.Add(length)) {
				expired++
			}
			break
		}
	}
	return float64(expired) / devices
}

// TestWhyAThird is why certificates are renewed between 33 % and 48 % of their
// lifetime: half a lifetime without CA expires nobody then.
func TestWhyAThird(t *testing.T) {
	t.Parallel()
	late, early := outage(fleet.Window{From: 0.50, To: 0.80}, 12*time.Hour), outage(fleet.DefaultWindow(), 12*time.Hour+20*time.Minute)
	t.Logf("one-day certificates, 12 hours without CA: %.1f %% expire when spread over 50 to 80 %%, %.1f %% over 33 to 48 %%", 100*late, 100*early)
	if late < 0.18 || late > 0.27 {
		t.Errorf("spread over 50 to 80 %%: %.3f expire", late)
	}
	if early != 0 {
		t.Errorf("spread over 33 to 48 %%: %.3f expire", early)
	}
	if later := outage(fleet.DefaultWindow(), 14*time.Hour); later == 0 {
		t.Error("nobody expires in 14 hours: the simulation shows nothing")
	}
}
