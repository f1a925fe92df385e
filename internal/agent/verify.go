package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Verify is the paper's verify_certificate: it checks that a certificate is
// for the pending key, has the names of the CSR and chains to the device's
// trust anchor, stages it durably, and proves both. No date is a reason to
// refuse: the device may have no clock.
func (a *Agent) Verify(ctx context.Context, peer ibc.Identity, req enrol.VerifyRequest) (response enrol.VerifyResponse, err error) {
	err = a.serve(ctx, peer, func(st state) error {
		switch {
		case st.Active.is(req.Enrolment):
			response, err = a.proveAgain(st.Active, req)
		case st.Pending.is(req.Enrolment):
			response, err = a.stage(st, peer, req)
		default:
			err = refuse(enrol.ProblemUnknown, "enrolment %s is not known here", req.Enrolment)
		}
		return err
	})
	return response, err
}

// proveAgain answers for a certificate that was verified before.
func (a *Agent) proveAgain(p *pair, req enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	key, leaf, _, err := a.findLeaf(p, req)
	if err != nil {
		return enrol.VerifyResponse{}, err
	}
	if !p.holds(p.id(), sha256.Sum256(leaf.Raw)) {
		return enrol.VerifyResponse{}, refuse(enrol.ProblemConflict, "another certificate of this enrolment is active")
	}
	return a.prove(key, req, leaf)
}

// stage verifies a certificate and completes the pending pair with it.
func (a *Agent) stage(st state, peer ibc.Identity, req enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	began := time.Now()
	if err := a.mayClaim(st, peer); err != nil {
		return enrol.VerifyResponse{}, err
	}
	key, leaf, chain, err := a.verify(st, req)
	var refusal *enrol.DeviceError
	if errors.As(err, &refusal) {
		st.LastError = clip("certificate refused: " + refusal.Detail)
		if err := a.commit(st); err != nil {
			a.cfg.Log.Error("record refusal", "error", err)
		}
		return enrol.VerifyResponse{}, refusal
	}
	if err != nil {
		return enrol.VerifyResponse{}, err
	}
	p := *st.Pending
	st.Pending = &p
	owner := p.Owner
	p.Owner = peer.Name
	if !p.holds(req.Enrolment, sha256.Sum256(leaf.Raw)) {
		if err := a.completePair(st, leaf, chain); err != nil {
			return enrol.VerifyResponse{}, err
		}
	}
	p.leaf = leaf
	st.raise(append([]*x509.Certificate{leaf}, chain...))
	response, err := a.prove(key, req, leaf)
	if err != nil {
		return enrol.VerifyResponse{}, err
	}
	st.Verification = time.Since(began)
	a.heard = time.Now()
	if p.Owner != owner {
		return response, a.commit(st)
	}
	// All the rest follows from the pair's files, see state.loadStaged.
	a.set(st)
	return response, nil
}

// completePair writes the certificate of the pending pair. If that fails, the
// pair counts as incomplete.
func (a *Agent) completePair(st state, leaf *x509.Certificate, chain []*x509.Certificate) error {
	p := *st.Pending
	p.leaf = nil
	st.Pending = &p
	a.set(st)
	if err := a.dir.completePair(p.id(), leaf, chain); err != nil {
		return fmt.Errorf("store certificate: %w", err)
	}
	return nil
}

// findLeaf finds the certificate for the key of a pair in a request.
func (a *Agent) findLeaf(p *pair, req enrol.VerifyRequest) (key keptKey, leaf *x509.Certificate, spki [32]byte, err error) {
	if key, err = a.dir.readKey(p.id()); err != nil {
		return key, nil, spki, err
	}
	clear(key.kept)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return key, nil, spki, fmt.Errorf("encode public key: %w", err)
	}
	spki = sha256.Sum256(der)
	if leaf, _, err = enrol.ParseChain(req.Certificates, spki); err != nil {
		return key, nil, spki, unverified(err)
	}
	return key, leaf, spki, nil
}

// verify checks the certificates of a request against the pending pair and
// returns its key, its certificate, and the chain without anchor.
func (a *Agent) verify(st state, req enrol.VerifyRequest) (keptKey, *x509.Certificate, []*x509.Certificate, error) {
	p := st.Pending
	key, _, spki, err := a.findLeaf(p, req)
	if err != nil {
		return key, nil, nil, err
	}
	ca, err := a.dir.readCertificate(p.id(), caName)
	if err != nil {
		return key, nil, nil, fmt.Errorf("read CA certificate: %w", err)
	}
	anchors := a.anchors(st)
	if len(anchors) == 0 {
		anchors = [][]byte{ca.Raw}
	}
	// What the CLM calls its anchor may be an issuer below ours.
	certificates := req.Certificates
	if len(certificates) < enrol.MaxChain {
		certificates = append(slices.Clone(certificates), ca.Raw)
	}
	want := &enrol.Enrolment{SPKIHash: spki, Subject: p.Subject, SANs: p.SANs}
	for _, anchor := range anchors {
		var leaf *x509.Certificate
		var chain []*x509.Certificate
		if leaf, chain, err = enrol.PreVerify(want, certificates, anchor); err != nil {
			continue
		}
		// What serves the certificate presents the CA that was named, too.
		if !bytes.Equal(anchor, ca.Raw) {
			if _, _, err = enrol.PreVerify(want, certificates, ca.Raw); err != nil {
				continue
			}
		}
		return key, leaf, chain, nil
	}
	return key, nil, nil, unverified(err)
}

func unverified(err error) error {
	var mismatch *enrol.CAMismatch
	if errors.As(err, &mismatch) {
		return refuse(enrol.ProblemUnverified, "it is %s", mismatch.What)
	}
	return refuse(enrol.ProblemUnverified, "%v", err)
}

// prove signs the possession message with the new key and the statement with
// the identity key.
func (a *Agent) prove(key crypto.Signer, req enrol.VerifyRequest, leaf *x509.Certificate) (enrol.VerifyResponse, error) {
	response := enrol.VerifyResponse{Certificate: sha256.Sum256(leaf.Raw)}
	identity := a.present().Key
	id := identity.Identity()
	possession, err := enrol.PossessionMessage(id, req.Enrolment, req.Nonce, response.Certificate)
	if err != nil {
		return enrol.VerifyResponse{}, err
	}
	digest, hash := enrol.PossessionDigest(key.Public(), possession)
	if response.Possession, err = key.Sign(a.cfg.Random, digest, hash); err != nil {
		return enrol.VerifyResponse{}, fmt.Errorf("sign possession: %w", err)
	}
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	statement, err := enrol.StatementMessage(id, req.Enrolment, spki, response.Certificate)
	if err != nil {
		return enrol.VerifyResponse{}, err
	}
	if response.Statement, err = identity.Sign(a.cfg.Random, statement); err != nil {
		return enrol.VerifyResponse{}, fmt.Errorf("sign statement: %w", err)
	}
	return response, nil
}
