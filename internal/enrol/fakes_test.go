package enrol_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// killed is what a cut panics with: the process dies there.
type killed struct{}

// world is a CLM, one device and one CA, without network and disk. A cut kills
// the process at the n-th point, counted over the effects of all three.
type world struct {
	t      *testing.T
	now    time.Time
	master *ibc.MasterSecret
	device *model
	ca     *fakeCA
	prober *prober
	store  enrol.Store
	queue  enrol.DeliveryStore
	runner *enrol.Runner

	points int // passed so far
	cut    int // the point that kills; 0: none
}

func (w *world) point() {
	w.points++
	if w.points == w.cut {
		panic(killed{})
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

// model is a device as its specification has it. What it holds survives the
// death of the CLM's process.
type model struct {
	w        *world
	key      *ibc.PrivateKey
	pending  *slot
	active   *slot
	previous *slot

	// Faults to show, each once unless said otherwise.
	refuse      map[string]error // by call; stays
	hookFails   int
	tamperProof bool
	calls       map[string]int
	dials       int
	bundles     map[string]*ibc.PrivateKey // that it accepts, by their bytes
	deaf        bool                       // takes a bundle, but gives no answer
	stubborn    bool                       // takes a bundle, but goes on as before
	confirmed   bool
	endpoint    string // where TLS serves the certificate
	lastError   string
}

type slot struct {
	id          enrol.ID
	key         *ecdsa.PrivateKey
	csr         []byte
	certificate []byte
	anchor      []byte
}

// channel is a connection: what it proved stays so.
type channel struct {
	*model
	proved ibc.Identity
}

func (c *channel) Identity() ibc.Identity { return c.proved }

func (m *model) Dial(ctx context.Context, d fleet.Device) (enrol.Device, error) {
	m.dials++
	if err := m.refuse["dial"]; err != nil {
		return nil, err
	}
	if m.Identity().Compare(d.Identity) < 0 {
		return nil, fmt.Errorf("%w: wanted %s, got %s", enrol.ErrIdentity, d.Identity, m.Identity())
	}
	return &channel{m, m.Identity()}, ctx.Err()
}

func (m *model) Identity() ibc.Identity { return m.key.Identity() }
func (m *model) Close() error           { return nil }

func (m *model) enter(call string) error {
	m.w.point()
	m.calls[call]++
	return m.refuse[call]
}

func (m *model) RequestCSR(_ context.Context, req enrol.CSRRequest) ([]byte, error) {
	if err := m.enter("csr"); err != nil {
		return nil, err
	}
	defer m.w.point()
	if m.pending != nil && m.pending.id == req.Enrolment {
		return m.pending.csr, nil
	}
	if req.CA == nil && (m.active == nil || sha256.Sum256(m.active.anchor) != req.CAHash) {
		return nil, &enrol.DeviceError{Problem: enrol.ProblemUnknownCA}
	}
	anchor := req.CA
	if anchor == nil {
		anchor = m.active.anchor
	}
	key := must[*ecdsa.PrivateKey](m.w.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	subject, sans := enrol.SplitNames(fleet.DefaultNames(m.key.Identity().Name))
	if req.Enclosed {
		subject, sans = req.Subject, req.SANs
	}
	template := &x509.CertificateRequest{Subject: enrol.SubjectName(subject)}
	for _, n := range sans {
		template.DNSNames = append(template.DNSNames, n.Value)
	}
	csr := must[[]byte](m.w.t)(x509.CreateCertificateRequest(rand.Reader, template, key))
	m.pending = &slot{id: req.Enrolment, key: key, csr: csr, anchor: anchor}
	return csr, nil
}

// find returns the slot of an enrolment, pending or active.
func (m *model) find(id enrol.ID) *slot {
	for _, s := range []*slot{m.pending, m.active} {
		if s != nil && s.id == id {
			return s
		}
	}
	return nil
}

func (m *model) VerifyCertificate(_ context.Context, req enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	if err := m.enter("verify"); err != nil {
		return enrol.VerifyResponse{}, err
	}
	defer m.w.point()
	s := m.find(req.Enrolment)
	if s == nil {
		return enrol.VerifyResponse{}, &enrol.DeviceError{Problem: enrol.ProblemUnknown}
	}
	spki := must[[]byte](m.w.t)(x509.MarshalPKIXPublicKey(&s.key.PublicKey))
	leaf, others, err := enrol.ParseChain(req.Certificates, sha256.Sum256(spki))
	if err != nil {
		return enrol.VerifyResponse{}, &enrol.DeviceError{Problem: enrol.ProblemUnverified, Detail: err.Error()}
	}
	if _, err := enrol.VerifyChain(s.anchor, leaf, others); err != nil {
		return enrol.VerifyResponse{}, &enrol.DeviceError{Problem: enrol.ProblemUnverified, Detail: err.Error()}
	}
	s.certificate = leaf.Raw
	v := enrol.VerifyResponse{Certificate: sha256.Sum256(leaf.Raw)}
	message := must[[]byte](m.w.t)(enrol.PossessionMessage(m.Identity(), req.Enrolment, req.Nonce, v.Certificate))
	digest, hash := enrol.PossessionDigest(&s.key.PublicKey, message)
	v.Possession = must[[]byte](m.w.t)(s.key.Sign(rand.Reader, digest, hash))
	statement := must[[]byte](m.w.t)(enrol.StatementMessage(m.Identity(), req.Enrolment, sha256.Sum256(spki), v.Certificate))
	v.Statement = must[[]byte](m.w.t)(m.key.Sign(rand.Reader, statement))
	if m.tamperProof {
		v.Statement[50] ^= 1
	}
	return v, nil
}

func (m *model) Activate(_ context.Context, id enrol.ID, sha [32]byte, _ time.Duration) error {
	if err := m.enter("activate"); err != nil {
		return err
	}
	defer m.w.point()
	s := m.find(id)
	if s == nil || sha256.Sum256(s.certificate) != sha {
		return &enrol.DeviceError{Problem: enrol.ProblemUnknown}
	}
	if m.hookFails > 0 {
		m.hookFails--
		return &enrol.DeviceError{Problem: enrol.ProblemRolledBack, Detail: "the hook exited with 1"}
	}
	if s != m.active {
		m.previous, m.active, m.pending, m.confirmed, m.lastError = m.active, s, nil, false, ""
	}
	return nil
}

func (m *model) Confirm(_ context.Context, id enrol.ID, sha [32]byte) error {
	if err := m.enter("confirm"); err != nil {
		return err
	}
	defer m.w.point()
	if m.active == nil || m.active.id != id || sha256.Sum256(m.active.certificate) != sha {
		return &enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "it is not the active certificate"}
	}
	m.confirmed = true
	return nil
}

// rollBack is what the device's timer does.
func (m *model) rollBack() {
	m.pending, m.active, m.previous, m.confirmed = m.active, m.previous, nil, true
	m.lastError = "not confirmed within 10m0s"
}

func (m *model) Rollback(_ context.Context, id enrol.ID, sha [32]byte) error {
	if err := m.enter("rollback"); err != nil {
		return err
	}
	defer m.w.point()
	switch {
	case m.pending != nil && m.pending.id == id:
		return nil
	case m.active == nil || m.active.id != id || sha256.Sum256(m.active.certificate) != sha:
		return &enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "it is not the active certificate"}
	case m.previous == nil:
		return &enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "there is no previous pair"}
	}
	m.rollBack()
	m.lastError = "rolled back by clm-1"
	return nil
}

