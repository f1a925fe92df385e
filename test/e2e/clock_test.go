package e2e

import (
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// TestWrongClocks: a wrong clock anywhere strands nobody. Where the CLM's own
// clock is so wrong that no certificate can be judged, the work waits, counts
// against nobody, and is finished as soon as the clock is right.
func TestWrongClocks(t *testing.T) {
	right := time.Now()
	in2099, in1970 := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(1000, 0)
	for name, tt := range map[string]struct {
		clm, device, ca time.Time
		waits           bool
	}{
		"CLM in 2099":               {in2099, right, right, true},
		"CLM in 1970":               {in1970, right, right, false},
		"device in 1970":            {right, in1970, right, false},
		"device in 2099":            {right, in2099, right, false},
		"CA an hour ahead":          {right, right, right.Add(time.Hour), false},
		"CA an hour behind":         {right, right, right.Add(-time.Hour), false},
		"all three, all directions": {in2099, in1970, right.Add(time.Hour), true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			n := p.provision("plc-1", fleet.ECDSAP256)
			p.clmClock.set(tt.clm)
			n.clock.set(tt.device)
			p.caClock.set(tt.ca)
			n.serve()
			p.commission(map[string]string{n.name: n.addr})
			if tt.waits {
				result := p.run(n.name)
				if result.Outcome != enrol.OutcomePending {
					t.Fatalf("%s: %v", result.Outcome, result.Err)
				}
				p.clmClock.set(time.Now())
			}
			p.renewed(n)
			p.renewed(n)
		})
	}
}
