package labpeer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// hierarchy is a root, an issuing CA, and a registration authority that is the
// zero pair where the CA itself reads the requests.
type hierarchy struct {
	root, issuing, ra pair
}

// newHierarchy makes the certificates. SCEP encrypts to the recipient's RSA key
// (RFC 8894, section 3.1), so the issuing CA is RSA unless there is an RA,
// which is then the only RSA key.
func newHierarchy(separateRA bool, now time.Time) (hierarchy, error) {
	var h hierarchy
	var err error
	ca := x509.Certificate{
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if h.root, err = issue(named(ca, "Root"), pair{}, newECDSA); err != nil {
		return hierarchy{}, err
	}
	issuing, newKey := named(ca, "Issuing"), newRSA
	issuing.MaxPathLenZero = true
	if separateRA {
		newKey = newECDSA
	} else {
		issuing.KeyUsage |= x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	if h.issuing, err = issue(issuing, h.root, newKey); err != nil || !separateRA {
		return h, err
	}
	ra := named(x509.Certificate{
		NotBefore:             ca.NotBefore,
		NotAfter:              ca.NotAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}, "RA")
	h.ra, err = issue(ra, h.issuing, newRSA)
	return h, err
}

func named(template x509.Certificate, role string) x509.Certificate {
	template.Subject = pkix.Name{Organization: []string{"edgeclm lab, NOT FOR PRODUCTION"}, CommonName: "Lab " + role}
	return template
}

func newECDSA() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newRSA() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// issue makes a key and its certificate, self-signed if the issuer is the zero
// pair.
func issue(template x509.Certificate, issuer pair, newKey func() (crypto.Signer, error)) (pair, error) {
	subject := template.Subject.CommonName
	key, err := newKey()
	if err != nil {
		return pair{}, fmt.Errorf("make key of %s: %w", subject, err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return pair{}, fmt.Errorf("draw serial of %s: %w", subject, err)
	}
	if issuer.cert == nil {
		issuer = pair{cert: &template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, issuer.cert, key.Public(), issuer.key)
	if err != nil {
		return pair{}, fmt.Errorf("issue %s: %w", subject, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("read back %s: %w", subject, err)
	}
	return pair{cert: cert, key: key}, nil
}

func (p pair) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

func (p pair) keyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, fmt.Errorf("encode key of %s: %w", p.cert.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
