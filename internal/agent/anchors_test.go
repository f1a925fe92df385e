package agent_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// stated is an anchor statement of the test's PKG.
func stated(t testing.TB, serial uint64, pattern bundle.Pattern, anchors ...[]byte) []byte {
	t.Helper()
	return statedBy(t, pkg(), serial, pattern, anchors...)
}

func statedBy(t testing.TB, master *ibc.MasterSecret, serial uint64, pattern bundle.Pattern, anchors ...[]byte) []byte {
	t.Helper()
	set := bundle.AnchorSet{Serial: serial, Pattern: pattern, Anchors: anchors}
	data, _, err := set.Marshal(master.Params(), master)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// crossSign certifies the key of a root by another CA's root key, as RFC 4210
// section 4.4 has it, after what change does to the certificate.
func (ca *authority) crossSign(t testing.TB, root *x509.Certificate, change ...func(*x509.Certificate)) []byte {
	t.Helper()
	ca.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.serial), Subject: root.Subject, IsCA: true, BasicConstraintsValid: true,
		NotBefore: date(2026), NotAfter: date(2040), KeyUsage: x509.KeyUsageCertSign,
	}
	for _, f := range change {
		f(template)
	}
	return must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, ca.root, root.PublicKey, ca.rootKey))
}

func (d *device) statement(data []byte) error {
	return d.agent.Anchors(context.Background(), d.peer, enrol.AnchorChange{Statement: data})
}

func (d *device) crossSigned(der []byte) error {
	return d.agent.Anchors(context.Background(), d.peer, enrol.AnchorChange{CrossSigned: der})
}

// wantAnchors checks the set and the serial, also after a restart and for who
// looks from outside.
func (d *device) wantAnchors(serial uint64, anchors ...[]byte) {
	d.t.Helper()
	want := bundle.AnchorHashes(anchors)
	for range 2 {
		s := d.status()
		var got []bundle.Hash
		for _, h := range s.Anchors {
			got = append(got, h)
		}
		if !slices.Equal(got, want) || s.AnchorSerial != serial {
			d.t.Fatalf("the anchors are %v, serial %d; want %v, serial %d", got, s.AnchorSerial, want, serial)
		}
		d.restart()
	}
	r := must[agent.Report](d.t)(agent.Inspect(d.cfg.Dir, date(2026)))
	if !slices.Equal(r.Anchors, want) || r.AnchorSerial != serial {
		d.t.Fatalf("seen from outside the anchors are %v, serial %d", r.Anchors, r.AnchorSerial)
	}
}

// A statement replaces the whole set: the bundle's anchors, the pinned one, an
// earlier statement's; the same again changes nothing.
func TestAnchorStatement(t *testing.T) {
	first, second := newAuthority(t, "plant"), newAuthority(t, "second")
	for _, from := range []string{"nothing", "bundle", "pinned"} {
		t.Run(from, func(t *testing.T) {
			d := newDevice(t)
			d.ca = first
			switch from {
			case "bundle":
				d.stop()
				b := newBundle(t, 2)
				b.Anchors = [][]byte{first.root.Raw}
				must[bool](t)(agent.Provision(d.cfg.Dir, nil, b))
				d.start()
				d.wantAnchors(0, first.root.Raw)
			case "pinned":
				d.enrol(1)
				d.wantAnchors(0, first.root.Raw)
			}
			both := stated(t, 5, "plc-*", first.root.Raw, second.root.Raw)
			d.ok(d.statement(both))
			d.wantAnchors(5, first.root.Raw, second.root.Raw)
			before := must[[]byte](t)(os.ReadFile(filepath.Join(d.cfg.Dir, "state.json")))
			d.ok(d.statement(both))
			if after := must[[]byte](t)(os.ReadFile(filepath.Join(d.cfg.Dir, "state.json"))); !bytes.Equal(before, after) {
				t.Error("the same statement again has changed the state")
			}
			d.enrol(2)
			d.ca = second
			active := d.enrol(3)
			d.ok(d.statement(stated(t, 6, "*", second.root.Raw)))
			d.wantAnchors(6, second.root.Raw)
			d.wantActive(active)
			d.ca = first
			_, err := d.agent.CSR(t.Context(), d.peer, d.request(4))
			wantRefusal(t, err, enrol.ProblemForbidden)
		})
	}
}

// A bundle that comes after a statement does not change the anchors.
func TestBundleAfterStatement(t *testing.T) {
	d := newDevice(t)
	second := newAuthority(t, "second")
	d.ok(d.statement(stated(t, 1, "plc-1", second.root.Raw)))
	d.stop()
	b := newBundle(t, 2)
	b.Anchors = [][]byte{d.ca.root.Raw}
	must[bool](t)(agent.Provision(d.cfg.Dir, nil, b))
	d.start()
	d.wantAnchors(1, second.root.Raw)
}

