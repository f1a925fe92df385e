package enroltest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// CA issues at once, and like step-ca issues a second certificate when a
// request is repeated. Its fields are set while nobody asks it, or within Set.
type CA struct {
	Key      crypto.Signer
	Root     *x509.Certificate
	Now      func() time.Time
	Lifetime time.Duration
	Behind   time.Duration // how far its clock is behind
	Slow     time.Duration // each answer takes so much longer, by the time package's clock
	Secret   string        // the challenge

	// Faults. Rate goes first, then Err, then Refuse.
	Err            error
	Rate           fleet.Rate                                         // what exceeds it is answered with a *enrol.TryLater
	Refuse         func(device string, s enrol.Submission) error      // an error is the answer
	PendingAnswers int                                                // answers with PENDING so often
	Alter          func(*x509.Certificate, *enrol.Answer)             // before it signs
	OnIssue        func(device string, certificate *x509.Certificate) // afterwards

	Point func() // called before and after each submission; nil: nothing is

	mu       sync.Mutex
	Serial   int64
	Issued   map[string]int // certificates by transaction ID
	Asked    int            // submissions, refused ones included
	Exceeded int            // submissions that exceeded Rate
	recent   []time.Time    // submissions within the rate's time, in order
}

var errRate = errors.New("HTTP 429: too many requests")

// NewCA returns a CA with a root of ten years.
func NewCA(name string, now func() time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now(), NotAfter: now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{Key: key, Root: root, Now: now, Lifetime: 24 * time.Hour, Secret: "secret", Serial: 100, Issued: map[string]int{}}, nil
}

// Set changes the CA while others may be asking it.
func (ca *CA) Set(change func(ca *CA)) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	change(ca)
}

// Anchor implements enrol.CA.
func (ca *CA) Anchor() []byte { return ca.Root.Raw }

// Challenge implements enrol.CA.
func (ca *CA) Challenge(context.Context, string) ([]byte, error) { return []byte(ca.Secret), nil }

// Submit implements enrol.CA.
func (ca *CA) Submit(ctx context.Context, s enrol.Submission) (enrol.Answer, error) {
	if ca.Point != nil {
		ca.Point()
		defer ca.Point()
	}
	csr, err := enrol.ParseCSR(s.CSR)
	if err != nil {
		return enrol.Answer{}, err
	}
	device := csr.Subject.CommonName
	ca.mu.Lock()
	slow := ca.Slow
	err = ca.refuse(device, s)
	ca.mu.Unlock()
	if slow > 0 {
		if err := sleep(ctx, slow); err != nil {
			return enrol.Answer{}, fmt.Errorf("%w: %w", enrol.ErrCAUnavailable, err)
		}
	}
	if err != nil {
		return enrol.Answer{}, err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.PendingAnswers > 0 {
		ca.PendingAnswers--
		return enrol.Answer{Pending: true}, nil
	}
	return ca.issue(device, s.TransactionID, csr)
}

func (ca *CA) refuse(device string, s enrol.Submission) error {
	ca.Asked++
	now := ca.Now()
	if !ca.Rate.Unlimited() {
		for len(ca.recent) > 0 && now.Sub(ca.recent[0]) >= ca.Rate.Per {
			ca.recent = ca.recent[1:]
		}
		if len(ca.recent) >= ca.Rate.N {
			ca.Exceeded++
			return &enrol.TryLater{After: ca.recent[0].Add(ca.Rate.Per).Sub(now), Err: errRate}
		}
		ca.recent = append(ca.recent, now)
	}
	if ca.Err != nil {
		return ca.Err
	}
	if ca.Refuse != nil {
		return ca.Refuse(device, s)
	}
	return nil
}

func (ca *CA) issue(device, transaction string, csr *x509.CertificateRequest) (enrol.Answer, error) {
	ca.Serial++
	ca.Issued[transaction]++
	now := ca.Now().Add(-ca.Behind)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.Serial), Subject: csr.Subject, DNSNames: csr.DNSNames,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(ca.Lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	answer := enrol.Answer{Date: now}
	if ca.Alter != nil {
		ca.Alter(template, &answer)
	}
	if answer.Certificates == nil {
		der, err := x509.CreateCertificate(rand.Reader, template, ca.Root, csr.PublicKey, ca.Key)
		if err != nil {
			return enrol.Answer{}, err
		}
		answer.Certificates = [][]byte{ca.Root.Raw, der}
	}
	if ca.OnIssue != nil {
		ca.OnIssue(device, template)
	}
	return answer, nil
}
