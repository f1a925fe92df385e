package coaplink

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// MaxBindingCertificate bounds a binding certificate in bytes of DER.
const MaxBindingCertificate = 1 << 10

// spkiHash is the SHA-256 of a key's SubjectPublicKeyInfo in DER.
func spkiHash(pub *ecdsa.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return [32]byte{}, fmt.Errorf("encode public key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// bindingCertificate wraps a raw public key and its binding into a self-signed
// X.509 certificate, since no Go implementation of DTLS speaks RFC 7250. It
// has no name and no end (RFC 5280 section 4.1.2.5); neither side looks.
func bindingCertificate(key *ecdsa.PrivateKey, b *Binding) ([]byte, error) {
	value, err := b.Marshal()
	if err != nil {
		return nil, err
	}
	return shell(key, pkix.Extension{Id: bindingOID(), Value: value})
}

// shell is the self-signed certificate around a key, with these extensions.
func shell(key *ecdsa.PrivateKey, extensions ...pkix.Extension) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber:       big.NewInt(1),
		NotBefore:          time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:           time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		SignatureAlgorithm: x509.ECDSAWithSHA256,
		ExtraExtensions:    extensions,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make handshake certificate: %w", err)
	}
	return der, nil
}

// errStranger is returned for a certificate that says that it binds its key to
// nobody.
var errStranger = fmt.Errorf("%w: it is bound to no identity", ErrBinding)

// presented is a binding certificate that parsed; nothing is verified yet.
type presented struct {
	binding *Binding
	spki    [32]byte // SHA-256 of the SubjectPublicKeyInfo
	sum     [32]byte // SHA-256 of the certificate
}

// parsePresented parses what a peer sent in its Certificate message: exactly
// one certificate of at most MaxBindingCertificate bytes, with a P-256 key and
// exactly one extension, the binding. Errors wrap ErrBinding; beside errStranger,
// for a certificate whose extension is that of strangers, it is one without
// binding.
func parsePresented(certificates [][]byte) (*presented, error) {
	if len(certificates) != 1 {
		return nil, fmt.Errorf("%w: %d certificates instead of one", ErrBinding, len(certificates))
	}
	der := certificates[0]
	if len(der) > MaxBindingCertificate {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrBinding, len(der), MaxBindingCertificate)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBinding, err)
	}
	if pub, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: its key is not ECDSA on P-256", ErrBinding)
	}
	if len(c.Extensions) == 1 && c.Extensions[0].Id.Equal(strangerOID()) && len(c.Extensions[0].Value) == 0 {
		return &presented{spki: sha256.Sum256(c.RawSubjectPublicKeyInfo), sum: sha256.Sum256(der)}, errStranger
	}
	if len(c.Extensions) != 1 || !c.Extensions[0].Id.Equal(bindingOID()) {
		return nil, fmt.Errorf("%w: it must have exactly one extension, %s", ErrBinding, BindingOID)
	}
	b, err := ParseBinding(c.Extensions[0].Value)
	if err != nil {
		return nil, err
	}
	return &presented{binding: b, spki: sha256.Sum256(c.RawSubjectPublicKeyInfo), sum: sha256.Sum256(der)}, nil
}
