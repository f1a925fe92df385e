package agent

import (
	"errors"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// Provisioned returns the part of a state directory that says who the device
// is. A nil layer is OS{}; what is sealed is opened by a key store that is a
// provision.Sealer.
func Provisioned(dir string, layer Layer, keys ...KeyStore) provision.Store {
	return newStore(dir, layer, keys...).provisioned()
}

// Provisioned is Provisioned of the agent's own directory and key stores.
func (a *Agent) Provisioned() provision.Store { return a.dir.provisioned() }

// Provision installs the content of a bundle; see provision.Store.Install.
// Besides its errors there are keyfile.ErrLocked, an agent runs on the
// directory, and ErrReset.
func Provision(path string, layer Layer, b *bundle.Bundle, keys ...KeyStore) (changed bool, err error) {
	return newStore(path, layer, keys...).provision(b, false)
}

// ProvisionSealed is Provision, and everything is sealed by the key store that
// is a provision.Sealer; what the device was provisioned with before, too.
func ProvisionSealed(path string, layer Layer, b *bundle.Bundle, keys ...KeyStore) (changed bool, err error) {
	return newStore(path, layer, keys...).provision(b, true)
}

func (s store) provision(b *bundle.Bundle, seal bool) (changed bool, err error) {
	if err := s.checkReset(); err != nil {
		return false, err
	}
	if err := s.files.EnsureDir(s.dir); err != nil {
		return false, err
	}
	unlock, err := keyfile.Lock(s.path(lockName))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return s.install(b, seal)
}

// install keeps the content of a bundle, under the directory's lock.
func (s store) install(b *bundle.Bundle, seal bool) (changed bool, err error) {
	own := s.provisioned()
	own.Seal = seal
	if changed, err = own.Install(b); err != nil || !seal {
		return changed, err
	}
	sealed, err := own.SealFiles()
	return changed || sealed, err
}

func (s store) provisioned() provision.Store {
	out := provision.Store{Dir: s.dir, Role: ibc.RoleDevice, Files: s.files}
	for _, store := range s.keys {
		if sealer, ok := store.(provision.Sealer); ok && out.Sealer == nil {
			out.Sealer = sealer
		}
	}
	return out
}
