package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// anchorStatement is the statement of the PKG that was accepted last.
type anchorStatement struct {
	Serial  uint64      `json:"serial"`
	Payload bundle.Hash `json:"payload_sha256"`
}

// crossSigned is a root that an anchor has named its successor. It counts as
// long as that anchor does.
type crossSigned struct {
	Root []byte      `json:"root"`   // DER, as signed by the anchor
	By   bundle.Hash `json:"anchor"` // SHA-256 of the anchor
}

// anchorsOf returns the trust anchors of a device: those of the statement
// accepted last, else the bundle's, else those pinned at the first
// confirmation; and the roots that these have cross-signed.
func anchorsOf(bundled [][]byte, st state) [][]byte {
	base := st.Anchors
	if st.Statement == nil && len(bundled) > 0 {
		base = bundled
	}
	anchors := slices.Clone(base)
	for _, c := range st.CrossSigned {
		vouched := slices.ContainsFunc(anchors, func(der []byte) bool { return sha256.Sum256(der) == c.By })
		if vouched && len(anchors) < bundle.MaxAnchors {
			anchors = append(anchors, c.Root)
		}
	}
	return anchors
}

// anchors returns the device's trust anchors, none before the first of them.
func (a *Agent) anchors(st state) [][]byte { return anchorsOf(a.present().Anchors, st) }

// Anchors changes the trust anchors: a statement of the PKG replaces the whole
// set, a root that a present anchor has cross-signed is added to it. What is
// the case already changes nothing and is no error.
func (a *Agent) Anchors(ctx context.Context, peer ibc.Identity, change enrol.AnchorChange) error {
	return a.serve(ctx, peer, func(st state) error {
		if change.CrossSigned != nil {
			return a.takeRoot(st, peer, change.CrossSigned)
		}
		return a.takeStatement(st, peer, change.Statement)
	})
}

func (a *Agent) takeStatement(st state, peer ibc.Identity, data []byte) error {
	set, payload, err := bundle.ParseAnchors(data, a.present().Params)
	switch {
	case errors.Is(err, bundle.ErrParams), errors.Is(err, ibc.ErrSignature):
		return refuse(enrol.ProblemForbidden, "%v", err)
	case err != nil:
		return refuse(enrol.ProblemBadRequest, "%v", err)
	case !set.Pattern.Matches(a.present().Identity.Name):
		return refuse(enrol.ProblemForbidden, "the statement is for %s, this is %s", set.Pattern, a.present().Identity.Name)
	}
	if last := st.Statement; last != nil {
		switch {
		case set.Serial == last.Serial && payload == last.Payload:
			return nil
		case set.Serial <= last.Serial:
			return refuse(enrol.ProblemConflict, "statement %d is not later than statement %d, which is in force", set.Serial, last.Serial)
		}
	}
	st.Statement = &anchorStatement{Serial: set.Serial, Payload: payload}
	st.Anchors, st.CrossSigned = set.Anchors, nil
	if err := a.commit(st); err != nil {
		return err
	}
	a.cfg.Log.Warn("the trust anchors are others now", "statement", set.Serial, "brought_by", peer.Name, "sha256", bundle.AnchorHashes(set.Anchors))
	return nil
}

func (a *Agent) takeRoot(st state, peer ibc.Identity, der []byte) error {
	root, err := parseRoot(der)
	if err != nil {
		return refuse(enrol.ProblemBadRequest, "%v", err)
	}
	var anchors []*x509.Certificate
	for _, raw := range a.anchors(st) {
		anchor, err := x509.ParseCertificate(raw)
		if err != nil {
			return fmt.Errorf("parse trust anchor: %w", err)
		}
		if sameAuthority(anchor, root) {
			return nil
		}
		anchors = append(anchors, anchor)
	}
	reason := errors.New("there is none yet")
	for _, anchor := range anchors {
		if reason = mayNameSuccessor(anchor, root); reason != nil {
			continue
		}
		if len(anchors) >= bundle.MaxAnchors {
			return refuse(enrol.ProblemConflict, "there are %d trust anchors already; a statement of the PKG can replace them", len(anchors))
		}
		counting := slices.DeleteFunc(slices.Clone(st.CrossSigned), func(c crossSigned) bool {
			return !slices.ContainsFunc(anchors, func(x *x509.Certificate) bool { return bytes.Equal(x.Raw, c.Root) })
		})
		st.CrossSigned = append(counting, crossSigned{Root: root.Raw, By: sha256.Sum256(anchor.Raw)})
		if err := a.commit(st); err != nil {
			return err
		}
		a.cfg.Log.Warn("a trust anchor has named another one", "anchor", anchor.Subject, "root", root.Subject, "brought_by", peer.Name)
		return nil
	}
	return refuse(enrol.ProblemForbidden, "no trust anchor of this device has named the root: %v", reason)
}

