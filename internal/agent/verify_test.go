package agent_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// receipt is what a CLM makes of a response to device.verify.
func (d *device) receipt(n byte, v enrol.VerifyResponse) enrol.Receipt {
	return enrol.Receipt{
		Identity: d.agent.Identity(), Nonce: [enrol.NonceSize]byte{n, 1},
		Possession: v.Possession, Statement: v.Statement, Certificate: v.Certificate,
	}
}

// Whoever has the PKG's parameters can check what the device signed, for each
// kind of key; the same certificate again is proved again, staged or active.
func TestVerifyProves(t *testing.T) {
	d := newDevice(t, lab)
	for i, algorithm := range fleet.KeyAlgorithms() {
		n := byte(i + 1)
		req := d.request(n)
		req.Key = algorithm
		certificates := d.ca.issue(t, must[[]byte](t)(d.agent.CSR(t.Context(), d.peer, req)))
		leaf := must[*x509.Certificate](t)(x509.ParseCertificate(certificates[0]))
		prove := func() {
			t.Helper()
			v := must[enrol.VerifyResponse](t)(d.verify(n, certificates))
			if err := enrol.CheckReceipt(pkg().Params(), id(n), leaf, d.receipt(n, v)); err != nil {
				t.Errorf("%s: %v", algorithm, err)
			}
		}
		prove()
		prove()
		d.restart()
		prove()
		if s := d.status(); s.Staged == nil || s.Staged.SHA256 != sha256.Sum256(leaf.Raw) || s.Verification <= 0 || s.KeyAndCSR <= 0 {
			t.Errorf("%s: after the verification the status is %+v", algorithm, s)
		}
		d.ok(d.activate(n, sha256.Sum256(leaf.Raw), time.Hour))
		prove()
		d.ok(d.confirm(n, sha256.Sum256(leaf.Raw)))
		prove()
	}
}

func TestVerifyRefusals(t *testing.T) {
	d := newDevice(t)
	first := d.csr(1)
	active := d.enrol(1)
	csr := d.csr(2)
	foreign := newAuthority(t, "plant") // the same names, other keys
	otherKey := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	good := d.ca.issue(t, csr)
	damaged := bytes.Clone(good[0])
	damaged[len(damaged)-1] ^= 1
	for what, certificates := range map[string][][]byte{
		"none":            nil,
		"garbage":         {[]byte("garbage")},
		"another key":     d.ca.sign(t, &otherKey.PublicKey, pkix.Name{CommonName: "plc-1"}),
		"foreign CA":      foreign.issue(t, csr),
		"no issuer":       good[:1],
		"damaged":         {damaged, good[1]},
		"twice":           {good[0], d.ca.issue(t, csr)[0], good[1]},
		"other name":      d.ca.issue(t, csr, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "plc-2"} }),
		"additional name": d.ca.issue(t, csr, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "plc-2.plant") }),
		"missing name":    d.ca.issue(t, csr, func(c *x509.Certificate) { c.IPAddresses = []net.IP{} }),
		"CA":              d.ca.issue(t, csr, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }),
		"too many":        append(bytes.SplitN(bytes.Repeat([]byte("x,"), 9), []byte(","), 9), good...),
	} {
		t.Run(what, func(t *testing.T) {
			_, err := d.verify(2, certificates)
			r := wantRefusal(t, err, enrol.ProblemUnverified)
			if s := d.status(); s.Staged != nil || s.LastError == "" {
				t.Errorf("after the refusal %q the status is %+v", r.Detail, s)
			}
		})
	}
	d.wantActive(active)
	_, err := d.verify(9, good)
	wantRefusal(t, err, enrol.ProblemUnknown)
	must[enrol.VerifyResponse](t)(d.verify(2, good))

	// For the active enrolment, no other certificate counts.
	_, err = d.verify(1, good)
	wantRefusal(t, err, enrol.ProblemUnverified)
	_, err = d.verify(1, d.ca.issue(t, first))
	wantRefusal(t, err, enrol.ProblemConflict)
}

// Another certificate for the same CSR replaces the staged one.
func TestRestaged(t *testing.T) {
	d := newDevice(t)
	csr := d.csr(1)
	first := must[enrol.VerifyResponse](t)(d.verify(1, d.ca.issue(t, csr)))
	second := must[enrol.VerifyResponse](t)(d.verify(1, d.ca.issue(t, csr)))
	wantRefusal(t, d.activate(1, first.Certificate, 0), enrol.ProblemConflict)
	d.ok(d.activate(1, second.Certificate, 0))
	d.wantActive(second.Certificate)
}

// No date is a reason to refuse, whatever the device's clock says: an expired
// certificate and one of the future are staged. What the device verified is
// the lower bound of its time, and what ended before it counts as expired.
func TestNeverRefusedOnTime(t *testing.T) {
	now := date(1970)
	d := newDevice(t, func(c *agent.Config) { c.Now = func() time.Time { return now } })
	if s := d.status(); s.Clock != enrol.ClockPlausible {
		t.Errorf("without any certificate the clock is %s", s.Clock)
	}
	dates := func(from, to int) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = date(from), date(to) }
	}
	for i, c := range []struct {
		from, to, now int
		expired       bool
		clock         enrol.ClockState
	}{
		{2030, 2031, 1970, false, enrol.ClockBehind},
		{2021, 2022, 1970, true, enrol.ClockBehind}, // before the bound of 2030
		{2029, 2032, 2099, true, enrol.ClockPlausible},
		{2090, 2091, 2030, false, enrol.ClockBehind},
		{2030, 2080, 2031, true, enrol.ClockBehind}, // before the bound of 2090
	} {
		n := byte(i + 1)
		now = date(c.now)
		must[enrol.VerifyResponse](t)(d.verify(n, d.ca.issue(t, d.csr(n), dates(c.from, c.to))))
		s := d.status()
		if s.Staged.Expired != c.expired || s.Clock != c.clock || !s.Time.Equal(now) {
			t.Errorf("%+v: the status is %+v, %s", c, *s.Staged, s.Clock)
		}
		d.ok(d.activate(n, s.Staged.SHA256, 0))
		d.restart()
		if s := d.status(); s.Active.Expired != c.expired || s.Clock != c.clock {
			t.Errorf("%+v: after a restart the status is %+v, %s", c, *s.Active, s.Clock)
		}
	}
}

