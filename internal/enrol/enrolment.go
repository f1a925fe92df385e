// Package enrol is the core of edgeclm: one delegated enrolment of an X.509
// certificate, from the request for a CSR to the confirmed certificate.
//
// # Start here
//
// An Enrolment (this file) is a durable value that a Runner (runner.go) moves
// through its states with one switch. Each state has one effect that leads out
// of it; every effect may be repeated, so that running an enrolment and
// resuming one after a crash are the same function. A renewal is a new
// enrolment on the same path: the old certificate serves until the new one is
// active.
//
//	requested     ask the device for a CSR              Device.RequestCSR
//	csr-received  check it, choose the transaction ID    CheckCSR
//	submitted     send it to the CA, or poll             CA.Submit
//	issued        check what the CA issued               PreVerify
//	pre-verified  the device checks and stages it        Device.VerifyCertificate
//	verified      the device switches to it              Device.Activate
//	activated     read it back, see it served, confirm   Prober.Probe, Device.Confirm
//	completed, failed
//
// Each run asks the device first what it has (meet.go), and the inventory
// follows. An operator may have a device go back (rollback.go).
//
// The interfaces that the runner needs stand beside it: Device (device.go), CA
// (ca.go), Prober (prober.go) and Store (store.go). What goes wrong is a Fault (fault.go). The
// package does no I/O of its own; clock and randomness are handed in.
//
// Source: Astorga et al., "How to Survive Identity Management in the Industry
// 4.0 Era", IEEE Access 2021, sections IV and V.
package enrol

import (
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// IDSize is the size of an enrolment ID in bytes.
const IDSize = 16

// NonceSize is the size of a verification nonce in bytes.
const NonceSize = 32

// ID identifies one enrolment, to the store and to the device.
type ID [IDSize]byte

// NewID draws an enrolment ID.
func NewID(random io.Reader) (ID, error) {
	var id ID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return ID{}, fmt.Errorf("draw enrolment ID: %w", err)
	}
	return id, nil
}

// ParseID parses the text form, 32 hexadecimal digits in lower case.
func ParseID(s string) (ID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != IDSize || hex.EncodeToString(b) != s {
		return ID{}, fmt.Errorf("%.40q is not an enrolment ID of %d hexadecimal digits", s, 2*IDSize)
	}
	return ID(b), nil
}

// String returns the text form.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// State is how far an enrolment has come.
type State string

// The states, in order. Completed and Failed are final.
const (
	Requested   State = "requested"
	CSRReceived State = "csr-received"
	Submitted   State = "submitted"
	Issued      State = "issued"
	PreVerified State = "pre-verified"
	Verified    State = "verified"
	Activated   State = "activated"
	Completed   State = "completed"
	Failed      State = "failed"
)

// Final reports whether no effect leads out of the state.
func (s State) Final() bool { return s == Completed || s == Failed }

// Enrolment is one run through the states for one device. The CSR itself is no
// part of it: it may carry the CA's challenge, which must not reach a disk. A
// resumed enrolment asks the device again, which answers with the same CSR.
type Enrolment struct {
	ID       ID
	Device   string       // name in the inventory
	Identity ibc.Identity // the one that the device proved last
	Revision int64        // 0 before the first commit; raised by each (compare-and-swap)
	State    State
	CA       string // name of the CA in the configuration

	// What was asked for.
	Key          fleet.KeyAlgorithm // "": the device's choice
	Subject      []fleet.Attribute
	SANs         []fleet.Name
	Enclosed     bool // the request encloses Subject and SANs; else the device uses its own
	KeyUsage     []string
	ExtKeyUsage  []string
	Confirmation time.Duration // confirm_within

	// What came of it.
	CSRHash       [32]byte  // SHA-256 of the PKCS#10; zero before csr-received
	SPKIHash      [32]byte  // SHA-256 of its SubjectPublicKeyInfo
	TransactionID string    // of SCEP (RFC 8894 section 3.2.1.1), hexadecimal
	SubmittedAt   time.Time // first
	Pending       bool      // the CA has said PENDING
	IssuedAt      time.Time // our clock when the certificate came
	CADate        time.Time // the CA's clock then; zero if unknown
	Certificate   []byte    // the issued certificate, DER
	Chain         [][]byte  // the CA certificates that came with it, DER
	Receipt       Receipt   // the device's proof; zero before verified

	Steps Steps

	// Rollbacks counts the activations that were undone since the reload hook
	// failed or the certificate was not served.
	Rollbacks int

	// Tries counts the transient failures since the last progress.
	Tries     int
	NextTry   time.Time
	LastError string
	FailedBy  Party // of a failed enrolment

	CreatedAt, UpdatedAt time.Time
}

// Steps are the durations of the five steps into which the paper divides an
// enrolment (section VII.B). They do not overlap: their sum is the total.
type Steps struct {
	CSRRequest    time.Duration // 1: exchange with the device for the CSR, handshake included, key generation not
	KeyAndCSR     time.Duration // 2: key pair and CSR, as the device measured it
	Enrolment     time.Duration // 3: from the CSR to the pre-verified certificate
	VerifyRequest time.Duration // 4: exchange with the device for the verification
	Verification  time.Duration // 5: verification and staging, as the device measured it
}

// Total is the sum of the steps.
func (s Steps) Total() time.Duration {
	return s.CSRRequest + s.KeyAndCSR + s.Enrolment + s.VerifyRequest + s.Verification
}

// Receipt is the device's proof that it made the key of a certificate and
// verified the certificate. Anyone who has the PKG's parameters can check the
// statement, years later.
type Receipt struct {
	Identity    ibc.Identity    // who signed the statement
	Nonce       [NonceSize]byte // that the CLM drew
	Algorithm   string          // of the possession signature: see CheckPossession
	Possession  []byte          // signature by the new key, see PossessionMessage
	Statement   []byte          // signature by the identity key, see StatementMessage
	ParamsID    [32]byte        // the parameters that verify the statement
	Certificate [32]byte        // SHA-256
	SPKI        [32]byte        // SHA-256
}
