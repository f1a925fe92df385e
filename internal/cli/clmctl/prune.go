package clmctl

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// pruneFile says when old history was dropped last.
const pruneFile = "pruned"

const (
	pruneEvery  = 24 * time.Hour
	pruneWithin = 10 * time.Second // the rest goes the next time
	prunePiece  = 10_000           // records, a look for them from the beginning
)

// prune drops, once a day, what history.keep says is old.
func (k *keeper) prune(ctx context.Context) {
	now := k.Now()
	if k.site.HistoryKeep <= 0 || !k.pruneDue(now) {
		return
	}
	within, cancel := context.WithTimeout(ctx, pruneWithin)
	defer cancel()
	err := k.dropBefore(within, now.Add(-k.site.HistoryKeep))
	if err == nil {
		err = keyfile.WriteDurable(k.site.dir.path(pruneFile), []byte(stamp(now)+"\n"), keyfile.SecretPerm)
	}
	if err != nil && within.Err() == nil {
		k.log.Error("drop old history", "error", err)
	}
}

// pruneDue reports whether it was long ago, or never, or at a time that is
// still to come.
func (k *keeper) pruneDue(now time.Time) bool {
	data, err := keyfile.Read(k.site.dir.path(pruneFile), 64)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.log.Warn("look when old history was dropped", "error", err)
		}
		return true
	}
	last, err := time.Parse(time.RFC3339, strings.TrimSpace(string(data)))
	return err != nil || now.Before(last) || now.Sub(last) >= pruneEvery
}

func (k *keeper) dropBefore(ctx context.Context, before time.Time) error {
	for total := 0; ; {
		n, err := k.records.Prune(ctx, before, prunePiece)
		if err != nil {
			return err
		}
		if total += n; n < prunePiece {
			k.log.Debug("old history was dropped", "records", total, "before", before)
			return nil
		}
	}
}
