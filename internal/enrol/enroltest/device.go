package enroltest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// The calls of a device, as Device.Refuse and Device.Calls name them.
const (
	CallDial     = "dial"
	CallStatus   = "status"
	CallReadBack = "read back" // a status while the active certificate is not confirmed
	CallCSR      = "csr"
	CallVerify   = "verify"
	CallActivate = "activate"
	CallConfirm  = "confirm"
	CallRollback = "rollback"
	CallBundle   = "bundle"
	CallAnchors  = "anchors"
)

// Device is a device as its specification has it (DESIGN section 5), and the
// enrol.Dialer that reaches it. What it holds survives the death of the CLM's
// process. One run at a time may use it; its fields are set while none does,
// but for the fault, which Break changes at any time.
type Device struct {
	Key      Signer
	Pending  *Slot
	Active   *Slot
	Previous *Slot

	Confirmed bool
	Endpoint  string // where TLS serves the certificate
	LastError string
	Anchors   [][32]byte // that it lists

	// Faults in detail; see also Break.
	Refuse      map[string]error // by call; stays
	HookFails   int              // so often
	TamperProof bool             // its statements do not hold
	Bundles     map[string]Signer
	Deaf        bool // takes a bundle, but gives no answer
	Stubborn    bool // takes a bundle, but goes on as before

	Calls map[string]int
	Dials int
	Point func() // called before and after each effect; nil: nothing is

	mu    sync.Mutex
	fault Fault
}

// Slot is a key pair of a device, and what it has for it.
type Slot struct {
	ID          enrol.ID
	Key         *ecdsa.PrivateKey
	CSR         []byte
	Certificate []byte
	Anchor      []byte
}

// NewDevice returns a device that was provisioned and has no certificate.
func NewDevice(key Signer) *Device {
	return &Device{Key: key, Refuse: map[string]error{}, Calls: map[string]int{}, Bundles: map[string]Signer{}}
}

// channel is a connection: what it proved stays so.
type channel struct {
	*Device
	proved Signer
}

func (c *channel) Identity() ibc.Identity { return c.proved.Identity() }

// Dial implements enrol.Dialer.
func (d *Device) Dial(ctx context.Context, row fleet.Device) (enrol.Device, error) {
	d.Dials++
	if err := d.strike(ctx, CallDial); err != nil {
		return nil, err
	}
	if d.Identity().Compare(row.Identity) < 0 {
		return nil, fmt.Errorf("%w: wanted %s, got %s", enrol.ErrIdentity, row.Identity, d.Identity())
	}
	return &channel{d, d.Key}, ctx.Err()
}

// Identity implements enrol.Device.
func (d *Device) Identity() ibc.Identity { return d.Key.Identity() }

// Close implements enrol.Device.
func (d *Device) Close() error { return nil }

func (d *Device) point() {
	if d.Point != nil {
		d.Point()
	}
}

func (d *Device) enter(ctx context.Context, call string) error {
	d.point()
	d.Calls[call]++
	return d.strike(ctx, call)
}

