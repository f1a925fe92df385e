package agent

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Bounds of a CSR request.
const (
	maxAttributes = 16
	// maxChallenge is pkcs-9-ub-challengePassword (RFC 2985 appendix A).
	maxChallenge = 255
)

// CSR is the paper's CSR_generation_request: a fresh key pair for a new
// enrolment ID, and a PKCS#10 signed by it. The same request again gives the
// same CSR until the certificate is activated; the same ID with other
// parameters is a conflict. There is one pending slot, and it belongs to the
// CLM name that opened it.
func (a *Agent) CSR(ctx context.Context, peer ibc.Identity, req enrol.CSRRequest) (csr []byte, err error) {
	content, err := a.content(req)
	if err != nil {
		return nil, err
	}
	err = a.serve(ctx, peer, func(st state) error {
		if st.Pending.is(req.Enrolment) {
			csr, err = a.repeatCSR(st, peer, req)
			return err
		}
		if err := a.mayClaim(st, peer); err != nil {
			return err
		}
		if st.Active.is(req.Enrolment) || st.Previous.is(req.Enrolment) {
			return refuse(enrol.ProblemUnknown, "enrolment %s is over, its CSR is deleted", req.Enrolment)
		}
		csr, err = a.openSlot(st, peer, req, content)
		return err
	})
	return csr, err
}

// content checks a request and returns what its CSR would say.
func (a *Agent) content(req enrol.CSRRequest) (csrContent, error) {
	c := csrContent{keyUsage: req.KeyUsage, extKeyUsage: req.ExtKeyUsage, challenge: req.Challenge}
	if req.CA != nil && (len(req.CA) > enrol.MaxCertificate || sha256.Sum256(req.CA) != req.CAHash) {
		return c, refuse(enrol.ProblemBadRequest, "the CA certificate is not the one of its hash, or has more than %d bytes", enrol.MaxCertificate)
	}
	if err := a.checkKey(req.Key); err != nil {
		return c, err
	}
	for _, usages := range [][]string{req.KeyUsage, req.ExtKeyUsage} {
		if len(usages) > maxAttributes || len(slices.Compact(slices.Sorted(slices.Values(usages)))) != len(usages) {
			return c, refuse(enrol.ProblemBadRequest, "a key usage is given twice")
		}
	}
	if _, err := enrol.UsageExtensions(req.KeyUsage, req.ExtKeyUsage); err != nil {
		return c, refuse(enrol.ProblemBadRequest, "%v", err)
	}
	if len(req.Challenge) > maxChallenge || !isText(string(req.Challenge)) {
		return c, refuse(enrol.ProblemBadRequest, "the challenge is not UTF-8 text of at most %d bytes", maxChallenge)
	}
	allowed := a.present().Names
	c.subject, c.sans = enrol.SplitNames(allowed)
	if !req.Enclosed {
		if len(req.Subject)+len(req.SANs) > 0 {
			return c, refuse(enrol.ProblemBadRequest, "names are given, but not enclosed")
		}
		return c, nil
	}
	c.subject, c.sans = req.Subject, req.SANs
	return c, checkNames(req.Subject, req.SANs, allowed)
}

func (a *Agent) checkKey(k fleet.KeyAlgorithm) error {
	if k == "" {
		return nil
	}
	if _, err := fleet.ParseKeyAlgorithm(string(k)); err != nil {
		return refuse(enrol.ProblemBadRequest, "%v", err)
	}
	if k == fleet.RSA1024 && !a.cfg.LabAllowRSA1024 {
		return refuse(enrol.ProblemForbidden, "%s keys are for laboratories only, and this device does not make them", k)
	}
	return nil
}

// checkNames checks enclosed names: their form, and that the bundle allows
// those that name somebody. The attributes that place the device are free.
func checkNames(subject []fleet.Attribute, sans, allowed []fleet.Name) error {
	if len(subject) > maxAttributes || len(sans) > fleet.MaxNames {
		return refuse(enrol.ProblemBadRequest, "too many names")
	}
	var names []fleet.Name
	for _, at := range subject {
		if err := checkAttribute(at); err != nil {
			return err
		}
		if at.Type == "CN" {
			names = append(names, fleet.Name{Kind: fleet.KindCN, Value: at.Value})
		}
	}
	if len(names) > 1 {
		return refuse(enrol.ProblemBadRequest, "more than one common name")
	}
	for _, n := range sans {
		if err := n.Validate(); err != nil {
			return refuse(enrol.ProblemBadRequest, "%v", err)
		}
		if n.Kind == fleet.KindCN || slices.Contains(names, n) {
			return refuse(enrol.ProblemBadRequest, "%s is no alternative name, or given twice", n)
		}
		names = append(names, n)
	}
	if len(names) == 0 {
		return refuse(enrol.ProblemBadRequest, "the certificate would name nobody")
	}
	for _, n := range names {
		if !slices.Contains(allowed, n) {
			return refuse(enrol.ProblemForbidden, "the bundle of this device does not allow the name %s", n)
		}
	}
	return nil
}

