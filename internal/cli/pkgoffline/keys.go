package pkgoffline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// keys are what opens the master secret: the passphrase, or shares that were
// brought together.
type keys struct {
	passphraseFile string
	shares         shareKeys
}

// register adds the flags of a command that opens a PKG.
func (k *keys) register(f *pflag.FlagSet) {
	f.StringVar(&k.passphraseFile, "passphrase-file", "", "file with the passphrase of the PKG, - for standard input (default: ask)")
	k.shares.register(f)
}

// flag names one of the flags.
func (k *shareKeys) flag(name string) string { return "--" + k.prefix + name }

// paths returns what may be standard input, of which there is one.
func (k *keys) paths() []string {
	return slices.Concat([]string{k.passphraseFile}, k.shares.passphraseFiles, k.shares.identityFiles)
}

// shareKeys are share files and what opens each.
type shareKeys struct {
	prefix                                string // of the flags: "", or recoveryPrefix
	files, passphraseFiles, identityFiles []string
}

func (k *shareKeys) register(f *pflag.FlagSet) {
	of := "the master secret"
	if k.prefix == recoveryPrefix {
		of = "what opens the recovery key"
	}
	f.StringArrayVar(&k.files, k.prefix+"share", nil, "file of a share of "+of+" (repeat for each)")
	k.registerSecrets(f)
}

// registerSecrets adds the flags for what opens shares.
func (k *shareKeys) registerSecrets(f *pflag.FlagSet) {
	f.StringArrayVar(&k.passphraseFiles, k.prefix+"share-passphrase-file", nil, "file with the passphrase of a share, in the order of those that have one (repeat for more; default: ask)")
	f.StringArrayVar(&k.identityFiles, k.prefix+"share-identity-file", nil, "file with the age key (AGE-SECRET-KEY-…) that opens shares (repeat for more)")
}

// opening is what opens a PKG, once it was asked for.
type opening struct {
	passphrase []byte // nil: shares
	shares     []*custody.Share
}

// open opens the PKG and forgets what did; the PKG destroys the shares.
func (o opening) open(c pkgen.Config) (*pkgen.PKG, error) {
	if o.passphrase == nil {
		return pkgen.OpenShares(c, o.shares)
	}
	defer clear(o.passphrase)
	return pkgen.Open(c, o.passphrase)
}

// forget zeroes it, if it is not used.
func (o opening) forget() {
	clear(o.passphrase)
	destroy(o.shares)
}

// readKeys asks for what opens the PKG in dir, whose public part was read. The
// caller has passed the gate of the air gap, and begins the transcript next.
func (a *app) readKeys(ctx context.Context, dir string, public *pkgen.Ledger, k keys) (opening, error) {
	if _, shared := public.Sharing(); !shared {
		if len(k.shares.files) > 0 {
			return opening{}, clikit.WithCode(fmt.Errorf("--share: %w", pkgen.ErrWhole), clikit.ExitUsage)
		}
		passphrase, err := a.readSecret(ctx, a.pkgPassphrase(k.passphraseFile))
		return opening{passphrase: passphrase}, err
	}
	sharing, err := pkgen.ReadSharing(dir, public)
	if err != nil {
		return opening{}, err
	}
	if len(k.shares.files) == 0 {
		return opening{}, clikit.WithCode(fmt.Errorf("%w: %d of those of %s open it, and none was given",
			pkgen.ErrShared, sharing.Threshold(), strings.Join(sharing.Holders(), ", ")), clikit.ExitUsage)
	}
	shares, err := a.openShares(ctx, sharing, k.shares)
	if err != nil {
		destroy(shares)
		return opening{}, err
	}
	return opening{shares: shares}, nil
}

// openShares opens the share files; those that were opened before an error are
// returned too.
func (a *app) openShares(ctx context.Context, sharing *custody.Sharing, k shareKeys) ([]*custody.Share, error) {
	r, err := newShareReader(ctx, a, k, masterShare(sharing))
	if err != nil {
		return nil, err
	}
	return r.all(k.files)
}

