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
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

// memoryDir is a temporary directory for tests that account for what is durable
// themselves: in memory where there is such a file system.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "edgeclm-agent-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// inMemory spares the disk.
func inMemory(t testing.TB) func(*agent.Config) {
	return func(c *agent.Config) {
		c.Dir, c.Layer = filepath.Join(memoryDir(t), "agent"), keyfiletest.New(0, keyfiletest.Kill)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// pkg is the PKG of all tests: its set-up costs a G2 multiplication.
var pkg = sync.OnceValue(func() *ibc.MasterSecret {
	master, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		panic(err)
	}
	return master
})

func clm(name string) ibc.Identity {
	return ibc.Identity{Role: ibc.RoleCLM, Name: name, Epoch: 1, Generation: 1}
}

// newBundle is what the PKG issued to plc-1.
func newBundle(t testing.TB, generation uint32) *bundle.Bundle {
	id := ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: generation}
	key := must[*ibc.PrivateKey](t)(pkg().Extract(id))
	return &bundle.Bundle{
		Identity: id, Params: pkg().Params(), Key: key,
		Peers: []bundle.Peer{{Name: "clm-1", Epoch: 1, Generation: 1}, {Name: "clm-2", Epoch: 1, Generation: 3}},
		Names: []fleet.Name{
			{Kind: fleet.KindCN, Value: "plc-1"}, {Kind: fleet.KindDNS, Value: "plc-1.plant"},
			{Kind: fleet.KindIP, Value: "192.0.2.7"}, {Kind: fleet.KindURI, Value: "urn:plant:plc-1"},
		},
	}
}

// authority is a CA of two tiers.
type authority struct {
	root, issuing       *x509.Certificate
	rootKey, issuingKey crypto.Signer
	serial              int64
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	ca := &authority{serial: 100}
	make := func(cn string, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
		key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: date(2020), NotAfter: date(2040), KeyUsage: x509.KeyUsageCertSign,
		}
		if parent == nil {
			parent, parentKey = template, key
		}
		der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey))
		return must[*x509.Certificate](t)(x509.ParseCertificate(der)), key
	}
	ca.root, ca.rootKey = make(name+" root", nil, nil)
	ca.issuing, ca.issuingKey = make(name+" issuing", ca.root, ca.rootKey)
	return ca
}

// inJune is when the certificates are valid.
func inJune() time.Time { return date(2026).AddDate(0, 5, 0) }

func date(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }

// issue signs the certificate that a CSR asks for, valid in 2026, after what
// change does to it, and returns it with its issuer.
func (ca *authority) issue(t testing.TB, csr []byte, change ...func(*x509.Certificate)) [][]byte {
	t.Helper()
	r := must[*x509.CertificateRequest](t)(enrol.ParseCSR(csr))
	return ca.sign(t, r.PublicKey, r.Subject, append([]func(*x509.Certificate){func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses, c.URIs = r.DNSNames, r.IPAddresses, r.URIs
	}}, change...)...)
}

func (ca *authority) sign(t testing.TB, key crypto.PublicKey, subject pkix.Name, change ...func(*x509.Certificate)) [][]byte {
	t.Helper()
	ca.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.serial), Subject: subject, NotBefore: date(2026), NotAfter: date(2027),
	}
	for _, f := range change {
		f(template)
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, ca.issuing, key, ca.issuingKey))
	return [][]byte{der, ca.issuing.Raw}
}

// device is an agent under test and the CLM that talks to it.
type device struct {
	t     testing.TB
	cfg   agent.Config
	agent *agent.Agent
	ca    *authority
	peer  ibc.Identity
}

// newDevice provisions and starts an agent.
func newDevice(t testing.TB, change ...func(*agent.Config)) *device {
	t.Helper()
	d := &device{t: t, ca: newAuthority(t, "plant"), peer: clm("clm-1")}
	d.cfg = agent.Config{
		Dir: filepath.Join(t.TempDir(), "agent"), Version: "test",
		Now: inJune,
	}
	for _, f := range change {
		f(&d.cfg)
	}
	must[bool](t)(agent.Provision(d.cfg.Dir, d.cfg.Layer, newBundle(t, 1)))
	d.start()
	t.Cleanup(d.stop)
	return d
}

func (d *device) start() {
	d.t.Helper()
	d.agent = must[*agent.Agent](d.t)(agent.Open(d.cfg))
}

func (d *device) stop() {
	d.t.Helper()
	if err := d.agent.Close(); err != nil {
		d.t.Error(err)
	}
}

func (d *device) restart() {
	d.t.Helper()
	d.stop()
	d.start()
}

func id(n byte) enrol.ID { return enrol.ID{0: 0xed, 15: n} }

// request is a CSR request without choices.
func (d *device) request(n byte) enrol.CSRRequest {
	return enrol.CSRRequest{Enrolment: id(n), CA: d.ca.root.Raw, CAHash: sha256.Sum256(d.ca.root.Raw)}
}

func (d *device) csr(n byte) []byte {
	d.t.Helper()
	return must[[]byte](d.t)(d.agent.CSR(context.Background(), d.peer, d.request(n)))
}

