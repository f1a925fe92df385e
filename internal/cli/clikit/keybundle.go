package clikit

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// KeyBundle is the file that an endpoint takes its identity from, and how it
// is opened and checked.
type KeyBundle struct {
	Path           string
	PassphraseFile string // as Secret.Path; "": the endpoint's own age key, or ask
	ParamsID       string // in hex; "": any PKG's, on first use
}

// Register adds the flags of everything but the path.
func (k *KeyBundle) Register(f *pflag.FlagSet) {
	f.StringVar(&k.PassphraseFile, "bundle-passphrase-file", "", "file with the passphrase or PIN that opens the bundle, - for standard input")
	f.StringVar(&k.ParamsID, "params-id", "", "params_id that the bundle must be of, in hex")
}

// Open opens the bundle with the passphrase or PIN, or with the age key of the
// endpoint, and holds it to the params_id. Errors are those of bundle.Open and
// provision.Store.HeldTo, or of usage.
func (k KeyBundle) Open(ctx context.Context, s Streams, c *Common, program string, own provision.Store) (*bundle.Bundle, error) {
	sealed, err := k.Read(ctx, s, c, program)
	if err != nil {
		return nil, err
	}
	defer clear(sealed.Passphrase)
	return k.OpenSealed(sealed, own)
}

// OpenSealed is Open of what Read returned.
func (k KeyBundle) OpenSealed(sealed SealedBundle, own provision.Store) (*bundle.Bundle, error) {
	b, err := sealed.Open(own)
	if err != nil || k.ParamsID == "" {
		return b, err
	}
	var want bundle.Hash
	if err := want.UnmarshalText([]byte(k.ParamsID)); err != nil {
		return nil, Usage("--params-id: %w", err)
	}
	return b, own.HeldTo(b, want)
}

// SealedBundle is a bundle with what opens it.
type SealedBundle struct {
	Bundle     []byte `json:"bundle"`
	Passphrase []byte `json:"passphrase,omitempty"` // nil: the endpoint's age key does
}

// Open opens the bundle. Errors are those of bundle.Open.
func (b SealedBundle) Open(own provision.Store) (*bundle.Bundle, error) {
	if b.Passphrase != nil {
		return bundle.OpenTyped(b.Bundle, b.Passphrase)
	}
	opener, _, err := own.Recipient()
	if err != nil {
		return nil, err
	}
	return bundle.Open(b.Bundle, opener)
}

// Read reads the bundle and, if it needs one, its passphrase or PIN, which the
// caller zeroes after use.
func (k KeyBundle) Read(ctx context.Context, s Streams, c *Common, program string) (SealedBundle, error) {
	sealed, err := keyfile.Read(k.Path, bundle.MaxSize)
	if err != nil {
		return SealedBundle{}, WithCode(err, ExitUsage)
	}
	kinds, err := bundle.SealedTo(sealed)
	if err != nil {
		return SealedBundle{}, fmt.Errorf("%s: %w", k.Path, err)
	}
	out := SealedBundle{Bundle: sealed}
	if k.PassphraseFile != "" || len(kinds) == 1 && kinds[0] == "scrypt" {
		out.Passphrase, err = k.Passphrase(ctx, s, c, program)
	}
	return out, err
}

// Passphrase reads or asks for what opens a bundle without recipient. The
// caller zeroes it after use.
func (k KeyBundle) Passphrase(ctx context.Context, s Streams, c *Common, program string) ([]byte, error) {
	return ReadSecret(ctx, s, Secret{
		Path: k.PassphraseFile, Flag: "--bundle-passphrase-file", What: "passphrase of the bundle",
		NoInput: c.NoInput, Program: program, Quiet: c.Quiet,
	})
}
