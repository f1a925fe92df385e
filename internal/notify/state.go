package notify

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// maxState bounds the file of the open alerts: two hundred of them, with a
// hundred devices each.
const maxState = 16 << 20

func (n *Notifier) statePath() string { return filepath.Join(n.Dir, "alerts.json") }

// load reads the open alerts. A file that is damaged is set aside: to be told
// again is better than never.
func (n *Notifier) load() (*alert.Tracker, error) {
	data, err := keyfile.Read(n.statePath(), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return n.fresh()
	}
	var tracker *alert.Tracker
	switch {
	case err == nil:
		tracker, err = alert.Parse(data)
		if err == nil || errors.Is(err, alert.ErrVersion) {
			return tracker, err
		}
	case !errors.Is(err, keyfile.ErrTooLarge):
		return nil, fmt.Errorf("read the open alerts: %w", err)
	}
	n.Log.Error("the open alerts are damaged, what is open is told again", "file", n.statePath(), "error", err)
	if err := n.spool().setAside(n.Dir, filepath.Base(n.statePath())); err != nil {
		return nil, err
	}
	return n.fresh()
}

// fresh begins after what is in the spool, and is stored at once: else the first
// message, kept before the tracker is, could not be told from one that was told.
func (n *Notifier) fresh() (*alert.Tracker, error) {
	tracker := &alert.Tracker{}
	for _, dir := range []string{n.spool().queue(), n.spool().dead()} {
		list, err := names(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			var sequence uint64
			if _, err := fmt.Sscanf(name, "%d.json", &sequence); err == nil {
				tracker.Sequence = max(tracker.Sequence, sequence)
			}
		}
	}
	return tracker, n.store(tracker)
}

func (n *Notifier) store(tracker *alert.Tracker) error {
	data, err := tracker.Bytes()
	if err == nil {
		err = n.Files.WriteDurable(n.statePath(), data, keyfile.SecretPerm)
	}
	if err != nil {
		return fmt.Errorf("keep the open alerts: %w", err)
	}
	return nil
}
