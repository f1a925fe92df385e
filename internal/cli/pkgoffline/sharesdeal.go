package pkgoffline

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// dealOptions are the flags of commands that share the master secret out, or what
// opens the recovery key.
type dealOptions struct {
	prefix            string // of the flags: "", or recoveryPrefix
	shares, threshold int
	holders           []string
	out               string
	passphraseFiles   []string
	generate          []string // new files for generated passphrases
}

func (o *dealOptions) register(a *app, f *pflag.FlagSet, passphraseFlag string) {
	f.IntVar(&o.shares, o.prefix+"shares", 0, "number of shares (default: as many as there are --"+o.prefix+"holder)")
	f.IntVar(&o.threshold, o.prefix+"threshold", 0, "how many shares are needed to "+o.needed())
	f.StringArrayVar(&o.holders, o.prefix+"holder", nil, "who gets a share: NAME, sealed to a passphrase, or NAME=FILE, sealed to the age recipient in the file (repeat for each, that of share 1 first; default: holder-1 and so on)")
	f.StringVar(&o.out, o.prefix+"shares-out", "", "directory for the share files (default: "+o.prefix+"shares in the directory of the PKG)")
	f.StringArrayVar(&o.passphraseFiles, passphraseFlag, nil, "file with the passphrase for a new share, in the order of the holders that have no age recipient (repeat for more; default: ask)")
	f.StringArrayVar(&o.generate, generateFlag(passphraseFlag), nil, "new file for a generated passphrase of a new share, for the holders after those (repeat for more)")
	a.registerWaiver(f)
}

// recoveryPrefix begins the flags about the recovery key.
const recoveryPrefix = "recovery-"

func (o *dealOptions) needed() string {
	if o.prefix == recoveryPrefix {
		return "open the recovery key"
	}
	return "make the secret"
}

// generateFlag names the flag beside one that ends in -file.
func generateFlag(passphraseFlag string) string {
	return "generate-" + strings.TrimSuffix(passphraseFlag, "-file")
}

// given reports whether any of it was.
func (o *dealOptions) given() bool {
	return o.shares != 0 || o.threshold != 0 || len(o.holders) > 0 || o.out != "" || len(o.passphraseFiles) > 0 || len(o.generate) > 0
}

// list returns the holders' names and the files of their recipients, "" of
// those who have none. Nothing is read.
func (o *dealOptions) list() (names, recipients []string, err error) {
	for _, h := range o.holders {
		name, file, found := strings.Cut(h, "=")
		if found && file == "" {
			return nil, nil, clikit.Usage("--%sholder %s: no file behind '='", o.prefix, h)
		}
		names, recipients = append(names, name), append(recipients, file)
	}
	if len(names) == 0 && o.shares > 0 && o.shares <= custody.MaxHolders {
		for i := range o.shares {
			names, recipients = append(names, fmt.Sprintf("holder-%d", i+1)), append(recipients, "")
		}
	}
	return names, recipients, nil
}

// check refuses what makes no sharing, before anything is asked for.
func (o *dealOptions) check() error {
	names, _, err := o.list()
	switch {
	case err != nil:
		return err
	case o.shares != 0 && len(o.holders) > 0 && o.shares != len(names):
		return clikit.Usage("--%sshares %d, and %d holders", o.prefix, o.shares, len(names))
	case o.shares == 0 && len(names) == 0:
		return clikit.WithHint(clikit.Usage("nobody to give a share to"), "give --"+o.prefix+"holder NAME for each, or --"+o.prefix+"shares N")
	case o.shares != 0 && len(names) == 0:
		return clikit.Usage("--%sshares %d: there are %d to %d", o.prefix, o.shares, custody.MinThreshold, custody.MaxHolders)
	case o.threshold == 0:
		return clikit.WithHint(clikit.Usage("--%sthreshold is not given", o.prefix), "say how many of the shares are needed: more than one, and few enough that some may be lost")
	}
	return custody.CheckOptions(o.threshold, names)
}

