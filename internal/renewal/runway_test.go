package renewal_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// steady is a fleet in which each device is somewhere between the receipt of
// its certificate and its renewal.
func steady(n int, life time.Duration, w fleet.Window) []renewal.Row {
	random := rand.New(rand.NewPCG(1, 2))
	rows := make([]renewal.Row, n)
	for i := range rows {
		point := w.From + (w.To-w.From)*random.Float64()
		received := epoch().Add(-time.Duration(random.Float64() * point * float64(life)))
		rows[i] = renewal.Row{
			Name: fmt.Sprintf("plc-%05d", i), NotBefore: received, NotAfter: received.Add(life),
			RenewAt: received.Add(time.Duration(point * float64(life))),
		}
	}
	return rows
}

func forecast(outage time.Duration, w fleet.Window) renewal.Forecast {
	f := renewal.Forecast{Now: epoch(), Bounds: renewal.Bounds{Devices: 16}, Window: w, Took: time.Second, LongestWait: 48 * time.Hour}
	f.Outage.From = epoch()
	if outage > 0 {
		f.Outage.To = epoch().Add(outage)
	}
	return f
}

// TestOutageOfHalfALife: what decides how many certificates an outage of 12
// hours ends, of those that live a day, is when they are renewed. Of a fleet
// renewed between 50 and 80 % of their lives it is 1 - ln(0.8/0.5)/0.6, 22 %; of
// one renewed between 33 and 50 % it is none.
func TestOutageOfHalfALife(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window   fleet.Window
		from, to float64
	}{
		{fleet.Window{From: 0.5, To: 0.8}, 0.20, 0.24},
		{fleet.DefaultWindow(), 0, 0},
	} {
		const n = 2000
		outlook := forecast(12*time.Hour-time.Minute, c.window).Of(steady(n, 24*time.Hour, c.window))
		if share := float64(len(outlook.Expiries)) / n; share < c.from || share > c.to {
			t.Errorf("%v: %.1f %% expire", c.window, 100*share)
		}
		if outlook.Devices != n || outlook.Recovered.Before(epoch().Add(12*time.Hour-time.Minute)) {
			t.Errorf("%v: %d devices, recovered at %v", c.window, outlook.Devices, outlook.Recovered)
		}
	}
}

// If the CA never comes back each certificate ends at its end, and only those
// count that somebody wants renewed and that are still valid.
func TestEndlessOutage(t *testing.T) {
	t.Parallel()
	row := func(name string, hours int) renewal.Row {
		return renewal.Row{Name: name, NotBefore: epoch().Add(-24 * time.Hour), NotAfter: epoch().Add(time.Duration(hours) * time.Hour)}
	}
	rows := []renewal.Row{row("c", 9), row("a", 3), row("b", 3), row("gone", -1), row("paused", 1), row("quarantined", 1), {Name: "new"}}
	rows[4].Paused, rows[5].Quarantined, rows[0].LastError = true, true, "it does not answer"
	o := forecast(0, fleet.DefaultWindow()).Of(rows)
	first, ok := o.First()
	if !ok || first.Device != "a" || !first.At.Equal(epoch().Add(3*time.Hour)) || len(o.Expiries) != 3 || !o.Expiries[2].Failing {
		t.Errorf("%+v", o.Expiries)
	}
	if o.Devices != 3 || o.Held != 2 || o.Expired != 1 || !o.Until.Equal(epoch().Add(9*time.Hour)) {
		t.Errorf("%+v", o)
	}
	for hours, want := range map[int]int{2: 0, 3: 2, 8: 2, 9: 3, 100: 3} {
		if got := o.ExpiredBy(epoch().Add(time.Duration(hours) * time.Hour)); got != want {
			t.Errorf("after %d h: %d, want %d", hours, got, want)
		}
	}
	if _, ok := (renewal.Outlook{}).First(); ok {
		t.Error("an empty fleet has a first certificate")
	}
}

// What an outage left behind is worked off at the CA's rate; a device whose
// turn comes too late expires though the CA is back, and a bridge takes that
// into account.
func TestBacklogAtTheRate(t *testing.T) {
	t.Parallel()
	const n = 600
	f := forecast(11*time.Hour, fleet.DefaultWindow())
	f.Bounds.CA.Rate = fleet.Rate{N: 1, Per: time.Minute}
	rows := make([]renewal.Row, n) // 10 hours' work, and the last ends an hour after the outage
	for i := range rows {
		end := epoch().Add(10*time.Hour + time.Duration(i)*time.Minute/4)
		rows[i] = renewal.Row{Name: fmt.Sprintf("plc-%05d", i), NotBefore: end.Add(-48 * time.Hour), NotAfter: end, RenewAt: epoch()}
	}
	before := f.Of(rows)
	if len(before.Expiries) < n/2 {
		t.Fatalf("%d expire", len(before.Expiries))
	}
	if expired := before.ExpiredBy(f.Outage.To); expired >= len(before.Expiries) {
		t.Errorf("all %d expire during the outage", expired)
	}
	bridge, after := f.Bridge(rows)
	if len(after.Expiries) > 0 || len(bridge) > len(before.Expiries) {
		t.Errorf("%d are renewed before, of %d; %d expire all the same", len(bridge), len(before.Expiries), len(after.Expiries))
	}
	if len(bridge) < before.ExpiredBy(f.Outage.To) || !bridge[0].NotAfter.Equal(before.Expiries[0].At) {
		t.Errorf("%d are renewed before, from %v on", len(bridge), bridge[0].NotAfter)
	}
	// One less, and somebody expires.
	for i := range rows {
		for _, b := range bridge[:len(bridge)-1] {
			if b.Name == rows[i].Name {
				rows[i].NotBefore, rows[i].NotAfter, rows[i].RenewAt = epoch(), epoch().Add(48*time.Hour), epoch().Add(20*time.Hour)
			}
		}
	}
	if len(f.Of(rows).Expiries) == 0 {
		t.Error("more devices than needed are renewed before")
	}
}

