package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

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

const resetName = "reset"

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
// overwrites and removes every file but the configuration, and has withdraw (nil:
// nobody) take the pairs away from where else they are. A mark that is durable
// before the first of them goes keeps an agent from starting on what an
// interrupted reset has left; the next reset finishes it.
//
// Errors wrap ErrNoAgent, or keyfile.ErrLocked if an agent runs on the
// directory.
func Reset(path string, layer Layer, withdraw func() error) (err error) {
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
	err = dir.files.WipeDir(path, kept()...)
	if withdraw != nil {
		err = errors.Join(err, withdraw())
	}
	if err != nil {
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
