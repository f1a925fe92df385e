package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink/lossy"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// TestLoss: enrolments over a link that loses datagrams both ways. Each has 60
// seconds; so many of a hundred must finish.
func TestLoss(t *testing.T) {
	const enrolments, devices = 100, 20
	for _, tt := range []struct {
		rate float64
		want int
	}{{0.10, 100}, {0.30, 95}} {
		t.Run(fmt.Sprintf("%.0f %%", 100*tt.rate), func(t *testing.T) {
			p := newPlant(t)
			addresses, nodes := map[string]string{}, make([]*node, devices)
			for i := range nodes {
				n := p.provision(fmt.Sprintf("plc-%d", i), fleet.ECDSAP256)
				n.serve()
				nodes[i], addresses[n.name] = n, lossy.Start(t, n.addr, tt.rate, uint64(i))
			}
			p.commission(addresses)

			var (
				mu       sync.Mutex
				finished int
				slowest  time.Duration
				workers  sync.WaitGroup
			)
			for _, n := range nodes {
				workers.Go(func() {
					for range enrolments / devices {
						ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
						began := time.Now()
						result := p.runner.Run(ctx, n.name, true)
						cancel()
						mu.Lock()
						slowest = max(slowest, time.Since(began))
						if result.Outcome == enrol.OutcomeRenewed {
							finished++
						} else {
							t.Logf("%s: %v", n.name, result.Err)
						}
						mu.Unlock()
					}
				})
			}
			workers.Wait()
			t.Logf("%d of %d finished, the slowest took %s", finished, enrolments, slowest.Round(time.Millisecond))
			if finished < tt.want {
				t.Errorf("%d of %d finished, want %d", finished, enrolments, tt.want)
			}
			// What did not finish is resumed, and ends well.
			for _, n := range nodes {
				for try := 0; ; try++ {
					d := value[fleet.Device](t)(p.store.Device(context.Background(), n.name))
					if d.LastError == "" && d.Certificate != nil {
						break
					}
					if try == 5 {
						t.Fatalf("%s is stranded: %s", n.name, d.LastError)
					}
					p.run(n.name)
				}
				p.checkWhole(n)
			}
		})
	}
}
