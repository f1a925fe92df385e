package pkimessage

import (
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// Seal encrypts content to the keys of certificates, which must be RSA. It is
// an ErrConfiguration if Configure has not been called.
func Seal(content []byte, to ...*x509.Certificate) ([]byte, error) {
	if !Configured() {
		return nil, ErrConfiguration
	}
	der, err := pkcs7.Encrypt(content, to)
	if err != nil {
		return nil, fmt.Errorf("encrypt SCEP message: %w", err)
	}
	return der, nil
}

// Open decrypts what was sealed to a certificate with its key. Errors are
// ErrEnvelope and nothing more.
func Open(enveloped []byte, certificate *x509.Certificate, key crypto.Decrypter) (content []byte, err error) {
	defer guard(&err, ErrEnvelope)
	if checkStructure(enveloped) != nil {
		return nil, ErrEnvelope
	}
	p7, err := pkcs7.Parse(enveloped)
	if err != nil {
		return nil, ErrEnvelope
	}
	content, err = p7.Decrypt(certificate, key)
	if err != nil {
		return nil, ErrEnvelope
	}
	return content, nil
}

// maxCertificates bounds a certs-only message.
const maxCertificates = 16

// CertsOnly encodes certificates as signed data without a signer (RFC 8894
// section 3.4).
func CertsOnly(certificates ...*x509.Certificate) ([]byte, error) {
	var raw []byte
	for _, c := range certificates {
		raw = append(raw, c.Raw...)
	}
	der, err := pkcs7.DegenerateCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("encode certificates: %w", err)
	}
	return der, nil
}

// ParseCertsOnly parses signed data without a signer: 1 to 16 certificates.
// Errors wrap ErrMalformed.
func ParseCertsOnly(ber []byte) (certificates []*x509.Certificate, err error) {
	defer guard(&err, errPanic)
	if err := checkStructure(ber); err != nil {
		return nil, err
	}
	p7, err := pkcs7.Parse(ber)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if n := len(p7.Certificates); n == 0 || n > maxCertificates {
		return nil, fmt.Errorf("%w: %d certificates, 1 to %d are allowed", ErrMalformed, n, maxCertificates)
	}
	return p7.Certificates, nil
}