func (m *model) DeliverBundle(_ context.Context, sealed []byte) error {
	if err := m.enter("bundle"); err != nil {
		return err
	}
	defer m.w.point()
	key := m.bundles[string(sealed)]
	if key == nil {
		return &enrol.DeviceError{Problem: enrol.ProblemForbidden, Detail: "not a bundle for this device"}
	}
	if !m.stubborn {
		m.key = key
	}
	if m.deaf {
		return fmt.Errorf("%w: no answer", enrol.ErrUnreachable)
	}
	return nil
}

func (m *model) DeliverAnchors(context.Context, enrol.AnchorChange) error {
	defer m.w.point()
	return m.enter("anchors")
}

func (m *model) Status(context.Context) (enrol.DeviceStatus, error) {
	call := "status"
	if m.active != nil && !m.confirmed {
		call = "read back"
	}
	if err := m.enter(call); err != nil {
		return enrol.DeviceStatus{}, err
	}
	status := enrol.DeviceStatus{
		Identity: m.Identity(), Endpoint: m.endpoint, LastError: m.lastError,
		KeyAndCSR: time.Millisecond, Verification: time.Microsecond,
	}
	if m.active != nil {
		status.Active = &enrol.DeviceCertificate{SHA256: sha256.Sum256(m.active.certificate)}
	}
	return status, nil
}

// fakeCA issues at once. Like step-ca it issues a second certificate when a
// request is repeated.
type fakeCA struct {
	w        *world
	key      crypto.Signer
	anchor   *x509.Certificate
	serial   int64
	issued   map[string]int // by transaction ID
	lifetime time.Duration
	behind   time.Duration // how far its clock is behind the world's
	err      error
	pending  int // answers with PENDING so often
	alter    func(*x509.Certificate, *enrol.Answer)
}

func (ca *fakeCA) Anchor() []byte { return ca.anchor.Raw }

func (ca *fakeCA) Challenge(context.Context, string) ([]byte, error) { return []byte("secret"), nil }

func (ca *fakeCA) Submit(_ context.Context, s enrol.Submission) (enrol.Answer, error) {
	ca.w.point()
	defer ca.w.point()
	if ca.err != nil {
		return enrol.Answer{}, ca.err
	}
	if ca.pending > 0 {
		ca.pending--
		return enrol.Answer{Pending: true}, nil
	}
	csr := must[*x509.CertificateRequest](ca.w.t)(enrol.ParseCSR(s.CSR))
	ca.serial++
	ca.issued[s.TransactionID]++
	now := ca.w.now.Add(-ca.behind)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.serial), Subject: csr.Subject, DNSNames: csr.DNSNames,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(ca.lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	answer := enrol.Answer{Date: now}
	if ca.alter != nil {
		ca.alter(template, &answer)
	}
	if answer.Certificates == nil {
		der := must[[]byte](ca.w.t)(x509.CreateCertificate(rand.Reader, template, ca.anchor, csr.PublicKey, ca.key))
		answer.Certificates = [][]byte{ca.anchor.Raw, der}
	}
	return answer, nil
}

func newCA(w *world, name string) *fakeCA {
	key := must[*ecdsa.PrivateKey](w.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: w.now, NotAfter: w.now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must[[]byte](w.t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return &fakeCA{
		w: w, key: key, anchor: must[*x509.Certificate](w.t)(x509.ParseCertificate(der)), serial: 100,
		issued: map[string]int{}, lifetime: 24 * time.Hour,
	}
}
