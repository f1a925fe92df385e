package agent

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// Status is what the device says of itself. It does not wait for a request in
// progress.
func (a *Agent) Status(_ context.Context, _ ibc.Identity) (enrol.DeviceStatus, error) {
	st, now := a.current(), a.cfg.Now()
	s := enrol.DeviceStatus{
		Version: a.cfg.Version, Identity: a.Identity(),
		Active: st.Active.describe(st, now), Staged: st.Pending.describe(st, now),
		Unconfirmed: st.Active != nil && st.Trial != nil, LastError: st.LastError,
		Clock: st.clock(now), Time: now, Endpoint: a.cfg.Endpoint, KeyStore: a.cfg.KeyStores[0].Name(),
		KeyAndCSR: st.KeyAndCSR, Verification: st.Verification,
	}
	s.RolledBack = st.rolledBack()
	if st.Active != nil && st.Active.store != "" {
		s.KeyStore = st.Active.store
	}
	for _, anchor := range a.anchors(st) {
		s.Anchors = append(s.Anchors, sha256.Sum256(anchor))
	}
	if st.Statement != nil {
		s.AnchorSerial = st.Statement.Serial
	}
	for _, p := range []*pair{st.Pending, st.Active} {
		if p != nil && s.Enrolment == nil {
			id := p.id()
			s.Enrolment = &id
		}
	}
	return s, nil
}

// rolledBack returns the certificate given up since the last activation, nil
// if none was.
func (st state) rolledBack() *[32]byte {
	if len(st.GivenUp) != sha256.Size {
		return nil
	}
	sum := [32]byte(st.GivenUp)
	return &sum
}

// clock says whether the device's clock is behind its lower bound.
func (st state) clock(now time.Time) enrol.ClockState {
	if now.Before(st.NotBefore) {
		return enrol.ClockBehind
	}
	return enrol.ClockPlausible
}

// describe returns what a status says of a pair, nil if it has no certificate.
func (p *pair) describe(st state, now time.Time) *enrol.DeviceCertificate {
	if p == nil || p.leaf == nil {
		return nil
	}
	if now.Before(st.NotBefore) {
		now = st.NotBefore
	}
	return &enrol.DeviceCertificate{
		Serial: enrol.Describe(p.leaf).Serial, SHA256: sha256.Sum256(p.leaf.Raw),
		NotAfter: p.leaf.NotAfter.UTC(), Expired: !now.Before(p.leaf.NotAfter),
	}
}

// Report is what Inspect finds.
type Report struct {
	Identity  *ibc.Identity // nil: not provisioned
	Params    *ibc.Params
	Active    *x509.Certificate // nil: none
	KeyFits   bool              // the private key of Active is there, is its, and signs
	KeyStore  string            // where that key lives; "": there is none
	Sealed    bool              // the identity is sealed
	Staged    *x509.Certificate // nil: none
	LastError string
	// RolledBack is the SHA-256 of the certificate given up since the last
	// activation; nil: none.
	RolledBack *[32]byte
	Clock      enrol.ClockState

	Anchors      []bundle.Hash // SHA-256 of the trust anchors
	AnchorSerial uint64        // of the anchor statement accepted last; 0: none
}

// Inspect reads a state directory without changing it, whether an agent runs
// on it or not. Key stores are those of Config.
func Inspect(path string, now time.Time, keys ...KeyStore) (Report, error) {
	dir := newStore(path, nil, keys...)
	var r Report
	own := dir.provisioned()
	b, err := own.Load()
	switch {
	case err == nil:
		r.Identity, r.Params = &b.Identity, b.Params
	case !errors.Is(err, provision.ErrNone):
		return Report{}, err
	}
	if r.Sealed, err = own.Sealed(); err != nil {
		return Report{}, err
	}
	st, damage, err := loadState(dir)
	if err != nil {
		return Report{}, err
	}
	r.LastError, r.RolledBack, r.Clock = st.LastError, st.rolledBack(), st.clock(now)
	if damage != nil {
		r.LastError = clip(damage.Error())
	}
	if b != nil {
		r.Anchors = bundle.AnchorHashes(anchorsOf(b.Anchors, st))
	}
	if st.Statement != nil {
		r.AnchorSerial = st.Statement.Serial
	}
	if st.Pending != nil {
		r.Staged = st.Pending.leaf
	}
	if st.Active == nil {
		return r, nil
	}
	if c, err := dir.readCertificate(st.Active.id(), certName); err == nil {
		err := dir.tryKey(st.Active)
		r.Active, r.KeyFits, r.KeyStore = c, st.Active.leaf != nil && err == nil, st.Active.store
		if err != nil {
			r.LastError = clip(err.Error())
		}
	}
	return r, nil
}
