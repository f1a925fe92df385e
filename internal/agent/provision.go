package agent

import (
	"errors"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// Provisioned returns the part of a state directory that says who the device
// is. A nil layer is OS{}.
func Provisioned(dir string, layer Layer) provision.Store {
	return newStore(dir, layer).provisioned()
}

// Provision installs the content of a bundle; see provision.Store.Install.
// Besides its errors there are keyfile.ErrLocked, an agent runs on the
// directory, and ErrReset.
func Provision(path string, layer Layer, b *bundle.Bundle) (changed bool, err error) {
	dir := newStore(path, layer)
	if err := dir.checkReset(); err != nil {
		return false, err
	}
	if err := dir.files.EnsureDir(path); err != nil {
		return false, err
	}
	unlock, err := keyfile.Lock(dir.path(lockName))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return dir.provisioned().Install(b)
}

func (s store) provisioned() provision.Store {
	return provision.Store{Dir: s.dir, Role: ibc.RoleDevice, Files: s.files}
}
