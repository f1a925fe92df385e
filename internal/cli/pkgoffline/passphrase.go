package pkgoffline

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/passphrase"
)

// weakFlag waives the refusal of weak passphrases.
const weakFlag = "weak-passphrase-accepted"

// sealing is where a passphrase comes from that something will be sealed to.
// Each kind of secret has one in the options of its command:
//
//	var o struct{ share sealing }
//	a.registerSealing(cmd.Flags(), &o.share, "passphrase of the share", "share-passphrase")
//	…
//	secret, err := a.newPassphrase(ctx, o.share) // behind the gate of the air gap
//	defer clear(secret)
//
// For several secrets of one kind it is copied and told apart by what:
//
//	own := sealing{what: "passphrase for the share of alice", name: o.share.name, file: files[i]}
type sealing struct {
	what     string // what is asked for
	name     string // of the flags: --NAME-file, --generate-NAME
	file     string // as clikit.Secret.Path; "" with generate "": the terminal
	generate string // new file for a generated one
}

// registerSealing adds the flags of a passphrase, and to the command the waiver
// for weak ones.
func (a *app) registerSealing(f *pflag.FlagSet, s *sealing, what, name string) {
	s.what, s.name = what, name
	f.StringVar(&s.file, name+"-file", "", "file with the "+what+", - for standard input")
	f.StringVar(&s.generate, "generate-"+name, "", "new file for a generated "+what)
	a.registerWaiver(f)
}

// registerWaiver adds the waiver for weak passphrases to a command that seals.
func (a *app) registerWaiver(f *pflag.FlagSet) {
	if f.Lookup(weakFlag) == nil {
		f.BoolVar(&a.weakAccepted, weakFlag, false, "seal to a passphrase of less than 80 bits")
	}
}

// given reports whether a flag says where the passphrase comes from.
func (s sealing) given() bool { return s.file != "" || s.generate != "" }

// newPassphrase reads, generates or asks for a passphrase that something will be
// sealed to. The caller zeroes it after use.
func (a *app) newPassphrase(ctx context.Context, s sealing) ([]byte, error) {
	secret, err := a.readNewPassphrase(ctx, a.origin(s))
	return secret, s.explain(err)
}

// measure holds a passphrase that something else was opened with, as it was
// read, to what is demanded of one to seal to.
func (a *app) measure(secret []byte, s sealing) error {
	return s.explain(a.origin(s).Measure(a.Streams, secret))
}

func (a *app) origin(s sealing) clikit.NewPassphrase {
	return clikit.NewPassphrase{
		Secret: clikit.Secret{
			Path: s.file, Flag: "--" + s.name + "-file", What: s.what,
			NoInput: a.NoInput, Program: program, Quiet: a.Quiet,
		},
		GenerateTo: s.generate, GenerateFlag: "--generate-" + s.name,
		WeakAccepted: a.weakAccepted, Random: a.Random,
	}
}

func (s sealing) explain(err error) error {
	switch {
	case errors.Is(err, passphrase.ErrWeak):
		return clikit.WithHint(err, "take a generated one: --generate-"+s.name+" FILE; or accept it with --"+weakFlag)
	case errors.Is(err, keyfile.ErrExists):
		return clikit.WithHint(err, "use it with --"+s.name+"-file "+s.generate+", or choose a new file")
	}
	return err
}

// pkgPassphrase says where the passphrase comes from that opens the master
// secret.
func (a *app) pkgPassphrase(path string) clikit.Secret {
	return clikit.Secret{
		Path: path, Flag: "--passphrase-file", What: "passphrase of the PKG", Opens: true,
		NoInput: a.NoInput, Program: program, Quiet: a.Quiet,
	}
}

// bundlePassphrase says where the passphrase comes from that opens a bundle,
// with bundle.OpenTyped.
func (a *app) bundlePassphrase(path string) clikit.Secret {
	return clikit.Secret{
		Path: path, Flag: "--bundle-passphrase-file", What: "passphrase of the bundle",
		NoInput: a.NoInput, Program: program, Quiet: a.Quiet,
	}
}
