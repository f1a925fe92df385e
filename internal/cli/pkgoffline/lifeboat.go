package pkgoffline

import (
	"encoding/hex"
	"errors"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

type lifeboatOptions struct {
	dir, out, old string
	recovery      recoveryKeys
	keys          keys
	serial        uint32
}

// recoveryKeys are where the recovery key of the PKG that is left is, and what
// opens it.
type recoveryKeys struct {
	file, passphraseFile string
	sharing              string // "": beside the file
	shares               shareKeys
}

func (a *app) lifeboatCommand() *cobra.Command {
	o := lifeboatOptions{recovery: recoveryKeys{shares: shareKeys{prefix: recoveryPrefix}}}
	cmd := &cobra.Command{
		Use:   "lifeboat --recovery-file FILE --dir NEWPKG --out MEDIUM",
		Short: "Give the fleet of a PKG that is lost or stolen this one instead",
		Long: `lifeboat is for the day on which the master secret is stolen, lost, or worth
nothing. Make a new PKG with init; then lifeboat signs, with the recovery key of
the old one, that whoever knows that key follows the new PKG from now on. A
device takes that from anybody, whatever the thief has made of it, and keeps
nothing of the old root.

The statement is written to the medium and into the directory of the new PKG,
whose issue puts it with the bundles from then on: issue the CLMs and then the
devices anew, each to the recipient that it has. Then, at each CLM, clmctl init
with --lifeboat, and clmctl commission.

Statements of one recovery key, and of those that follow, are numbered: a device
takes none that is not above its last. What the key has signed is recorded beside
its file (FILE.lifeboats), before it is signed; keep that record with the key. Give
the ledger of the PKG that is left too, if you have a copy: a PKG that was reached
by a lifeboat knows its number, and the key is held to it.

A recovery key that was shared out is opened by enough of its shares, brought
together: --recovery-share for each.

The same run again completes one that was interrupted.`,
		Example: `  pkg-offline lifeboat --recovery-file recovery.age --recovery-passphrase-file pass --dir newpkg --passphrase-file pass --old oldpkg --out usb
  pkg-offline lifeboat --recovery-file apart.age --recovery-share alice/apart.share.age --recovery-share bob/apart.share.age --recovery-share-identity-file alice.key --recovery-share-identity-file bob.key --dir pkg-2 --passphrase-file pass-2 --out usb-new`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return explainRequest(a.runLifeboat(cmd, o)) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the new PKG")
	o.keys.register(f)
	f.StringVar(&o.recovery.file, "recovery-file", "", "the sealed recovery key of the PKG that is left")
	f.StringVar(&o.recovery.passphraseFile, "recovery-passphrase-file", "", "file with the passphrase of the recovery key, - for standard input (default: ask)")
	f.StringVar(&o.recovery.sharing, "recovery-sharing", "", "description of the shares of the recovery key, or a copy of it (default: beside its file)")
	o.recovery.shares.register(f)
	f.StringVar(&o.old, "old", "", "directory of the PKG that is left, or a copy with its ledger.jsonl and params.json")
	f.StringVar(&o.out, "out", "", "the medium: a directory, made if need be")
	f.Uint32Var(&o.serial, "serial", 0, "number of the statement (default: the next that is known, 1 for the first)")
	a.participantFlag(f)
	cmd.MarkFlagsMutuallyExclusive("recovery-passphrase-file", "recovery-share")
	for _, required := range []string{"dir", "out", "recovery-file"} {
		_ = cmd.MarkFlagRequired(required)
	}
	return cmd
}

func (a *app) runLifeboat(cmd *cobra.Command, o lifeboatOptions) error {
	stdin := 0
	for _, path := range slices.Concat(o.keys.paths(), o.recovery.paths()) {
		if path == "-" {
			stdin++
		}
	}
	if stdin > 1 {
		return clikit.Usage("standard input can be only one of the files with passphrases")
	}
	public, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return err
	}
	request := pkgen.LifeboatRequest{Serial: o.serial, Medium: o.out}
	if o.old != "" {
		if request.Old, err = pkgen.ReadPublic(o.old); err != nil {
			return err
		}
	}
	r := a.newRun(cmd, o.dir)
	if request.Lab, err = r.gate(a.lab || public.Lab()); err != nil {
		return err
	}
	recovery, err := a.readRecovery(cmd.Context(), o.recovery)
	if err != nil {
		return err
	}
	defer recovery.forget()
	opening, err := a.readKeys(cmd.Context(), o.dir, public, o.keys)
	if err != nil {
		return err
	}
	p, err := r.open(public, request.Lab, opening)
	if err != nil {
		return err
	}
	launched, err := launch(r, p, recovery, request)
	if err := errors.Join(r.end(err, p), p.Close()); err != nil {
		return err
	}
	if request.Old == nil && launched.Statement.Serial == 1 {
		a.note("if the PKG that is left was itself reached by a lifeboat, 1 is too low: give --old, or --serial")
	}
	a.note("lifeboat %d is in %s; issue the CLMs and the devices anew", launched.Statement.Serial, launched.File)
	view := viewLifeboat(launched)
	return a.render(view, view.fields()...)
}

func launch(r *run, p *pkgen.PKG, recovery openingRecovery, request pkgen.LifeboatRequest) (*pkgen.Launched, error) {
	var err error
	if request.Key, err = recovery.open(); err != nil {
		return nil, err
	}
	launched, err := p.Lifeboat(request)
	if err != nil {
		return nil, err
	}
	return launched, r.note("a lifeboat statement by the recovery key of another PKG",
		transcript.Value{Name: "serial", Value: strconv.FormatUint(uint64(launched.Statement.Serial), 10)},
		transcript.Value{Name: "recovery_sha256", Value: launched.Left.String()})
}

// lifeboatView is a lifeboat statement as it is shown.
type lifeboatView struct {
	Kind     string `json:"kind"`
	File     string `json:"file"`
	Serial   uint32 `json:"serial"`
	ParamsID string `json:"params_id"`            // of the PKG to follow
	Epoch    uint32 `json:"epoch"`                // of those parameters
	Left     string `json:"left_recovery_sha256"` // of the key that signed: the PKG that is left
	Recovery string `json:"recovery_sha256"`      // of the key that is fixed from then on

	LedgerIndex uint64 `json:"ledger_index,omitempty"`
}

func viewLifeboat(l *pkgen.Launched) lifeboatView {
	id := l.Statement.Params.ID()
	return lifeboatView{
		Kind: "lifeboat", File: l.File, Serial: l.Statement.Serial, ParamsID: hex.EncodeToString(id[:]), Epoch: l.Statement.Params.Epoch(),
		Left: l.Left.String(), Recovery: hex.EncodeToString(l.Statement.Recovery[:]), LedgerIndex: l.Index,
	}
}

func (v lifeboatView) fields() []clikit.Field {
	return []clikit.Field{
		{Name: "file", Value: v.File},
		{Name: "serial", Value: strconv.FormatUint(uint64(v.Serial), 10)},
		{Name: "params_id", Value: v.ParamsID},
		{Name: "epoch", Value: strconv.FormatUint(uint64(v.Epoch), 10)},
		{Name: "left_recovery_sha256", Value: v.Left},
		{Name: "recovery_sha256", Value: v.Recovery},
	}
}

func (a *app) inspectLifeboat(path string) error {
	l, err := pkgen.VerifyLifeboat(path, nil)
	if err != nil {
		return err
	}
	a.note("signed by the recovery key whose hash is left_recovery_sha256")
	view := viewLifeboat(l)
	return a.render(view, view.fields()...)
}
