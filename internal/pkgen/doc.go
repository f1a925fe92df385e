// Package pkgen is the Private Key Generator (PKG) of an installation: it
// holds the master secret, extracts one private key per identity, and hands it
// out as a sealed bundle on a medium.
//
// Its directory holds
//
//	master.age     the master secret, sealed to a passphrase (age scrypt); or
//	shares.json    what is public of its shares (custody), which are elsewhere
//	params.json    the public parameters of the present epoch
//	params/        those of earlier epochs, and the statements that lead on
//	recipients.txt whom bundles were sealed to: age recipients, one a line
//	ledger.jsonl   every issue, hash-chained with signed heads (hashlog)
//	recovery.age   the private recovery key, sealed too; to be kept elsewhere
//	recovery.age.shares.json  what is public of the shares that open it, if any do
//	recovery.json  the public recovery key
//	batches/       of each batch that is not combined yet, what opens its contributions
//	receipts/      what came back on the media (package receipt)
//	lock           the advisory lock of the run that writes
//
// An issue becomes a fact with its entry in the ledger, which is durable before
// the bundle is written. So an interrupted run has recorded too much at worst,
// and is finished by running it again: the same identity may go to the same
// recipient as often as need be, to another one never.
package pkgen

import (
	"errors"
	"io"
	"path/filepath"
	"time"

	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Sentinels; those of bundle, hashlog, ibc and keyfile are wrapped beside them.
var (
	// ErrExists is wrapped by Init when the directory is a PKG already.
	ErrExists = errors.New("there is a PKG already")
	// ErrNoPKG is wrapped when the directory is no PKG.
	ErrNoPKG = errors.New("there is no PKG")
	// ErrPassphrase is wrapped when the passphrase does not open the PKG.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrRequest is wrapped when what should be issued makes no sense.
	ErrRequest = errors.New("cannot be issued")
	// ErrOtherRecipient is wrapped when an identity was issued to somebody else.
	ErrOtherRecipient = errors.New("was issued to another recipient")
	// ErrSuperseded is wrapped when a later generation was issued already.
	ErrSuperseded = errors.New("is superseded")
	// ErrUnknownCLM is wrapped when a CLM was never issued by this PKG.
	ErrUnknownCLM = errors.New("no such CLM was issued by this PKG")
	// ErrForeign is wrapped when a file on the medium is not this PKG's.
	ErrForeign = errors.New("not of this PKG")
	// ErrEarlierEpoch is wrapped when a device would listen to a CLM that has no
	// key of the present epoch yet.
	ErrEarlierEpoch = errors.New("has no key of this epoch yet")
	// ErrEpochUnfinished is wrapped by VerifyDir when NewEpoch was interrupted.
	ErrEpochUnfinished = errors.New("the new epoch is not complete")
	// ErrOtherBatch is wrapped when a contribution is for another batch.
	ErrOtherBatch = errors.New("contribution to another batch")
	// ErrMoved is wrapped when the ledger, the shares or the medium are not what
	// they were when a batch was made.
	ErrMoved = errors.New("the batch is out of date")
	// ErrUnreadable is wrapped when a batch asks for more than can be shown.
	ErrUnreadable = errors.New("the batch asks for what cannot be shown")
	// ErrShared is wrapped when the master secret is in shares, and a passphrase
	// came.
	ErrShared = errors.New("the master secret is in shares")
	// ErrWhole is wrapped when the master secret is in one piece, and shares came.
	ErrWhole = errors.New("the master secret is in one piece")
	// ErrReceipts is wrapped when a receipt that was taken back is damaged.
	ErrReceipts = errors.New("the receipt that was kept is damaged")
	// ErrMedium is wrapped when the medium and its manifest do not agree.
	ErrMedium = errors.New("medium does not agree with its manifest")
)

// Names of the files in a PKG's directory.
const (
	MasterFile      = "master.age"
	SharesFile      = "shares.json"
	SharesDir       = "shares" // of the share files, unless they go elsewhere
	ParamsFile      = "params.json"
	LedgerFile      = "ledger.jsonl"
	RecoveryFile    = "recovery.age"
	RecoveryPubFile = "recovery.json"
	pendingFile     = "shares.pending.json"
	lockFile        = "lock"
)

// Bounds of files that are read.
const (
	maxSmallFile = 64 << 10
	maxLedger    = 1 << 30
)

// Config is what a PKG works with.
type Config struct {
	Dir        string
	Files      keyfile.Files
	Now        func() time.Time
	Random     io.Reader
	WorkFactor int               // scrypt log2(N) of what is sealed; 0: age's default, 18
	Warn       func(text string) // what a person should know though nothing failed
	Transcript Transcript        // the record of this run; nil: none is kept
	recovery   slhdsa.ID         // parameter set of the recovery key; 0: recoveryAlgorithm
}

// LedgerPath returns where the ledger is.
func (c Config) LedgerPath() string { return c.path(LedgerFile) }

func (c Config) path(name string) string { return filepath.Join(c.Dir, name) }

// Hash is a SHA-256.
type Hash = bundle.Hash
