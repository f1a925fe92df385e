package transcript

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Chain is what all transcripts of a PKG say together.
type Chain struct {
	Runs  []Summary
	files map[string]left
}

// Summary is a transcript without its lines.
type Summary struct {
	File    string // its name
	Begin   *Begin
	End     *End // nil: it was cut
	ID      hashlog.Hash
	Head    hashlog.Head // zero if State is not Signed
	State   State
	Entries []Entry
}

// left is how runs left a file in the PKG's directory.
type left struct {
	sums []hashlog.Hash // any of them: a run that did not end well may not have come to it
	any  bool           // it has grown, or is removed
	by   string         // the last transcript about it
}

// ReadAll reads all transcripts of a PKG's directory and checks that they hold
// together: each one by itself, the numbers, and the file that each names as the
// one before it. One without a signed head is accepted if a later, signed one
// has noted it. The error says the first file, and its first line, that does not
// hold; with ErrUnsigned the chain is there too, and knows of files what is
// signed. A PKG without transcripts has an empty chain.
func ReadAll(dir string, verify hashlog.Verifier) (*Chain, error) {
	folder := filepath.Join(dir, Dir)
	if err := noStrangers(folder); err != nil {
		return nil, err
	}
	all, err := list(folder)
	if err != nil {
		return nil, err
	}
	c := &Chain{files: map[string]left{}}
	var before *found
	var open error              // of the first transcript that no signed one covers yet
	var uncovered []*Transcript // from that one on: what they say of files is not believed yet
	for i := range all {
		f := &all[i]
		wrong := func(err error) error { return fmt.Errorf("%s: %w", filepath.Join(folder, f.File), err) }
		if f.number != uint64(i)+1 {
			return nil, errors.Join(open, wrong(fmt.Errorf("%w: number %d is not there", ErrMissing, i+1)))
		}
		if err := f.load(folder); err != nil {
			return nil, err
		}
		t, parseErr := Parse(f.data, verify)
		if t == nil || parseErr != nil && !errors.Is(parseErr, ErrUnsigned) {
			return nil, wrong(parseErr)
		}
		if err := follows(t.Begin, before, f.number); err != nil {
			if open != nil {
				return nil, open // it was cut short since
			}
			return nil, wrong(err)
		}
		if parseErr != nil && open == nil {
			open = wrong(parseErr)
		}
		c.Runs = append(c.Runs, summary(f.File, t))
		uncovered = append(uncovered, t)
		if parseErr == nil {
			c.believe(uncovered)
			open, uncovered = nil, nil
		}
		f.data, before = nil, f
	}
	return c, open
}

// noStrangers demands that nothing but transcripts lies in their directory.
func noStrangers(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockFile && !nameForm.MatchString(e.Name()) && !keyfile.IsTemp(e.Name()) {
			return fmt.Errorf("%s: %w: it is no transcript", filepath.Join(folder, e.Name()), hashlog.ErrFormat)
		}
	}
	return nil
}

// follows checks what a transcript says of the one before.
func follows(b *Begin, before *found, number uint64) error {
	switch p := b.Previous; {
	case b.Number != number:
		return fmt.Errorf("%w: line 1 says that it is number %d", ErrMissing, b.Number)
	case (p == nil) != (before == nil):
		return fmt.Errorf("%w: line 1 does not name the one before", ErrMissing)
	case p == nil:
		return nil
	case p.File != before.File:
		return fmt.Errorf("%w: line 1 says that %.80q is before it, not %s", ErrMissing, p.File, before.File)
	case p.SHA256 != before.SHA256:
		return fmt.Errorf("%w: %s is not the file that line 1 notes (SHA-256 %s)", ErrMissing, before.File, p.SHA256)
	}
	return nil
}

func summary(file string, t *Transcript) Summary {
	s := Summary{File: file, Begin: t.Begin, End: t.End, ID: t.ID, Head: t.Head, State: t.State}
	for _, l := range t.Lines {
		s.Entries = append(s.Entries, l.Fact.Entries...)
	}
	return s
}

// believe enters what transcripts, the last of the chain up to now, say of files.
func (c *Chain) believe(some []*Transcript) {
	runs := c.Runs[len(c.Runs)-len(some):]
	for i, t := range some {
		for _, l := range t.Lines {
			for _, f := range l.Fact.Files {
				if f.PKG {
					c.note(f, runs[i].File, t.State == Signed && t.End.Outcome == Done)
				}
			}
		}
	}
}

// note enters what a run says of a file. It says so before it acts: one that was
// cut may have left what was there.
func (c *Chain) note(f File, by string, well bool) {
	l := left{by: by}
	if !well {
		before := c.files[f.Path]
		l.sums, l.any = before.sums, before.any || before.by == ""
	}
	if f.SHA256 != nil {
		l.sums = append(l.sums, *f.SHA256)
	} else {
		l.any = true
	}
	c.files[f.Path] = l
}

// CheckFiles holds the files in a PKG's directory to what the last run that
// wrote them says. One that is not there is not missed: a recovery key is moved
// away. The error wraps ErrFile.
func (c *Chain) CheckFiles(dir string) error {
	for _, name := range c.sortedFiles() {
		l := c.files[name]
		if l.any {
			continue
		}
		data, err := keyfile.Read(filepath.Join(dir, filepath.FromSlash(name)), MaxSize)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !slices.Contains(l.sums, sum(data)) {
			return fmt.Errorf("%s: %w, as %s notes it", filepath.Join(dir, filepath.FromSlash(name)), ErrFile, l.by)
		}
	}
	return nil
}

func (c *Chain) sortedFiles() []string { return slices.Sorted(maps.Keys(c.files)) }