// RequestCSR implements enrol.Device.
func (d *Device) RequestCSR(ctx context.Context, req enrol.CSRRequest) ([]byte, error) {
	if err := d.enter(ctx, CallCSR); err != nil {
		return nil, err
	}
	defer d.point()
	if d.Pending != nil && d.Pending.ID == req.Enrolment {
		return d.Pending.CSR, nil
	}
	anchor := req.CA
	if anchor == nil {
		if d.Active == nil || sha256.Sum256(d.Active.Anchor) != req.CAHash {
			return nil, &enrol.DeviceError{Problem: enrol.ProblemUnknownCA}
		}
		anchor = d.Active.Anchor
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	subject, sans := enrol.SplitNames(fleet.DefaultNames(d.Identity().Name))
	if req.Enclosed {
		subject, sans = req.Subject, req.SANs
	}
	template := &x509.CertificateRequest{Subject: enrol.SubjectName(subject)}
	for _, n := range sans {
		template.DNSNames = append(template.DNSNames, n.Value)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, err
	}
	d.Pending = &Slot{ID: req.Enrolment, Key: key, CSR: csr, Anchor: anchor}
	return csr, nil
}

// find returns the slot of an enrolment, pending or active.
func (d *Device) find(id enrol.ID) *Slot {
	for _, s := range []*Slot{d.Pending, d.Active} {
		if s != nil && s.ID == id {
			return s
		}
	}
	return nil
}

// VerifyCertificate implements enrol.Device.
func (d *Device) VerifyCertificate(ctx context.Context, req enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	if err := d.enter(ctx, CallVerify); err != nil {
		return enrol.VerifyResponse{}, err
	}
	defer d.point()
	s := d.find(req.Enrolment)
	if s == nil {
		return enrol.VerifyResponse{}, &enrol.DeviceError{Problem: enrol.ProblemUnknown}
	}
	der, err := x509.MarshalPKIXPublicKey(&s.Key.PublicKey)
	if err != nil {
		return enrol.VerifyResponse{}, err
	}
	spki := sha256.Sum256(der)
	leaf, others, err := enrol.ParseChain(req.Certificates, spki)
	if err == nil {
		_, err = enrol.VerifyChain(s.Anchor, leaf, others)
	}
	if err != nil {
		return enrol.VerifyResponse{}, &enrol.DeviceError{Problem: enrol.ProblemUnverified, Detail: err.Error()}
	}
	s.Certificate = leaf.Raw
	return d.prove(req, s, spki)
}

func (d *Device) prove(req enrol.VerifyRequest, s *Slot, spki [32]byte) (enrol.VerifyResponse, error) {
	v := enrol.VerifyResponse{Certificate: sha256.Sum256(s.Certificate)}
	message, err := enrol.PossessionMessage(d.Identity(), req.Enrolment, req.Nonce, v.Certificate)
	if err != nil {
		return v, err
	}
	digest, hash := enrol.PossessionDigest(&s.Key.PublicKey, message)
	if v.Possession, err = s.Key.Sign(rand.Reader, digest, hash); err != nil {
		return v, err
	}
	if message, err = enrol.StatementMessage(d.Identity(), req.Enrolment, spki, v.Certificate); err != nil {
		return v, err
	}
	if v.Statement, err = d.Key.Sign(rand.Reader, message); err != nil {
		return v, err
	}
	if d.TamperProof {
		v.Statement[len(v.Statement)/2] ^= 1
	}
	return v, nil
}

// Activate implements enrol.Device.
func (d *Device) Activate(ctx context.Context, id enrol.ID, sha [32]byte, _ time.Duration) error {
	if err := d.enter(ctx, CallActivate); err != nil {
		return err
	}
	defer d.point()
	s := d.find(id)
	if s == nil || sha256.Sum256(s.Certificate) != sha {
		return &enrol.DeviceError{Problem: enrol.ProblemUnknown}
	}
	if d.HookFails > 0 {
		d.HookFails--
		return &enrol.DeviceError{Problem: enrol.ProblemRolledBack, Detail: "the hook exited with 1"}
	}
	if s != d.Active {
		d.Previous, d.Active, d.Pending, d.Confirmed, d.LastError = d.Active, s, nil, false, ""
	}
	return nil
}

// Confirm implements enrol.Device.
func (d *Device) Confirm(ctx context.Context, id enrol.ID, sha [32]byte) error {
	if err := d.enter(ctx, CallConfirm); err != nil {
		return err
	}
	defer d.point()
	if d.Active == nil || d.Active.ID != id || sha256.Sum256(d.Active.Certificate) != sha {
		return &enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "it is not the active certificate"}
	}
	d.Confirmed = true
	return nil
}

// RollBack is what the device's timer does.
func (d *Device) RollBack() {
	d.Pending, d.Active, d.Previous, d.Confirmed = d.Active, d.Previous, nil, true
	d.LastError = "not confirmed within 10m0s"
}

// Rollback implements enrol.Device.
func (d *Device) Rollback(ctx context.Context, id enrol.ID, sha [32]byte) error {
	if err := d.enter(ctx, CallRollback); err != nil {
		return err
	}
	defer d.point()
	switch {
	case d.Pending != nil && d.Pending.ID == id:
		return nil
	case d.Active == nil || d.Active.ID != id || sha256.Sum256(d.Active.Certificate) != sha:
		return &enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "it is not the active certificate"}
	case d.Previous == nil:
		return &enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "there is no previous pair"}
	}
	d.RollBack()
	d.LastError = "rolled back by clm-1"
	return nil
}

// DeliverBundle implements enrol.Device.
func (d *Device) DeliverBundle(ctx context.Context, sealed []byte) error {
	if err := d.enter(ctx, CallBundle); err != nil {
		return err
	}
	defer d.point()
	key := d.Bundles[string(sealed)]
	if key == nil {
		return &enrol.DeviceError{Problem: enrol.ProblemForbidden, Detail: "not a bundle for this device"}
	}
	if !d.Stubborn {
		d.Key = key
	}
	if d.Deaf {
		return fmt.Errorf("%w: no answer", enrol.ErrUnreachable)
	}
	return nil
}

// DeliverAnchors implements enrol.Device.
func (d *Device) DeliverAnchors(ctx context.Context, _ enrol.AnchorChange) error {
	defer d.point()
	return d.enter(ctx, CallAnchors)
}

// Status implements enrol.Device.
func (d *Device) Status(ctx context.Context) (enrol.DeviceStatus, error) {
	call := CallStatus
	if d.Active != nil && !d.Confirmed {
		call = CallReadBack
	}
	if err := d.enter(ctx, call); err != nil {
		return enrol.DeviceStatus{}, err
	}
	status := enrol.DeviceStatus{
		Identity: d.Identity(), Endpoint: d.Endpoint, LastError: d.LastError, Anchors: d.Anchors,
		KeyAndCSR: time.Millisecond, Verification: time.Microsecond,
	}
	if d.Active != nil {
		status.Active = &enrol.DeviceCertificate{SHA256: sha256.Sum256(d.Active.Certificate)}
	}
	return status, nil
}