// options reads what the shares are sealed to.
func (o *dealOptions) options(ctx context.Context, a *app, passphraseFlag string, lab bool) (pkgen.SharesOptions, error) {
	holders, err := o.recipients(ctx, a, passphraseFlag)
	return pkgen.SharesOptions{Threshold: o.threshold, Holders: holders, Out: o.out, Lab: lab}, err
}

// recipients returns the holders with what their shares are sealed to.
func (o *dealOptions) recipients(ctx context.Context, a *app, passphraseFlag string) ([]pkgen.Holder, error) {
	names, recipients, err := o.list()
	if err != nil {
		return nil, err
	}
	files, generate := o.passphraseFiles, o.generate
	if n := len(files) + len(generate); n > count(recipients, "") {
		return nil, clikit.Usage("%d passphrases of shares for %d holders that need one", n, count(recipients, ""))
	}
	var holders []pkgen.Holder
	for i, name := range names {
		from := sealing{what: "passphrase for the " + strings.ReplaceAll(o.prefix, "-", " ") + "share of " + name, name: strings.TrimSuffix(passphraseFlag, "-file")}
		switch {
		case recipients[i] != "":
		case len(files) > 0:
			from.file, files = files[0], files[1:]
		case len(generate) > 0:
			from.generate, generate = generate[0], generate[1:]
		}
		to, err := a.holderRecipient(ctx, name, recipients[i], from)
		if err != nil {
			return nil, err
		}
		holders = append(holders, pkgen.Holder{Name: name, To: to})
	}
	return holders, nil
}

// count returns how many texts are this one.
func count(texts []string, text string) int {
	n := 0
	for _, t := range texts {
		if t == text {
			n++
		}
	}
	return n
}

// holderRecipient returns what a holder's share is sealed to: the age recipient
// in a file or, without one, a passphrase.
func (a *app) holderRecipient(ctx context.Context, name, recipientFile string, from sealing) (bundle.Recipient, error) {
	if recipientFile != "" {
		to, err := readRecipient(recipientFile)
		if err != nil {
			return bundle.Recipient{}, clikit.WithCode(fmt.Errorf("holder %s: %w", name, err), clikit.ExitUsage)
		}
		return *to, nil
	}
	passphrase, err := a.newPassphrase(ctx, from)
	if err != nil {
		return bundle.Recipient{}, err
	}
	defer clear(passphrase)
	// The hash is recorded nowhere: of a share the ledger names the holder.
	return bundle.PassphraseRecipient(passphrase, [sha256.Size]byte{}, a.WorkFactor)
}

// noteShares says what to do with new share files.
func (a *app) noteShares(files []string) {
	for _, path := range files {
		a.note("move %s to its holder's medium, and leave no copy here", path)
	}
}

// sharingView is a sharing as it is shown.
type sharingView struct {
	SHA256    pkgen.Hash `json:"sha256"`
	Serial    uint64     `json:"serial"`
	Threshold int        `json:"threshold"`
	Holders   []string   `json:"holders"`
	Files     []string   `json:"files,omitempty"`
}

func viewSharing(s *custody.Sharing, files []string) sharingView {
	return sharingView{s.ID(), s.Serial(), s.Threshold(), s.Holders(), files}
}

func (v *sharingView) fields() []clikit.Field {
	if v == nil {
		return nil
	}
	fields := []clikit.Field{
		{Name: "sharing_sha256", Value: v.SHA256.String()},
		{Name: "sharing", Value: fmt.Sprintf("%d: %d of %d", v.Serial, v.Threshold, len(v.Holders))},
		{Name: "holders", Value: strings.Join(v.Holders, ", ")},
	}
	for _, path := range v.Files {
		fields = append(fields, clikit.Field{Name: "share", Value: path})
	}
	return fields
}
