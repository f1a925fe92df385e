package conformance

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
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/smallstep/pkcs7"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// slotState is what the rules about the pending slot share.
//
// A device without trust anchors takes the CA of the request for the enrolment
// and pins it at the first confirmation, which is never sent: here such a
// device is given a CA that the test makes, so that also a certificate can be
// verified. A device with trust anchors is told the CLM's CA, and can only be
// shown certificates that it must refuse. In the end another request takes the
// slot over, so that nothing stays staged.
type slotState struct {
	asked  bool
	why    string // it cannot be used
	anchor *issuer
	ca     []byte // DER, that CSR requests name
	id     []byte // of the enrolment that has the slot
	csr    *x509.CertificateRequest
	der    []byte // of the CSR
}

// slotUnusable says why the pending slot cannot be used, "" if it can.
func (t *tester) slotUnusable(ctx context.Context) string {
	s := &t.slot
	if s.asked {
		return s.why
	}
	s.asked = true
	s.why = t.openSlot(ctx)
	return s.why
}

func (t *tester) openSlot(ctx context.Context) string {
	if !t.Slot {
		return "not asked for: it would take the device's pending slot"
	}
	st, _, err := t.readStatus(ctx)
	switch {
	case err != nil:
		return err.Error()
	case st.Staged != nil:
		return "a certificate is staged on the device: an enrolment is under way"
	case st.Anchors != nil && len(*st.Anchors) > 0 && t.CA == nil:
		return "the device has trust anchors, and no CA is configured here"
	case st.Anchors != nil && len(*st.Anchors) > 0:
		t.slot.ca = t.CA
		return ""
	}
	if t.slot.anchor, err = newIssuer("conformance test"); err != nil {
		return err.Error()
	}
	t.slot.ca = t.slot.anchor.certificate.Raw
	return ""
}

// issuer is a CA that lives for one test.
type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newIssuer(name string) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return (&issuer{template, key}).sign(template, &key.PublicKey)
}

// sign issues a certificate and returns it as an issuer without key, or with
// its own if it is self-signed.
func (i *issuer) sign(template *x509.Certificate, public crypto.PublicKey) (*issuer, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, i.certificate, public, i.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	return &issuer{c, i.key}, nil
}

// issue makes the certificate that a CSR asks for, for another key if one is given.
func (i *issuer) issue(csr *x509.CertificateRequest, public crypto.PublicKey) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), RawSubject: csr.RawSubject,
		DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, URIs: csr.URIs,
		NotBefore: i.certificate.NotBefore, NotAfter: i.certificate.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	leaf, err := i.sign(template, public)
	if err != nil {
		return nil, err
	}
	return leaf.certificate.Raw, nil
}

// lonely is a certificate that belongs to nothing.
func (t *tester) lonely() ([][]byte, error) {
	i, err := newIssuer("nobody")
	if err != nil {
		return nil, err
	}
	return [][]byte{i.certificate.Raw}, nil
}

// verification is the body of /verify-certificate; a nil ID is one that nobody
// knows.
func (t *tester) verification(id []byte, certificates func() ([][]byte, error)) ([]byte, error) {
	random, err := t.draw(idSize + hashSize)
	if err != nil {
		return nil, err
	}
	if id == nil {
		id = random[:idSize]
	}
	return verifyBody(id, random[idSize:], certificates)
}

func verifyBody(id, nonce []byte, certificates func() ([][]byte, error)) ([]byte, error) {
	list, err := certificates()
	if err != nil {
		return nil, err
	}
	p7, err := pkcs7.DegenerateCertificate(slices.Concat(list...))
	if err != nil {
		return nil, fmt.Errorf("make PKCS#7: %w", err)
	}
	return encodeMap(pair{0, 1}, pair{1, id}, pair{2, nonce}, pair{3, p7})
}

// csrRequest is the body of /csr-generation-request for an ECDSA key, with
// more pairs behind.
func (t *tester) csrRequest(id []byte, key int, more ...pair) ([]byte, error) {
	sum := sha256.Sum256(t.slot.ca)
	return encodeMap(append([]pair{{0, 1}, {1, id}, {2, t.slot.ca}, {3, sum[:]}, {4, key}}, more...)...)
}

const (
	keyP256 = 1
	keyP384 = 2
)

