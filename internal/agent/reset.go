package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

var (
	// ErrReset is wrapped when a reset of the directory was interrupted: what
	// is left of it is no device.
	ErrReset = errors.New("a reset was interrupted")
	// ErrNoAgent is wrapped by Reset when the directory is not an agent's.
	ErrNoAgent = errors.New("not the state directory of an agent")
)

const (
	resetName = "reset"
	maxDepth  = 8 // of the directories below the state directory
)

// kept are the names that a reset leaves: what somebody decided about the
// machine, and the lock that it holds.
func kept() []string { return []string{"config.yaml", lockName, resetName} }

// CheckReset returns an error that wraps ErrReset if a reset of the directory
// was interrupted.
func CheckReset(dir string) error { return newStore(dir, nil).checkReset() }

func (s store) checkReset() error {
	_, err := os.Lstat(s.path(resetName))
	if err == nil {
		return fmt.Errorf("%s: %w", s.dir, ErrReset)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Reset takes everything from a state directory that makes it a device: it
// overwrites and removes every file but the configuration, keys first. A mark
// that is durable before the first of them goes keeps an agent from starting on
// what an interrupted reset has left; the next reset finishes it.
//
// Errors wrap ErrNoAgent, or keyfile.ErrLocked if an agent runs on the
// directory.
func Reset(path string, layer Layer) (err error) {
	dir := newStore(path, layer)
	if err := dir.isAgent(); err != nil {
		return err
	}
	unlock, err := keyfile.Lock(dir.path(lockName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	err = dir.files.CreateDurable(dir.path(resetName), nil, keyfile.SecretPerm)
	if err != nil && !errors.Is(err, keyfile.ErrExists) {
		return err
	}
	if err := dir.clear(path, kept(), maxDepth); err != nil {
		return err
	}
	return dir.files.RemoveDurable(dir.path(resetName))
}

// isAgent looks for what every agent's directory has. Others may hold
// anything, also what somebody will miss.
func (s store) isAgent() error {
	for _, name := range []string{resetName, provision.RecipientFile, provision.IdentityFile, stateName, lockName} {
		if info, err := os.Lstat(s.path(name)); err == nil && info.Mode().IsRegular() {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", s.dir, ErrNoAgent)
}

// clear wipes the files in a directory, except some, and removes what is below
// it. It goes on after an error, so that as few secrets as possible stay.
func (s store) clear(path string, except []string, depth int) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	// The files of this level first: who the device is lies at the top.
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int { return rank(a) - rank(b) })
	var errs []error
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		switch {
		case slices.Contains(except, e.Name()):
		case !e.IsDir():
			errs = append(errs, s.files.Wipe(name))
		case depth == 0:
			errs = append(errs, fmt.Errorf("%s is more than %d directories deep", name, maxDepth))
		default:
			err := s.clear(name, nil, depth-1)
			if err == nil {
				err = s.files.RemoveDurable(name)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func rank(e fs.DirEntry) int {
	switch {
	case e.Name() == provision.IdentityFile:
		return 0
	case e.IsDir():
		return 2
	}
	return 1
}
