// Package lifeboat is the statement by which a fleet leaves its Private Key
// Generator (PKG) for another one though the old master secret is lost, in an
// enemy's hands, or worth nothing since pairings have fallen.
//
// It is signed by the recovery key of the old PKG, with a hash-based signature
// (SLH-DSA, FIPS 205); the hash of that key is what a device's first bundle
// fixes. The statement is one for the whole fleet and no secret. What makes it
// of use to one device is the bundle of the new PKG that travels behind it,
// sealed to that device.
//
// A statement has a serial number. A device takes none that is not above the
// last that it took, whatever its identity, epoch or root were since.
package lifeboat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Sentinels.
var (
	// ErrFormat is wrapped by every refusal of malformed or oversized input.
	ErrFormat = errors.New("malformed lifeboat statement")
	// ErrRecoveryKey is wrapped when a statement was signed by another recovery
	// key than the one that is fixed.
	ErrRecoveryKey = errors.New("signed by another recovery key")
	// ErrSignature is wrapped when the signature does not verify.
	ErrSignature = errors.New("the recovery key's signature does not verify")
	// ErrSerial is wrapped when a statement is not above the one that was accepted
	// last.
	ErrSerial = errors.New("is not later than the lifeboat that is in force")
)

const (
	label         = "edgeclm/v1/lifeboat"
	labelRecovery = "edgeclm/v1/recovery"

	// magic begins a statement, and nothing else that a device is given.
	magic = "edgeclm-lifeboat/1\n"

	// MaxSerial is the highest serial number; the first is 1.
	MaxSerial = math.MaxInt32
	// MaxSize is the size in bytes of the largest statement.
	MaxSize = 18 << 10
)

// Statement says that those who know the PKG of a recovery key follow another
// PKG from now on.
type Statement struct {
	Serial   uint32      // 1 to MaxSerial
	Params   *ibc.Params // of the PKG to follow
	Recovery [32]byte    // KeyHash of the recovery key that is fixed from then on
}

// Document is what the recovery key signs: LP(label, serial, suite, epoch,
// Ppub, hash of the next recovery key), numbers in 4 bytes big-endian.
func (s Statement) Document() ([]byte, error) {
	if s.Serial < 1 || s.Serial > MaxSerial {
		return nil, fmt.Errorf("%w: serial number %d", ErrFormat, s.Serial)
	}
	ppub := s.Params.Ppub()
	return ibc.LP([]byte(label), binary.BigEndian.AppendUint32(nil, s.Serial), []byte(ibc.Suite),
		binary.BigEndian.AppendUint32(nil, s.Params.Epoch()), ppub[:], s.Recovery[:])
}

// documentParts is how many parts a document has.
const documentParts = 6

// parseSerial returns the serial number of a document, whose other parts are
// looked at once its signature was verified.
func parseSerial(document []byte) (uint32, error) {
	parts, rest, err := ibc.SplitLP(document, documentParts)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrFormat, err)
	case len(rest) > 0 || string(parts[0]) != label || len(parts[1]) != 4:
		return 0, fmt.Errorf("%w: not the document of a lifeboat", ErrFormat)
	}
	serial := binary.BigEndian.Uint32(parts[1])
	if serial < 1 || serial > MaxSerial {
		return 0, fmt.Errorf("%w: serial number %d", ErrFormat, serial)
	}
	return serial, nil
}

func parseDocument(document []byte) (Statement, error) {
	serial, err := parseSerial(document)
	if err != nil {
		return Statement{}, err
	}
	parts, _, err := ibc.SplitLP(document, documentParts)
	if err != nil || string(parts[2]) != ibc.Suite || len(parts[3]) != 4 || len(parts[5]) != sha256.Size {
		return Statement{}, fmt.Errorf("%w: another suite, or parts of other sizes", ErrFormat)
	}
	params, err := ibc.NewParams(binary.BigEndian.Uint32(parts[3]), parts[4])
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return Statement{Serial: serial, Params: params, Recovery: [32]byte(parts[5])}, nil
}

// Signed is a statement with its signature. Nothing of it is verified before
// Verify.
type Signed struct {
	serial    uint32
	document  []byte
	algorithm string
	publicKey []byte
	signature []byte
}

// parameterSet is one that recovery keys may have, by its name in FIPS 205.
type parameterSet struct {
	id        slhdsa.ID
	signature int // size in bytes
}

func parameterSets(name string) (parameterSet, bool) {
	for _, p := range []parameterSet{{slhdsa.SHA2_128s, 7856}, {slhdsa.SHA2_128f, 17088}} {
		if p.id.String() == name {
			return p, true
		}
	}
	return parameterSet{}, false
}

// KeyHash is what bundles fix: SHA-256(LP("edgeclm/v1/recovery", algorithm,
// public key)).
func KeyHash(algorithm string, publicKey []byte) ([32]byte, error) {
	msg, err := ibc.LP([]byte(labelRecovery), []byte(algorithm), publicKey)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(msg), nil
}

