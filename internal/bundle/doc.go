// Package bundle is what the Private Key Generator (PKG) hands out on a USB
// stick: one sealed key bundle per identity, and a signed manifest beside them.
//
// A bundle is an age file (age-encryption.org/v1). Inside is a JSON object
//
//	{"version": 1, "payload": <base64>, "signature": <hex>, "key": <hex>}
//
// whose payload, JSON again, says everything but the private key d, and is
// signed by the PKG over its exact bytes (ibc.KindBundle): age authenticates
// no sender. The key needs no signature, it proves itself by its pairing. The
// bundle of a later epoch has one more member,
//
//	"epochs": [{"params": <params.json>, "statement": <hex>}, ...]
//
// the chain of statements by which the PKG's earlier master secrets vouch for
// the parameters inside (ibc.Succession).
//
// Open checks all of that before it returns anything. What it cannot know is
// whether the parameters inside are those of the right PKG: callers hold them
// to a params_id with Bundle.HeldTo.
package bundle

import "errors"

// Version is the version of both formats; readers refuse any other and ignore
// keys that they do not know.
const Version = 1

// Sentinels; errors of package ibc (ErrSignature, ErrKey, ErrEpoch ...) are
// wrapped beside them.
var (
	// ErrFormat is wrapped by every refusal of malformed or oversized input.
	ErrFormat = errors.New("malformed")
	// ErrVersion is wrapped when the format is of another version.
	ErrVersion = errors.New("unknown version")
	// ErrRecipient is wrapped when a bundle was meant for somebody else.
	ErrRecipient = errors.New("sealed for another recipient")
	// ErrPassphrase is wrapped when the passphrase does not open the bundle.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrParams is wrapped when something is of another PKG than expected.
	ErrParams = errors.New("of another PKG")
)

// Bounds of what is read.
const (
	// MaxSize is the size in bytes of the largest sealed bundle.
	MaxSize = 128 << 10
	// MaxPeers is how many CLM names a device's bundle lists at most.
	MaxPeers = 8
	// MaxAnchors is how many trust anchors a bundle has at most.
	MaxAnchors = 4
	// MaxEpochs is how many epoch statements a bundle carries at most.
	MaxEpochs = 16
	// MaxAnchorSize is the size in bytes of the largest trust anchor.
	MaxAnchorSize = 8 << 10
	// MaxAddressLen is the length in bytes of the longest host:port.
	MaxAddressLen = 253 + len(":65535")
)
