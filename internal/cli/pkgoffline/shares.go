package pkgoffline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

func (a *app) sharesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shares",
		Short: "Look after a master secret in shares",
		Long: `shares checks, renews, makes again and prints the shares of a master secret; and
turns a master secret in one piece into shares.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(a.sharesVerifyCommand(), a.sharesSplitCommand(), a.sharesRefreshCommand(), a.sharesRecoverCommand(),
		a.sharesContributeCommand(), a.sharesCombineCommand(), a.sharesPaperCommand(), a.sharesFromPaperCommand())
	return cmd
}

// newPassphraseFlag is the flag for the passphrases of shares that are made,
// where others are opened.
const newPassphraseFlag = "new-passphrase-file"

type reshareOptions struct {
	dir   string
	keys  keys
	deal  dealOptions
	split bool // a master secret in one piece
}

func (a *app) sharesSplitCommand() *cobra.Command {
	o := reshareOptions{split: true}
	cmd := &cobra.Command{
		Use:   "split --dir DIR --threshold N",
		Short: "Turn a master secret in one piece into shares",
		Long: `split shares the master secret of an existing PKG out, records that in the ledger,
and overwrites master.age. Every copy of master.age is still the whole secret:
destroy them all.

An interrupted run is completed by running it again, or by the next command that
opens the PKG with its shares.`,
		Example: "  pkg-offline shares split --dir pkg --passphrase-file pass --threshold 2 --holder alice=alice.age --holder bob=bob.age --holder carol=carol.age",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return explainRequest(a.runReshare(cmd, o)) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	f.StringVar(&o.keys.passphraseFile, "passphrase-file", "", "file with the passphrase of the PKG, - for standard input (default: ask)")
	o.deal.register(a, f, newPassphraseFlag)
	a.participantFlag(f)
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

func (a *app) sharesRefreshCommand() *cobra.Command {
	var o reshareOptions
	cmd := &cobra.Command{
		Use:   "refresh --dir DIR --share FILE...",
		Short: "Give new shares of the same master secret",
		Long: `refresh brings a quorum of shares together and shares the same master secret out
anew: params_id stays, devices notice nothing, and the new shares fit none of the
old ones. Do it when a holder leaves or a share may have been seen, and change
holders, number and threshold with it; without these flags they stay as they
are.

The old shares go on to make the master secret among themselves. So every old
share is to be destroyed, on every medium and on paper: until fewer are left than
the old threshold, nothing is won. If that many may have been stolen, begin a new
epoch instead (new-epoch).`,
		Example: `  pkg-offline shares refresh --dir shared --share alice/share-1-alice.s1.share.age --share-identity-file alice.key --share bob/share-2-bob.s1.share.age --share-identity-file bob.key --holder alice=alice.age --holder bob=bob.age --holder dora=dora.age --shares-out new`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return explainRequest(a.runReshare(cmd, o)) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	o.keys.shares.register(f)
	o.deal.register(a, f, newPassphraseFlag)
	a.participantFlag(f)
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

// reshared is the result of split, refresh and recover.
type reshared struct {
	ParamsID string      `json:"params_id"`
	Sharing  sharingView `json:"sharing"`
	Ledger   string      `json:"ledger"`
}

func (a *app) runReshare(cmd *cobra.Command, o reshareOptions) error {
	public, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return err
	}
	last, shared := public.Sharing()
	switch {
	case shared && o.split:
		return clikit.WithHint(clikit.Usage("%w already", pkgen.ErrShared), "pkg-offline shares refresh makes new ones")
	case !shared && !o.split:
		return clikit.WithCode(pkgen.ErrWhole, clikit.ExitUsage)
	case shared:
		o.deal.keep(last)
	}
	if err := o.deal.check(); err != nil {
		return err
	}
	r := a.newRun(cmd, o.dir)
	var options pkgen.SharesOptions
	p, err := r.openToShare(cmd.Context(), public, o.keys, func(connected bool) (err error) {
		options, err = o.deal.options(cmd.Context(), a, newPassphraseFlag, connected)
		return err
	})
	if err != nil {
		return err
	}
	made, err := p.Reshare(options)
	if err == nil {
		err = r.note("the master secret was shared out", sharingValues(made)...)
	}
	if err := errors.Join(r.end(err, p), p.Close()); err != nil {
		return err
	}
	a.noteShares(made.Files)
	if shared {
		a.warn(fmt.Sprintf("destroy every share of sharing %d, on media and on paper (%s): any %d of them still make the master secret",
			last.Serial, strings.Join(last.Holders, ", "), last.Threshold))
	} else {
		a.warn("destroy every copy of " + pkgen.MasterFile + ": each is still the whole master secret")
	}
	return a.renderShared(made)
}

// openToShare passes the gate, reads what opens the PKG, asks for what its new
// shares are sealed to, and opens it.
func (r *run) openToShare(ctx context.Context, public *pkgen.Ledger, k keys, ask func(connected bool) error) (*pkgen.PKG, error) {
	connected, err := r.gate(r.app.lab || public.Lab())
	if err != nil {
		return nil, err
	}
	opening, err := r.app.readKeys(ctx, r.dir, public, k)
	if err != nil {
		return nil, err
	}
	if err := ask(connected); err != nil {
		opening.forget()
		return nil, err
	}
	return r.open(public, connected, opening)
}

// keep fills in what is not given from the sharing before.
func (o *dealOptions) keep(last pkgen.Entry) {
	if o.threshold == 0 {
		o.threshold = last.Threshold
	}
	if len(o.holders) == 0 && o.shares == 0 {
		o.holders = last.Holders
	}
}

func sharingValues(made *pkgen.Shared) []transcript.Value {
	values := []transcript.Value{
		{Name: "sharing_sha256", Value: made.Sharing.ID().String()},
		{Name: "serial", Value: fmt.Sprint(made.Sharing.Serial())},
		{Name: "threshold", Value: fmt.Sprintf("%d of %d", made.Sharing.Threshold(), len(made.Sharing.Holders()))},
	}
	return append(values, shareValues(made.Sharing.Holders())...)
}

// shareValues says for a note who has which share.
func shareValues(holders []string) []transcript.Value {
	values := make([]transcript.Value, len(holders))
	for i, name := range holders {
		values[i] = transcript.Value{Name: fmt.Sprintf("share %d", i+1), Value: name}
	}
	return values
}

func (a *app) renderShared(made *pkgen.Shared) error {
	id := made.Sharing.Params().ID()
	view := viewSharing(made.Sharing, made.Files)
	r := reshared{hex.EncodeToString(id[:]), view, formatHead(made.Ledger)}
	return a.render(r, append([]clikit.Field{
		{Name: "params_id", Value: r.ParamsID},
		{Name: "ledger", Value: r.Ledger},
	}, view.fields()...)...)
}

type recoverOptions struct {
	dir, holder, out         string
	passphraseFile, generate string
	keys                     keys
}

func (a *app) sharesRecoverCommand() *cobra.Command {
	var o recoverOptions
	cmd := &cobra.Command{
		Use:   "recover --dir DIR --share FILE... --holder NAME[=FILE]",
		Short: "Make a lost share again, for its holder",
		Long: `recover makes the share of a holder again from a quorum of the others, and seals
