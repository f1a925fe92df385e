// Package hashlog is an append-only log that shows when it was changed: lines
// of JSON, each with the SHA-256 of the line before it, and signed heads in
// between. Whoever holds a head (count of entries, hash of its line) can tell
// later whether the log still has everything that it had then.
//
// There are two kinds of lines:
//
//	{"v":1,"prev":<hex>,"index":<n>,"time":<RFC 3339>,"body":{…}}
//	{"v":1,"prev":<hex>,"head":<n>,"signature":<hex>}
//
// prev is the SHA-256 of the previous line without its newline, 32 zero bytes
// in the first. Entries count from 1. A head says that there are n entries; it
// signs n and its own prev, and so everything before it. An append writes its
// entries and one head: entries behind the last head were never committed (the
// run was interrupted) and the next writer drops them.
//
// The package reads no clock or file; keys are handed in as functions.
package hashlog

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

const version = 1

// MaxLine bounds a line, in bytes.
const MaxLine = 64 << 10

// Sentinels; all but ErrTruncated come inside a *LineError.
var (
	// ErrFormat: the line is not of this format or version.
	ErrFormat = errors.New("malformed line")
	// ErrChain: the line does not continue the one before it.
	ErrChain = errors.New("the chain of hashes is broken")
	// ErrHead: the head is not signed by whoever should have.
	ErrHead = errors.New("the head's signature does not verify")
	// ErrUnfinished: no signed head covers the line.
	ErrUnfinished = errors.New("not covered by a signed head: the append was interrupted")
	// ErrTruncated: the log lacks what a head known from elsewhere covers.
	ErrTruncated = errors.New("the log has lost or replaced entries")
)

// LineError says which line is the first that does not hold.
type LineError struct {
	Line int // from 1
	Err  error
}

// Error implements error.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the reason.
func (e *LineError) Unwrap() error { return e.Err }

// Hash is the SHA-256 of a line.
type Hash [sha256.Size]byte

// String returns 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("%w: %.70q is not a SHA-256 in lower-case hex", ErrFormat, text)
	}
	*h = Hash(b)
	return nil
}

// Head is a state of the log: how many entries it has, and the hash of the
// last line before the signed head.
type Head struct {
	Count uint64
	Hash  Hash
}

// Document returns the bytes that a head's signature covers.
func (h Head) Document() []byte {
	doc := binary.BigEndian.AppendUint64([]byte("edgeclm/v1/hashlog-head\x00"), h.Count)
	return append(doc, h.Hash[:]...)
}

// Signer signs the document of a head.
type Signer func(document []byte) ([]byte, error)

// Verifier checks a signature of a head's document.
type Verifier func(document, signature []byte) error
