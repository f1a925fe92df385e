package pkgoffline

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type newEpochOptions struct {
	dir   string
	keys  keys
	next  sealing // the new master secret; not given: the present passphrase
	deal  dealOptions
	epoch uint32
}

const newSharePassphraseFlag = "new-share-passphrase-file"

func (a *app) newEpochCommand() *cobra.Command {
	var o newEpochOptions
	cmd := &cobra.Command{
		Use:   "new-epoch --dir DIR",
		Short: "Begin a new master secret, which the present one vouches for",
		Long: `new-epoch draws a new master secret, signs its parameters with the present one,
records that in the ledger, and overwrites the present secret: from then on
nothing is issued in the earlier epoch any more. Copies of the earlier
master.age that were made elsewhere are to be destroyed by hand.

Then every identity gets a key of the new epoch, the CLMs first:
  pkg-offline issue --role clm --all, and clmctl init --bundle at each CLM
  pkg-offline issue --all, and clmctl commission at each CLM
Bundles carry the statements that lead from the earlier epochs to the new one.
They go out over the network; clmctl epoch shows who is behind, and closes the
earlier epoch.

A master secret in shares is made of those that are brought together, and the new
one is shared out, to the same holders unless others are named (--holder,
--threshold); one in one piece becomes shares the same way.

An interrupted run is completed by running it again. With --epoch the run does
nothing if that epoch has begun already.`,
		Example: "  pkg-offline new-epoch --dir pkg --passphrase-file pass --epoch 2",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return explain(a.runNewEpoch(cmd, o)) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	o.keys.register(f)
	a.registerSealing(f, &o.next, "passphrase of the new master secret (default: the present one's)", "new-passphrase")
	o.next.what = "passphrase of the new master secret"
	f.Uint32Var(&o.epoch, "epoch", 0, "the epoch to begin (default: the next)")
	o.deal.register(a, f, newSharePassphraseFlag)
	a.participantFlag(f)
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

// newEpochResult is the result of new-epoch.
type newEpochResult struct {
	Epoch     uint32 `json:"epoch"`
	ParamsID  string `json:"params_id"`
	Earlier   string `json:"earlier_params_id"` // of the epoch before
	Statement string `json:"statement"`         // the file that leads from there
	Ledger    string `json:"ledger"`
	Changed   bool   `json:"changed"` // by this run; false: it had begun already

	Sharing *sharingView `json:"sharing,omitempty"`
}

func (a *app) runNewEpoch(cmd *cobra.Command, o newEpochOptions) error {
	if o.keys.passphraseFile == "-" && o.next.file == "-" {
		return clikit.Usage("standard input can be only one of --passphrase-file and --new-passphrase-file")
	}
	r := a.newRun(cmd, o.dir)
	ledger, finished, err := a.finishEpoch(r)
	if err != nil {
		return err
	}
	present := ledger.Params.Epoch()
	switch {
	case finished:
		a.note("the run that began epoch %d was interrupted, and is complete now", present)
		return a.renderEpoch(o.dir, ledger, true)
	case o.epoch != 0 && o.epoch == present:
		a.note("epoch %d has begun already", present)
		return a.renderEpoch(o.dir, ledger, false)
	case o.epoch != 0 && o.epoch != present+1:
		return clikit.Usage("--epoch: the present epoch is %d, the next one is %d", present, present+1)
	}
	last, shared := ledger.Sharing()
	if shared {
		o.deal.keep(last)
	}
	if o.deal.given() {
		if err := o.deal.check(); err != nil {
			return explainRequest(err)
		}
	}
	connected, err := r.gate(a.lab || ledger.Lab())
	if err != nil {
		return err
	}
	if ledger, err = a.newEpoch(cmd.Context(), r, o, ledger, connected); err != nil {
		return err
	}
	a.note("epoch %d has begun; now every CLM and then every device needs a key of it: issue --role clm --all, issue --all", ledger.Params.Epoch())
	if o.deal.given() {
		sharing, err := pkgen.ReadSharing(o.dir, ledger)
		if err != nil {
			return err
		}
		a.noteShares(a.config(o.dir).ShareFiles(sharing, o.deal.out))
	}
	switch {
	case shared:
		a.warn(fmt.Sprintf("destroy every share of sharing %d, on media and on paper (%s): any %d of them still make the master secret of the epoch before", last.Serial, strings.Join(last.Holders, ", "), last.Threshold))
	default:
		a.warn("destroy every copy of " + pkgen.MasterFile + " of the epoch before: each is still the whole of its master secret")
	}
	if o.next.given() {
		a.note("the recovery key stays sealed to the passphrase that it was made with")
	}
	return a.renderEpoch(o.dir, ledger, true)
}

func (a *app) newEpoch(ctx context.Context, r *run, o newEpochOptions, public *pkgen.Ledger, connected bool) (*pkgen.Ledger, error) {
	opening, err := a.readKeys(ctx, o.dir, public, o.keys)
	if err != nil {
		return nil, err
	}
	options, err := a.epochOptions(ctx, o, opening, connected)
	if err != nil {
		opening.forget()
		return nil, err
	}
	defer clear(options.Passphrase)
	p, err := r.open(public, connected, opening)
	if err != nil {
		return nil, err
	}
	err = p.NewEpoch(options)
	return p.Ledger, errors.Join(r.end(err, p), p.Close())
}

// epochOptions reads what the new master secret is sealed to.
func (a *app) epochOptions(ctx context.Context, o newEpochOptions, opening opening, connected bool) (options pkgen.EpochOptions, err error) {
	options.Lab = connected
	switch {
	case o.deal.given():
		var shares pkgen.SharesOptions
		shares, err = o.deal.options(ctx, a, newSharePassphraseFlag, connected)
		options.Shares = &shares
	case o.next.given():
		options.Passphrase, err = a.newPassphrase(ctx, o.next)
	default:
		options.Passphrase, err = bytes.Clone(opening.passphrase), a.measure(opening.passphrase, o.next)
	}
	return options, err
}

// finishEpoch completes a run that was interrupted. No secret is opened for it,
// so that its transcript is unsigned.
func (a *app) finishEpoch(r *run) (*pkgen.Ledger, bool, error) {
	if _, err := pkgen.VerifyDir(r.dir); !errors.Is(err, pkgen.ErrEpochUnfinished) {
		return pkgen.FinishEpoch(a.config(r.dir))
	}
	public, err := pkgen.ReadPublic(r.dir)
	if err != nil {
		return nil, false, err
	}
	if err := r.begin(public, false, "not looked at: no secret is opened"); err != nil {
		return nil, false, err
	}
	ledger, finished, err := pkgen.FinishEpoch(r.config())
	return ledger, finished, r.end(err, nil)
}

func (a *app) renderEpoch(dir string, ledger *pkgen.Ledger, changed bool) error {
	epochs := ledger.Epochs()
	id := ledger.Params.ID()
	r := newEpochResult{Epoch: ledger.Params.Epoch(), ParamsID: hex.EncodeToString(id[:]), Ledger: formatHead(ledger.Head()), Changed: changed}
	if len(epochs) > 1 {
		before := epochs[len(epochs)-2]
		earlier := before.ID()
		r.Earlier, r.Statement = hex.EncodeToString(earlier[:]), filepath.Join(dir, pkgen.StatementFile(before.Epoch()))
	}
	if _, shared := ledger.Sharing(); shared {
		sharing, err := pkgen.ReadSharing(dir, ledger)
		if err != nil {
			return explain(err)
		}
		view := viewSharing(sharing, nil)
		r.Sharing = &view
	}
	return a.render(r, append([]clikit.Field{
		{Name: "epoch", Value: strconv.FormatUint(uint64(r.Epoch), 10)},
		{Name: "params_id", Value: r.ParamsID},
		{Name: "earlier_params_id", Value: r.Earlier},
		{Name: "statement", Value: r.Statement},
		{Name: "ledger", Value: r.Ledger},
	}, r.Sharing.fields()...)...)
}

// successionView is an epoch statement as it is shown.
type successionView struct {
	Kind   string      `json:"kind"`
	File   string      `json:"file"`
	From   *ibc.Params `json:"from"`
	Params *ibc.Params `json:"params"`
}

func (a *app) inspectSuccession(path string, data []byte) error {
	from, s, err := bundle.ParseSuccession(data)
	if err != nil {
		return err
	}
	before, after := from.ID(), s.Params.ID()
	a.note("signed by the master secret of epoch %d", from.Epoch())
	return a.render(successionView{"epoch", path, from, s.Params},
		clikit.Field{Name: "file", Value: path},
		clikit.Field{Name: "epoch", Value: strconv.FormatUint(uint64(s.Params.Epoch()), 10)},
		clikit.Field{Name: "params_id", Value: hex.EncodeToString(after[:])},
		clikit.Field{Name: "earlier_epoch", Value: strconv.FormatUint(uint64(from.Epoch()), 10)},
		clikit.Field{Name: "earlier_params_id", Value: hex.EncodeToString(before[:])},
	)
}
