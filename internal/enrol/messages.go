package enrol

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Labels of the two messages that a device signs.
const (
	labelPossession = "edgeclm/v1/possession"
	labelStatement  = "edgeclm/v1/statement"
)

// ErrProof is wrapped when a possession signature or statement does not hold.
var ErrProof = errors.New("the device's proof does not hold")

// PossessionMessage is what the new key signs: LP(label, identity, enrolment
// ID, nonce, SHA-256(certificate)).
func PossessionMessage(id ibc.Identity, enrolment ID, nonce [NonceSize]byte, certificate [32]byte) ([]byte, error) {
	return ibc.LP([]byte(labelPossession), []byte(id.String()), enrolment[:], nonce[:], certificate[:])
}

// StatementMessage is what the identity key signs: LP(label, identity,
// enrolment ID, SHA-256(SPKI), SHA-256(certificate)). It says "I, this
// identity, made this key and verified this certificate".
func StatementMessage(id ibc.Identity, enrolment ID, spki, certificate [32]byte) ([]byte, error) {
	return ibc.LP([]byte(labelStatement), []byte(id.String()), enrolment[:], spki[:], certificate[:])
}

// PossessionDigest hashes a possession message for a signature by pub:
// SHA-384 for ECDSA on P-384, else SHA-256.
func PossessionDigest(pub crypto.PublicKey, message []byte) ([]byte, crypto.Hash) {
	if k, ok := pub.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P384() {
		sum := sha512.Sum384(message)
		return sum[:], crypto.SHA384
	}
	sum := sha256.Sum256(message)
	return sum[:], crypto.SHA256
}

// CheckPossession verifies a possession signature: ECDSA in DER, or RSA PKCS#1
// v1.5. Errors wrap ErrProof.
func CheckPossession(pub crypto.PublicKey, message, signature []byte) error {
	digest, hash := PossessionDigest(pub, message)
	var ok bool
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, digest, signature)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(k, hash, digest, signature) == nil
	default:
		return fmt.Errorf("%w: keys of type %T are not supported", ErrProof, pub)
	}
	if !ok {
		return fmt.Errorf("%w: the possession signature is not by the certificate's key", ErrProof)
	}
	return nil
}

// Verifier checks what devices sign with their identity keys: *ibc.Params,
// which are of one epoch.
type Verifier interface {
	ID() [ibc.ParamsIDSize]byte
	Verify(id ibc.Identity, message, signature []byte) error
}

// CheckReceipt verifies both signatures of a device over a certificate, with
// the parameters of the PKG alone. Errors wrap ErrProof.
func CheckReceipt(params Verifier, enrolment ID, certificate *x509.Certificate, r Receipt) error {
	if got := sha256.Sum256(certificate.Raw); got != r.Certificate {
		return fmt.Errorf("%w: it is about certificate %x, not %x", ErrProof, r.Certificate[:8], got[:8])
	}
	possession, err := PossessionMessage(r.Identity, enrolment, r.Nonce, r.Certificate)
	if err != nil {
		return err
	}
	if err := CheckPossession(certificate.PublicKey, possession, r.Possession); err != nil {
		return err
	}
	spki := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	statement, err := StatementMessage(r.Identity, enrolment, spki, r.Certificate)
	if err != nil {
		return err
	}
	if err := params.Verify(r.Identity, statement, r.Statement); err != nil {
		return fmt.Errorf("%w: statement: %w", ErrProof, err)
	}
	return nil
}
