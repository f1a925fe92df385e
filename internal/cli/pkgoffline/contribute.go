package pkgoffline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// errNotAgreed is why nothing is contributed.
var errNotAgreed = errors.New("not agreed")

type contributeOptions struct {
	sharing, out string
	memory       string
	share        shareKeys
	accept       []string
}

func (a *app) sharesContributeCommand() *cobra.Command {
	var o contributeOptions
	cmd := &cobra.Command{
		Use:   "contribute --sharing FILE --share FILE --out CONTRIBUTION BATCH",
		Short: "Read a batch and contribute one share to it",
		Long: `contribute is run by the holder of a share, on a machine of his own. It shows what
the batch asks for, in words that are made of the very documents that will be
signed: the keys, whom they go to, which CLMs the devices will listen to, and
what the ledger gets. Every document has to be understood to its last byte and to
agree with the ledger, which is in the batch; else nothing is contributed.

The key of a CLM, a key that is issued again, and a statement about trust
anchors need a yes of their own: it is typed, or given with --accept. --yes is
for the batch and does not cover them.

What is contributed is sealed to whoever made the batch, and is of use for
nothing else. Without --out the batch is only shown, also as data (-o json), and
no share is needed.

The holder's machine remembers which state of the ledger the batch was made of:
the next batch has to continue it, and another one of the same state needs a yes
of its own.

Only shares.json that the holder keeps himself says which PKG the batch is of.`,
		Example: `  pkg-offline shares contribute --sharing shared/shares.json batch.json
  pkg-offline shares contribute --sharing shared/shares.json --share alice/share-1-alice.s1.share.age --share-identity-file alice.key --out partial-1.age --yes --accept clm=clm-2 batch.json
  pkg-offline shares contribute --sharing shared/shares.json --share carol/share-3-carol.s1.share.age --share-identity-file carol.key --out partial-3.age --yes --accept clm=clm-2 batch.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return explain(a.runContribute(cmd, o, args[0])) },
	}
	f := cmd.Flags()
	f.StringVar(&o.sharing, "sharing", "", "what is public of the shares: the holder's copy of shares.json")
	o.share.register(f)
	f.StringVar(&o.out, "out", "", "new file for the contribution (default: only show the batch)")
	f.StringVar(&o.memory, "memory", "", "file in which the holder remembers which state of the ledger he contributed to (default: contributed-….json beside the share)")
	f.StringArrayVar(&o.accept, "accept", nil, "agree to what needs a yes of its own, as it is asked for: clm=NAME, reissue=NAME, reissues=NUMBER, anchor=SERIAL, other=BATCH (repeat for more)")
	_ = cmd.MarkFlagRequired("sharing")
	return cmd
}

func (a *app) runContribute(cmd *cobra.Command, o contributeOptions, path string) error {
	if o.out != "" && len(o.share.files) != 1 {
		return clikit.Usage("give one --share FILE: that of who contributes")
	}
	sharing, err := pkgen.ReadSharingFile(o.sharing)
	if err != nil {
		return err
	}
	data, err := keyfile.Read(path, pkgen.MaxBatchFile)
	if err != nil {
		return err
	}
	b, err := pkgen.ParseBatch(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	review, err := b.Review(sharing)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if o.out == "" {
		return a.renderReview(review, sharing)
	}
	if err := mayCreate("--out", o.out); err != nil {
		return err
	}
	if o.memory == "" {
		o.memory = review.SeenFile(filepath.Dir(o.share.files[0]))
	}
	if err := review.Recall(o.memory); err != nil {
		return err
	}
	if !a.Quiet || clikit.IsTerminal(a.In) {
		if _, err := fmt.Fprint(a.Err, viewReview(review, sharing).words(a.Verbose)); err != nil {
			return err
		}
	}
	if err := a.agree(review, o.accept); err != nil {
		return err
	}
	if _, err := a.checkAirGap(a.lab || review.Lab()); err != nil {
		return err
	}
	shares, err := a.openShares(cmd.Context(), sharing, o.share)
	defer destroy(shares)
	if err != nil {
		return err
	}
	sealed, err := review.Contribute(shares[0])
	if err != nil {
		return err
	}
	files := a.files()
	if err := review.Remember(files, o.memory); err != nil {
		return clikit.WithHint(err, "give another file with --memory")
	}
	if err := files.CreateDurable(o.out, sealed, keyfile.PublicPerm); err != nil {
		return err
	}
	if err := files.ReadBack(o.out, sealed); err != nil {
		return err
	}
	r := contributeResult{o.out, b.ID(), shares[0].Index(), shares[0].Holder}
	return a.render(r,
		clikit.Field{Name: "contribution", Value: r.Contribution},
		clikit.Field{Name: "batch", Value: r.Batch.String()},
		clikit.Field{Name: "share", Value: fmt.Sprintf("%d of %s", r.Index, r.Holder)},
	)
}

// contributeResult is the result of shares contribute.
type contributeResult struct {
	Contribution string     `json:"contribution"`
	Batch        pkgen.Hash `json:"batch_sha256"`
	Index        int        `json:"index"`
	Holder       string     `json:"holder"`
}

// mayCreate refuses, before anything is done, a file that could not be made.
func mayCreate(flag, path string) error {
	if path == "-" {
		return clikit.Usage("%s: it is a file", flag)
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %s: %w", flag, path, keyfile.ErrExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// agree asks for a yes to the batch and to all in it that needs its own.
func (a *app) agree(r *pkgen.Review, accepted []string) error {
	consents := r.Consents()
	for _, word := range accepted {
		if !slices.ContainsFunc(consents, func(c pkgen.Consent) bool { return c.Word() == word }) {
			return clikit.Usage("--accept %.80q: nothing in the batch asks for it", word)
		}
	}
	var missing []pkgen.Consent
	for _, c := range consents {
		if slices.Contains(accepted, c.Word()) {
			continue
		}
		ok, err := a.agreeTo(c)
		if err != nil {
			return err
		}
		if !ok {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		var texts, words []string
		for _, c := range missing {
			texts, words = append(texts, c.Text), append(words, "--accept "+c.Word())
		}
		return clikit.WithHint(fmt.Errorf("%w: %s", errNotAgreed, strings.Join(texts, "; ")),
			"if it is what was asked for, agree with "+strings.Join(words, " "))
	}
	yes, err := a.Confirm(a.Streams, "Contribute to this batch?")
	if err == nil && !yes {
		err = errNotAgreed
	}
	return err
}

// agreeTo asks for what is typed to agree; where nobody can be asked, nobody
// agrees.
func (a *app) agreeTo(c pkgen.Consent) (bool, error) {
	if a.NoInput || !clikit.IsTerminal(a.In) {
		return false, nil
	}
	answer, err := clikit.Ask(a.Streams, fmt.Sprintf("%s\nType %s to agree: ", clikit.OneLine(c.Text), c.Name))
	return answer == c.Name, err
}
