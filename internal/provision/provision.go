// Package provision keeps what an endpoint was provisioned with: the age key
// that its bundles are sealed to, and the content of the bundle that it
// accepted last.
//
// The directory is the endpoint's own, 0700, its files 0600:
//
//	recipient.key   age identity
//	identity.json   identity-based key, parameters, and what else the bundle says
//
// Every change is one atomic rename.
package provision

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
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
	err = s.Files.CreateDurable(s.path(RecipientFile), secret, keyfile.SecretPerm)
	// Another process may have made one meanwhile: that one counts.
	if err != nil && !errors.Is(err, keyfile.ErrExists) {
		return bundle.Opener{}, bundle.Recipient{}, fmt.Errorf("make recipient: %w", err)
	}
	return s.loadRecipient()
}

func (s Store) loadRecipient() (bundle.Opener, bundle.Recipient, error) {
	secret, err := keyfile.ReadSecret(s.path(RecipientFile), maxRecipient)
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

// file is identity.json: what the last accepted bundle said.
type file struct {
	Version      int           `json:"version"`
	Identity     ibc.Identity  `json:"identity"`
	Params       *ibc.Params   `json:"params"`
	Key          string        `json:"key"` // d in hex
	Peers        []bundle.Peer `json:"peers,omitempty"`
	Names        []fleet.Name  `json:"names,omitempty"`
	RecoveryHash bundle.Hash   `json:"recovery_sha256"`
	Address      string        `json:"address,omitempty"`
	CLMAddresses []string      `json:"clm_addresses,omitempty"`
	Anchors      [][]byte      `json:"anchors,omitempty"`
	Recipient    bundle.Hash   `json:"recipient_sha256"`
}

// Load reads identity.json and checks the key by its pairing. Errors wrap
// ErrNone, ErrFile or ibc.ErrKey.
func (s Store) Load() (*bundle.Bundle, error) {
	data, err := keyfile.ReadSecret(s.path(IdentityFile), maxIdentity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	defer clear(data)
	b, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(IdentityFile), err)
	}
	if b.Identity.Role != s.Role {
		return nil, fmt.Errorf("%s: it is %w, %s", s.path(IdentityFile), ErrOther, b.Identity)
	}
	return b, nil
}

func parse(data []byte) (*bundle.Bundle, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	if f.Version != version {
		return nil, fmt.Errorf("%w: version %d, this release reads %d", ErrFile, f.Version, version)
	}
	b := &bundle.Bundle{
		Identity: f.Identity, Params: f.Params, Peers: f.Peers, Names: f.Names, RecoveryHash: f.RecoveryHash,
		Address: f.Address, CLMAddresses: f.CLMAddresses, Anchors: f.Anchors, Recipient: f.Recipient,
	}
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	d, err := hex.DecodeString(f.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: the key is not in hex", ErrFile)
	}
	defer clear(d)
	b.Key, err = ibc.NewPrivateKey(b.Params, b.Identity, d)
	return b, err
}

func (s Store) save(b *bundle.Bundle) error {
	d := b.Key.Bytes()
	defer clear(d)
	data, err := json.MarshalIndent(file{
		version, b.Identity, b.Params, hex.EncodeToString(d), b.Peers, b.Names, b.RecoveryHash,
		b.Address, b.CLMAddresses, b.Anchors, b.Recipient,
	}, "", " ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	data = append(data, '\n')
	defer clear(data)
	return s.Files.WriteDurable(s.path(IdentityFile), data, keyfile.SecretPerm)
}

// Install keeps the content of a bundle that bundle.Open returned. The first
// one must have been held to a params_id by the caller, or be trusted on first
// use. A later one must be of the same PKG, role and name and later in (epoch,
// generation); the one that is there already is accepted and changes nothing.
// The caller keeps other processes off the directory.
//
// Errors wrap ErrOther, ErrNotLater or bundle.ErrParams.
func (s Store) Install(b *bundle.Bundle) (changed bool, err error) {
	if b.Identity.Role != s.Role {
		return false, fmt.Errorf("the bundle is %w: %s", ErrOther, b.Identity)
	}
	present, err := s.Load()
	switch {
	case errors.Is(err, ErrNone):
		return true, s.save(b)
	case err != nil:
		return false, err
	}
	defer present.Key.Destroy()
	next, err := succeed(present, b)
	if err != nil || next == nil {
		return false, err
	}
	return true, s.save(next)
}

// succeed returns what the endpoint has after a bundle that follows the
// present one, nil if it is the present one.
func succeed(present, b *bundle.Bundle) (*bundle.Bundle, error) {
	if b.Identity.Name != present.Identity.Name {
		return nil, fmt.Errorf("the bundle is %w: %s, this is %s", ErrOther, b.Identity, present.Identity)
	}
	if err := b.HeldTo(present.Params.ID()); err != nil {
		return nil, err
	}
	// The first bundle fixes the recovery key: a thief of the master secret
	// must not be able to replace it.
	if b.RecoveryHash != present.RecoveryHash {
		return nil, fmt.Errorf("bundle of %s is %w: it names another recovery key", b.Identity, bundle.ErrParams)
	}
	next := *b
	if len(next.Anchors) == 0 {
		// A bundle that says nothing about anchors takes none away.
		next.Anchors = present.Anchors
	}
	switch order := b.Identity.Compare(present.Identity); {
	case order > 0:
		return &next, nil
	case order < 0:
		return nil, fmt.Errorf("bundle of %s is %w, %s", b.Identity, ErrNotLater, present.Identity)
	}
	// Whom it was sealed to does not matter: the same identity may have been
	// issued again to a passphrase.
	next.Recipient = present.Recipient
	same, err := equal(&next, present)
	if err != nil || same {
		return nil, err
	}
	return nil, fmt.Errorf("bundle of %s is %w, and says something else", b.Identity, ErrNotLater)
}

func equal(a, b *bundle.Bundle) (bool, error) {
	x, err := a.Payload()
	if err != nil {
		return false, err
	}
	y, err := b.Payload()
	return bytes.Equal(x, y), err
}