func checkAttribute(at fleet.Attribute) error {
	if !slices.Contains(fleet.SubjectTypes(), at.Type) || at.Value == "" || len(at.Value) > 64 || !isText(at.Value) {
		return refuse(enrol.ProblemBadRequest, "subject attribute %.10q: types are %v, values 1 to 64 bytes of UTF-8 text", at.Type, fleet.SubjectTypes())
	}
	// countryName is a PrintableString of two (RFC 5280 appendix A).
	if at.Type == "C" && (len(at.Value) != 2 || strings.ContainsFunc(at.Value, func(r rune) bool { return r < 'A' || r > 'Z' })) {
		return refuse(enrol.ProblemBadRequest, "the country %.10q is not two capital letters", at.Value)
	}
	return nil
}

func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// patience is how long a slot waits for a word from its owner before another
// CLM may have it, on uptime.
const patience = time.Hour

// mayClaim refuses a peer while the pending slot is another's.
func (a *Agent) mayClaim(st state, peer ibc.Identity) error {
	if st.Pending == nil || st.Pending.Owner == peer.Name || time.Since(a.heard) >= patience {
		return nil
	}
	return refuse(enrol.ProblemConflict, "an enrolment by %s is under way", st.Pending.Owner)
}

// repeatCSR answers a request for the pending enrolment.
func (a *Agent) repeatCSR(st state, peer ibc.Identity, req enrol.CSRRequest) ([]byte, error) {
	if err := a.mayClaim(st, peer); err != nil {
		return nil, err
	}
	csr, err := keyfile.ReadSecret(a.dir.pair(req.Enrolment, csrName), enrol.MaxCSR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(enrol.ProblemUnknown, "the CSR of enrolment %s was deleted when its certificate was activated", req.Enrolment)
	}
	if err != nil {
		return nil, fmt.Errorf("read CSR: %w", err)
	}
	key, err := a.dir.readKey(req.Enrolment)
	if err != nil {
		return nil, err
	}
	defer clear(key.kept)
	digest, err := requestDigest(key, req)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(digest, st.Pending.Request) {
		return nil, refuse(enrol.ProblemConflict, "enrolment %s was requested with other parameters", req.Enrolment)
	}
	return csr, a.takeOver(st, peer)
}

// takeOver makes the peer the owner of the pending slot.
func (a *Agent) takeOver(st state, peer ibc.Identity) error {
	a.heard = time.Now()
	if st.Pending.Owner == peer.Name {
		return nil
	}
	p := *st.Pending
	p.Owner = peer.Name
	st.Pending = &p
	return a.commit(st)
}

// openSlot makes key pair and CSR of a new enrolment.
func (a *Agent) openSlot(st state, peer ibc.Identity, req enrol.CSRRequest, content csrContent) ([]byte, error) {
	ca, err := a.resolveCA(st, req)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	algorithm := req.Key
	if algorithm == "" {
		algorithm = a.cfg.Key
	}
	key, err := a.dir.generate(algorithm)
	if err != nil {
		return nil, err
	}
	defer clear(key.kept)
	csr, err := newCSR(a.cfg.Random, key, content)
	if errors.Is(err, enrol.ErrCSR) {
		return nil, refuse(enrol.ProblemBadRequest, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	p := &pair{ID: hexID(req.Enrolment), Owner: peer.Name, Subject: content.subject, SANs: content.sans, store: key.store.Name()}
	if p.Request, err = requestDigest(key, req); err != nil {
		return nil, err
	}
	if err := a.dir.createPair(req.Enrolment, key, csr, ca); err != nil {
		return nil, fmt.Errorf("store key pair: %w", err)
	}
	st.Pending, st.KeyAndCSR = p, time.Since(began)
	if err := a.commit(st); err != nil {
		return nil, err
	}
	a.heard = time.Now()
	return csr, nil
}

// resolveCA returns the CA certificate of a request: the enclosed one, or the
// one that the device has under the hash. It refuses a CA that cannot lead to
// a trust anchor of the device, before anybody issues a certificate for
// nothing.
func (a *Agent) resolveCA(st state, req enrol.CSRRequest) ([]byte, error) {
	anchors := a.anchors(st)
	ca := req.CA
	if ca == nil {
		known := slices.Clone(anchors)
		for _, p := range st.pairs() {
			if c, err := a.dir.readCertificate(p.id(), caName); err == nil {
				known = append(known, c.Raw)
			}
		}
		at := slices.IndexFunc(known, func(der []byte) bool { return sha256.Sum256(der) == req.CAHash })
		if at < 0 {
			return nil, refuse(enrol.ProblemUnknownCA, "the CA certificate with SHA-256 %x is not known here", req.CAHash)
		}
		ca = known[at]
	}
	parsed, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, refuse(enrol.ProblemBadRequest, "the CA certificate does not parse")
	}
	if len(anchors) == 0 {
		return ca, nil
	}
	if slices.ContainsFunc(anchors, func(anchor []byte) bool { return leads(anchor, parsed) }) {
		return ca, nil
	}
	return nil, refuse(enrol.ProblemForbidden, "the CA %q leads to no trust anchor of this device", parsed.Subject)
}

// requestDigest identifies the parameters of a request: all but the CLM's
// time, the CA by its hash. It is keyed with what is kept of the new private
// key, since a challenge may be guessable.
func requestDigest(key keptKey, req enrol.CSRRequest) ([]byte, error) {
	req.CA, req.Time = nil, time.Time{}
	encoded, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	defer clear(encoded)
	mac := hmac.New(sha256.New, key.kept)
	mac.Write(encoded)
	return mac.Sum(nil), nil
}
