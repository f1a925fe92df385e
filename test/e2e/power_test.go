package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/store"
)

// TestPowerCuts cuts a device's power at operations all over a renewal that
// comes over the network, on a disk that keeps any part of what was not
// synced. The device comes back with a complete pair and its identity, says
// what it has, and the next run completes what the CLM had begun: it has the
// CA issue a second time only if the device lost a key that it had not
// promised to keep.
func TestPowerCuts(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	total := func() int {
		layer := keyfiletest.New(0, keyfiletest.Scatter)
		n.restartOn(layer)
		p.renewed(n)
		return layer.Operations()
	}()
	if total < 30 {
		t.Fatalf("only %d operations", total)
	}
	const cuts = 6
	for i := range cuts {
		at := 1 + i*(total-1)/(cuts-1)
		t.Run(fmt.Sprintf("operation %d", at), func(t *testing.T) { p.powerCut(t, n, at, uint64(i)) })
	}
}

func (p *plant) powerCut(t *testing.T, n *node, at int, seed uint64) {
	t.Helper()
	ctx := context.Background()
	before := value[fleet.Device](t)(p.store.Device(ctx, n.name)).Certificate.SHA256
	layer := keyfiletest.NewScattered(at, seed)
	n.restartOn(layer)
	first := p.run(n.name)
	if !layer.Cut() {
		t.Fatal("the power was not cut")
	}
	n.restartOn(nil)
	status := value[enrol.DeviceStatus](t)(n.agent.Status(ctx, ibc.Identity{}))
	if status.Active == nil || n.agent.Identity().Name != n.name {
		t.Fatalf("after the cut: %+v", status)
	}
	report := value[agent.Report](t)(agent.Inspect(n.dir, n.clock.now()))
	if report.Active == nil || !report.KeyFits {
		t.Fatalf("after the cut: %+v", report)
	}
	if first.Outcome != enrol.OutcomeRenewed { // else it fell while the device swept up
		p.renewed(n)
	}
	if after := p.checkWhole(n); after.SHA256 == before {
		t.Error("not renewed")
	}
	history := value[store.History](t)(p.store.History(ctx, n.name, 0))
	for _, e := range history.Enrolments {
		if e.State == enrol.Failed && e.FailedBy != enrol.PartyDevice {
			t.Errorf("the enrolment failed by the %s: %s", e.FailedBy, e.LastError)
		}
	}
	if history.Device.Attempts != 0 || history.Device.Quarantined {
		t.Errorf("row %+v", history.Device)
	}
}
