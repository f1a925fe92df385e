package pkgoffline

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

func (a *app) sharesPaperCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "paper SHARE-FILE --out FILE",
		Short: "Print a sealed share: numbered lines and QR codes",
		Long: `paper writes a share file as a page to print: FILE.html has QR codes and the same
in numbered lines with check symbols, FILE.txt the lines alone.

The share stays sealed, and is not opened: what opens the file opens the paper.
Keep the passphrase, or the age key, elsewhere. A share that is sealed to a
passphrase makes half a page, one that is sealed to a hybrid age key about two.`,
		Example: "  pkg-offline shares paper alice/share-1-alice.s1.share.age --out share-1.html\n  pkg-offline shares paper alice/share-1-alice.s1.share.age --out share-1.txt",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return explain(a.runSharesPaper(args[0], out)) },
	}
	cmd.Flags().StringVar(&out, "out", "", "new file for the page: .html or .txt")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

func (a *app) runSharesPaper(path, out string) error {
	page := custody.PaperText
	switch filepath.Ext(out) {
	case ".html":
		page = custody.PaperPage
	case ".txt":
	default:
		return clikit.Usage("--out: %s ends neither in .html nor in .txt", out)
	}
	sealed, err := readShareFile(path)
	if err != nil {
		return err
	}
	data, err := page(filepath.Base(path), sealed)
	if err != nil {
		return err
	}
	if err := a.files().CreateDurable(out, data, keyfile.SecretPerm); err != nil {
		return err
	}
	a.note("print %s, read it back once with shares from-paper, and delete the page; what opens the share is not on it", out)
	return nil
}

// readShareFile reads a share file without opening it.
func readShareFile(path string) ([]byte, error) {
	sealed, err := keyfile.Read(path, custody.MaxShareFile)
	if err != nil {
		return nil, err
	}
	if _, err := bundle.SealedTo(sealed); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return sealed, nil
}

func (a *app) sharesFromPaperCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "from-paper FILE --out SHARE-FILE",
		Short: "Bring a share back from paper",
		Long: `from-paper reads the lines of a printed share, typed or scanned, from a file or
from standard input (-), and gives the share file back byte for byte. The lines
may come in any order, in upper or lower case, with or without spaces. Every line
that is mistyped or missing is named.

The share is not opened; shares verify does that.`,
		Example: "  pkg-offline shares from-paper share-1.txt --out share-1-alice.s1.share.age",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return explain(a.runSharesFromPaper(args[0], out)) },
	}
	cmd.Flags().StringVar(&out, "out", "", "new share file")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

func (a *app) runSharesFromPaper(path, out string) error {
	text, err := a.readTyped(path)
	if err != nil {
		return err
	}
	sealed, err := custody.ParsePaper(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := bundle.SealedTo(sealed); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := a.files().CreateDurable(out, sealed, keyfile.SecretPerm); err != nil {
		return err
	}
	if err := keyfile.ReadBack(out, sealed); err != nil {
		return err
	}
	a.note("the share is in %s, as it was printed; check it with pkg-offline shares verify", out)
	return nil
}

func (a *app) readTyped(path string) ([]byte, error) {
	if path != "-" {
		return keyfile.Read(path, custody.MaxPaper)
	}
	text, err := io.ReadAll(io.LimitReader(a.In, custody.MaxPaper+1))
	if err == nil && len(text) > custody.MaxPaper {
		err = errors.New("standard input is no share on paper")
	}
	return text, err
}
