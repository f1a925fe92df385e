package agent_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

// machine draws requests of two CLMs in any order, valid or not, and restarts.
type machine struct {
	*device
	peers  []ibc.Identity
	csrs   map[byte][]byte
	certs  map[byte][][]byte // of the last CSR of the enrolment
	staged map[[32]byte]bool // ever
	last   map[byte][32]byte // staged last for the enrolment
	fail   bool              // the next run of the hook
	owned  bool              // an activation has succeeded
}

func (m *machine) draw(t *rapid.T) (byte, ibc.Identity) {
	return rapid.ByteRange(1, 4).Draw(t, "enrolment"), rapid.SampledFrom(m.peers).Draw(t, "peer")
}

// active is the hash of the active certificate, zero if there is none.
func (m *machine) active() (sha [32]byte) {
	if s := m.status(); s.Active != nil {
		sha = s.Active.SHA256
	}
	return sha
}

func (m *machine) csr(t *rapid.T) {
	n, peer := m.draw(t)
	before := m.active()
	csr, err := m.agent.CSR(context.Background(), peer, m.request(n))
	if m.active() != before {
		t.Fatal("a CSR request changed the active certificate")
	}
	if err != nil {
		return
	}
	again, err := m.agent.CSR(context.Background(), peer, m.request(n))
	if err != nil || !bytes.Equal(again, csr) {
		t.Fatalf("the same request again: %v", err)
	}
	if !bytes.Equal(m.csrs[n], csr) {
		m.csrs[n], m.certs[n] = csr, m.ca.issue(m.t, csr)
	}
}

func (m *machine) verifyCertificate(t *rapid.T) {
	n, peer := m.draw(t)
	of := rapid.ByteRange(1, 4).Draw(t, "certificate of enrolment")
	before := m.active()
	req := enrol.VerifyRequest{Enrolment: id(n), Certificates: m.certs[of]}
	v, err := m.agent.Verify(context.Background(), peer, req)
	if m.active() != before {
		t.Fatal("a verification changed the active certificate")
	}
	if err != nil {
		return
	}
	if n != of {
		t.Fatalf("the certificate of enrolment %d verified as that of %d", of, n)
	}
	m.staged[v.Certificate], m.last[n] = true, v.Certificate
	if again, err := m.agent.Verify(context.Background(), peer, req); err != nil || again.Certificate != v.Certificate {
		t.Fatalf("the same request again: %v", err)
	}
}

func (m *machine) activateCertificate(t *rapid.T) {
	n, peer := m.draw(t)
	within := time.Duration(rapid.IntRange(0, 1).Draw(t, "hours")) * time.Hour
	m.fail = rapid.Bool().Draw(t, "hook fails")
	before := m.active()
	activate := func() error { return m.agent.Activate(context.Background(), peer, id(n), m.last[n], within) }
	err := activate()
	m.fail = false
	if err != nil {
		if m.active() != before {
			t.Fatalf("the refused activation (%v) changed the active certificate", err)
		}
		return
	}
	m.owned = true
	if m.active() != m.last[n] {
		t.Fatal("the activation succeeded, but another certificate is active")
	}
	if err := activate(); err != nil {
		t.Fatalf("the same request again: %v", err)
	}
}

func (m *machine) confirmCertificate(t *rapid.T) {
	n, peer := m.draw(t)
	before := m.active()
	sha := m.last[n]
	err := m.agent.Confirm(context.Background(), peer, id(n), sha)
	if m.active() != before {
		t.Fatal("a confirmation changed the active certificate")
	}
	if (err == nil) != (before == sha && before != [32]byte{}) {
		t.Fatalf("confirmation of %x, active is %x: %v", sha[:4], before[:4], err)
	}
	if err == nil && m.status().Unconfirmed {
		t.Fatal("unconfirmed after the confirmation")
	}
}