it to a new passphrase or age recipient. It is the same share: where the lost one
turns up, either can be used, and whoever found it has a share. So refresh, and
do not recover, when it may have been found. That a share was made again is
recorded in the ledger.

A holder whose medium or passphrase is to be changed brings the share itself too.`,
		Example: `  pkg-offline shares recover --dir shared --share alice/share-1-alice.s1.share.age --share-identity-file alice.key --share bob/share-2-bob.s1.share.age --share-identity-file bob.key --holder carol=carol.age`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return explainRequest(a.runRecover(cmd, o)) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	f.StringVar(&o.holder, "holder", "", "whose share it is: NAME, to seal it to a passphrase, or NAME=FILE, to the age recipient in the file")
	f.StringVar(&o.out, "shares-out", "", "directory for the share file (default: shares in the directory of the PKG)")
	f.StringVar(&o.passphraseFile, newPassphraseFlag, "", "file with the passphrase for the share, - for standard input (default: ask)")
	f.StringVar(&o.generate, generateFlag(newPassphraseFlag), "", "new file for a generated passphrase of the share")
	a.registerWaiver(f)
	o.keys.shares.register(f)
	a.participantFlag(f)
	_ = cmd.MarkFlagRequired("dir")
	_ = cmd.MarkFlagRequired("holder")
	return cmd
}

func (a *app) runRecover(cmd *cobra.Command, o recoverOptions) error {
	public, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return err
	}
	last, shared := public.Sharing()
	if !shared {
		return clikit.WithCode(pkgen.ErrWhole, clikit.ExitUsage)
	}
	one := dealOptions{holders: []string{o.holder}, threshold: last.Threshold}
	if o.passphraseFile != "" {
		one.passphraseFiles = []string{o.passphraseFile}
	}
	if o.generate != "" {
		one.generate = []string{o.generate}
	}
	r := a.newRun(cmd, o.dir)
	var (
		holders []pkgen.Holder
		lab     bool
	)
	p, err := r.openToShare(cmd.Context(), public, o.keys, func(connected bool) (err error) {
		lab = connected
		holders, err = one.recipients(cmd.Context(), a, newPassphraseFlag)
		return err
	})
	if err != nil {
		return err
	}
	made, err := p.RecoverShare(holders[0], o.out, lab)
	if err == nil {
		err = r.note("a share was made again for "+holders[0].Name, sharingValues(made)...)
	}
	if err := errors.Join(r.end(err, p), p.Close()); err != nil {
		return err
	}
	a.noteShares(made.Files)
	return a.renderShared(made)
}
