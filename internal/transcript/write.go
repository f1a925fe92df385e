package transcript

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Bounds of what is written: a line has to fit hashlog.MaxLine.
const (
	maxText      = 2000 // bytes
	maxArguments = 24 << 10
	perLine      = 64 // entries or files
)

// Run is a transcript that is being written. A line that could not be written
// ends it: every later call returns that error. It is safe for concurrent use.
type Run struct {
	mu     sync.Mutex
	files  keyfile.Files
	dir    string // of the PKG, absolute
	path   string
	now    func() time.Time
	state  hashlog.State
	id     hashlog.Hash
	begin  Begin
	unlock func() error

	pending        []File
	grown          map[File]bool // noted as such, and not written since
	entries, wrote int
	ended          bool
	err            error
}

// Start begins the transcript of a run in the directory of a PKG, which is made
// if need be. Number and Previous of b are filled in. What it holds from then on
// until Close is the lock of the transcripts: two runs at once are refused.
func Start(files keyfile.Files, dir string, now func() time.Time, b Begin) (*Run, error) {
	r, err := start(files, dir, now, b)
	if err != nil {
		return nil, fmt.Errorf("begin the transcript: %w", err)
	}
	return r, nil
}

func start(files keyfile.Files, dir string, now func() time.Time, b Begin) (*Run, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(dir, Dir)
	if err := files.EnsureDir(dir); err != nil {
		return nil, err
	}
	if err := files.EnsureDir(folder); err != nil {
		return nil, err
	}
	unlock, err := keyfile.Lock(filepath.Join(folder, lockFile))
	if err != nil {
		return nil, err
	}
	r := &Run{files: files, dir: abs, now: now, unlock: unlock, grown: map[File]bool{}}
	if err := r.first(folder, b); err != nil {
		return nil, errors.Join(err, unlock())
	}
	return r, nil
}

func (r *Run) first(folder string, b Begin) error {
	if err := r.files.Sweep(folder); err != nil {
		return err
	}
	last, err := latest(folder)
	if err != nil {
		return err
	}
	b.Number = 1
	if last != nil {
		b.Number, b.Previous = last.number+1, &last.Previous
	}
	b.Arguments = bounded(b.Arguments)
	b.Participants, b.AirGap = append([]string{}, b.Participants...), append([]string{}, b.AirGap...)
	at := r.now().UTC()
	b.Host.Clock = at
	verb := strings.ReplaceAll(b.Command[strings.LastIndex(b.Command, "/")+1:], " ", "-")
	verb = strings.TrimPrefix(verb, "pkg-offline-")
	r.path = filepath.Join(folder, fmt.Sprintf("%04d-%s-%s.jsonl", b.Number, at.Format("20060102T150405Z"), verb))
	body, err := json.Marshal(Fact{Type: TypeBegin, Text: b.sentence(), Begin: &b})
	if err != nil {
		return err
	}
	line, next, err := hashlog.State{}.Add(at, body)
	if err != nil {
		return err
	}
	if err := r.files.CreateDurable(r.path, line, keyfile.SecretPerm); err != nil {
		return err
	}
	r.begin, r.state, r.id = b, next, next.Head.Hash
	return nil
}

func (b Begin) sentence() string {
	s := fmt.Sprintf("%s began on %s", b.Command, b.Host.Name)
	if b.Rehearsal {
		s = "REHEARSAL, nothing of it is real: " + s
	}
	if b.Previous != nil {
		s += fmt.Sprintf("; the run before is in %s (%s)", b.Previous.File, b.Previous.State)
	}
	return s
}

// bounded cuts arguments that do not fit a line.
func bounded(arguments []string) []string {
	size := 0
	for i, a := range arguments {
		if size += len(a) + 8; size > maxArguments {
			rest := sum([]byte(strings.Join(arguments[i:], "\x00")))
			return append(append([]string{}, arguments[:i]...), fmt.Sprintf("… and %d more (SHA-256 of them, joined by NUL: %s)", len(arguments)-i, rest))
		}
	}
	return append([]string{}, arguments...)
}

// ID names the run: the SHA-256 of the transcript's first line.
func (r *Run) ID() hashlog.Hash { return r.id }

// Path returns where the transcript is.
func (r *Run) Path() string { return r.path }

// Previous returns the transcript before, nil if there is none.
func (r *Run) Previous() *Previous { return r.begin.Previous }

// Head returns the head of the transcript: once it is ended, what its signature
// is about.
func (r *Run) Head() hashlog.Head {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Head
}

