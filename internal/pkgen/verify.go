package pkgen

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// VerifyDir checks a PKG's directory without any secret: parameters, the whole
// ledger up to its last byte, the recovery key and the description of the shares
// against the ledger, and that secrets are readable by their owner only.
func VerifyDir(dir string) (*Ledger, error) {
	c := Config{Dir: dir}
	ledger, err := ReadPublic(dir)
	if err != nil {
		return nil, err
	}
	if err := ledger.Log.Finished(); err != nil {
		return nil, fmt.Errorf("ledger %s: %w", c.path(LedgerFile), err)
	}
	if err := c.verifyEpochs(ledger); err != nil {
		return nil, err
	}
	recovery, err := readRecovery(c.path(RecoveryPubFile))
	if err != nil {
		return nil, err
	}
	if recovery.SHA256 != ledger.Recovery() {
		return nil, fmt.Errorf("%s: %w: the ledger records another recovery key", c.path(RecoveryPubFile), ErrForeign)
	}
	if err := c.verifyRecoverySharing(ledger); err != nil {
		return nil, err
	}
	if _, shared := ledger.Sharing(); shared {
		return ledger, c.verifySharing(ledger)
	}
	sealed, err := keyfile.ReadSecret(c.path(MasterFile), maxSmallFile)
	if err != nil {
		return nil, err
	}
	if _, err := bundle.SealedTo(sealed); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path(MasterFile), err)
	}
	return ledger, nil
}

// VerifyMedium checks a medium without any secret: the manifest's signature,
// every row's public key, every bundle file against its hash, which is in the
// manifest or, of one that holders of shares signed, beside it (bundle.SumsName),
// and that no other bundle lies there. With a ledger (nil: none at hand) it holds
// the manifest to it too, which may then be of any of its epochs.
func VerifyMedium(dir string, params *ibc.Params, ledger *Ledger) (*bundle.Manifest, error) {
	known := []*ibc.Params{params}
	if ledger != nil && ledger.has(params) {
		known = ledger.Epochs()
	}
	m, err := readManifest(filepath.Join(dir, bundle.ManifestName), known)
	if err != nil {
		return nil, err
	}
	if ledger != nil {
		if err := ledger.Covers(m.Ledger); err != nil {
			return nil, err
		}
	}
	sums, err := readSums(filepath.Join(dir, bundle.SumsName))
	if err != nil {
		return nil, err
	}
	latest := make(map[bundle.Subject]ibc.Identity, len(m.Rows))
	for i, r := range m.Rows {
		err := verifyRow(dir, r, sums)
		if err == nil && ledger != nil {
			err = ledger.holds(r)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: row %d: %s %s: %w", filepath.Join(dir, bundle.ManifestName), i+1, r.Role, r.Name, err)
		}
		latest[r.Subject()] = r.Identity()
	}
	if err := verifySums(dir, m.Rows, sums); err != nil {
		return nil, err
	}
	return m, verifyNoOthers(dir, latest)
}

// verifySums demands that the hashes beside a manifest, if there are any, are
// those of its rows and no others, as they were written: nobody has signed them.
func verifySums(dir string, rows []bundle.Row, sums bundle.Sums) error {
	file := filepath.Join(dir, bundle.SumsName)
	data, err := keyfile.Read(file, bundle.MaxSumsSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	listed := make(bundle.Sums, len(rows))
	for _, r := range rows {
		listed[r.File] = sums.Of(r)
	}
	if !maps.Equal(listed, sums) || !bytes.Equal(sums.Marshal(), data) {
		return fmt.Errorf("%s: %w: it lists other files, or not as it was written", file, ErrMedium)
	}
	return nil
}

func verifyRow(dir string, r bundle.Row, sums bundle.Sums) error {
	if q := r.Identity().PublicKey(); hex.EncodeToString(q[:]) != r.PublicKey {
		return fmt.Errorf("%w: public_key is not that of the identity", ErrMedium)
	}
	sealed, err := keyfile.Read(filepath.Join(dir, filepath.FromSlash(r.File)), bundle.MaxSize)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMedium, err)
	}
	sum, listed := sums[r.File]
	switch issued := sums.Of(r); {
	case issued == Hash{}:
		return fmt.Errorf("%w: neither the manifest nor %s has the hash of %s", ErrMedium, bundle.SumsName, r.File)
	case Hash(sha256.Sum256(sealed)) != issued:
		return fmt.Errorf("%w: %s is not the file that was issued", ErrMedium, r.File)
	case listed && sum != issued:
		return fmt.Errorf("%w: %s has another hash of %s", ErrMedium, bundle.SumsName, r.File)
	}
	return nil
}

// holds reports whether the entry that a row names records the row.
func (l *Ledger) holds(r bundle.Row) error {
	if r.LedgerIndex > uint64(len(l.Entries)) {
		return fmt.Errorf("%w: there is no ledger entry %d", ErrMedium, r.LedgerIndex)
	}
	e := l.Entries[r.LedgerIndex-1]
	if e.Type != typeIssue || *e.Identity != r.Identity() || e.Address != r.Address || !maps.Equal(e.Labels, r.Labels) || !slices.Equal(e.Names, r.Names) {
		return fmt.Errorf("%w: ledger entry %d records something else", ErrMedium, r.LedgerIndex)
	}
	return nil
}

// verifyNoOthers looks for bundles that the manifest does not list. Earlier
// ones of a listed name are left behind by a re-issue and do no harm.
func verifyNoOthers(dir string, latest map[bundle.Subject]ibc.Identity) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.Count(strings.TrimPrefix(path, dir), string(os.PathSeparator)) > 1 {
			return fs.SkipDir
		}
		id, notABundle := bundle.ParseFileName(d.Name())
		listed, ok := latest[subject(id)]
		if notABundle == nil && !d.IsDir() && (!ok || id.Compare(listed) > 0) {
			return fmt.Errorf("%s: %w: the manifest does not list it", path, ErrMedium)
		}
		return nil
	})
}

// ParseHead parses a ledger head as it is printed, "<count>:<sha256>".
func ParseHead(s string) (bundle.LedgerHead, error) {
	count, hash, ok := strings.Cut(s, ":")
	index, err := strconv.ParseUint(count, 10, 64)
	head := bundle.LedgerHead{Index: index}
	if !ok || err != nil || head.Hash.UnmarshalText([]byte(hash)) != nil {
		return head, fmt.Errorf("%.90q is not a ledger head (count:sha256)", s)
	}
	return head, nil
}
