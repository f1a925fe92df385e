package pkgoffline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type combineOptions struct {
	dir, out, batch, bundlePassphraseFile string
	sheet                                 sheet
}

func (a *app) sharesCombineCommand() *cobra.Command {
	var o combineOptions
	cmd := &cobra.Command{
		Use:   "combine --dir DIR --batch BATCH --out MEDIUM CONTRIBUTION...",
		Short: "Do what a batch is about, with the contributions of enough holders",
		Long: `combine checks what each holder contributed against the public commitments, makes
the keys and statements of the batch of the contributions of enough holders, and
does what issue --batch or anchor --batch foresaw: the ledger first, then the
medium. The master secret is put together nowhere.

A contribution that does not hold is named, and does no harm if enough others
do. An interrupted run is completed by running it again. A batch is out of date
when the ledger, the shares or the medium have changed since it was made: make a
new one.

Give --bundle-passphrase-file again if the batch was made with it, and
--pin-sheet for the sheet of PINs.`,
		Example: `  pkg-offline shares combine --dir shared --batch batch.json --out usb3 partial-1.age partial-3.age`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return explainRequest(a.runCombine(cmd.Context(), o, args))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	f.StringVar(&o.batch, batchFlag, "", "the batch")
	f.StringVar(&o.out, "out", "", "the medium that the batch was made for, or a copy of it: a directory, made if need be")
	f.StringVar(&o.bundlePassphraseFile, "bundle-passphrase-file", "", "file with the passphrase that seals bundles without recipient, - for standard input")
	f.StringVar(&o.sheet.path, "pin-sheet", "", "new file for the PINs that bundles without recipient are sealed to")
	f.BoolVar(&o.sheet.pages, "pin-pages", false, "each device on a page of its own of the PIN sheet")
	for _, required := range []string{"dir", batchFlag, "out"} {
		_ = cmd.MarkFlagRequired(required)
	}
	return cmd
}

func (a *app) runCombine(ctx context.Context, o combineOptions, files []string) error {
	if err := o.sheet.place(o.out); err != nil {
		return err
	}
	public, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return err
	}
	batch, err := keyfile.Read(o.batch, pkgen.MaxBatchFile)
	if err != nil {
		return err
	}
	options := pkgen.CombineOptions{Medium: o.out, Progress: a.progress()}
	for _, file := range files {
		sealed, err := keyfile.Read(file, pkgen.MaxContribution)
		if err != nil {
			return err
		}
		options.Contributions = append(options.Contributions, pkgen.SealedContribution{Name: file, Sealed: sealed})
	}
	if _, err := a.checkAirGap(a.lab || public.Lab()); err != nil {
		return err
	}
	if o.bundlePassphraseFile != "" {
		options.Passphrase, err = a.readSecret(ctx, a.bundlePassphrase(o.bundlePassphraseFile))
		if err != nil {
			return err
		}
		defer clear(options.Passphrase)
	}
	needsPINs, err := pkgen.BatchHasPINs(a.config(o.dir), batch)
	if err != nil {
		return err
	}
	if needsPINs != (o.sheet.path != "") {
		return clikit.WithHint(clikit.Usage("the batch was made with --pin-sheet: %t; here: %t", needsPINs, !needsPINs), "give --pin-sheet FILE if it was, and only then")
	}
	b, err := pkgen.ParseBatch(batch)
	if err != nil {
		return err
	}
	options.Finish = func(done pkgen.Done, run *pkgen.Hash, sign func([]byte) ([]byte, error)) error {
		if done.Issued != nil {
			if err := o.sheet.writeAgain(keyfile.On(a.Layer), done.Issued, b); err != nil {
				return err
			}
		}
		return a.complete(o.dir, run, sign)
	}
	done, err := pkgen.Combine(ctx, a.config(o.dir), batch, options)
	if err != nil {
		return err
	}
	return a.renderCombined(o, public, done)
}

func (a *app) renderCombined(o combineOptions, public *pkgen.Ledger, done *pkgen.Combined) error {
	for _, err := range done.Refused {
		a.warn("not used: " + err.Error())
	}
	switch {
	case done.Already:
		a.note("the batch was combined already: there is nothing to do")
		return nil
	case done.Issued != nil:
		a.note("made of the contributions of %s", strings.Join(done.Holders, ", "))
		return a.renderIssued(issueOptions{out: o.out, sheet: o.sheet}, public.Params, done.Issued)
	}
	a.note("made of the contributions of %s", strings.Join(done.Holders, ", "))
	return a.renderStated(done.Stated)
}

// place is check for a sheet that an interrupted run may have written already.
func (s sheet) place(medium string) error {
	err := s.check(medium)
	if errors.Is(err, keyfile.ErrExists) {
		return nil // writeAgain compares it
	}
	return err
}

// writeAgain writes the sheet of a batch; one that an interrupted run has
// written is the same.
func (s sheet) writeAgain(files keyfile.Files, issued *pkgen.Issued, b *pkgen.Batch) error {
	if s.path == "" {
		return nil
	}
	text := s.text(issued, b.Params, b.Time)
	defer clear(text)
	present, err := keyfile.Read(s.path, int64(len(text)))
	same := err == nil && bytes.Equal(present, text)
	clear(present)
	if same {
		return nil
	}
	if err := files.Sweep(filepath.Dir(s.path)); err != nil {
		return err
	}
	if err := files.CreateDurable(s.path, text, keyfile.SecretPerm); err != nil {
		return clikit.WithHint(fmt.Errorf("write the PIN sheet: %w", err), "run it again with another --pin-sheet: the PINs will be the same")
	}
	return nil
}