// Trust anchors of the bundle go before the CA that a CLM names, which may
// then be an issuer below them.
func TestBundleAnchors(t *testing.T) {
	ca := newAuthority(t, "plant")
	d := newDevice(t)
	d.ca = ca
	d.stop()
	b := newBundle(t, 2)
	b.Anchors = [][]byte{newAuthority(t, "spare").root.Raw, ca.root.Raw}
	must[bool](t)(agent.Provision(d.cfg.Dir, nil, b))
	d.start()

	req := d.request(1)
	req.CA, req.CAHash = ca.issuing.Raw, sha256.Sum256(ca.issuing.Raw)
	csr := must[[]byte](t)(d.agent.CSR(t.Context(), d.peer, req))
	// The CLM sends the chain below what it calls the anchor: nothing.
	v := must[enrol.VerifyResponse](t)(d.verify(1, ca.issue(t, csr)[:1]))
	d.ok(d.activate(1, v.Certificate, 0))
	d.wantActive(v.Certificate)
	if got := countCertificates(t, filepath.Join(d.cfg.Dir, "active", "chain.pem")); got != 2 {
		t.Errorf("the chain has %d certificates, want the device's and the issuing CA's", got)
	}
	if s := d.status(); len(s.Anchors) != 2 {
		t.Errorf("the status lists %d anchors, want the bundle's two", len(s.Anchors))
	}
	d.ca = newAuthority(t, "foreign")
	_, err := d.agent.CSR(t.Context(), d.peer, d.request(2))
	wantRefusal(t, err, enrol.ProblemForbidden)

	// A later bundle that names no anchors takes none away.
	d.stop()
	must[bool](t)(agent.Provision(d.cfg.Dir, nil, newBundle(t, 3)))
	d.start()
	_, err = d.agent.CSR(t.Context(), d.peer, d.request(2))
	wantRefusal(t, err, enrol.ProblemForbidden)
}

func countCertificates(t *testing.T, path string) int {
	t.Helper()
	return bytes.Count(must[[]byte](t)(os.ReadFile(path)), []byte("BEGIN CERTIFICATE"))
}

// The first confirmation pins the CA; neither the CSR request nor the
// activation does.
func TestAnchorPinnedAtConfirmation(t *testing.T) {
	d := newDevice(t)
	first := d.ca
	sha := d.stage(1)
	d.ok(d.activate(1, sha, time.Hour))
	d.ca = newAuthority(t, "second")
	d.csr(2)
	if s := d.status(); len(s.Anchors) != 0 {
		t.Fatal("an anchor is pinned before the confirmation")
	}
	d.ok(d.confirm(1, sha))
	if s := d.status(); len(s.Anchors) != 1 || s.Anchors[0] != sha256.Sum256(first.root.Raw) {
		t.Fatalf("the pinned anchors are %x", s.Anchors)
	}
	_, err := d.verify(2, d.ca.issue(t, d.csr(2)))
	wantRefusal(t, err, enrol.ProblemUnverified)
	d.restart()
	_, err = d.agent.CSR(t.Context(), d.peer, d.request(3))
	wantRefusal(t, err, enrol.ProblemForbidden)
}

// An activation that is final at once is a confirmation.
func TestAnchorPinnedByFinalActivation(t *testing.T) {
	d := newDevice(t)
	d.ok(d.activate(1, d.stage(1), 0))
	if s := d.status(); len(s.Anchors) != 1 || s.Anchors[0] != sha256.Sum256(d.ca.root.Raw) {
		t.Errorf("the pinned anchors are %x", s.Anchors)
	}
}

// FuzzVerify: no certificates make the agent panic, and nothing but the CA's
// own is staged. The fuzzer changes one byte of a good answer and adds to it.
func FuzzVerify(f *testing.F) {
	d := newDevice(f, inMemory(f))
	good := d.ca.issue(f, d.csr(1))
	f.Add(uint16(0), byte(0), []byte(nil))
	f.Add(uint16(3), byte(1), good[1])
	f.Add(uint16(200), byte(0x80), newAuthority(f, "foreign").root.Raw)
	f.Add(uint16(len(good[0])+1), byte(1), []byte{0x30, 0x03, 0x02, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, at uint16, change byte, extra []byte) {
		leaf, issuing := bytes.Clone(good[0]), bytes.Clone(good[1])
		if n := int(at); n < len(leaf) {
			leaf[n] ^= change
		} else if n -= len(leaf); n < len(issuing) {
			issuing[n] ^= change
		}
		certificates := [][]byte{leaf, issuing}
		if len(extra) > 0 {
			certificates = append(certificates, extra)
		}
		v, err := d.verify(1, certificates)
		if err == nil && v.Certificate != sha256.Sum256(good[0]) {
			t.Fatal("it staged a certificate that the CA did not issue")
		}
		if err != nil && change == 0 && len(extra) == 0 {
			t.Fatal(err)
		}
	})
}