// masterShare opens shares of a master secret.
func masterShare(sharing *custody.Sharing) openShare[*custody.Share] {
	return func(sealed []byte, opener bundle.Opener) (*custody.Share, error) {
		return custody.Open(sealed, opener, sharing)
	}
}

// recoveryShare opens shares of what opens a recovery key.
func recoveryShare(sharing *custody.RecoverySharing) openShare[*custody.RecoveryShare] {
	return func(sealed []byte, opener bundle.Opener) (*custody.RecoveryShare, error) {
		return custody.OpenRecovery(sealed, opener, sharing)
	}
}

func destroy[S interface{ Destroy() }](shares []S) {
	for _, x := range shares {
		x.Destroy()
	}
}

// openShare opens the file of a share and checks it against its sharing.
type openShare[S any] func(sealed []byte, opener bundle.Opener) (S, error)

// shareReader opens share files, of either kind, one after the other.
type shareReader[S any] struct {
	app         *app
	ctx         context.Context
	keys        shareKeys
	openShare   openShare[S]
	openers     []bundle.Opener
	passphrases []string // files, of the shares to come
}

func newShareReader[S any](ctx context.Context, a *app, k shareKeys, open openShare[S]) (*shareReader[S], error) {
	r := &shareReader[S]{app: a, ctx: ctx, keys: k, openShare: open, passphrases: k.passphraseFiles}
	for _, path := range k.identityFiles {
		secret, err := a.readSecret(ctx, clikit.Secret{Path: path, Flag: k.flag("share-identity-file"), What: "age key of a holder", Program: program, Quiet: a.Quiet})
		if err != nil {
			return nil, err
		}
		opener, _, err := bundle.ParseOpener(secret)
		clear(secret)
		if err != nil {
			return nil, clikit.WithCode(fmt.Errorf("%s: %w", path, err), clikit.ExitUsage)
		}
		r.openers = append(r.openers, opener)
	}
	return r, nil
}

// all opens the files and demands that every passphrase was for one. Shares that
// were opened before an error are returned too.
func (r *shareReader[S]) all(files []string) (shares []S, err error) {
	for _, path := range files {
		x, err := r.open(path)
		if err != nil {
			return shares, fmt.Errorf("share %s: %w", path, err)
		}
		shares = append(shares, x)
	}
	return shares, r.finished()
}

func (r *shareReader[S]) open(path string) (none S, err error) {
	sealed, err := keyfile.Read(path, custody.MaxShareFile)
	if err != nil {
		return none, err
	}
	kinds, err := bundle.SealedTo(sealed)
	if err != nil {
		return none, err
	}
	if len(kinds) == 1 && kinds[0] == "scrypt" {
		opener, err := r.passphrase(path)
		if err != nil {
			return none, err
		}
		return r.openShare(sealed, opener)
	}
	for _, opener := range r.openers {
		x, err := r.openShare(sealed, opener)
		if !errors.Is(err, bundle.ErrRecipient) {
			return x, err
		}
	}
	flag := r.keys.flag("share-identity-file")
	if len(r.openers) == 0 {
		return none, clikit.WithHint(clikit.Usage("it is sealed to an age key"), "give the key with "+flag+" FILE")
	}
	return none, fmt.Errorf("%w than the keys of %s", bundle.ErrRecipient, flag)
}

// passphrase returns what opens a share that is sealed to a passphrase.
func (r *shareReader[S]) passphrase(path string) (bundle.Opener, error) {
	from := clikit.Secret{
		Flag: r.keys.flag("share-passphrase-file"), What: "passphrase of " + filepath.Base(path), Opens: true,
		NoInput: r.app.NoInput, Program: program, Quiet: r.app.Quiet,
	}
	if len(r.passphrases) > 0 {
		from.Path, r.passphrases = r.passphrases[0], r.passphrases[1:]
	}
	text, err := r.app.readSecret(r.ctx, from)
	if err != nil {
		return bundle.Opener{}, err
	}
	defer clear(text)
	return bundle.PassphraseOpener(text)
}

// finished demands that every passphrase was for a share.
func (r *shareReader[S]) finished() error {
	if n := len(r.passphrases); n > 0 {
		return clikit.Usage("%d passphrases of shares are left over", n)
	}
	return nil
}
