package enrol

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// ErrCertificate is wrapped by every refusal of an issued certificate.
var ErrCertificate = errors.New("the certificate is not acceptable")

// MaxCertificate bounds one certificate in bytes of DER.
const MaxCertificate = 8 << 10

// ParseChain parses the certificates of one answer and separates the one whose
// key hashes to spki from the others. It is a *CAMismatch if none has that
// key, and wraps ErrCertificate if they are malformed or too many.
func ParseChain(certificates [][]byte, spki [32]byte) (leaf *x509.Certificate, others []*x509.Certificate, err error) {
	if len(certificates) == 0 || len(certificates) > MaxChain {
		return nil, nil, fmt.Errorf("%w: %d certificates, 1 to %d are allowed", ErrCertificate, len(certificates), MaxChain)
	}
	for _, der := range certificates {
		if len(der) > MaxCertificate {
			return nil, nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrCertificate, len(der), MaxCertificate)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrCertificate, err)
		}
		switch {
		case sha256.Sum256(c.RawSubjectPublicKeyInfo) != spki:
			others = append(others, c)
		case leaf != nil:
			return nil, nil, fmt.Errorf("%w: two certificates for the same key", ErrCertificate)
		default:
			leaf = c
		}
	}
	if leaf == nil {
		return nil, nil, &CAMismatch{What: "a certificate for another key"}
	}
	return leaf, others, nil
}

// VerifyChain checks that leaf chains to the trust anchor through others, all
// signatures and constraints, but no date: a device may have no clock, and
// whoever has one looks at the leaf's dates apart. It returns the chain
// without leaf and anchor. Errors wrap ErrCertificate.
func VerifyChain(anchor []byte, leaf *x509.Certificate, others []*x509.Certificate) ([]*x509.Certificate, error) {
	root, err := x509.ParseCertificate(anchor)
	if err != nil {
		return nil, fmt.Errorf("%w: parse trust anchor: %w", ErrCertificate, err)
	}
	at := time.Unix(0, 0)
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ageless(root, at))
	for _, c := range others {
		intermediates.AddCert(ageless(c, at))
	}
	chains, err := ageless(leaf, at).Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: it does not chain to the trust anchor %q: %w", ErrCertificate, root.Subject, err)
	}
	path := chains[0]
	if len(path) < 2 {
		return nil, fmt.Errorf("%w: it is the trust anchor itself", ErrCertificate)
	}
	return path[1 : len(path)-1], nil
}

// ageless returns a copy whose dates hold at a time. The signature is checked
// over the raw bytes, so the copy verifies as the original does.
func ageless(c *x509.Certificate, at time.Time) *x509.Certificate {
	out := *c
	out.NotBefore, out.NotAfter = at.Add(-time.Second), at.Add(time.Second)
	return &out
}

// PreVerify is the CLM's check of what the CA issued (section IV.A of the
// paper): structure, key, names, usages, chain and CA signature. Dates, serial
// number and the certificate that it replaces are the runner's to judge. A
// misfit that only the CA can have caused is a *CAMismatch; else errors wrap
// ErrCertificate.
func PreVerify(e *Enrolment, certificates [][]byte, anchor []byte) (leaf *x509.Certificate, chain []*x509.Certificate, err error) {
	leaf, others, err := ParseChain(certificates, e.SPKIHash)
	if err != nil {
		return nil, nil, err
	}
	chain, err = VerifyChain(anchor, leaf, others)
	if err != nil {
		return nil, nil, &CAMismatch{What: fmt.Sprintf("a certificate of a foreign issuer, %q: %v", leaf.Issuer, err)}
	}
	if leaf.IsCA {
		return nil, nil, fmt.Errorf("%w: it is a CA certificate", ErrCertificate)
	}
	if !leaf.NotAfter.After(leaf.NotBefore) {
		return nil, nil, fmt.Errorf("%w: its validity ends before it begins", ErrCertificate)
	}
	if err := checkNames(e, leaf); err != nil {
		return nil, nil, err
	}
	return leaf, chain, checkUsages(e, leaf)
}

// checkNames accepts exactly the alternative names asked for and the common
// name asked for; a CA may add or drop the attributes that place the device.
// A CA that copies the common name into an alternative name is in order.
func checkNames(e *Enrolment, leaf *x509.Certificate) error {
	commonName := ""
	for _, a := range e.Subject {
		if a.Type == "CN" {
			commonName = a.Value
		}
	}
	if leaf.Subject.CommonName != commonName {
		return fmt.Errorf("%w: its common name is %q, wanted %q", ErrCertificate, leaf.Subject.CommonName, commonName)
	}
	got, err := AlternativeNames(leaf.DNSNames, leaf.IPAddresses, leaf.URIs, leaf.EmailAddresses)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	want := sortedNames(e.SANs)
	copied := fleet.Name{Kind: fleet.KindDNS, Value: commonName}
	if !slices.Contains(want, copied) {
		got = slices.DeleteFunc(got, func(n fleet.Name) bool { return n == copied })
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%w: its alternative names are %v, wanted %v", ErrCertificate, got, want)
	}
	return nil
}

// checkUsages requires every usage that was asked for.
func checkUsages(e *Enrolment, leaf *x509.Certificate) error {
	for _, u := range e.KeyUsage {
		if bit, ok := fleet.KeyUsages()[u]; !ok || leaf.KeyUsage&(1<<bit) == 0 {
			return fmt.Errorf("%w: it lacks the key usage %s", ErrCertificate, u)
		}
	}
	for _, u := range e.ExtKeyUsage {
		if !slices.Contains(leaf.ExtKeyUsage, extKeyUsages()[u]) {
			return fmt.Errorf("%w: it lacks the extended key usage %s", ErrCertificate, u)
		}
	}
	return nil
}

// extKeyUsages maps the names of fleet.ExtKeyUsages to those of crypto/x509.
func extKeyUsages() map[string]x509.ExtKeyUsage {
	return map[string]x509.ExtKeyUsage{
		"serverAuth": x509.ExtKeyUsageServerAuth, "clientAuth": x509.ExtKeyUsageClientAuth,
		"codeSigning": x509.ExtKeyUsageCodeSigning, "emailProtection": x509.ExtKeyUsageEmailProtection,
		"timeStamping": x509.ExtKeyUsageTimeStamping, "ocspSigning": x509.ExtKeyUsageOCSPSigning,
	}
}

// Describe returns what the inventory says about a certificate.
func Describe(c *x509.Certificate) fleet.Certificate {
	return fleet.Certificate{
		Serial:    hex.EncodeToString(c.SerialNumber.Bytes()),
		Subject:   c.Subject.String(),
		Issuer:    c.Issuer.String(),
		NotBefore: c.NotBefore.UTC(),
		NotAfter:  c.NotAfter.UTC(),
		SHA256:    sha256.Sum256(c.Raw),
	}
}
