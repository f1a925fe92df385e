package fleet_test

import (
	"errors"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		rate     fleet.Rate
		interval time.Duration
		back     string
	}{
		"":       {fleet.Rate{}, 0, "0"},
		"0":      {fleet.Rate{}, 0, "0"},
		"100/h":  {fleet.Rate{N: 100, Per: time.Hour}, 36 * time.Second, "100/h"},
		"10/m":   {fleet.Rate{N: 10, Per: time.Minute}, 6 * time.Second, "10/m"},
		"5/s":    {fleet.Rate{N: 5, Per: time.Second}, 200 * time.Millisecond, "5/s"},
		"2000/d": {fleet.Rate{N: 2000, Per: 24 * time.Hour}, 43200 * time.Millisecond, "2000/d"},
		"30/10m": {fleet.Rate{N: 30, Per: 10 * time.Minute}, 20 * time.Second, "30/10m"},
		"7/60m":  {fleet.Rate{N: 7, Per: time.Hour}, time.Hour/7 + 1, "7/h"},
	} {
		got, err := fleet.ParseRate(text)
		if err != nil || got != want.rate || got.Interval() != want.interval || got.String() != want.back {
			t.Errorf("%q: %+v, %v, interval %v", text, got, err, got.Interval())
		}
	}
	for _, bad := range []string{"100", "/h", "100/", "0/h", "-1/h", "1.5/h", "100/w", "100/0h", "100/-1h", "100/h/h", "100 /h", "+1/h", "01/h", "1000001/h", "1/367d", "1/99999999999999999999d", "1/1.5h"} {
		if got, err := fleet.ParseRate(bad); !errors.Is(err, fleet.ErrRate) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	f.Add("100/h")
	f.Add("30/10m")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := fleet.ParseRate(text)
		if err != nil {
			return
		}
		if back, err := fleet.ParseRate(r.String()); err != nil || back != r {
			t.Errorf("%q: %+v becomes %+v, %v", text, r, back, err)
		}
		if !r.Unlimited() && r.Interval() <= 0 {
			t.Errorf("%q: interval %v", text, r.Interval())
		}
	})
}
