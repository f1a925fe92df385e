package pkgen

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

const (
	// RecoverySharingSuffix is appended to the name of a recovery key's file: that
	// file describes the shares that open it, public.
	RecoverySharingSuffix = ".shares.json"
	// RecoverySharesDir is where the shares of the recovery key go, unless they go
	// elsewhere.
	RecoverySharesDir = "recovery-shares"

	recoveryPendingFile = "recovery-shares.pending.json"
	// recoveryWorkFactor is for what needs no stretching: a scalar of 255 bits.
	recoveryWorkFactor = 1
)

// RecoveryPath returns where Init puts the sealed recovery key.
func (c Config) RecoveryPath(o InitOptions) string {
	return cmp.Or(o.RecoveryFile, c.path(RecoveryFile))
}

// madeRecovery is a new recovery key, sealed.
type madeRecovery struct {
	hash   Hash
	files  []initFile
	shares *dealt[*custody.RecoverySharing] // nil: it is sealed to a passphrase
}

// makeRecovery makes a recovery key and seals it to a passphrase, or to what is
// shared out. Nothing is written.
func (c Config) makeRecovery(passphrase []byte, o InitOptions) (made madeRecovery, err error) {
	path := c.RecoveryPath(o)
	for _, taken := range []string{path, path + RecoverySharingSuffix} {
		if _, err := os.Lstat(taken); err == nil && o.RecoveryFile != "" {
			return made, fmt.Errorf("recovery key: %s: %w", taken, keyfile.ErrExists)
		}
	}
	plain, public, hash, err := newRecovery(c.Random, cmp.Or(c.recovery, recoveryAlgorithm))
	if err != nil {
		return made, err
	}
	defer clear(plain)
	made.hash = hash
	secret, workFactor := passphrase, c.WorkFactor
	if o.Recovery != nil {
		secret = o.Recovery
	}
	if o.RecoveryShares != nil {
		d, shared, err := c.dealRecovery(hash, *o.RecoveryShares)
		if err != nil {
			return made, err
		}
		defer clear(shared)
		description, err := d.sharing.Marshal()
		if err != nil {
			return made, err
		}
		made.shares, secret, workFactor = d, shared, recoveryWorkFactor
		made.files = append(made.files, initFile{path + RecoverySharingSuffix, description, keyfile.PublicPerm})
	}
	sealed, err := seal(plain, secret, workFactor)
	if err != nil {
		return made, fmt.Errorf("seal the recovery key: %w", err)
	}
	made.files = append(made.files, initFile{path, sealed, keyfile.SecretPerm}, initFile{c.path(RecoveryPubFile), public, keyfile.SecretPerm})
	return made, nil
}

// dealRecovery returns the shares, sealed, and what they make together: the
// passphrase of the recovery key, the scalar in hex.
func (c Config) dealRecovery(recovery Hash, o SharesOptions) (*dealt[*custody.RecoverySharing], []byte, error) {
	secret, shares, sharing, err := custody.DealRecovery(c.Random, recovery, o.Threshold, o.names())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	defer clear(secret)
	files, err := sealShares(shares, o.Holders, cmp.Or(o.Out, c.path(RecoverySharesDir)), sharing)
	return &dealt[*custody.RecoverySharing]{recoveryNote(), sharing, files}, hex.AppendEncode(nil, secret), err
}

// writeShares writes the share files, if there are any, in place of those of a
// run that was cut.
func (m madeRecovery) writeShares(c Config) error {
	if m.shares != nil {
		return m.shares.write(c)
	}
	if err := c.removePresent(c.path(RecoveryFile) + RecoverySharingSuffix); err != nil {
		return err
	}
	return recoveryNote().drop(c)
}

// settleRecovery forgets which share files were on their way when the PKG was made.
func (c Config) settleRecovery() error { return c.removePresent(c.path(recoveryPendingFile)) }

func (c Config) removePresent(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return c.Files.RemoveDurable(path)
}

// RecoveryShareFiles returns where the shares of the recovery key are written, that
// of share 1 first; out is as in SharesOptions.
func (c Config) RecoveryShareFiles(s *custody.RecoverySharing, out string) []string {
	return sharePaths(s, cmp.Or(out, c.path(RecoverySharesDir)))
}

// ReadRecoverySharing reads the description of the shares of a recovery key.
func ReadRecoverySharing(path string) (*custody.RecoverySharing, error) {
	data, err := keyfile.Read(path, custody.MaxSharingFile)
	if err != nil {
		return nil, err
	}
	s, err := custody.ParseRecoverySharing(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// OpenRecoveryShares is OpenRecovery with shares that were brought together; it
// destroys them. Errors wrap ErrRecovery or are those of custody.TogetherRecovery.
func OpenRecoveryShares(path string, shares []*custody.RecoveryShare) (*RecoveryKey, error) {
	defer func() {
		for _, x := range shares {
			x.Destroy()
		}
	}()
	secret, err := custody.TogetherRecovery(shares)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	digits := hex.AppendEncode(nil, secret)
	defer clear(digits)
	k, err := OpenRecovery(path, digits)
	switch of := shares[0].Sharing.Recovery(); {
	case errors.Is(err, ErrPassphrase):
		return nil, fmt.Errorf("open %s: %w: these shares, of recovery key %s, do not open it", path, ErrRecovery, of)
	case err == nil && k.Hash != of:
		return nil, fmt.Errorf("open %s: %w: its hash is %s, that of the shares is %s", path, ErrRecovery, k.Hash, of)
	}
	return k, err
}

// verifyRecoverySharing holds the description of the recovery key's shares, if it
// is in the directory still, to the ledger.
func (c Config) verifyRecoverySharing(ledger *Ledger) error {
	path := c.path(RecoveryFile) + RecoverySharingSuffix
	s, err := ReadRecoverySharing(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && s.Recovery() != ledger.Recovery() {
		err = fmt.Errorf("%s: %w: the ledger records another recovery key", path, ErrForeign)
	}
	return err
}
