package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

// died is what a cut panics with.
type died struct{}

// cutter kills the CLM's process at its n-th point: before or after an effect
// on the store, the device or the CA.
type cutter struct {
	passed, at int
	where      string
}

func (c *cutter) around(where string, effect func()) {
	c.point("before " + where)
	effect()
	c.point("after " + where)
}

func (c *cutter) point(where string) {
	c.passed++
	if c.passed == c.at {
		c.where = where
		panic(died{})
	}
}

type cutStore struct {
	*sqlite.Store
	cut *cutter
}

func (s cutStore) Commit(ctx context.Context, c enrol.Change) (err error) {
	s.cut.around("commit "+string(c.Enrolment.State), func() { err = s.Store.Commit(ctx, c) })
	return err
}

func (s cutStore) RecordDelivery(ctx context.Context, a enrol.Attempt) (err error) {
	s.cut.around("record of a delivery", func() { err = s.Store.RecordDelivery(ctx, a) })
	return err
}

type cutCA struct {
	enrol.CA
	cut *cutter
}

func (ca cutCA) Submit(ctx context.Context, s enrol.Submission) (a enrol.Answer, err error) {
	ca.cut.around("submission to the CA", func() { a, err = ca.CA.Submit(ctx, s) })
	return a, err
}

// cutDevice is the agent without a network: what the network does to an
// enrolment is tested elsewhere.
type cutDevice struct {
	agent *agent.Agent
	clm   ibc.Identity
	cut   *cutter
}

func (d cutDevice) Dial(context.Context, fleet.Device) (enrol.Device, error) { return d, nil }
func (d cutDevice) Identity() ibc.Identity                                   { return d.agent.Identity() }
func (d cutDevice) Close() error                                             { return nil }

func (d cutDevice) RequestCSR(ctx context.Context, r enrol.CSRRequest) (csr []byte, err error) {
	d.cut.around("request for a CSR", func() { csr, err = d.agent.CSR(ctx, d.clm, r) })
	return csr, err
}

func (d cutDevice) VerifyCertificate(ctx context.Context, r enrol.VerifyRequest) (v enrol.VerifyResponse, err error) {
	d.cut.around("verification", func() { v, err = d.agent.Verify(ctx, d.clm, r) })
	return v, err
}

func (d cutDevice) Activate(ctx context.Context, id enrol.ID, sha [32]byte, within time.Duration) (err error) {
	d.cut.around("activation", func() { err = d.agent.Activate(ctx, d.clm, id, sha, within) })
	return err
}

func (d cutDevice) Confirm(ctx context.Context, id enrol.ID, sha [32]byte) (err error) {
	d.cut.around("confirmation", func() { err = d.agent.Confirm(ctx, d.clm, id, sha) })
	return err
}

func (d cutDevice) Rollback(ctx context.Context, id enrol.ID, sha [32]byte) error {
	return d.agent.Rollback(ctx, d.clm, id, sha)
}

func (d cutDevice) DeliverBundle(ctx context.Context, sealed []byte) error {
	return d.agent.Bundle(ctx, d.clm, sealed)
}

func (d cutDevice) DeliverAnchors(ctx context.Context, change enrol.AnchorChange) error {
	return d.agent.Anchors(ctx, d.clm, change)
}

func (d cutDevice) Status(ctx context.Context) (s enrol.DeviceStatus, err error) {
	d.cut.around("reading the status", func() { s, err = d.agent.Status(ctx, d.clm) })
	return s, err
}

// crashed is one renewal that is killed at a cut and resumed by a new process:
// the database is opened anew. Afterwards exactly one certificate is active
// and on record, whatever the cut.
func crashed(t *testing.T, p *plant, n *node, at int, deviceRestarts bool) (cut *cutter) {
	t.Helper()
	cut = &cutter{at: at}
	clm := p.dialer.Credential.Identity()
	runner := func(cut *cutter) *enrol.Runner {
		return p.newRunner(cutStore{p.store, cut}, cutDevice{n.agent, clm, cut}, cutCA{p.scep, cut})
	}
	before := value[fleet.Device](t)(p.store.Device(context.Background(), n.name))
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(died{}) {
				panic(r)
			}
		}()
		runner(cut).Run(context.Background(), n.name, true)
	}()
	if at == 0 {
		return cut
	}
	if cut.where == "" {
		t.Fatalf("cut %d of %d was not reached", at, cut.passed)
	}
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	p.store = value[*sqlite.Store](t)(sqlite.Open(context.Background(), filepath.Join(p.dir, "inventory.db"), sqlite.Options{MustExist: true}))
	t.Cleanup(func() { p.store.Close() })
	if deviceRestarts {
		if err := n.agent.Close(); err != nil {
			t.Fatal(err)
		}
		n.open()
	}
	after := value[fleet.Device](t)(p.store.Device(context.Background(), n.name))
	if after.Certificate.SHA256 == before.Certificate.SHA256 { // else it died after the last commit
		if result := runner(&cutter{}).Run(context.Background(), n.name, true); result.Outcome != enrol.OutcomeRenewed {
			t.Fatalf("cut %s: resumed: %s: %v", cut.where, result.Outcome, result.Err)
		}
	}
	if now := p.checkWhole(n); now.SHA256 == before.Certificate.SHA256 {
		t.Errorf("cut %s: not renewed", cut.where)
	}
	return cut
}

// TestCrash kills the CLM before and after each effect of each state.
func TestCrash(t *testing.T) {
	for _, deviceRestarts := range []bool{false, true} {
		t.Run(fmt.Sprintf("device restarts %v", deviceRestarts), func(t *testing.T) {
			p := newPlant(t)
			n := p.provision("plc-1", fleet.ECDSAP256)
			n.open()
			t.Cleanup(func() { n.agent.Close() })
			p.commission(map[string]string{n.name: ""})
			// A first enrolment, then one undisturbed renewal to count the points.
			count := func() int {
				r := p.newRunner(p.store, cutDevice{n.agent, p.dialer.Credential.Identity(), &cutter{}}, p.scep)
				if result := r.Run(context.Background(), n.name, true); result.Outcome != enrol.OutcomeRenewed {
					t.Fatal(result.Err)
				}
				return crashed(t, p, n, 0, false).passed
			}
			total := count()
			if total < 18 {
				t.Fatalf("only %d points", total)
			}
			for at := 1; at <= total; at++ {
				crashed(t, p, n, at, deviceRestarts)
			}
		})
	}
}
