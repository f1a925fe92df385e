package coaplink

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// maxCredential bounds the PEM form of a credential in bytes.
const maxCredential = 8 << 10

// PEM types of a credential file.
const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"
)

// ErrCredential is wrapped when a stored credential is malformed or is not
// that of the identity key.
var ErrCredential = errors.New("not the DTLS credential of this identity")

// Credential is the CLM's handshake key and its binding with an empty context.
// It serves every handshake of one data directory and generation, so that
// devices remember the certificate and verify its binding once. Whoever holds
// it can act as the CLM until the generation rises.
type Credential struct {
	identity    ibc.Identity
	key         *ecdsa.PrivateKey
	certificate []byte
}

// NewCredential makes a handshake key and binds it to key's identity, which
// must have the role clm.
func NewCredential(key *ibc.PrivateKey, random io.Reader) (*Credential, error) {
	if key.Identity().Role != ibc.RoleCLM {
		return nil, fmt.Errorf("%w: %s has not the role %s", ErrCredential, key.Identity(), ibc.RoleCLM)
	}
	certificate, handshakeKey, err := newBound(key, random, nil)
	if err != nil {
		return nil, err
	}
	return &Credential{identity: key.Identity(), key: handshakeKey, certificate: certificate}, nil
}

// newBound makes a handshake key and a certificate that binds it.
func newBound(key *ibc.PrivateKey, random io.Reader, context []byte) ([]byte, *ecdsa.PrivateKey, error) {
	handshakeKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make handshake key: %w", err)
	}
	certificate, err := bind(key, random, handshakeKey, context)
	return certificate, handshakeKey, err
}

// bind makes a certificate that binds a handshake key.
func bind(key *ibc.PrivateKey, random io.Reader, handshakeKey *ecdsa.PrivateKey, context []byte) ([]byte, error) {
	spki, err := spkiHash(&handshakeKey.PublicKey)
	if err != nil {
		return nil, err
	}
	b, err := NewBinding(key, random, spki, context)
	if err != nil {
		return nil, err
	}
	return bindingCertificate(handshakeKey, b)
}

// newStranger makes a key that is bound to nobody, for one lifeboat.
func newStranger() (*Credential, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make handshake key: %w", err)
	}
	certificate, err := shell(key, pkix.Extension{Id: strangerOID()})
	return &Credential{key: key, certificate: certificate}, err
}

// stranger reports whether the credential speaks for nobody.
func (c *Credential) stranger() bool { return c.identity == ibc.Identity{} }

// Identity returns who the credential speaks for.
func (c *Credential) Identity() ibc.Identity { return c.identity }

// Certificate returns the binding certificate, DER.
func (c *Credential) Certificate() []byte { return bytes.Clone(c.certificate) }

// tls returns the credential in the form that DTLS takes.
func (c *Credential) tls() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.certificate}, PrivateKey: c.key}
}

// MarshalPEM encodes certificate and private key (PKCS#8) in PEM, to be kept
// 0600 beside the identity key.
func (c *Credential) MarshalPEM() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return nil, fmt.Errorf("encode handshake key: %w", err)
	}
	defer clear(key)
	out := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.certificate})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: key})...), nil
}

// ParseCredential reads what MarshalPEM wrote and checks that it is bound to
// the identity of key, under its parameters. Errors wrap ErrCredential; one of
// an earlier generation is such an error, and a new credential replaces it.
func ParseCredential(data []byte, key *ibc.PrivateKey) (*Credential, error) {
	if len(data) > maxCredential {
		return nil, fmt.Errorf("%w: %d bytes", ErrCredential, len(data))
	}
	certificate, rest := pem.Decode(data)
	if certificate == nil || certificate.Type != pemCertificate {
		return nil, fmt.Errorf("%w: no certificate in PEM", ErrCredential)
	}
	private, rest := pem.Decode(rest)
	if private == nil || private.Type != pemPrivateKey || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: no private key in PEM behind the certificate, or more", ErrCredential)
	}
	defer clear(private.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(private.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: the private key does not parse", ErrCredential)
	}
	handshakeKey, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: the private key is not ECDSA", ErrCredential)
	}
	p, err := parsePresented([][]byte{certificate.Bytes})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	spki, err := spkiHash(&handshakeKey.PublicKey)
	if err != nil {
		return nil, err
	}
	if spki != p.spki {
		return nil, fmt.Errorf("%w: the private key is not the certificate's", ErrCredential)
	}
	if p.binding.Identity != key.Identity() || p.binding.ParamsID != key.Params().ID() || len(p.binding.Context) != 0 {
		return nil, fmt.Errorf("%w: it is bound to %s, the identity key is %s", ErrCredential, p.binding.Identity, key.Identity())
	}
	if err := p.verify(key.Params()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	return &Credential{identity: key.Identity(), key: handshakeKey, certificate: certificate.Bytes}, nil
}
