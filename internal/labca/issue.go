package labca

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// extensions that a CSR may ask for and are copied as they are.
func copied() []asn1.ObjectIdentifier {
	return []asn1.ObjectIdentifier{
		{2, 5, 29, 17}, // subject alternative name
		oidKeyUsage(),
		oidExtKeyUsage(),
	}
}

func oidKeyUsage() asn1.ObjectIdentifier    { return asn1.ObjectIdentifier{2, 5, 29, 15} }
func oidExtKeyUsage() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 37} }

// issue signs a certificate for a CSR by an authority: its key, subject,
// alternative names and usages. Without usages it is for TLS at both ends.
func (ca *CA) issue(csr *x509.CertificateRequest, by authority, begin, end time.Time) (*x509.Certificate, error) {
	serial, err := newSerial(ca.options.Random)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		RawSubject:            csr.RawSubject,
		NotBefore:             begin.UTC().Truncate(time.Second),
		NotAfter:              end.UTC().Truncate(time.Second),
		BasicConstraintsValid: true,
	}
	if template.SubjectKeyId, err = keyID(csr.PublicKey); err != nil {
		return nil, err
	}
	for _, oid := range copied() {
		if e, ok := extension(csr, oid); ok {
			template.ExtraExtensions = append(template.ExtraExtensions, e)
		}
	}
	if _, ok := extension(csr, oidKeyUsage()); !ok {
		template.KeyUsage = x509.KeyUsageDigitalSignature
		if _, ok := csr.PublicKey.(*rsa.PublicKey); ok {
			template.KeyUsage |= x509.KeyUsageKeyEncipherment
		}
	}
	if _, ok := extension(csr, oidExtKeyUsage()); !ok {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(ca.options.Random, template, by.certificate, csr.PublicKey, by.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// extension finds one that the CSR asks for.
func extension(csr *x509.CertificateRequest, oid asn1.ObjectIdentifier) (pkix.Extension, bool) {
	for _, e := range csr.Extensions {
		if e.Id.Equal(oid) {
			return e, true
		}
	}
	return pkix.Extension{}, false
}

// issued is a line of the index.
type issued struct {
	Version     int       `json:"version"`
	At          time.Time `json:"at"`
	Serial      string    `json:"serial"`
	Subject     string    `json:"subject"`
	NotAfter    time.Time `json:"not_after"`
	SHA256      string    `json:"sha256"`
	Transaction string    `json:"transaction"`
}

// record adds a certificate to the index. A crash may lose the last lines: it
// is a lab's log, no ledger.
func (ca *CA) record(c *x509.Certificate, transaction string) error {
	sum := sha256.Sum256(c.Raw)
	line, err := json.Marshal(issued{
		Version: fileVersion, At: ca.options.Now().UTC(), Serial: c.SerialNumber.Text(16), Subject: c.Subject.String(),
		NotAfter: c.NotAfter, SHA256: hex.EncodeToString(sum[:]), Transaction: transaction,
	})
	if err != nil {
		return err
	}
	_, err = ca.index.Write(append(line, '\n'))
	return err
}

// maxTransactions bounds the transactions that are remembered.
const maxTransactions = 4096

// transaction is what became of a request.
type transaction struct {
	csr         *x509.CertificateRequest
	pending     int // answers PENDING that are left
	certificate *x509.Certificate
}

// transactions remembers the latest ones by their ID and subject key.
type transactions struct {
	byID  map[string]*transaction
	order []string
}

func newTransactions() transactions {
	return transactions{byID: map[string]*transaction{}}
}

// add remembers a transaction, forgetting the oldest beyond the bound.
func (t *transactions) add(id string, x *transaction) {
	if _, known := t.byID[id]; !known {
		t.order = append(t.order, id)
	}
	t.byID[id] = x
	if len(t.order) > maxTransactions {
		delete(t.byID, t.order[0])
		t.order = t.order[1:]
	}
}

// find returns a transaction; with a CSR, only if it is about that one.
func (t *transactions) find(id string, csr []byte) *transaction {
	x, ok := t.byID[id]
	if !ok || csr != nil && !bytes.Equal(x.csr.Raw, csr) {
		return nil
	}
	return x
}

// before returns the latest certificate of another transaction for the same
// subject, nil if there is none.
func (t *transactions) before(x *transaction) *x509.Certificate {
	for _, id := range slices.Backward(t.order) {
		o := t.byID[id]
		if o != x && o.certificate != nil && bytes.Equal(o.csr.RawSubject, x.csr.RawSubject) {
			return o.certificate
		}
	}
	return nil
}
