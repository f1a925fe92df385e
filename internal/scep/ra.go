package scep

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"
)

// RA is the key with which requests are signed and answers decrypted. It must
// be RSA: no other kind can decrypt (RFC 8894 section 3.1).
type RA struct {
	Key         *rsa.PrivateKey
	Certificate *x509.Certificate
}

// raBits is the size of a new RA key. It is a key of the transport: what it
// protects is a challenge, and certificates, which are public.
const raBits = 2048

// maxRAFile bounds the PEM of an RA.
const maxRAFile = 32 << 10

// ErrRA is wrapped by every refusal of a stored RA key.
var ErrRA = errors.New("the RA key file is not acceptable")

// GenerateRA makes an RSA-2048 key and a self-signed certificate for it with the
// common name given. The certificate never expires (RFC 5280 section 4.1.2.5):
// a CLM whose clock is wrong must still be able to sign with it.
func GenerateRA(random io.Reader, name string) (RA, error) {
	key, err := rsa.GenerateKey(random, raBits)
	if err != nil {
		return RA{}, fmt.Errorf("generate RA key: %w", err)
	}
	serial, err := rand.Int(random, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return RA{}, fmt.Errorf("generate RA certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(random, template, template, key.Public(), key)
	if err != nil {
		return RA{}, fmt.Errorf("generate RA certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return RA{}, fmt.Errorf("generate RA certificate: %w", err)
	}
	return RA{Key: key, Certificate: certificate}, nil
}

// The types of the PEM blocks.
const (
	pemKey         = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
)

// MarshalPEM encodes the key (PKCS#8), then the certificate. The result is a
// secret.
func (r RA) MarshalPEM() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(r.Key)
	if err != nil {
		return nil, fmt.Errorf("encode RA key: %w", err)
	}
	defer clear(key)
	out := pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: key})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: r.Certificate.Raw})...), nil
}

// ParseRA parses what MarshalPEM wrote, or a key with a certificate that the CA
// issued for it. Errors wrap ErrRA.
func ParseRA(b []byte) (RA, error) {
	if len(b) > maxRAFile {
		return RA{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrRA, len(b), maxRAFile)
	}
	keyBlock, rest := pem.Decode(b)
	if keyBlock == nil || keyBlock.Type != pemKey {
		return RA{}, fmt.Errorf("%w: it does not begin with a %s block", ErrRA, pemKey)
	}
	defer clear(keyBlock.Bytes)
	certificateBlock, rest := pem.Decode(rest)
	if certificateBlock == nil || certificateBlock.Type != pemCertificate || len(bytes.TrimSpace(rest)) > 0 {
		return RA{}, fmt.Errorf("%w: the key is not followed by exactly one %s block", ErrRA, pemCertificate)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return RA{}, fmt.Errorf("%w: its key does not parse", ErrRA)
	}
	certificate, err := x509.ParseCertificate(certificateBlock.Bytes)
	if err != nil {
		return RA{}, fmt.Errorf("%w: %w", ErrRA, err)
	}
	ra := RA{Certificate: certificate}
	var ok bool
	if ra.Key, ok = parsed.(*rsa.PrivateKey); !ok {
		return RA{}, fmt.Errorf("%w: its key is not RSA", ErrRA)
	}
	return ra, ra.check()
}

// check reports whether key and certificate belong together.
func (r RA) check() error {
	if r.Key == nil || r.Certificate == nil || !r.Key.PublicKey.Equal(r.Certificate.PublicKey) {
		return fmt.Errorf("%w: its certificate is not for its key", ErrRA)
	}
	if r.Key.N.BitLen() < raBits {
		return fmt.Errorf("%w: its key has %d bits, at least %d are wanted", ErrRA, r.Key.N.BitLen(), raBits)
	}
	return nil
}