func slotRules() []rule {
	all := []rule{
		{name: "csr.unknown-ca", section: "4.5, 5.1", says: "the hash of a CA that the device does not have is 4.04 unknown-ca", test: csrUnknownCA},
		{name: "csr.names", section: "5.1", says: "a name that the bundle does not allow is 4.03 forbidden", test: csrNames},
		{name: "csr.made", section: "5.1, RFC 2986", says: "a PKCS#10 with the key that was asked for, signed by it", test: csrMade},
		{name: "csr.repeated", section: "5.1", says: "the same request gives the same CSR; time and unknown keys do not count", test: csrRepeated},
		{name: "csr.conflict", section: "5.1", says: "other parameters under the same ID are 4.09 conflict", test: ofSlot(func(ctx context.Context, t *tester) verdict {
			return t.slotRefusal(ctx, "/csr-generation-request", conflict, "conflict", func() ([]byte, error) { return t.csrRequest(t.slot.id, keyP384) })
		})},
		{name: "csr.status", section: "5.4", says: "/status names the enrolment that has the slot", test: ofSlot(csrStatus)},
		{name: "verify.foreign-ca", section: "5.2", says: "a certificate of a CA that leads to no trust anchor is 4.22 unverified", test: ofSlot(func(ctx context.Context, t *tester) verdict {
			return t.unverified(ctx, func() ([][]byte, error) {
				i, err := newIssuer("another CA")
				if err != nil {
					return nil, err
				}
				leaf, err := i.issue(t.slot.csr, t.slot.csr.PublicKey)
				return [][]byte{leaf, i.certificate.Raw}, err
			})
		})},
		{name: "verify.foreign-key", section: "5.2", says: "so is one of another key", test: ofSlot(func(ctx context.Context, t *tester) verdict {
			return t.unverified(ctx, func() ([][]byte, error) {
				i, err := newIssuer("another CA")
				if err != nil {
					return nil, err
				}
				if t.slot.anchor != nil {
					leaf, err := t.slot.anchor.issue(t.slot.csr, &i.key.PublicKey)
					return [][]byte{leaf, t.slot.ca}, err
				}
				leaf, err := i.issue(t.slot.csr, &i.key.PublicKey)
				return [][]byte{leaf, i.certificate.Raw}, err
			})
		})},
		{name: "verify.proof", section: "5.2, 6", says: "the right certificate is answered with possession and statement, anew for each nonce", test: ofSlot(verifyProof)},
		{name: "activate.staged", section: "5.3", says: "a certificate that is not the staged one is 4.09 conflict", test: ofSlot(func(ctx context.Context, t *tester) verdict {
			return t.slotRefusal(ctx, "/activate", conflict, "conflict", func() ([]byte, error) {
				return encodeMap(pair{0, 1}, pair{1, t.slot.id}, pair{2, make([]byte, hashSize)})
			})
		})},
		{name: "confirm.active", section: "5.3", says: "a certificate that is not active cannot be confirmed: 4.09 conflict", test: ofSlot(func(ctx context.Context, t *tester) verdict {
			return t.slotRefusal(ctx, "/confirm", conflict, "conflict", func() ([]byte, error) {
				return encodeMap(pair{0, 1}, pair{1, t.slot.id}, pair{2, make([]byte, hashSize)})
			})
		})},
		{name: "csr.superseded", section: "5.1", says: "another ID of the same CLM takes the slot; the one before is unknown", test: ofSlot(csrSuperseded)},
	}
	for i := range all {
		all[i].slot = true
	}
	return all
}

// ofSlot tests only if the device has made a CSR.
func ofSlot(test func(context.Context, *tester) verdict) func(context.Context, *tester) verdict {
	return func(ctx context.Context, t *tester) verdict {
		if t.slot.csr == nil {
			return skipped("the device has made no CSR")
		}
		return test(ctx, t)
	}
}

func (t *tester) slotRefusal(ctx context.Context, path string, code codes.Code, title string, body func() ([]byte, error)) verdict {
	b, err := body()
	if err != nil {
		return judge(err)
	}
	return t.refused(ctx, post(path, b), code, title)
}

func (t *tester) unverified(ctx context.Context, certificates func() ([][]byte, error)) verdict {
	return t.slotRefusal(ctx, "/verify-certificate", unprocessable, "unverified", func() ([]byte, error) {
		return t.verification(t.slot.id, certificates)
	})
}

func csrUnknownCA(ctx context.Context, t *tester) verdict {
	random, err := t.draw(idSize + hashSize)
	if err != nil {
		return judge(err)
	}
	return t.slotRefusal(ctx, "/csr-generation-request", codes.NotFound, "unknown-ca", func() ([]byte, error) {
		return encodeMap(pair{0, 1}, pair{1, random[:idSize]}, pair{3, random[idSize:]}, pair{4, keyP256})
	})
}

func csrNames(ctx context.Context, t *tester) verdict {
	id, err := t.draw(idSize)
	if err != nil {
		return judge(err)
	}
	return t.slotRefusal(ctx, "/csr-generation-request", codes.Forbidden, "forbidden", func() ([]byte, error) {
		return t.csrRequest(id, keyP256, pair{5, []any{[]any{3, "conformance.invalid"}}}, pair{6, []any{[]any{2, "conformance.invalid"}}})
	})
}

