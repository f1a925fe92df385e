package pkgoffline

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pin"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// sheet is the printable list of the PINs that a run sealed bundles to.
type sheet struct {
	path  string // "": none
	pages bool   // each device on a page of its own
}

// check refuses, before anything is issued, a sheet that could not be written,
// or would lie where the bundles are.
func (s sheet) check(medium string) error {
	if s.path == "" {
		if s.pages {
			return clikit.Usage("--pin-pages needs --pin-sheet FILE")
		}
		return nil
	}
	if s.path == "-" {
		return clikit.WithHint(clikit.Usage("--pin-sheet: PINs are not written to standard output"), "give the name of a new file, print it, and delete it")
	}
	if err := apart("--pin-sheet", s.path, medium); err != nil {
		return err
	}
	if _, err := os.Lstat(s.path); err == nil {
		return fmt.Errorf("--pin-sheet: %s: %w", s.path, keyfile.ErrExists)
	}
	info, err := os.Stat(filepath.Dir(s.path))
	if err == nil && !info.IsDir() {
		err = fs.ErrInvalid
	}
	return clikit.WithCode(err, clikit.ExitUsage)
}

// apart refuses a file of secrets that would lie beside the bundles that they
// open.
func apart(flag, path, medium string) error {
	if path == "" {
		return nil
	}
	inside, err := within(path, medium)
	if err == nil && inside {
		err = clikit.WithHint(clikit.Usage("%s: %s is on the medium, beside the bundles that it opens", flag, path), "keep it apart from the medium")
	}
	return err
}

// within reports whether a file lies in a directory or below it, symbolic
// links followed.
func within(file, dir string) (bool, error) {
	from, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return false, err
	}
	to, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	// What does not exist yet has no links to follow.
	if real, err := filepath.EvalSymlinks(from); err == nil {
		from = real
	}
	if real, err := filepath.EvalSymlinks(to); err == nil {
		to = real
	}
	rel, err := filepath.Rel(to, from)
	if err != nil {
		return false, err
	}
	return rel == "." || filepath.IsLocal(rel), nil
}

// write writes the sheet to a new file, 0600.
func (s sheet) write(files keyfile.Files, issued *pkgen.Issued, params *ibc.Params, now time.Time) error {
	if s.path == "" {
		return nil
	}
	text := s.text(issued, params, now)
	defer clear(text)
	err := files.CreateDurable(s.path, text, keyfile.SecretPerm)
	if err != nil {
		return clikit.WithHint(fmt.Errorf("write the PIN sheet: %w", err), "the bundles are issued; issue them again with another --pin-sheet: the PINs will be the same")
	}
	return nil
}

func (s sheet) text(issued *pkgen.Issued, params *ibc.Params, now time.Time) []byte {
	id := params.ID()
	head := fmt.Sprintf(`PINs of sealed key bundles                                         %s
params_id %x

Keep this sheet apart from the memory cards until they are in their devices.
A PIN opens one bundle. Upper or lower case, with or without hyphens; there is
no letter O, I, L or U in it.
`, now.Format(time.DateOnly), id)
	var out strings.Builder
	first := true
	for i, row := range issued.Rows {
		if issued.PINs[i].IsZero() {
			continue
		}
		switch {
		case first:
			out.WriteString(head)
		case s.pages:
			out.WriteString("\f" + head)
		}
		first = false
		writeDevice(&out, row, issued.PINs[i])
	}
	if first {
		out.WriteString(head + "\nEvery bundle has a recipient of its own: there are no PINs.\n")
	}
	return []byte(out.String())
}

func writeDevice(out *strings.Builder, row bundle.Row, p pin.PIN) {
	id := ibc.Identity{Role: row.Role, Name: row.Name, Epoch: row.Epoch, Generation: row.Generation}
	_, _ = fmt.Fprintf(out, `
%s
--------------------------------------------------------------------------
identity  %s
bundle    %s
PIN       %s

done on ____________________  by ____________________________
`, row.Name, id, row.File, p.Text())
}