// A certificate that lives shorter than the outage cannot be helped.
func TestBridgeTooFar(t *testing.T) {
	t.Parallel()
	f := forecast(30*time.Hour, fleet.DefaultWindow())
	rows := append(steady(20, 24*time.Hour, fleet.DefaultWindow()), steady(10, 90*24*time.Hour, fleet.DefaultWindow())...)
	for i := range rows {
		rows[i].Name = fmt.Sprint(i)
	}
	bridge, after := f.Bridge(rows)
	if len(bridge) != 20 || len(after.Expiries) != 20 {
		t.Errorf("%d are renewed before, %d expire all the same", len(bridge), len(after.Expiries))
	}
}

// Whatever the fleet: the CA's rate is kept to, nobody is asked for during the
// outage, no device expires twice, and after a bridge only those expire that it
// had renewed.
func TestForecastProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := forecast(time.Duration(rapid.IntRange(1, 100).Draw(t, "outage"))*time.Hour, fleet.DefaultWindow())
		f.Outage.From = f.Now.Add(time.Duration(rapid.IntRange(-5, 30).Draw(t, "from")) * time.Hour)
		f.Outage.To = f.Outage.To.Add(max(0, f.Outage.From.Sub(f.Now)))
		f.Bounds.CA.Rate = fleet.Rate{N: rapid.IntRange(0, 10).Draw(t, "rate"), Per: time.Hour}
		f.Bounds.Devices = rapid.IntRange(1, 4).Draw(t, "devices")
		rows := make([]renewal.Row, rapid.IntRange(0, 40).Draw(t, "n"))
		for i := range rows {
			life := time.Duration(rapid.IntRange(1, 60).Draw(t, "life")) * time.Hour
			left := time.Duration(rapid.IntRange(-120, int(life/time.Minute)).Draw(t, "left")) * time.Minute
			end := epoch().Add(left)
			rows[i] = renewal.Row{
				Name: fmt.Sprint(i), NotBefore: end.Add(-life), NotAfter: end, RenewAt: end.Add(-life / 2),
				Paused: rapid.IntRange(0, 9).Draw(t, "paused") == 0,
			}
			if rapid.Bool().Draw(t, "waits") {
				rows[i].NextAttempt = epoch().Add(time.Duration(rapid.IntRange(-5, 100).Draw(t, "next")) * time.Hour)
			}
		}
		o := f.Of(rows)
		seen := map[string]bool{}
		for i, e := range o.Expiries {
			if seen[e.Device] || !e.At.After(f.Now) || e.At.After(o.Until) || i > 0 && e.At.Before(o.Expiries[i-1].At) {
				t.Fatalf("%+v of %+v", e, o)
			}
			seen[e.Device] = true
		}
		for i, at := range o.Renewals {
			if at.Before(f.Now) || at.After(o.Until) || f.Outage.Contains(at) || i > 0 && at.Before(o.Renewals[i-1]) {
				t.Fatalf("renewal at %v, outage %v", at, f.Outage)
			}
		}
		if n, from := o.Busiest(time.Hour); !f.Bounds.CA.Rate.Unlimited() && n > f.Bounds.CA.Rate.N {
			t.Fatalf("%d renewals within an hour from %v", n, from)
		}
		bridge, after := f.Bridge(rows)
		bridged := map[string]bool{}
		for _, r := range bridge {
			if bridged[r.Name] {
				t.Fatalf("%s is renewed twice before", r.Name)
			}
			bridged[r.Name] = true
		}
		for _, e := range after.Expiries {
			if !bridged[e.Device] {
				t.Fatalf("%s expires, and was not renewed before", e.Device)
			}
		}
	})
}

func BenchmarkForecast(b *testing.B) {
	w := fleet.DefaultWindow()
	rows := steady(100_000, 24*time.Hour, w)
	f := forecast(12*time.Hour, w)
	for b.Loop() {
		f.Of(rows)
	}
}