func (m *machine) rollbackCertificate(t *rapid.T) {
	n, peer := m.draw(t)
	before := m.active()
	rollback := func() error { return m.agent.Rollback(context.Background(), peer, id(n), m.last[n]) }
	err := rollback()
	after, staged := m.active(), m.status().Staged
	switch {
	case err != nil && after != before:
		t.Fatalf("the refused rollback (%v) changed the active certificate", err)
	case err == nil && after == m.last[n]:
		t.Fatal("rolled back, but still active")
	case err == nil && staged != nil && staged.SHA256 == m.last[n]:
		if err := rollback(); err != nil {
			t.Fatalf("the same request again: %v", err)
		}
	}
}

func (m *machine) restartAgent(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "restart at 0") > 0 {
		return // a start costs pairings
	}
	before := m.status()
	m.restart()
	after := m.status()
	if !before.Unconfirmed && (before.Active == nil) != (after.Active == nil) ||
		!before.Unconfirmed && before.Active != nil && before.Active.SHA256 != after.Active.SHA256 {
		t.Fatal("a restart changed a confirmed certificate")
	}
}

// invariant holds after whatever was requested.
func (m *machine) invariant(t *rapid.T) {
	active := m.active()
	if linked := linkedPair(m.t, m.cfg.Dir); linked != active {
		t.Fatalf("the link leads to %x, active is %x", linked[:4], active[:4])
	}
	if active == ([32]byte{}) && m.owned {
		t.Fatal("the device has lost its certificate")
	}
	if active != ([32]byte{}) && !m.staged[active] {
		t.Fatal("a certificate is active that was never verified")
	}
	pairs, err := os.ReadDir(filepath.Join(m.cfg.Dir, "pairs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(pairs) > 3 {
		t.Fatalf("there are %d pairs: %v", len(pairs), err)
	}
}

// Whatever the order of requests: the active pair is complete, its certificate
// was verified, it changes only by an activation, a rollback or an unconfirmed
// start, and what succeeded succeeds again.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{
			device: &device{t: t, ca: newAuthority(t, "plant"), peer: clm("clm-1")},
			peers:  []ibc.Identity{clm("clm-1"), clm("clm-2")},
			csrs:   map[byte][]byte{}, certs: map[byte][][]byte{}, staged: map[[32]byte]bool{}, last: map[byte][32]byte{},
		}
		m.cfg = agent.Config{
			Dir: filepath.Join(memoryDir(t), "agent"), Layer: keyfiletest.New(0, keyfiletest.Kill),
			Reload: func(_ context.Context, active agent.Paths) error {
				linkedPair(t, filepath.Dir(active.Dir))
				if m.fail {
					m.fail = false
					return errors.New("exit status 1")
				}
				return nil
			},
		}
		must[bool](t)(agent.Provision(m.cfg.Dir, m.cfg.Layer, newBundle(t, 1)))
		m.start()
		defer m.stop()
		actions := map[string]func(*rapid.T){
			"": m.invariant, "csr": m.csr, "verify": m.verifyCertificate, "activate": m.activateCertificate,
			"confirm": m.confirmCertificate, "rollback": m.rollbackCertificate, "restart": m.restartAgent,
			"enrol": m.whole,
		}
		rt.Repeat(actions)
	})
}

// whole brings the machine to where rollbacks and confirmations mean
// something.
func (m *machine) whole(t *rapid.T) {
	n, peer := m.draw(t)
	csr, err := m.agent.CSR(context.Background(), peer, m.request(n))
	if err != nil {
		return
	}
	if !bytes.Equal(m.csrs[n], csr) {
		m.csrs[n], m.certs[n] = csr, m.ca.issue(m.t, csr)
	}
	v, err := m.agent.Verify(context.Background(), peer, enrol.VerifyRequest{Enrolment: id(n), Certificates: m.certs[n]})
	if err != nil {
		t.Fatalf("a good certificate: %v", err)
	}
	m.staged[v.Certificate], m.last[n] = true, v.Certificate
	if err := m.agent.Activate(context.Background(), peer, id(n), v.Certificate, time.Hour); err != nil {
		t.Fatalf("a staged certificate: %v", err)
	}
	m.owned = true
}
