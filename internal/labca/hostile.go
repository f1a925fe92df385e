package labca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/scep"

	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// Hostile is a way to misbehave, for tests of clients.
type Hostile string

// The ways to misbehave. The first group issues the wrong certificate in an
// answer that is in order, the second spoils the answer, the third does not
// answer as SCEP at all.
const (
	Honest Hostile = ""

	OtherKey      Hostile = "other-key"      // a certificate with the right names for another key
	ForeignIssuer Hostile = "foreign-issuer" // issued by another CA of the same name
	Expired       Hostile = "expired"        // its validity is over
	Previous      Hostile = "previous"       // the subject's certificate before this one, again, if there is one
	OtherNames    Hostile = "other-names"    // the right key under another name
	CACertificate Hostile = "ca-certificate" // the right key, as a CA

	WrongNonce       Hostile = "wrong-nonce"       // recipientNonce is not the request's
	WrongTransaction Hostile = "wrong-transaction" // another transaction ID
	WrongType        Hostile = "wrong-type"        // a PKCSReq instead of a CertRep
	WrongStatus      Hostile = "wrong-status"      // a pkiStatus that does not exist
	ForeignSigner    Hostile = "foreign-signer"    // signed by neither CA nor RA
	ForgedSigner     Hostile = "forged-signer"     // by another key under the RA's name and serial number
	TwoSigners       Hostile = "two-signers"       // signed by the RA and by somebody else
	OtherRecipient   Hostile = "other-recipient"   // encrypted to somebody else
	BadContent       Hostile = "bad-content"       // no certificates within
	Tampered         Hostile = "tampered"          // a bit changed after signing
	Truncated        Hostile = "truncated"         // cut off
	FailureUnder500  Hostile = "failure-under-500" // a signed refusal under HTTP status 500

	Garbage   Hostile = "garbage"   // not ASN.1
	Oversized Hostile = "oversized" // more than any client should read
	Busy      Hostile = "busy"      // HTTP status 503, Retry-After: 7
	Slow      Hostile = "slow"      // no answer until the client gives up
	Redirect  Hostile = "redirect"  // to another server
)

// Misdeeds lists all ways to misbehave.
func Misdeeds() []Hostile {
	return []Hostile{
		OtherKey, ForeignIssuer, Expired, Previous, OtherNames, CACertificate,
		WrongNonce, WrongTransaction, WrongType, WrongStatus, ForeignSigner, ForgedSigner, TwoSigners,
		OtherRecipient, BadContent, Tampered, Truncated, FailureUnder500,
		Garbage, Oversized, Busy, Slow, Redirect,
	}
}

// ParseHostile reads the name of a way to misbehave.
func ParseHostile(s string) (Hostile, error) {
	if h := Hostile(s); h == Honest || slices.Contains(Misdeeds(), h) {
		return h, nil
	}
	return "", fmt.Errorf("%w: %.40q is none of %v", ErrOptions, s, Misdeeds())
}

func (ca *CA) misdeed() Hostile {
	h, _ := ca.hostile.Load().(Hostile)
	return h
}

// busySeconds is the Retry-After of Busy.
const busySeconds = "7"

// instead answers in place of SCEP, if that is the misdeed.
func (h Hostile) instead(w http.ResponseWriter, r *http.Request) bool {
	switch h {
	case Garbage:
		respond(w, http.StatusOK, typeMessage, []byte{0x30, 0x80, 0x24})
	case Oversized:
		respond(w, http.StatusOK, typeMessage, make([]byte, 8<<20))
	case Busy:
		w.Header().Set("Retry-After", busySeconds)
		http.Error(w, "busy", http.StatusServiceUnavailable)
	case Slow:
		<-r.Context().Done()
	case Redirect:
		http.Redirect(w, r, "http://192.0.2.1"+Path+"?operation=PKIOperation", http.StatusTemporaryRedirect)
	default:
		return false
	}
	return true
}