// Sign signs a statement. The signature is randomised, so two of one statement
// differ: it is the document that counts.
func Sign(random io.Reader, key *slhdsa.PrivateKey, s Statement) (*Signed, error) {
	document, err := s.Document()
	if err != nil {
		return nil, err
	}
	if _, ok := parameterSets(slhdsa.ID.String(key.ID)); !ok {
		return nil, fmt.Errorf("%w: a recovery key of algorithm %s", ErrFormat, key.ID)
	}
	public, err := key.PublicKey().MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode the recovery key: %w", err)
	}
	signature, err := slhdsa.SignRandomized(key, random, slhdsa.NewMessage(document), nil)
	if err != nil {
		return nil, fmt.Errorf("sign lifeboat statement: %w", err)
	}
	return &Signed{serial: s.Serial, document: document, algorithm: slhdsa.ID.String(key.ID), publicKey: public, signature: signature}, nil
}

// Is reports whether data begins as a statement does.
func Is(data []byte) bool { return bytes.HasPrefix(data, []byte(magic)) }

// Marshal encodes the statement: magic, LP(document, algorithm, public key,
// signature).
func (s *Signed) Marshal() ([]byte, error) {
	body, err := ibc.LP(s.document, []byte(s.algorithm), s.publicKey, s.signature)
	if err != nil {
		return nil, err
	}
	return append([]byte(magic), body...), nil
}

// Parse takes a statement off the front of data and returns what follows, which
// is none of it. It looks at the form alone, which costs next to nothing.
// Errors wrap ErrFormat.
func Parse(data []byte) (s *Signed, rest []byte, err error) {
	if !Is(data) {
		return nil, nil, fmt.Errorf("%w: it does not begin with %q", ErrFormat, magic)
	}
	parts, rest, err := ibc.SplitLP(data[len(magic):], 4)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	set, ok := parameterSets(string(parts[1]))
	if !ok || len(parts[3]) != set.signature || len(data)-len(rest) > MaxSize {
		return nil, nil, fmt.Errorf("%w: algorithm %.40q with a signature of %d bytes", ErrFormat, parts[1], len(parts[3]))
	}
	serial, err := parseSerial(parts[0])
	if err != nil {
		return nil, nil, err
	}
	return &Signed{serial: serial, document: parts[0], algorithm: string(parts[1]), publicKey: parts[2], signature: parts[3]}, rest, nil
}

// FileName names the file of a statement on a medium.
func FileName(serial uint32) string { return fmt.Sprintf("lifeboat-%d.statement", serial) }

// KeyHash is that of the recovery key that the statement claims to be signed by.
func (s *Signed) KeyHash() ([32]byte, error) { return KeyHash(s.algorithm, s.publicKey) }

// Serial is the number that the statement claims.
func (s *Signed) Serial() uint32 { return s.serial }

// Digest is the SHA-256 of the document: what the statement says, whatever its
// signature.
func (s *Signed) Digest() [32]byte { return sha256.Sum256(s.document) }

// Verify checks that the recovery key with this KeyHash signed the statement,
// and returns what it says. A key that is another one is found out by its hash,
// before its signature costs anything. Errors wrap ErrRecoveryKey, ErrSignature
// or ErrFormat.
func (s *Signed) Verify(recovery [32]byte) (Statement, error) {
	hash, err := KeyHash(s.algorithm, s.publicKey)
	if err != nil {
		return Statement{}, err
	}
	if hash != recovery {
		return Statement{}, fmt.Errorf("lifeboat %d: %w: its SHA-256 is %x, known is %x", s.serial, ErrRecoveryKey, hash, recovery)
	}
	set, ok := parameterSets(s.algorithm)
	key := slhdsa.PublicKey{ID: set.id}
	if !ok || key.UnmarshalBinary(s.publicKey) != nil {
		return Statement{}, fmt.Errorf("%w: a public key of %d bytes", ErrFormat, len(s.publicKey))
	}
	if !slhdsa.Verify(&key, slhdsa.NewMessage(s.document), s.signature, nil) {
		return Statement{}, fmt.Errorf("lifeboat %d: %w", s.serial, ErrSignature)
	}
	return parseDocument(s.document)
}

// Accepted is the last statement that somebody took.
type Accepted struct {
	Serial uint32   // 0: none yet
	Digest [32]byte // of it
}

// Accepted is what somebody remembers who took the statement.
func (s Statement) Accepted() (Accepted, error) {
	document, err := s.Document()
	return Accepted{Serial: s.Serial, Digest: sha256.Sum256(document)}, err
}

// Follows says what a statement is to somebody who took another last, or none:
// a new one, or the same again. Errors wrap ErrSerial.
func (s *Signed) Follows(last Accepted) (again bool, err error) {
	switch {
	case last.Serial > 0 && s.serial == last.Serial && s.Digest() == last.Digest:
		return true, nil
	case s.serial == last.Serial:
		return false, fmt.Errorf("lifeboat %d %w, which has the same serial number and says something else", s.serial, ErrSerial)
	case s.serial < last.Serial:
		return false, fmt.Errorf("lifeboat %d %w, %d", s.serial, ErrSerial, last.Serial)
	}
	return false, nil
}