func (d *device) verify(n byte, certificates [][]byte) (enrol.VerifyResponse, error) {
	return d.agent.Verify(context.Background(), d.peer, enrol.VerifyRequest{
		Enrolment: id(n), Nonce: [enrol.NonceSize]byte{n, 1}, Certificates: certificates,
	})
}

// stage brings an enrolment to the point where its certificate is staged.
func (d *device) stage(n byte) [32]byte {
	d.t.Helper()
	v := must[enrol.VerifyResponse](d.t)(d.verify(n, d.ca.issue(d.t, d.csr(n))))
	return v.Certificate
}

func (d *device) activate(n byte, sha [32]byte, within time.Duration) error {
	return d.agent.Activate(context.Background(), d.peer, id(n), sha, within)
}

func (d *device) confirm(n byte, sha [32]byte) error {
	return d.agent.Confirm(context.Background(), d.peer, id(n), sha)
}

func (d *device) rollback(n byte, sha [32]byte) error {
	return d.agent.Rollback(context.Background(), d.peer, id(n), sha)
}

// enrol carries an enrolment through and returns its certificate's hash.
func (d *device) enrol(n byte) [32]byte {
	d.t.Helper()
	sha := d.stage(n)
	d.ok(d.activate(n, sha, time.Hour))
	d.ok(d.confirm(n, sha))
	return sha
}

func (d *device) status() enrol.DeviceStatus {
	d.t.Helper()
	return must[enrol.DeviceStatus](d.t)(d.agent.Status(context.Background(), d.peer))
}

func (d *device) ok(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// wantRefusal checks that err is a refusal of a kind.
func wantRefusal(t testing.TB, err error, problem enrol.Problem) *enrol.DeviceError {
	t.Helper()
	var refusal *enrol.DeviceError
	if !errors.As(err, &refusal) || refusal.Problem != problem {
		t.Fatalf("got %v, want the refusal %q", err, problem)
	}
	if refusal.Detail == "" || len(refusal.Detail) > 256 {
		t.Errorf("the refusal says %q", refusal.Detail)
	}
	return refusal
}

// wantActive checks that a certificate is the active one, in the status and
// behind the link, with its own key beside it. The zero hash is for none.
func (d *device) wantActive(want [32]byte) {
	d.t.Helper()
	var got [32]byte
	if s := d.status(); s.Active != nil {
		got = s.Active.SHA256
	}
	if got != want {
		d.t.Errorf("the active certificate is %x, want %x", got[:4], want[:4])
	}
	if linked := linkedPair(d.t, d.cfg.Dir); linked != want {
		d.t.Errorf("the link leads to certificate %x, want %x", linked[:4], want[:4])
	}
}

// linkedPair reads the pair behind the link as a service would, checks that it
// is complete and matches, and returns the certificate's hash; zero if there
// is no link.
func linkedPair(t testing.TB, dir string) [32]byte {
	t.Helper()
	active := filepath.Join(dir, "active")
	if _, err := os.Lstat(active); errors.Is(err, os.ErrNotExist) {
		return [32]byte{}
	}
	return completePair(t, active)
}

// checkPairs checks every pair that has a certificate, but for a pending one
// that does not count as verified.
func checkPairs(t testing.TB, dir string, s enrol.DeviceStatus) {
	t.Helper()
	pairs := must[[]string](t)(filepath.Glob(filepath.Join(dir, "pairs", "*", "cert.pem")))
	for _, p := range pairs {
		name := filepath.Base(filepath.Dir(p))
		if s.Staged == nil && s.Enrolment != nil && s.Enrolment.String() == name && linkTarget(dir) != name {
			continue
		}
		completePair(t, filepath.Dir(p))
	}
}

// linkTarget returns the name of the active pair, "." if there is none.
func linkTarget(dir string) string {
	target, _ := os.Readlink(filepath.Join(dir, "active"))
	return filepath.Base(target)
}

// completePair checks that a pair is complete and matches, and returns the
// certificate's hash.
func completePair(t testing.TB, dir string) [32]byte {
	t.Helper()
	read := func(name string) []byte { return must[[]byte](t)(os.ReadFile(filepath.Join(dir, name))) }
	key := parseKey(t, read("key.pem"))
	block, rest := pem.Decode(read("cert.pem"))
	if block == nil || len(rest) > 0 {
		t.Fatal("cert.pem does not hold exactly one certificate")
	}
	leaf := must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
	if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey) {
		t.Fatal("key.pem and cert.pem do not match")
	}
	if first, _ := pem.Decode(read("chain.pem")); first == nil || !bytes.Equal(first.Bytes, leaf.Raw) {
		t.Fatal("chain.pem does not begin with the certificate of cert.pem")
	}
	if anchor, _ := pem.Decode(read("ca.pem")); anchor == nil {
		t.Fatal("ca.pem holds no certificate")
	}
	return sha256.Sum256(leaf.Raw)
}

func parseKey(t testing.TB, data []byte) crypto.Signer {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatal("key.pem is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}
