package labca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// notForProduction stands in every subject.
const notForProduction = "NOT FOR PRODUCTION"

// authority is a certificate with its key.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func (a authority) signer() pkimessage.Signer {
	return pkimessage.Signer{Certificate: a.certificate, Key: a.key}
}

// hierarchy is a whole CA; ra is empty in LayoutSingle.
type hierarchy struct {
	root, issuing, ra authority
}

// front is who decrypts requests and signs answers.
func (h hierarchy) front() authority {
	if h.ra.certificate != nil {
		return h.ra
	}
	return h.issuing
}

// validity is that of the hierarchy. It has no end (RFC 5280 section 4.1.2.5)
// and begins early, so that a wrong clock on either side finds it valid.
func validity() (begin, end time.Time) {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
}

const rsaBits = 2048

func newHierarchy(random io.Reader, layout Layout, key KeyType) (hierarchy, error) {
	if key == "" && layout == LayoutSingle {
		key = KeyRSA
	}
	var h hierarchy
	caUsage := x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	var err error
	if h.root, err = newAuthority(random, key, "Root CA", caUsage, nil); err != nil {
		return hierarchy{}, err
	}
	if layout == LayoutSingle {
		caUsage |= x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	if h.issuing, err = newAuthority(random, key, "Issuing CA", caUsage, &h.root); err != nil {
		return hierarchy{}, err
	}
	if layout == LayoutSingle {
		return h, nil
	}
	raUsage := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	h.ra, err = newAuthority(random, KeyRSA, "RA", raUsage, &h.issuing)
	return h, err
}

// newAuthority makes a key and a certificate, self-signed without an issuer. It
// is a CA if it may sign certificates.
func newAuthority(random io.Reader, kind KeyType, name string, usage x509.KeyUsage, issuer *authority) (authority, error) {
	key, err := newKey(random, kind)
	if err != nil {
		return authority{}, fmt.Errorf("make the key of the %s: %w", name, err)
	}
	serial, err := newSerial(random)
	if err != nil {
		return authority{}, err
	}
	ca := usage&x509.KeyUsageCertSign != 0
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{notForProduction}, CommonName: "edgeclm lab " + name},
		KeyUsage:              usage,
		BasicConstraintsValid: true,
		IsCA:                  ca,
	}
	template.NotBefore, template.NotAfter = validity()
	if template.SubjectKeyId, err = keyID(key.Public()); err != nil {
		return authority{}, err
	}
	by := authority{certificate: template, key: key}
	if issuer != nil {
		by = *issuer
		template.MaxPathLenZero = ca
	}
	der, err := x509.CreateCertificate(random, template, by.certificate, key.Public(), by.key)
	if err != nil {
		return authority{}, fmt.Errorf("make the certificate of the %s: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	return authority{certificate: certificate, key: key}, err
}

func newKey(random io.Reader, kind KeyType) (crypto.Signer, error) {
	if kind == KeyRSA {
		return rsa.GenerateKey(random, rsaBits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), random)
}

// newSerial draws a positive serial number of 127 bits.
func newSerial(random io.Reader) (*big.Int, error) {
	serial, err := rand.Int(random, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

// keyID is the first 160 bits of the SHA-256 of the key (RFC 7093 section 2).
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// maxFile bounds the file of a hierarchy in bytes.
const maxFile = 64 << 10

// fileVersion is that of the file's format.
const fileVersion = 1

// file is how a hierarchy is stored.
type file struct {
	Version int              `json:"version"`
	Root    storedAuthority  `json:"root"`
	Issuing storedAuthority  `json:"issuing"`
	RA      *storedAuthority `json:"ra,omitempty"`
}

type storedAuthority struct {
	Certificate []byte `json:"certificate"` // DER
	Key         []byte `json:"key"`         // PKCS#8
}

func (a authority) store() (storedAuthority, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return storedAuthority{}, fmt.Errorf("encode key: %w", err)
	}
	return storedAuthority{Certificate: a.certificate.Raw, Key: key}, nil
}

func (s storedAuthority) parse() (authority, error) {
	certificate, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return authority{}, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err != nil {
		return authority{}, errors.New("a key does not parse")
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return authority{}, fmt.Errorf("a key is of type %T", parsed)
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(certificate.PublicKey) {
		return authority{}, fmt.Errorf("the key of %s is not its certificate's", certificate.Subject)
	}
	return authority{certificate: certificate, key: key}, nil
}

func (h hierarchy) marshal() ([]byte, error) {
	f := file{Version: fileVersion}
	var err error
	if f.Root, err = h.root.store(); err != nil {
		return nil, err
	}
	if f.Issuing, err = h.issuing.store(); err != nil {
		return nil, err
	}
	if h.ra.certificate != nil {
		ra, err := h.ra.store()
		if err != nil {
			return nil, err
		}
		f.RA = &ra
	}
	return json.Marshal(f)
}

// parseHierarchy reads what marshal wrote.
func parseHierarchy(b []byte) (hierarchy, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return hierarchy{}, fmt.Errorf("not a lab CA: %w", err)
	}
	if f.Version != fileVersion {
		return hierarchy{}, fmt.Errorf("a lab CA of version %d, only %d is known", f.Version, fileVersion)
	}
	var h hierarchy
	var err error
	if h.root, err = f.Root.parse(); err != nil {
		return hierarchy{}, err
	}
	if h.issuing, err = f.Issuing.parse(); err != nil {
		return hierarchy{}, err
	}
	if f.RA != nil {
		if h.ra, err = f.RA.parse(); err != nil {
			return hierarchy{}, err
		}
	}
	if _, ok := h.front().key.(*rsa.PrivateKey); !ok {
		return hierarchy{}, errors.New("the key that decrypts requests is not RSA")
	}
	return h, nil
}

// fits checks that a CA that was found is the one that was asked for.
func (h hierarchy) fits(o Options) error {
	layout, key := LayoutSingle, KeyECDSA
	if h.ra.certificate != nil {
		layout = LayoutRA
	}
	if _, ok := h.issuing.key.(*rsa.PrivateKey); ok {
		key = KeyRSA
	}
	if o.Layout != "" && o.Layout != layout || o.Key != "" && o.Key != key {
		return fmt.Errorf("%w: it is of layout %s with keys of type %s", ErrOptions, layout, key)
	}
	return nil
}