// Note states something, and named values with it.
func (r *Run) Note(text string, values ...Value) error {
	return r.locked(func() error { return r.add(Fact{Type: TypeNote, Text: text, Values: values}) })
}

// Warning notes what a person was warned of.
func (r *Run) Warning(text string) error {
	return r.locked(func() error { return r.add(Fact{Type: TypeWarning, Text: text}) })
}

// Recorded notes entries that the ledger has from now on.
func (r *Run) Recorded(entries []Entry, head Head) error {
	return r.locked(func() error {
		for len(entries) > 0 {
			some := entries[:min(perLine, len(entries))]
			entries = entries[len(some):]
			text := fmt.Sprintf("the ledger has %s more, up to %d", count(len(some), "entry", "entries"), some[len(some)-1].Index)
			if len(entries) == 0 {
				text = fmt.Sprintf("the ledger has %s more and is at %s", count(len(some), "entry", "entries"), head)
			}
			if err := r.add(Fact{Type: TypeEntries, Text: text, Entries: some}); err != nil {
				return err
			}
			r.entries += len(some)
		}
		return nil
	})
}

// End writes how the run ended, err and the ledger's head (nil: none is known),
// and signs the transcript; sign is nil if nobody can. It may be called once.
func (r *Run) End(err error, ledger *Head, sign hashlog.Signer) error {
	end := End{Outcome: Done, Ledger: ledger}
	text := "the run is done"
	if err != nil {
		end.Outcome, end.Error = Failed, shortened(err.Error())
		text = "the run failed: " + end.Error
	}
	return r.locked(func() error {
		if err := r.finish(end, text); err != nil || sign == nil {
			return err
		}
		head, next, err := r.state.Commit(sign)
		if err != nil {
			return err
		}
		if err := r.files.AppendDurable(r.path, head); err != nil {
			return err
		}
		r.state = next
		return nil
	})
}

// Propose ends a run that was only gone through, with the head that the ledger
// would have. The transcript tells what others do if they sign it: then Complete
// adds the signature of Head().Document(), as a statement of kind "transcript".
func (r *Run) Propose(ledger *Head) error {
	return r.locked(func() error {
		return r.finish(End{Outcome: Proposed, Ledger: ledger}, "the run is proposed: it counts once the holders of shares have signed this transcript")
	})
}

// finish writes the last line.
func (r *Run) finish(end End, text string) error {
	if err := r.flush(); err != nil {
		return err
	}
	end.Entries, end.Files = r.entries, r.wrote
	if err := r.add(Fact{Type: TypeEnd, Text: text, End: &end}); err != nil {
		return err
	}
	r.ended = true
	return nil
}

// Close releases the lock. It may be called more than once.
func (r *Run) Close() error {
	unlock := r.unlock
	if unlock == nil {
		return nil
	}
	r.unlock = nil
	return unlock()
}

func (r *Run) locked(do func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil && r.ended {
		return fmt.Errorf("transcript %s: it was ended", r.path)
	}
	if r.err == nil {
		r.err = do()
	}
	if r.err != nil {
		return fmt.Errorf("transcript %s: %w", r.path, r.err)
	}
	return nil
}

// add writes a line.
func (r *Run) add(f Fact) error {
	f.Text = shortened(f.Text)
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	line, next, err := r.state.Add(r.now(), body)
	if err != nil {
		return err
	}
	if err := r.files.AppendDurable(r.path, line); err != nil {
		return err
	}
	r.state = next
	return nil
}

// flush writes what happened to files since the last time.
func (r *Run) flush() error {
	for len(r.pending) > 0 {
		some := r.pending[:min(perLine, len(r.pending))]
		written := 0
		for _, f := range some {
			if f.Change == Written {
				written++
			}
		}
		others := len(some) - written
		text := count(written, "file was", "files were") + " written"
		switch {
		case written == 0:
			text = count(others, "file was", "files were") + " changed or removed"
		case others > 0:
			text += fmt.Sprintf(", %d changed or removed", others)
		}
		if err := r.add(Fact{Type: TypeFiles, Text: text, Files: some}); err != nil {
			return err
		}
		r.wrote += written
		r.pending = r.pending[len(some):]
	}
	return nil
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// shortened bounds a text, and keeps it valid UTF-8.
func shortened(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}

// Sign completes a transcript that was ended without a signature.
func Sign(files keyfile.Files, path string, sign hashlog.Signer) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	state, err := unsigned(data)
	if err != nil {
		return fmt.Errorf("sign transcript %s: %w", path, err)
	}
	head, _, err := state.Commit(sign)
	if err != nil {
		return err
	}
	return files.AppendDurable(path, head)
}