// issueAs issues a certificate, or the wrong one. The caller holds the lock.
func (ca *CA) issueAs(x *transaction, misdeed Hostile) (*x509.Certificate, error) {
	now := ca.options.Now()
	begin, end := now.Add(-ca.options.Backdate), now.Add(ca.options.Lifetime)
	by := ca.keys.issuing
	wrong := *x.csr
	switch misdeed {
	case OtherKey:
		key, err := ecdsa.GenerateKey(elliptic.P256(), ca.options.Random)
		if err != nil {
			return nil, err
		}
		wrong.PublicKey = key.Public()
	case OtherNames:
		wrong.RawSubject = ca.Root().RawSubject
	case ForeignIssuer:
		stray, err := ca.stray()
		if err != nil {
			return nil, err
		}
		by = stray.issuing
	case Expired:
		begin, end = now.Add(-2*time.Hour), now.Add(-time.Hour)
	case Previous:
		if c := ca.transactions.before(x); c != nil {
			return c, nil
		}
	case CACertificate:
		return ca.issueCA(x.csr)
	}
	return ca.issue(&wrong, by, begin, end)
}

// issueCA makes a CA of whoever asks.
func (ca *CA) issueCA(csr *x509.CertificateRequest) (*x509.Certificate, error) {
	serial, err := newSerial(ca.options.Random)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, RawSubject: csr.RawSubject, ExtraExtensions: csr.Extensions,
		NotBefore: ca.options.Now(), NotAfter: ca.options.Now().Add(ca.options.Lifetime),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(ca.options.Random, template, ca.Root(), csr.PublicKey, ca.keys.root.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// tamperContent spoils what is about to be encrypted, or to whom.
func (ca *CA) tamperContent(content []byte, to *x509.Certificate, misdeed Hostile) ([]byte, *x509.Certificate, error) {
	switch misdeed {
	case BadContent:
		return []byte("no certificates"), to, nil
	case OtherRecipient:
		stray, err := ca.stray()
		return content, stray.ra.certificate, err
	}
	return content, to, nil
}

// sign signs an answer, or spoils it first, or afterwards.
func (ca *CA) sign(reply *pkimessage.Message, misdeed Hostile) (der []byte, status int, err error) {
	status = http.StatusOK
	switch misdeed {
	case WrongNonce:
		reply.RecipientNonce = reply.SenderNonce
	case WrongTransaction:
		reply.TransactionID = strings.Repeat("0", len(reply.TransactionID))
	case WrongType:
		reply.Type = scep.PKCSReq
	case WrongStatus:
		reply.Status = "7"
	case FailureUnder500:
		status = http.StatusInternalServerError
		reply.Status, reply.FailInfo, reply.FailText = scep.FAILURE, scep.BadRequest, "not today"
		reply.Content = nil
	}
	signers, err := ca.signers(misdeed)
	if err != nil {
		return nil, 0, err
	}
	if der, err = pkimessage.Sign(reply, signers...); err != nil {
		return nil, 0, err
	}
	switch misdeed {
	case Tampered:
		der[len(der)/2] ^= 1
	case Truncated:
		der = der[:len(der)/2]
	}
	return der, status, nil
}

// signers returns who signs an answer: the RA, or whom the misdeed says.
func (ca *CA) signers(misdeed Hostile) ([]pkimessage.Signer, error) {
	front := ca.keys.front().signer()
	if misdeed != ForeignSigner && misdeed != ForgedSigner && misdeed != TwoSigners {
		return []pkimessage.Signer{front}, nil
	}
	stray, err := ca.stray()
	if err != nil {
		return nil, err
	}
	switch misdeed {
	case ForeignSigner:
		return []pkimessage.Signer{stray.ra.signer()}, nil
	case TwoSigners:
		return []pkimessage.Signer{front, stray.ra.signer()}, nil
	}
	issuer := stray.issuing
	if ca.keys.ra.certificate == nil {
		issuer = stray.root
	}
	template := *front.Certificate
	template.AuthorityKeyId = nil
	der, err := x509.CreateCertificate(ca.options.Random, &template, issuer.certificate, stray.ra.key.Public(), issuer.key)
	if err != nil {
		return nil, err
	}
	forged, err := x509.ParseCertificate(der)
	return []pkimessage.Signer{{Certificate: forged, Key: stray.ra.key}}, err
}
