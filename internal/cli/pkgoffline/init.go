package pkgoffline

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type initOptions struct {
	dir, recoveryFile string
	passphrase        sealing
	recovery          sealing // of the recovery key
	deal              dealOptions
	dealRecovery      dealOptions
}

// sharePassphraseFlag is the flag for the passphrases of shares at init.
const sharePassphraseFlag = "share-passphrase-file"

// recoverySharePassphraseFlag is that for the passphrases of shares of the
// recovery key.
const recoverySharePassphraseFlag = recoveryPrefix + sharePassphraseFlag

func (a *app) initCommand() *cobra.Command {
	o := initOptions{dealRecovery: dealOptions{prefix: recoveryPrefix}}
	cmd := &cobra.Command{
		Use:   "init --dir DIR",
		Short: "Make a PKG: a new master secret, sealed to a passphrase",
		Long: `init draws a master secret and seals it to a passphrase, begins the ledger, and
makes the recovery key: a hash-based (SLH-DSA) key that can give the fleet a new
root one day. It is sealed to the same passphrase; keep it on another medium.

Without a file, a passphrase is made and shown once on the terminal, to be
written down and typed again; or a person types one of their own. One of less
than 80 bits is refused.

With --shares or --holder the master secret is shared out (Shamir): any
--threshold of the shares make it, fewer say nothing of it. Each share is a file
of its own, sealed for its holder, who takes it away; the passphrase then seals
the recovery key alone. What is public of the shares is in shares.json, of which
each holder keeps a copy to check the share with.

With --recovery-shares or --recovery-holder the recovery key is sealed to no
passphrase but to a random number that is shared out in the same way, and any
--recovery-threshold of its shares open it. They are never taken for those of the
master secret, and may have other holders. What is public of them lies beside the
key (recovery.age.shares.json) and is kept with it.

The params_id that it prints is the one root of trust: devices can be held to it
when they are provisioned (devagent provision --params-id).`,
		Example: `  pkg-offline init --dir pkg --passphrase-file pass
  pkg-offline init --dir pkg-2 --generate-passphrase pass-2
  pkg-offline init --dir shared --passphrase-file pass --threshold 2 --holder alice=alice.age --holder bob=bob.age --holder carol=carol.age
  pkg-offline init --dir apart --passphrase-file pass --recovery-threshold 2 --recovery-holder alice=alice.age --recovery-holder bob=bob.age --recovery-holder carol=carol.age`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runInit(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	a.registerSealing(f, &o.passphrase, "passphrase of the PKG", "passphrase")
	f.StringVar(&o.recoveryFile, "recovery-file", "", "where the sealed recovery key goes (default: recovery.age in the directory)")
	a.registerSealing(f, &o.recovery, "passphrase of the recovery key, if it is to have one of its own", "recovery-passphrase")
	a.participantFlag(f)
	o.deal.register(a, f, sharePassphraseFlag)
	o.dealRecovery.register(a, f, recoverySharePassphraseFlag)
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

// initResult is the result of init.
type initResult struct {
	Dir          string `json:"dir"`
	ParamsID     string `json:"params_id"`
	Epoch        uint32 `json:"epoch"`
	Recovery     string `json:"recovery_sha256"`
	RecoveryFile string `json:"recovery_file"`
	Ledger       string `json:"ledger"`
	Lab          bool   `json:"lab"`

	Sharing        *sharingView         `json:"sharing,omitempty"`
	RecoveryShares *recoverySharingView `json:"recovery_sharing,omitempty"`
}

// check refuses what makes no PKG, before anything is asked for.
func (o *initOptions) check() error {
	for _, deal := range []*dealOptions{&o.deal, &o.dealRecovery} {
		if deal.given() {
			if err := deal.check(); err != nil {
				return explainRequest(err)
			}
		}
	}
	switch shared := o.dealRecovery.given(); {
	case shared && o.recovery.given():
		return clikit.Usage("the recovery key is shared out: no passphrase of its own seals it")
	case shared && o.deal.given() && o.passphrase.given():
		return clikit.Usage("the master secret and the recovery key are shared out: there is nothing for a passphrase to seal")
	}
	return nil
}

func (a *app) runInit(cmd *cobra.Command, o initOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := a.config(o.dir).Unused(); err != nil {
		return explain(fmt.Errorf("make a PKG: %w", err))
	}
	if err := o.hasPlace(); err != nil {
		return err
	}
	r := a.newRun(cmd, o.dir)
	connected, err := r.gate(a.lab)
	if err != nil {
		return err
	}
	options := pkgen.InitOptions{Lab: a.lab, RecoveryFile: o.recoveryFile, Witness: r.witness}
	passphrase, err := a.readInit(cmd.Context(), o, &options)
	defer func() {
		clear(passphrase)
		clear(options.Recovery)
	}()
	if err != nil {
		return err
	}
	if err := r.begin(nil, connected); err != nil {
		return explain(err)
	}
	c := r.config()
	if o.dealRecovery.given() {
		options.Witness = func(ledger *pkgen.Ledger, s bundle.Signer) error {
			return r.witnessRecovery(ledger, s, c.RecoveryPath(options)+pkgen.RecoverySharingSuffix)
		}
	}
	ledger, err := pkgen.Init(c, passphrase, options)
	if err != nil {
		return explain(fmt.Errorf("make a PKG: %w", r.unwitnessed(err)))
	}
	return a.renderInit(o, ledger)
}

// hasPlace demands that the recovery key has somewhere to go, before passphrases
// are written down in vain.
func (o initOptions) hasPlace() error {
	if o.recoveryFile == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(o.recoveryFile)); err != nil || !info.IsDir() {
		return clikit.WithHint(clikit.Usage("--recovery-file %s: %s is no directory", o.recoveryFile, filepath.Dir(o.recoveryFile)), "mount its medium first")
	}
	return nil
}

// readInit asks for what everything is sealed to. The passphrase is nil if there
// is nothing for one to seal.
func (a *app) readInit(ctx context.Context, o initOptions, options *pkgen.InitOptions) (passphrase []byte, err error) {
	if o.deal.given() {
		o.passphrase.what = "passphrase of the recovery key"
	}
	if !o.deal.given() || !o.dealRecovery.given() {
		if passphrase, err = a.newPassphrase(ctx, o.passphrase); err != nil {
			return nil, err
		}
	}
	if o.recovery.given() {
		o.recovery.what = "passphrase of the recovery key"
		if options.Recovery, err = a.newPassphrase(ctx, o.recovery); err != nil {
			return passphrase, err
		}
	}
	if o.deal.given() {
		shares, err := o.deal.options(ctx, a, sharePassphraseFlag, a.lab)
		if err != nil {
			return passphrase, err
		}
		options.Shares = &shares
	}
	if o.dealRecovery.given() {
		shares, err := o.dealRecovery.options(ctx, a, recoverySharePassphraseFlag, a.lab)
		if err != nil {
			return passphrase, err
		}
		options.RecoveryShares = &shares
	}
	return passphrase, nil
}

func (a *app) renderInit(o initOptions, ledger *pkgen.Ledger) error {
	id, head := ledger.Params.ID(), ledger.Head()
	r := initResult{
		Dir: o.dir, ParamsID: hex.EncodeToString(id[:]), Epoch: ledger.Params.Epoch(),
		Recovery: ledger.Recovery().String(), RecoveryFile: o.recoveryFile, Ledger: formatHead(head), Lab: a.lab,
	}
	if r.RecoveryFile == "" {
		r.RecoveryFile = filepath.Join(o.dir, pkgen.RecoveryFile)
	}
	if o.dealRecovery.given() {
		path := r.RecoveryFile + pkgen.RecoverySharingSuffix
		sharing, err := pkgen.ReadRecoverySharing(path)
		if err != nil {
			return explain(err)
		}
		r.RecoveryShares = viewRecoverySharing(sharing, path, a.config(o.dir).RecoveryShareFiles(sharing, o.dealRecovery.out))
		a.noteShares(r.RecoveryShares.Files)
	}
	if o.recoveryFile == "" && o.dealRecovery.given() {
		a.note("move %s and %s to a medium of their own: they are for the day on which the PKG is lost", r.RecoveryFile, r.RecoveryShares.File)
	} else if o.recoveryFile == "" {
		a.note("move %s to a medium of its own: it is for the day on which the PKG is lost", r.RecoveryFile)
	}
	if o.deal.given() {
		sharing, err := pkgen.ReadSharing(o.dir, ledger)
		if err != nil {
			return explain(err)
		}
		view := viewSharing(sharing, a.config(o.dir).ShareFiles(sharing, o.deal.out))
		r.Sharing = &view
		a.noteShares(view.Files)
	}
	fields := append([]clikit.Field{
		{Name: "params_id", Value: r.ParamsID},
		{Name: "epoch", Value: strconv.FormatUint(uint64(r.Epoch), 10)},
		{Name: "recovery_sha256", Value: r.Recovery},
		{Name: "recovery_file", Value: r.RecoveryFile},
		{Name: "ledger", Value: r.Ledger},
		{Name: "lab", Value: strconv.FormatBool(r.Lab)},
	}, r.Sharing.fields()...)
	return a.render(r, append(fields, r.RecoveryShares.fields()...)...)
}
