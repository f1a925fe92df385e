package pkgoffline

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// batchFlag is the flag of the commands that holders of shares can contribute to.
const batchFlag = "batch"

const batchUsage = "new file with what the run would do, for the holders of shares to contribute to; nothing is issued yet"

// batchResult is the result of a command with --batch.
type batchResult struct {
	Batch  string      `json:"batch"`
	SHA256 pkgen.Hash  `json:"sha256"`
	Time   time.Time   `json:"time"`
	Keys   int         `json:"keys"`
	Ledger string      `json:"ledger"`
	Needed int         `json:"needed"`
	Params bundle.Hash `json:"params_id"`
}

// propose goes through a task and writes the batch. The caller has passed the
// gate of the air gap.
func (a *app) propose(cmd *cobra.Command, r *run, public *pkgen.Ledger, connected bool, file string, task pkgen.Task) error {
	sharing, err := pkgen.ReadSharing(r.dir, public)
	if err != nil {
		return clikit.WithCode(err, clikit.ExitUsage)
	}
	if err := mayCreate("--"+batchFlag, file); err != nil {
		return err
	}
	if err := r.begin(public, connected); err != nil {
		return err
	}
	c := a.config(r.dir)
	// What is written from now on is part of no run that was done.
	c.Files, c.Transcript = keyfile.On(a.Layer), r
	data, b, err := pkgen.MakeBatch(cmd.Context(), c, task, r.proposed)
	if err := r.dropped(err); err != nil {
		return err
	}
	if err := c.Files.CreateDurable(file, data, keyfile.PublicPerm); err != nil {
		return err
	}
	if err := c.Files.ReadBack(file, data); err != nil {
		return err
	}
	review, err := b.Review(sharing)
	if err != nil {
		return err
	}
	out := batchResult{
		Batch: file, SHA256: b.ID(), Time: b.Time, Keys: len(review.Keys), Ledger: formatHead(review.After),
		Needed: sharing.Threshold(), Params: b.Params.ID(),
	}
	a.note("nothing is issued yet: %d of the holders contribute to it (pkg-offline shares contribute), then pkg-offline shares combine", out.Needed)
	return a.render(out,
		clikit.Field{Name: "batch", Value: out.Batch},
		clikit.Field{Name: "sha256", Value: out.SHA256.String()},
		clikit.Field{Name: "keys", Value: strconv.Itoa(out.Keys)},
		clikit.Field{Name: "ledger", Value: out.Ledger},
		clikit.Field{Name: "needed", Value: strconv.Itoa(out.Needed)},
	)
}

// proposed ends the transcript of a run that was only proposed. Whoever
// contributes to the run signs the transcript too.
func (r *run) proposed(head bundle.LedgerHead) (lines, document []byte, err error) {
	r.setHead(head)
	if err := r.written.Foresee(r.config().LedgerPath()); err != nil {
		return nil, nil, err
	}
	if err := r.written.Propose(r.head); err != nil {
		return nil, nil, err
	}
	r.ended = true
	lines, err = keyfile.Read(r.written.Path(), transcript.MaxSize)
	return lines, r.written.Head().Document(), err
}

// dropped closes the transcript of a run that was only proposed; err is why it
// was not.
func (r *run) dropped(err error) error {
	if !r.ended {
		return r.end(err, nil)
	}
	r.app.run = nil
	return errors.Join(err, r.written.Close())
}

// complete signs the transcript of the run that proposed what is done now.
func (a *app) complete(dir string, id *pkgen.Hash, sign hashlog.Signer) error {
	if id == nil {
		return nil
	}
	signed, err := transcript.Complete(keyfile.On(a.Layer), dir, hashlog.Hash(*id), sign)
	if err == nil && !signed {
		a.note("the transcript of the run that made the batch stays unsigned: another run has begun since, and vouches for it")
	}
	return err
}
