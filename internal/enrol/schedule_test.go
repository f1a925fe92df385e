package enrol

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSchedules(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	for _, tt := range []struct {
		class    Class
		n        int
		lifetime time.Duration
		want     time.Duration // ±20 %
	}{
		{ClassUnreachable, 1, 24 * time.Hour, time.Minute},
		{ClassUnreachable, 3, 24 * time.Hour, 4 * time.Minute},
		{ClassUnreachable, 99, 24 * time.Hour, time.Hour},
		{ClassUnreachable, 99, 730 * 24 * time.Hour, 6 * time.Hour},
		{ClassUnreachable, 1, 2 * time.Minute, 2 * time.Second},
		{ClassUnreachable, 99, 2 * time.Minute, 10 * time.Second},
		{ClassIdentity, 99, 24 * time.Hour, 4 * time.Hour},
		{ClassFull, 1, 24 * time.Hour, 5 * time.Minute},
		{ClassCAUnavail, 99, 24 * time.Hour, 15 * time.Minute},
		{ClassBusy, 99, 24 * time.Hour, 15 * time.Minute},
	} {
		seen := map[time.Duration]bool{}
		for i := range 20 {
			got := p.retry(tt.class, tt.n, fmt.Sprint("plc-", i), tt.lifetime)
			if part := float64(got) / float64(tt.want); part < 0.79 || part > 1.21 {
				t.Errorf("%s, try %d, %v: %v, want about %v", tt.class, tt.n, tt.lifetime, got, tt.want)
			}
			seen[got] = true
		}
		if len(seen) < 15 {
			t.Errorf("%s: twenty devices wait %d different times", tt.class, len(seen))
		}
	}
	for lifetime, want := range map[time.Duration]time.Duration{
		2 * time.Minute: 10 * time.Second, 12 * time.Hour: 5 * time.Minute, 24 * time.Hour: 10 * time.Minute, 9000 * time.Hour: 10 * time.Minute,
	} {
		if got := p.floor(lifetime); got != want {
			t.Errorf("floor of %v: %v", lifetime, got)
		}
	}
}

// TestLongestWait bounds every wait that is ever stored.
func TestLongestWait(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		p := DefaultPolicy()
		p.RetryFirst = time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(rt, "first"))
		p.RetryLongest = p.RetryFirst + time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(rt, "longest"))
		class := rapid.SampledFrom([]Class{ClassUnreachable, ClassIdentity, ClassFull, ClassCAUnavail, ClassBusy, ClassHook, ClassCARejected}).Draw(rt, "class")
		lifetime := time.Duration(rapid.Int64Range(int64(time.Second), int64(99*365*24*time.Hour)).Draw(rt, "lifetime"))
		got := p.retry(class, rapid.IntRange(1, 1000).Draw(rt, "n"), rapid.String().Draw(rt, "device"), lifetime)
		if got < 0 || got > p.LongestWait() {
			rt.Fatalf("%v, the bound is %v", got, p.LongestWait())
		}
	})
}