// Attack: a CLM that was broken into brings an old statement, to make the
// device trust a CA that was dropped; or a forged one under a serial in use.
func TestAttackOldAnchorStatement(t *testing.T) {
	d := newDevice(t)
	second := newAuthority(t, "second")
	old := stated(t, 7, "*", d.ca.root.Raw, second.root.Raw)
	d.ok(d.statement(old))
	d.ok(d.statement(stated(t, 8, "*", second.root.Raw)))
	wantRefusal(t, d.statement(old), enrol.ProblemConflict)
	wantRefusal(t, d.statement(stated(t, 8, "*", d.ca.root.Raw)), enrol.ProblemConflict)
	wantRefusal(t, d.statement(stated(t, 1, "*", d.ca.root.Raw)), enrol.ProblemConflict)
	d.wantAnchors(8, second.root.Raw)
}

// Attack: a statement of another PKG, one for other devices, one that somebody
// changed, one whose signature is of another kind, and what is none at all.
func TestAttackForeignAnchorStatement(t *testing.T) {
	d := newDevice(t)
	mallory := newAuthority(t, "mallory").root.Raw
	stranger := must[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1))
	good := stated(t, 1, "plc-1", d.ca.root.Raw)

	var file struct {
		Version   int             `json:"version"`
		Params    json.RawMessage `json:"params"`
		Payload   []byte          `json:"payload"`
		Signature string          `json:"signature"`
	}
	d.ok(json.Unmarshal(good, &file))
	remade := func(payload []byte, signature string) []byte {
		f := file
		f.Payload, f.Signature = payload, signature
		return must[[]byte](t)(json.Marshal(f))
	}
	changed := bytes.Replace(file.Payload, []byte(`"serial":1`), []byte(`"serial":2`), 1)
	otherKind := fmt.Sprintf("%x", must[[]byte](t)(pkg().Sign(ibc.KindManifest, file.Payload)))
	for what, tc := range map[string]struct {
		statement []byte
		problem   enrol.Problem
	}{
		"another PKG":     {statedBy(t, stranger, 9, "*", mallory), enrol.ProblemForbidden},
		"other device":    {stated(t, 9, "plc-10", mallory), enrol.ProblemForbidden},
		"other devices":   {stated(t, 9, "plc-1*.bilbao", mallory), enrol.ProblemForbidden},
		"changed":         {remade(changed, file.Signature), enrol.ProblemForbidden},
		"other kind":      {remade(file.Payload, otherKind), enrol.ProblemForbidden},
		"no signature":    {remade(file.Payload, ""), enrol.ProblemBadRequest},
		"empty":           {nil, enrol.ProblemBadRequest},
		"garbage":         {[]byte("garbage"), enrol.ProblemBadRequest},
		"another version": {bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 2`), 1), enrol.ProblemBadRequest},
		"too large":       {append(bytes.Clone(good), bytes.Repeat([]byte(" "), bundle.MaxAnchorFile)...), enrol.ProblemBadRequest},
	} {
		t.Run(what, func(t *testing.T) {
			wantRefusal(t, d.statement(tc.statement), tc.problem)
		})
	}
	d.wantAnchors(0)
}

// A root that a present anchor has cross-signed is trusted beside it, by its
// name and its key: the CLM then names the root by its self-signed form.
func TestCrossSignedRoot(t *testing.T) {
	d := newDevice(t)
	first, second, third := d.ca, newAuthority(t, "second"), newAuthority(t, "third")
	wantRefusal(t, d.crossSigned(first.crossSign(t, second.root)), enrol.ProblemForbidden) // no anchor yet
	d.enrol(1)
	bridge := first.crossSign(t, second.root)
	d.ok(d.crossSigned(bridge))
	d.wantAnchors(0, first.root.Raw, bridge)
	d.ok(d.crossSigned(bridge))
	d.ok(d.crossSigned(first.crossSign(t, second.root))) // the same root, signed once more
	d.wantAnchors(0, first.root.Raw, bridge)

	d.ca = second
	d.enrol(2)
	if ca := must[[]byte](t)(os.ReadFile(filepath.Join(d.cfg.Dir, "active", "ca.pem"))); !bytes.Contains(ca, encodePEM(second.root.Raw)) {
		t.Error("ca.pem does not hold the root as the CLM named it")
	}
	// The new anchor may name a successor too.
	next := second.crossSign(t, third.root)
	d.ok(d.crossSigned(next))
	d.wantAnchors(0, first.root.Raw, bridge, next)

	// A statement is the whole set: what was cross-signed is gone.
	d.ok(d.statement(stated(t, 1, "*", second.root.Raw)))
	d.wantAnchors(1, second.root.Raw)
	wantRefusal(t, d.crossSigned(successor(t, first)), enrol.ProblemForbidden)
}

// successor is a new root, cross-signed by a CA.
func successor(t *testing.T, from *authority) []byte {
	return from.crossSign(t, newAuthority(t, "fourth").root)
}

func encodePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// A root that was cross-signed counts no longer than the anchor that did it:
// a later bundle without that anchor takes both away.
func TestCrossSignedFallsWithItsAnchor(t *testing.T) {
	d := newDevice(t)
	provide := func(generation uint32, anchor []byte) {
		d.stop()
		b := newBundle(t, generation)
		b.Anchors = [][]byte{anchor}
		must[bool](t)(agent.Provision(d.cfg.Dir, nil, b))
		d.start()
	}
	provide(2, d.ca.root.Raw)
	bridge := d.ca.crossSign(t, newAuthority(t, "second").root)
	d.ok(d.crossSigned(bridge))
	d.wantAnchors(0, d.ca.root.Raw, bridge)
	other := newAuthority(t, "other").root.Raw
	provide(3, other)
	d.wantAnchors(0, other)
}

// Attack: roots that no anchor has named its successor, that an anchor must
// not name, or that are none.
func TestAttackForgedCrossSignedRoot(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	mallory, root := newAuthority(t, "mallory"), newAuthority(t, "second").root
	namesake := newAuthority(t, "plant") // the anchor's name, another key
	weak := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	broken := d.ca.crossSign(t, root)
	broken[len(broken)-1] ^= 1
	for what, tc := range map[string]struct {
		der     []byte
		problem enrol.Problem
	}{
		"self-signed":       {mallory.root.Raw, enrol.ProblemForbidden},
		"by another":        {mallory.crossSign(t, root), enrol.ProblemForbidden},
		"by a namesake":     {namesake.crossSign(t, root), enrol.ProblemForbidden},
		"by the issuing CA": {issuedCA(t, d.ca, root), enrol.ProblemForbidden},
		"changed":           {broken, enrol.ProblemForbidden},
		"a device's": {d.ca.crossSign(t, root, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
		}), enrol.ProblemBadRequest},
		"no signer of certificates": {d.ca.crossSign(t, root, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageCRLSign
		}), enrol.ProblemBadRequest},
		"unknown critical extension": {d.ca.crossSign(t, root, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), enrol.ProblemBadRequest},
		"the anchor's own key": {d.ca.crossSign(t, d.ca.root, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "alias"}
		}), enrol.ProblemForbidden},
		"a weak key": {d.ca.crossSign(t, &x509.Certificate{Subject: root.Subject, PublicKey: &weak.PublicKey}), enrol.ProblemBadRequest},
		"too large": {d.ca.crossSign(t, root, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: make([]byte, bundle.MaxAnchorSize)}}
		}), enrol.ProblemBadRequest},
		"garbage": {[]byte("garbage"), enrol.ProblemBadRequest},
	} {
		t.Run(what, func(t *testing.T) { wantRefusal(t, d.crossSigned(tc.der), tc.problem) })
	}
	d.wantAnchors(0, d.ca.root.Raw)
}

// issuedCA is a CA certificate for a root's name and key below the issuing CA,
// which is no anchor.
func issuedCA(t testing.TB, ca *authority, root *x509.Certificate) []byte {
	below := *ca
	below.root, below.rootKey = ca.issuing, ca.issuingKey
	return below.crossSign(t, root)
}

// Attack: an anchor that is held to names or to a path length is made to name
// a successor that would be free of them.
func TestAttackLimitedAnchorNamesSuccessor(t *testing.T) {
	root := newAuthority(t, "second").root
	limit := func(change func(*x509.Certificate)) *authority {
		ca := newAuthority(t, "plant")
		key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "limited"}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: date(2020), NotAfter: date(2040), KeyUsage: x509.KeyUsageCertSign,
		}
		change(template)
		der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, crypto.Signer(key)))
		ca.root, ca.rootKey = must[*x509.Certificate](t)(x509.ParseCertificate(der)), key
		return ca
	}
	named := limit(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"plant"} })
	short := limit(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	two := limit(func(c *x509.Certificate) { c.MaxPathLen = 2 })
	pathOf := func(n int) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 }
	}
	d := newDevice(t)
	d.ok(d.statement(stated(t, 1, "*", named.root.Raw, short.root.Raw, two.root.Raw)))
	for what, der := range map[string][]byte{
		"names":          named.crossSign(t, root),
		"no CA below":    short.crossSign(t, root, pathOf(0)),
		"no path length": two.crossSign(t, root),
		"a longer path":  two.crossSign(t, root, pathOf(2)),
	} {
		t.Run(what, func(t *testing.T) { wantRefusal(t, d.crossSigned(der), enrol.ProblemForbidden) })
	}
	d.ok(d.crossSigned(two.crossSign(t, root, pathOf(1))))
}

// Attack: an anchor's key floods the device with successors.
func TestAttackManyCrossSignedRoots(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	anchors := [][]byte{d.ca.root.Raw}
	for len(anchors) < bundle.MaxAnchors {
		anchors = append(anchors, successor(t, d.ca))
		d.ok(d.crossSigned(anchors[len(anchors)-1]))
	}
	wantRefusal(t, d.crossSigned(successor(t, d.ca)), enrol.ProblemConflict)
	d.wantAnchors(0, anchors...)
}

// Attack: a certificate of a CA that is dropped is staged before the statement
// and activated after it.
func TestAttackStagedOfDroppedCA(t *testing.T) {
	d := newDevice(t)
	first, second := d.ca, newAuthority(t, "second")
	active := d.enrol(1)
	sha := d.stage(2)
	d.ok(d.statement(stated(t, 1, "*", second.root.Raw)))
	wantRefusal(t, d.activate(2, sha, time.Hour), enrol.ProblemUnverified)
	d.wantActive(active) // nobody takes the present certificate away
	_, err := d.verify(2, first.issue(t, d.csr(2)))
	wantRefusal(t, err, enrol.ProblemUnverified)
	d.ca = second
	d.enrol(3)
}

// Attack: the CLM names one trusted CA in the request and brings a certificate
// of another, so that services present a chain that does not fit their CA file.
func TestAttackCertificateOfOtherAnchor(t *testing.T) {
	d := newDevice(t)
	first, second := d.ca, newAuthority(t, "second")
	d.ok(d.statement(stated(t, 1, "*", first.root.Raw, second.root.Raw)))
	csr := d.csr(1) // names the first
	_, err := d.verify(1, second.issue(t, csr))
	wantRefusal(t, err, enrol.ProblemUnverified)
	must[enrol.VerifyResponse](t)(d.verify(1, first.issue(t, csr)))
}

// Attack: the CLM names as CA a certificate of its own making that has an
// anchor's name and key, without the anchor's signature.
func TestAttackImitatedAnchor(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	mallory := newAuthority(t, "mallory")
	imitation := mallory.crossSign(t, d.ca.root)
	req := d.request(2)
	req.CA, req.CAHash = imitation, sha256.Sum256(imitation)
	_, err := d.agent.CSR(t.Context(), d.peer, req)
	wantRefusal(t, err, enrol.ProblemForbidden)
}

// State files of the release before know no statements.
func TestEarlierStateFile(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	var st map[string]any
	d.ok(json.Unmarshal(must[[]byte](t)(os.ReadFile(filepath.Join(d.cfg.Dir, "state.json"))), &st))
	for _, key := range []string{"anchor_statement", "cross_signed"} {
		if _, ok := st[key]; ok {
			t.Errorf("a device without statement has %s in its state", key)
		}
	}
}

// FuzzAnchors: what a CLM brings never makes the agent panic, and no set is
// taken that the PKG did not state or an anchor did not sign.
func FuzzAnchors(f *testing.F) {
	d := newDevice(f, inMemory(f))
	d.enrol(1)
	second := newAuthority(f, "second")
	statement, bridge := stated(f, 1, "plc-1", d.ca.root.Raw), d.ca.crossSign(f, second.root)
	known := []bundle.Hash{sha256.Sum256(d.ca.root.Raw), sha256.Sum256(bridge)}
	f.Add(statement, false)
	f.Add(bridge, true)
	f.Add([]byte(`{"version":1,"payload":"e30=","signature":""}`), false)
	f.Add(second.root.Raw, true)
	f.Fuzz(func(t *testing.T, data []byte, root bool) {
		change := enrol.AnchorChange{Statement: data}
		if root {
			change = enrol.AnchorChange{CrossSigned: data}
		}
		_ = d.agent.Anchors(t.Context(), d.peer, change)
		s, err := d.agent.Status(t.Context(), d.peer)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range s.Anchors {
			if !slices.Contains(known, bundle.Hash(h)) {
				t.Fatalf("it trusts %x", h)
			}
		}
	})
}