func csrMade(ctx context.Context, t *tester) verdict {
	id, err := t.draw(idSize)
	if err != nil {
		return judge(err)
	}
	b, err := t.csrRequest(id, keyP256, pair{10, time.Now().Unix()})
	if err != nil {
		return judge(err)
	}
	r := post("/csr-generation-request", b)
	r.accept = formatPKCS10
	out, err := t.ask(ctx, r)
	if err != nil {
		return judge(err)
	}
	if out.code == conflict {
		t.slot.why = "the device's pending slot is another CLM's"
		return skipped("%s", t.slot.why)
	}
	if out.code != codes.Changed || out.format != formatPKCS10 {
		return failed("it was answered %s instead of 2.04 in format %d%s", out, formatPKCS10, explain(out))
	}
	if t.slot.der, err = t.whole(ctx, r, out); err != nil {
		return judge(err)
	}
	csr, err := x509.ParseCertificateRequest(t.slot.der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return failed("the CSR: %v", err)
	}
	if pub, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		return failed("the key of the CSR is %s, asked for was ECDSA on P-256", csr.PublicKeyAlgorithm)
	}
	t.slot.id, t.slot.csr = id, csr
	return verdict{}
}

func csrRepeated(ctx context.Context, t *tester) verdict {
	if t.slot.csr == nil {
		return skipped("the device has made no CSR")
	}
	b, err := t.csrRequest(t.slot.id, keyP256, pair{10, time.Now().Add(time.Minute).Unix()}, pair{unknownKey, "x"})
	if err != nil {
		return judge(err)
	}
	r := post("/csr-generation-request", b)
	r.accept = formatPKCS10
	out, v := t.want(ctx, r, codes.Changed, formatPKCS10)
	if v.outcome != Pass {
		return v
	}
	der, err := t.whole(ctx, r, out)
	if err != nil {
		return judge(err)
	}
	if !bytes.Equal(der, t.slot.der) {
		return failed("it gave another CSR")
	}
	return verdict{}
}

func csrStatus(ctx context.Context, t *tester) verdict {
	s, _, err := t.readStatus(ctx)
	if err != nil {
		return judge(err)
	}
	if !bytes.Equal(s.Enrolment, t.slot.id) {
		return failed("it names %x instead of %x", s.Enrolment, t.slot.id)
	}
	return verdict{}
}

// proof is the response of /verify-certificate.
type proof struct {
	Version     uint64 `cbor:"0,keyasint"`
	Certificate []byte `cbor:"1,keyasint"`
	Possession  []byte `cbor:"2,keyasint"`
	Statement   []byte `cbor:"3,keyasint"`
}

func verifyProof(ctx context.Context, t *tester) verdict {
	if t.slot.anchor == nil {
		return skipped("the device has trust anchors, so only their CA can issue: clmctl renew --force tests it")
	}
	bound, err := t.first.bound()
	if err != nil {
		return skipped("%v", err)
	}
	params, v := t.paramsOf(bound)
	if v.outcome == Fail {
		return skipped("%s", v.detail)
	}
	der, err := t.slot.anchor.issue(t.slot.csr, t.slot.csr.PublicKey)
	if err != nil {
		return judge(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return judge(err)
	}
	for range 2 {
		nonce, err := t.draw(hashSize)
		if err != nil {
			return judge(err)
		}
		body, err := verifyBody(t.slot.id, nonce, func() ([][]byte, error) { return [][]byte{t.slot.ca, der}, nil })
		if err != nil {
			return judge(err)
		}
		out, v := t.want(ctx, post("/verify-certificate", body), codes.Changed, formatCBOR)
		if v.outcome != Pass {
			return v
		}
		var p proof
		if err := strict(out.body, &p); err != nil || p.Version != 1 || len(p.Certificate) != hashSize {
			return failed("the proof: version %d, a hash of %d bytes, %v", p.Version, len(p.Certificate), err)
		}
		receipt := enrol.Receipt{
			Identity: bound.identity, Nonce: [enrol.NonceSize]byte(nonce), Certificate: [hashSize]byte(p.Certificate),
			Possession: p.Possession, Statement: p.Statement,
		}
		if err := enrol.CheckReceipt(params, enrol.ID(t.slot.id), leaf, receipt); err != nil {
			return judge(err)
		}
	}
	return verdict{}
}

func csrSuperseded(ctx context.Context, t *tester) verdict {
	old := t.slot.id
	id, err := t.draw(idSize)
	if err != nil {
		return judge(err)
	}
	b, err := t.csrRequest(id, keyP256)
	if err != nil {
		return judge(err)
	}
	if _, v := t.want(ctx, post("/csr-generation-request", b), codes.Changed, formatPKCS10); v.outcome != Pass {
		return v
	}
	t.slot.id = id
	body, err := encodeMap(pair{0, 1}, pair{1, old}, pair{2, make([]byte, hashSize)})
	if err != nil {
		return judge(err)
	}
	if v := t.refused(ctx, post("/activate", body), codes.NotFound, "unknown"); v.outcome != Pass {
		return v
	}
	s, _, err := t.readStatus(ctx)
	if err != nil {
		return judge(err)
	}
	if s.Staged != nil {
		return judge(errors.New("the certificate of the enrolment before is still staged"))
	}
	return verdict{}
}