// parseRoot parses a cross-signed root and checks what it says of itself.
func parseRoot(der []byte) (*x509.Certificate, error) {
	if err := bundle.ValidateAnchor(der); err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	switch {
	case err != nil:
		return nil, err
	case len(root.UnhandledCriticalExtensions) > 0:
		return nil, fmt.Errorf("it has the critical extension %v, which is not known here", root.UnhandledCriticalExtensions[0])
	case !strongKey(root.PublicKey):
		return nil, errors.New("its key is none of RSA from 2048 bits, ECDSA from P-256, Ed25519")
	}
	return root, nil
}

func strongKey(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		return k.Curve.Params().BitSize >= 256
	case ed25519.PublicKey:
		return true
	}
	return false
}

// mayNameSuccessor reports why an anchor has not made root a trust anchor: it
// has not signed it, or may not, since it is held to limits that root as an
// anchor would be free of. Dates are not looked at.
func mayNameSuccessor(anchor, root *x509.Certificate) error {
	switch {
	case !bytes.Equal(anchor.RawSubject, root.RawIssuer):
		return fmt.Errorf("its issuer is %q, not %q", root.Issuer, anchor.Subject)
	case bytes.Equal(anchor.RawSubjectPublicKeyInfo, root.RawSubjectPublicKeyInfo):
		return errors.New("its key is the anchor's own")
	case hasNameConstraints(anchor):
		return fmt.Errorf("%q is held to certain names", anchor.Subject)
	case limitsPath(anchor) && (!limitsPath(root) || root.MaxPathLen >= anchor.MaxPathLen):
		return fmt.Errorf("%q is held to a path of %d CAs below it", anchor.Subject, anchor.MaxPathLen)
	}
	return root.CheckSignatureFrom(anchor)
}

// limitsPath reports whether a CA certificate has a pathLenConstraint (RFC 5280
// section 4.2.1.9).
func limitsPath(c *x509.Certificate) bool { return c.MaxPathLen > 0 || c.MaxPathLenZero }

func hasNameConstraints(c *x509.Certificate) bool {
	return len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedIPRanges)+len(c.ExcludedIPRanges)+
		len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0
}

// sameAuthority reports whether two certificates are of one CA: the same name
// and the same key.
func sameAuthority(x, y *x509.Certificate) bool {
	return bytes.Equal(x.RawSubject, y.RawSubject) && bytes.Equal(x.RawSubjectPublicKeyInfo, y.RawSubjectPublicKeyInfo)
}

// leads reports whether a CA certificate leads to a trust anchor: it is one, it
// is the self-signed form of one, or it chains to one.
func leads(anchorDER []byte, ca *x509.Certificate) bool {
	anchor, err := x509.ParseCertificate(anchorDER)
	if err != nil {
		return false
	}
	if anchor.Equal(ca) || sameAuthority(anchor, ca) && ca.CheckSignatureFrom(ca) == nil {
		return true
	}
	_, err = enrol.VerifyChain(anchorDER, ca, nil)
	return err == nil
}

// stillTrusted refuses a staged certificate that leads to no trust anchor any
// more, since they have changed after it was verified.
func (a *Agent) stillTrusted(st state) error {
	chain, err := a.dir.readCertificates(st.Pending.id(), chainName)
	if err != nil {
		return fmt.Errorf("read chain: %w", err)
	}
	ca, err := a.dir.readCertificate(st.Pending.id(), caName)
	if err != nil {
		return fmt.Errorf("read CA certificate: %w", err)
	}
	anchors := a.anchors(st)
	for _, anchor := range anchors {
		if _, err := enrol.VerifyChain(anchor, st.Pending.leaf, append(chain[1:], ca)); err == nil {
			return nil
		}
	}
	if len(anchors) == 0 {
		return nil
	}
	return refuse(enrol.ProblemUnverified, "the certificate of enrolment %s leads to no trust anchor of this device any more", st.Pending.id())
}
