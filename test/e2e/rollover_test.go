package e2e

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/labca"
)

// secondCA starts another CA, and returns a runner that enrols there.
func (p *plant) secondCA() (*labca.CA, *enrol.Runner) {
	p.t.Helper()
	first := p.ca
	defer func() { p.ca = first }()
	p.ca = value[*labca.CA](p.t)(labca.Open(filepath.Join(p.dir, "ca2"), labca.Options{
		Challenge: []byte(challenge), Now: p.caClock.now, Reissue: true,
	}))
	second := p.ca
	p.t.Cleanup(func() { second.Close() })
	server := httptest.NewServer(second.Handler())
	p.t.Cleanup(server.Close)
	runner := p.newRunner(p.store, p.dialer, p.newSCEP(server.URL+labca.Path))
	runner.CAName, runner.Deliveries, runner.Sightings = "second", p.store, p.store
	return second, runner
}

// crossSigned is the root of a CA, signed by that of the plant's.
func (p *plant) crossSigned(root *x509.Certificate) []byte {
	p.t.Helper()
	var stored struct {
		Root struct {
			Key []byte `json:"key"`
		} `json:"root"`
	}
	data := value[[]byte](p.t)(os.ReadFile(filepath.Join(p.dir, "ca", "lab-ca.json")))
	if err := json.Unmarshal(data, &stored); err != nil {
		p.t.Fatal(err)
	}
	key := value[any](p.t)(x509.ParsePKCS8PrivateKey(stored.Root.Key)).(crypto.Signer)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 << 40), Subject: root.Subject, SubjectKeyId: root.SubjectKeyId, IsCA: true, BasicConstraintsValid: true,
		NotBefore: root.NotBefore, NotAfter: root.NotAfter, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return value[[]byte](p.t)(x509.CreateCertificate(rand.Reader, template, p.ca.Root(), root.PublicKey, key))
}

// visit brings a device a change of its anchors until it fits, and returns what
// it says then.
func (p *plant) visit(n *node, change enrol.AnchorChange, fits func(enrol.Sighting) bool) (enrol.Result, enrol.Sighting) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	v := &enrol.Visitor{
		Courier: enrol.Courier{
			Store: p.store, Queue: p.store, Sightings: p.store, Dialer: p.dialer, Params: p.runner.Params, Now: time.Now, Log: quiet(),
		},
		Change: func(string) enrol.AnchorChange { return change }, Fits: fits,
	}
	result := v.Run(ctx, n.name, false)
	return result, value[enrol.Sighting](p.t)(p.store.LastSighting(ctx, n.name))
}

// A root that the old CA has signed leads a device to the new CA; a statement
// of the PKG then takes the old one away. What the device says of its anchors
// is on record each time.
func TestRolloverByCrossSignedRoot(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	second, atSecond := p.secondCA()
	ctx := context.Background()

	// Unprepared, the device refuses the second CA before a key is made.
	if result := atSecond.Run(ctx, n.name, true); result.Outcome != enrol.OutcomeFailed {
		t.Fatalf("at a CA that it does not trust: %s", result.Outcome)
	}
	bridge := p.crossSigned(second.Root())
	sum, old, root := sha256.Sum256(bridge), sha256.Sum256(p.ca.Root().Raw), sha256.Sum256(second.Root().Raw)
	result, seen := p.visit(n, enrol.AnchorChange{CrossSigned: bridge}, func(s enrol.Sighting) bool { return s.Lists(sum) })
	if result.Outcome != enrol.OutcomeDelivered || !seen.Lists(old) || seen.Serial != 0 {
		t.Fatalf("%s (%v), the device lists %x", result.Outcome, result.Err, seen.Anchors)
	}
	if result := atSecond.Run(ctx, n.name, true); result.Outcome != enrol.OutcomeRenewed {
		t.Fatalf("at the second CA: %s: %v", result.Outcome, result.Err)
	}
	p.checkWhole(n)

	set := bundle.AnchorSet{Serial: 1, Pattern: "plc-*", Anchors: [][]byte{second.Root().Raw}}
	statement, _, err := set.Marshal(p.master.Params(), p.master)
	if err != nil {
		t.Fatal(err)
	}
	result, seen = p.visit(n, enrol.AnchorChange{Statement: statement}, func(s enrol.Sighting) bool { return !s.Lists(old) })
	if result.Outcome != enrol.OutcomeDelivered || !seen.Lists(root) || seen.Lists(sum) || seen.Serial != 1 || seen.At.IsZero() {
		t.Fatalf("%s (%v), the device lists %x, serial %d", result.Outcome, result.Err, seen.Anchors, seen.Serial)
	}
	if result := atSecond.Run(ctx, n.name, true); result.Outcome != enrol.OutcomeRenewed {
		t.Fatalf("at the second CA: %s: %v", result.Outcome, result.Err)
	}
	if result := p.run(n.name); result.Outcome != enrol.OutcomeFailed {
		t.Fatalf("at the CA that was dropped: %s", result.Outcome)
	}
}

// A device that takes a change of its anchors and then lists others has not
// acknowledged it, and what it lists is on record.
func TestVisitBelievesTheList(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	set := bundle.AnchorSet{Serial: 1, Pattern: "plc-*", Anchors: [][]byte{p.ca.Root().Raw}}
	statement, _, err := set.Marshal(p.master.Params(), p.master)
	if err != nil {
		t.Fatal(err)
	}
	result, seen := p.visit(n, enrol.AnchorChange{Statement: statement}, func(s enrol.Sighting) bool { return s.Lists([32]byte{1}) })
	if result.Outcome != enrol.OutcomeFailed || seen.Serial != 1 {
		t.Errorf("%s, serial %d on record", result.Outcome, seen.Serial)
	}
}
