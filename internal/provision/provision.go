// Package provision keeps what an endpoint was provisioned with: the age key
// that its bundles are sealed to, the content of the bundle that it accepted
// last, and what the ones before leave behind.
//
// The directory is the endpoint's own, 0700, its files 0600:
//
//	recipient.key   age identity
//	identity.json   identity-based key, parameters, and what else the bundle
//	                says; peers and parameters of predecessors; floors
//
// Every change is one atomic rename. Both files may be sealed, see Sealer.
package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Errors that callers decide on; those of bundle, ibc and keyfile are wrapped
// beside them.
var (
	// ErrNone: nothing was provisioned yet.
	ErrNone = errors.New("there is no identity yet")
	// ErrNotLater: the bundle is not later in (epoch, generation) than the
	// identity that is there.
	ErrNotLater = errors.New("not later than the present identity")
	// ErrOther: the bundle is for another role or name.
	ErrOther = errors.New("for somebody else")
	// ErrFile: a file is malformed; nobody guesses what it might have said.
	ErrFile = errors.New("malformed file")
)

// Names of the files.
const (
	RecipientFile = "recipient.key"
	IdentityFile  = "identity.json"
)

// Bounds of the files in bytes, and the version of identity.json.
const (
	maxRecipient = 4 << 10
	maxIdentity  = 1 << 20
	version      = 1
)

// Store is an endpoint's directory.
type Store struct {
	Dir   string
	Role  ibc.Role // whose bundles it takes
	Files keyfile.Files

	Sealer Sealer // opens and seals; nil: what is sealed cannot be read
	Seal   bool   // seal what is written; what is sealed stays so in any case
}

func (s Store) path(name string) string { return filepath.Join(s.Dir, name) }

// Recipient returns the age key to which bundles are sealed. It makes a
// post-quantum hybrid one, and the directory, if there is none yet.
func (s Store) Recipient() (bundle.Opener, bundle.Recipient, error) {
	opener, recipient, err := s.loadRecipient()
	if !errors.Is(err, fs.ErrNotExist) {
		return opener, recipient, err
	}
	if err := s.Files.EnsureDir(s.Dir); err != nil {
		return bundle.Opener{}, bundle.Recipient{}, err
	}
	secret, _, err := bundle.GenerateOpener()
	if err != nil {
		return bundle.Opener{}, bundle.Recipient{}, fmt.Errorf("make recipient: %w", err)
	}
	secret = append(secret, '\n')
	defer clear(secret)
	err = s.write(RecipientFile, secret, true)
	// Another process may have made one meanwhile: that one counts.
	if err != nil && !errors.Is(err, keyfile.ErrExists) {
		return bundle.Opener{}, bundle.Recipient{}, fmt.Errorf("make recipient: %w", err)
	}
	return s.loadRecipient()
}

func (s Store) loadRecipient() (bundle.Opener, bundle.Recipient, error) {
	secret, err := s.read(RecipientFile)
	if err != nil {
		return bundle.Opener{}, bundle.Recipient{}, fmt.Errorf("read recipient key: %w", err)
	}
	defer clear(secret)
	opener, recipient, err := bundle.ParseOpener(secret)
	if err != nil {
		return bundle.Opener{}, bundle.Recipient{}, fmt.Errorf("%s: %w", RecipientFile, err)
	}
	return opener, recipient, nil
}

// Load reads identity.json and checks the key by its pairing. Errors wrap
// ErrNone, ErrFile, ErrSealed or ibc.ErrKey, or are the Sealer's.
func (s Store) Load() (*Endpoint, error) {
	data, err := s.read(IdentityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	defer clear(data)
	e, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(IdentityFile), err)
	}
	if e.Identity.Role != s.Role {
		return nil, fmt.Errorf("%s: it is %w, %s", s.path(IdentityFile), ErrOther, e.Identity)
	}
	return e, nil
}

// Save makes an endpoint what Load returns, durably and at once. If it fails,
// Load returns this or what was there before.
func (s Store) Save(e *Endpoint) error {
	data, err := e.encode()
	if err != nil {
		return err
	}
	defer clear(data)
	return s.write(IdentityFile, data, false)
}

// HeldTo reports, as an error that wraps bundle.ErrParams, that a bundle is not
// held to the params_id of a PKG: that is neither the bundle's own, nor that of
// what the endpoint has, or had first. In the latter cases Install sees to it that
// the PKG's statements lead from there to the bundle.
func (s Store) HeldTo(b *bundle.Bundle, paramsID [ibc.ParamsIDSize]byte) error {
	held := b.HeldTo(paramsID)
	if held == nil {
		return nil
	}
	present, err := s.Load()
	if errors.Is(err, ErrNone) {
		return held
	}
	if err != nil {
		return err
	}
	defer present.Destroy()
	if present.Params.ID() == paramsID || present.Root == paramsID {
		return nil
	}
	return held
}

// Install keeps the content of a bundle that bundle.Open returned, as Accept
// says. The first one must have been held to a params_id by the caller, or be
// trusted on first use. The caller keeps other processes off the directory.
//
// Errors wrap ErrOther, ErrNotLater or bundle.ErrParams.
func (s Store) Install(b *bundle.Bundle) (changed bool, err error) {
	if b.Identity.Role != s.Role {
		return false, fmt.Errorf("the bundle is %w: %s", ErrOther, b.Identity)
	}
	present, err := s.Load()
	switch {
	case errors.Is(err, ErrNone):
		return true, s.Save(&Endpoint{Bundle: b, Root: b.Params.ID()})
	case err != nil:
		return false, err
	}
	defer present.Destroy()
	next, err := present.Accept(b)
	if err != nil || next == nil {
		return false, err
	}
	return true, s.Save(next)
}
