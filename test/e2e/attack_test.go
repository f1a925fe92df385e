package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/labca"
)

// refused runs once and wants a failure of a class that says what was wrong,
// with the active certificate the same on both sides.
func (p *plant) refused(n *node, class enrol.Class, says string) *enrol.Fault {
	p.t.Helper()
	ctx := context.Background()
	before := value[fleet.Device](p.t)(p.store.Device(ctx, n.name))
	was := value[enrol.DeviceStatus](p.t)(n.agent.Status(ctx, ibc.Identity{})).Active
	result := p.run(n.name)
	var f *enrol.Fault
	if !errors.As(result.Err, &f) || f.Class != class || !strings.Contains(f.Error(), says) {
		p.t.Errorf("%s, %v; want %s, %q", result.Outcome, result.Err, class, says)
		return &enrol.Fault{}
	}
	after := value[fleet.Device](p.t)(p.store.Device(ctx, n.name))
	if !reflect.DeepEqual(before.Certificate, after.Certificate) || before.Identity != after.Identity || before.Address != after.Address {
		p.t.Errorf("the inventory changed: %+v, then %+v", before, after)
	}
	if is := value[enrol.DeviceStatus](p.t)(n.agent.Status(ctx, ibc.Identity{})).Active; !reflect.DeepEqual(was, is) {
		p.t.Errorf("the device's certificate changed: %+v, then %+v", was, is)
	}
	return f
}

// TestAttackAnotherDeviceAnswers: somebody moves a device's address to another
// device of the same plant, with a valid identity key of its own.
func TestAttackAnotherDeviceAnswers(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	other := p.provision("plc-2", fleet.ECDSAP256)
	n.stop()
	other.addr = n.addr
	other.serve()
	n.open()
	defer n.agent.Close()
	f := p.refused(n, enrol.ClassIdentity, "plc-2")
	if !strings.Contains(f.Error(), "plc-1") || !f.Transient {
		t.Errorf("it does not name both: %v", f)
	}
}

// TestAttackForgedCLM: somebody with a PKG of his own makes himself a key for
// the CLM's name and asks a device for a CSR.
func TestAttackForgedCLM(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	forger := value[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1))
	key := value[*ibc.PrivateKey](t)(forger.Extract(p.dialer.Credential.Identity()))
	p.runner.Dialer = &coaplink.Dialer{
		Credential: value[*coaplink.Credential](t)(coaplink.NewCredential(key, rand.Reader)),
		Params:     p.dialer.Params, Random: rand.Reader,
	}
	p.refused(n, enrol.ClassIdentity, "refused")
}

// TestAttackStolenCLMKey: the CLM's key was stolen; the PKG has issued the next
// generation, and the device has seen it once. The thief is refused from then on.
func TestAttackStolenCLMKey(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	stolen := p.runner.Dialer
	p.runner.Dialer = &coaplink.Dialer{
		Credential: value[*coaplink.Credential](t)(coaplink.NewCredential(p.extract(ibc.RoleCLM, clmName, 2), rand.Reader)),
		Params:     p.dialer.Params, Random: rand.Reader,
	}
	p.renewed(n)
	p.runner.Dialer = stolen
	p.refused(n, enrol.ClassIdentity, "refused")
	n.stop()
	n.serve() // also after a restart
	p.refused(n, enrol.ClassIdentity, "refused")
}

// TestAttackStolenDeviceKey: a device was stolen and its identity issued anew,
// with the next generation, for its replacement. The thief answers with the
// earlier key.
func TestAttackStolenDeviceKey(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	p.commissionGeneration(n, 2)
	p.refused(n, enrol.ClassIdentity, "e1.g1")
}

// TestAttackHostileCA: whatever a CA answers, the device keeps a certificate
// that works and the inventory says the truth. An answer that is signed by the
// pinned CA or RA but does not fit ends the enrolment; one that anybody on the
// path could have sent counts against nobody.
func TestAttackHostileCA(t *testing.T) {
	for _, tt := range []struct {
		hostile labca.Hostile
		class   enrol.Class
		says    string
	}{
		{labca.OtherKey, enrol.ClassCAMismatch, "another key"},
		{labca.ForeignIssuer, enrol.ClassCAMismatch, "foreign issuer"},
		{labca.Expired, enrol.ClassCAMismatch, "expired"},
		{labca.Previous, enrol.ClassCAMismatch, "another key"},
		{labca.OtherNames, enrol.ClassCLMVerify, "name"},
		{labca.CACertificate, enrol.ClassCLMVerify, "CA certificate"},
		{labca.WrongNonce, enrol.ClassCAUnavail, "recipientNonce"},
		{labca.WrongTransaction, enrol.ClassCAUnavail, "transaction"},
		{labca.WrongType, enrol.ClassCAUnavail, ""},
		{labca.WrongStatus, enrol.ClassCAUnavail, ""},
		{labca.ForeignSigner, enrol.ClassCAUnavail, "not authenticated"},
		{labca.ForgedSigner, enrol.ClassCAUnavail, "not authenticated"},
		{labca.TwoSigners, enrol.ClassCAUnavail, "not authenticated"},
		{labca.OtherRecipient, enrol.ClassCAUnavail, ""},
		{labca.BadContent, enrol.ClassCAMismatch, ""},
		{labca.Tampered, enrol.ClassCAUnavail, ""},
		{labca.Truncated, enrol.ClassCAUnavail, ""},
		{labca.FailureUnder500, enrol.ClassCARejected, "badRequest"},
		{labca.Garbage, enrol.ClassCAUnavail, ""},
		{labca.Oversized, enrol.ClassCAUnavail, ""},
		{labca.Busy, enrol.ClassCAUnavail, "503"},
		{labca.Redirect, enrol.ClassCAUnavail, ""},
	} {
		t.Run(string(tt.hostile), func(t *testing.T) {
			p := newPlant(t)
			n := p.addDevice("plc-1", fleet.ECDSAP256)
			p.renewed(n)
			p.ca.SetHostile(tt.hostile)
			f := p.refused(n, tt.class, tt.says)
			attempts := value[fleet.Device](t)(p.store.Device(context.Background(), n.name)).Attempts
			if counted := tt.class != enrol.ClassCAUnavail; (attempts > 0) != counted {
				t.Errorf("%d attempts counted for %v", attempts, f)
			}
			p.ca.SetHostile(labca.Honest)
			p.renewed(n)
		})
	}
}
