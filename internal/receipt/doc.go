// Package receipt is what comes back on the medium: small signed documents by
// which an endpoint says that it took its key bundle, and a CLM that it took the
// devices of a manifest.
//
// A receipt is a file of its own,
//
//	{"version": 1, "content": {…}, "signature": <hex>, "rows": [[<identity>, <ledger index>], …]}
//
// with the signature of the identity that content names (an identity-based
// signature, ibc) over LP("edgeclm/v1/receipt", SHA-256(content without
// insignificant white space)). Rows, which only a CLM's has, are signed by
// their digest in content, so that 100,000 of them are read as a stream.
//
// Receipts prove no more than that somebody with that identity's key said so.
// The time is that of the signer's clock, which may never have been set.
package receipt

import (
	"errors"

	"github.com/edgeclm/edgeclm/internal/bundle"
)

// Version is the version of the format; readers refuse any other and ignore
// keys that they do not know.
const Version = 1

// Sentinels; those of ibc (ErrSignature, ErrEpoch) and bundle.ErrParams are
// wrapped beside them.
var (
	// ErrFormat is wrapped by every refusal of malformed or oversized input.
	ErrFormat = errors.New("malformed receipt")
	// ErrVersion is wrapped when the format is of another version.
	ErrVersion = errors.New("unknown version of a receipt")
)

// Bounds of what is read.
const (
	// MaxSize is the size in bytes of the largest receipt: MaxRows rows of the
	// longest identities, with room for indentation.
	MaxSize = 24 << 20
	// MaxRows is how many rows a receipt has at most.
	MaxRows = bundle.MaxRows

	maxContent = 16 << 10 // bytes
	maxProgram = 100      // characters
)
