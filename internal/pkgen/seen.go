package pkgen

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// seen is what a holder remembers of the batches that he contributed to: the
// state of the ledger that the last of them were made of. Whoever makes batches
// could else show each time an earlier ledger, and have two histories signed.
type seen struct {
	Version int               `json:"version"`
	After   bundle.LedgerHead `json:"ledger"`
	Batches []Hash            `json:"batches_sha256"` // made of that state
}

const (
	seenVersion = 1
	maxSeen     = 64 << 10
	maxBatches  = 256
)

// SeenFile is where a holder remembers, in a directory of his, what he
// contributed to: one file per PKG, over all its epochs and sharings.
func (r *Review) SeenFile(dir string) string {
	id := r.ledger.Entries[0].Params.ID()
	return filepath.Join(dir, fmt.Sprintf("contributed-%x.json", id[:8]))
}

// Recall holds the batch to what the holder remembers, if there is such a file.
// An earlier state of the ledger, or another history, is an error that wraps
// hashlog.ErrTruncated. Another batch of a state that he contributed to already
// is something to agree to.
func (r *Review) Recall(path string) error {
	data, err := keyfile.Read(path, maxSeen)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s seen
	if err := decodeVersioned(data, maxSeen, seenVersion, &s); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := r.ledger.Covers(s.After); err != nil {
		return fmt.Errorf("the batch's ledger does not continue the one of the last batch that you contributed to: %w", err)
	}
	r.seen = s
	return nil
}

// other is the earlier batch of the same state of the ledger.
func (r *Review) other() (Hash, bool) {
	if r.seen.After != r.Before {
		return Hash{}, false
	}
	at := slices.IndexFunc(r.seen.Batches, func(b Hash) bool { return b != r.Batch.id })
	if at < 0 {
		return Hash{}, false
	}
	return r.seen.Batches[at], true
}

// Remember notes the batch, durably; it goes before what is contributed is handed
// out.
func (r *Review) Remember(files keyfile.Files, path string) error {
	s := r.seen
	if s.Version = seenVersion; s.After != r.Before {
		s.After, s.Batches = r.Before, nil
	}
	if !slices.Contains(s.Batches, r.Batch.id) {
		s.Batches = append(s.Batches, r.Batch.id)
	}
	if len(s.Batches) > maxBatches {
		return fmt.Errorf("%w: %d batches of one state of the ledger", ErrUnreadable, len(s.Batches))
	}
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return files.WriteDurable(path, append(data, '\n'), keyfile.SecretPerm)
}
