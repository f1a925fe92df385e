package enrol

import (
	"context"
	"time"
)

// CA issues certificates for CSRs that somebody else's key has signed.
type CA interface {
	// Anchor is the trust anchor to which issued certificates chain, DER.
	Anchor() []byte
	// Challenge returns the secret that a CSR for the device must carry, nil
	// if this CA wants none.
	Challenge(ctx context.Context, device string) ([]byte, error)
	// Submit sends the CSR, or repeats it or polls for it if Submission.Pending
	// is set. Errors are ErrCAUnavailable (perhaps in a *TryLater),
	// ErrCAUnauthenticated, *CARejection or *CAMismatch, perhaps wrapped.
	Submit(ctx context.Context, s Submission) (Answer, error)
}

// Submission is one certificate request.
type Submission struct {
	TransactionID string // hexadecimal; the same for every repetition
	CSR           []byte // PKCS#10, DER
	Pending       bool   // the CA has said PENDING to this transaction
}

// Answer is what an authenticated CA said.
type Answer struct {
	Pending      bool          // not decided yet: poll
	RetryAfter   time.Duration // when to poll, 0 if the CA did not say
	Certificates [][]byte      // DER; the one for the CSR's key, and CA certificates
	Date         time.Time     // the CA's clock (HTTP Date), zero if unknown
}
