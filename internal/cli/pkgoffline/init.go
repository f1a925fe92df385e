package pkgoffline

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type initOptions struct {
	dir, recoveryFile string
	passphrase        sealing
	recovery          sealing // of the recovery key
	deal              dealOptions
}

// sharePassphraseFlag is the flag for the passphrases of shares at init.
const sharePassphraseFlag = "share-passphrase-file"

func (a *app) initCommand() *cobra.Command {
	var o initOptions
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

The params_id that it prints is the one root of trust: devices can be held to it
when they are provisioned (devagent provision --params-id).`,
		Example: `  pkg-offline init --dir pkg --passphrase-file pass
  pkg-offline init --dir pkg-2 --generate-passphrase pass-2
  pkg-offline init --dir shared --passphrase-file pass --threshold 2 --holder alice=alice.age --holder bob=bob.age --holder carol=carol.age`,
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

	Sharing *sharingView `json:"sharing,omitempty"`
}

func (a *app) runInit(cmd *cobra.Command, o initOptions) error {
	if o.deal.given() {
		if err := o.deal.check(); err != nil {
			return explainRequest(err)
		}
	}
	if err := a.config(o.dir).Unused(); err != nil {
		return explain(fmt.Errorf("make a PKG: %w", err))
	}
	if err := o.hasPlace(); err != nil {
		return err
	}
	r, err := a.newRun(cmd, o.dir)
	if err != nil {
		return err
	}
	connected, err := a.checkAirGap(a.lab)
	if err != nil {
		return err
	}
	if o.deal.given() {
		o.passphrase.what = "passphrase of the recovery key"
	}
	passphrase, err := a.newPassphrase(cmd.Context(), o.passphrase)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	options := pkgen.InitOptions{Lab: a.lab, RecoveryFile: o.recoveryFile, Witness: r.witness}
	if o.recovery.given() {
		o.recovery.what = "passphrase of the recovery key"
		if options.Recovery, err = a.newPassphrase(cmd.Context(), o.recovery); err != nil {
			return err
		}
		defer clear(options.Recovery)
	}
	if o.deal.given() {
		shares, err := o.deal.options(cmd.Context(), a, sharePassphraseFlag, a.lab)
		if err != nil {
			return err
		}
		options.Shares = &shares
	}
	if err := r.begin(nil, connected); err != nil {
		return explain(err)
	}
	ledger, err := pkgen.Init(r.config(), passphrase, options)
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

func (a *app) renderInit(o initOptions, ledger *pkgen.Ledger) error {
	id, head := ledger.Params.ID(), ledger.Head()
	r := initResult{
		Dir: o.dir, ParamsID: hex.EncodeToString(id[:]), Epoch: ledger.Params.Epoch(),
		Recovery: ledger.Recovery().String(), RecoveryFile: o.recoveryFile, Ledger: formatHead(head), Lab: a.lab,
	}
	if r.RecoveryFile == "" {
		r.RecoveryFile = filepath.Join(o.dir, pkgen.RecoveryFile)
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
	return a.render(r, append([]clikit.Field{
		{Name: "params_id", Value: r.ParamsID},
		{Name: "epoch", Value: strconv.FormatUint(uint64(r.Epoch), 10)},
		{Name: "recovery_sha256", Value: r.Recovery},
		{Name: "recovery_file", Value: r.RecoveryFile},
		{Name: "ledger", Value: r.Ledger},
		{Name: "lab", Value: strconv.FormatBool(r.Lab)},
	}, r.Sharing.fields()...)...)
}
