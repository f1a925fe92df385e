// Package custody is a master secret in the hands of several people: the public
// description of a sharing (shares.json) and each holder's sealed share.
//
// A sharing is made by a dealer who has the whole secret: at the beginning, when
// an existing PKG is moved to shares, and at each refresh, which gives new shares
// to the same or other holders and leaves the secret, and so params_id, as it
// is. Sharings of one secret are counted by a serial number, and named by a hash
// over everything that is public of them (Sharing.ID); the PKG's ledger records
// it. Shares of two sharings never make anything together.
//
// A share file is an age file, to a passphrase or an age recipient. Inside is a
// JSON object
//
//	{"version": 1, "suite": "edgeclm/v1/bls12381", "epoch": 1, "params_id": <hex>,
//	 "sharing_sha256": <hex>, "serial": 1, "index": 2, "holder": "alice", "value": <hex>}
//
// age authenticates no sender, and need not: a share is checked against the
// commitments in shares.json, and those against params_id.
//
// Recovery keys are shared out too, with files that are
// never taken for those of a master secret: see RecoverySharing.
//
// The package does no I/O.
package custody

import "errors"

// Version is the version of both formats; readers refuse any other and ignore
// keys that they do not know.
const Version = 1

// Bounds of a sharing. One share that suffices is the master secret in a file,
// with less care taken of it; more holders than MaxHolders cannot be brought
// together, nor can so many media be looked after.
const (
	MinThreshold = 2
	MaxHolders   = 20
)

// Bounds of files, in bytes. The commitments of MaxHolders take 4 kB, a share
// sealed to a hybrid recipient 2.3 kB.
const (
	MaxSharingFile = 32 << 10
	MaxShareFile   = 16 << 10
)

// Sentinels; ibc.ErrShare and those of bundle are wrapped beside them.
var (
	// ErrFormat is wrapped by every refusal of malformed or oversized input.
	ErrFormat = errors.New("malformed")
	// ErrVersion is wrapped when the format is of another version.
	ErrVersion = errors.New("unknown version")
	// ErrOptions is wrapped when holders, number and threshold make no sense.
	ErrOptions = errors.New("no such sharing can be made")
	// ErrKind is wrapped when a share is of a master secret and not of a recovery
	// key, or the other way round.
	ErrKind = errors.New("another kind of share")
	// ErrCeremony is wrapped when a share is of another master secret, or another
	// recovery key.
	ErrCeremony = errors.New("share of another ceremony")
	// ErrSharing is wrapped when a share is of this master secret and of another
	// sharing, as after a refresh.
	ErrSharing = errors.New("share of another sharing")
	// ErrTwice is wrapped when a share is given twice.
	ErrTwice = errors.New("the share is given twice")
	// ErrTooFew is wrapped when more shares are needed.
	ErrTooFew = errors.New("too few shares")
)
