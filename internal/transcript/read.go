package transcript

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// MaxSize bounds a transcript: 100,000 identities take about 30 MB.
const MaxSize = 512 << 20

// Line is a line of a transcript.
type Line struct {
	hashlog.Entry
	Fact Fact
}

// Transcript is one that was read.
type Transcript struct {
	Begin *Begin
	End   *End // nil: it was cut
	Lines []Line
	ID    hashlog.Hash // SHA-256 of the first line
	Head  hashlog.Head // of the signed part; zero if State is not Signed
	State State
}

// Parse parses a transcript and checks its chain and, with verify, its head.
// Without a head that covers it to its end it is returned with an error that
// wraps ErrUnsigned. A line that does not hold is a *hashlog.LineError.
func Parse(data []byte, verify hashlog.Verifier) (*Transcript, error) {
	log, err := hashlog.Read(bytes.NewReader(data), verify)
	if err != nil {
		return nil, err
	}
	entries, rest := log.Entries, log.Tail()
	if len(entries) > 0 && len(rest) > 0 {
		return nil, &hashlog.LineError{Line: rest[0].Line, Err: fmt.Errorf("%w: something follows the head", hashlog.ErrFormat)}
	}
	t := &Transcript{State: Signed, Head: log.State.Head}
	if len(entries) == 0 {
		entries, t.State = rest, Cut
	}
	for i, e := range entries {
		if err := t.add(e, i == 0); err != nil {
			return nil, &hashlog.LineError{Line: e.Line, Err: err}
		}
	}
	if t.Begin == nil {
		return nil, &hashlog.LineError{Line: 1, Err: fmt.Errorf("%w: no transcript begins here", hashlog.ErrFormat)}
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	t.ID = sum(first)
	if t.State == Signed {
		if t.End == nil {
			return nil, &hashlog.LineError{Line: len(entries), Err: fmt.Errorf("%w: a head without an end", hashlog.ErrFormat)}
		}
		if err := log.Finished(); err != nil {
			return t, err
		}
		return t, nil
	}
	if t.End != nil {
		t.State = Unsigned
	}
	return t, &hashlog.LineError{Line: len(entries) + 1, Err: ErrUnsigned}
}

func (t *Transcript) add(e hashlog.Entry, first bool) error {
	var f Fact
	if err := json.Unmarshal(e.Body, &f); err != nil {
		return fmt.Errorf("%w: %w", hashlog.ErrFormat, err)
	}
	switch {
	case first != (f.Type == TypeBegin), first && f.Begin == nil:
		return fmt.Errorf("%w: a transcript begins with its first line and no other", hashlog.ErrFormat)
	case t.End != nil:
		return fmt.Errorf("%w: something follows the end", hashlog.ErrFormat)
	case (f.Type == TypeEnd) != (f.End != nil):
		return fmt.Errorf("%w: an end that says nothing", hashlog.ErrFormat)
	}
	if first {
		t.Begin = f.Begin
	}
	t.End = f.End
	t.Lines = append(t.Lines, Line{e, f})
	return nil
}

// unsigned returns the state of a transcript that was ended without a head.
func unsigned(data []byte) (hashlog.State, error) {
	nobody := func([]byte, []byte) error { return errors.New("it is signed already") }
	t, err := Parse(data, nobody)
	if !errors.Is(err, ErrUnsigned) {
		return hashlog.State{}, err
	}
	if t.State != Unsigned {
		return hashlog.State{}, errors.New("it was cut")
	}
	log, err := hashlog.Read(bytes.NewReader(data), nobody)
	if err != nil {
		return hashlog.State{}, err
	}
	if state := log.Open(); state.Size == int64(len(data)) {
		return state, nil
	}
	return hashlog.State{}, errors.New("its last line is torn")
}

// found is a transcript in a directory.
type found struct {
	Previous
	number uint64
	data   []byte
}

var nameForm = regexp.MustCompile(`^([0-9]{4,})-[0-9]{8}T[0-9]{6}Z-[a-z-]+\.jsonl$`)

// list returns the names of the transcripts in a folder in the order of their
// numbers; one that does not exist has none.
func list(folder string) ([]found, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []found
	for _, e := range entries {
		m := nameForm.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		n, err := strconv.ParseUint(m[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		all = append(all, found{Previous: Previous{File: e.Name()}, number: n})
	}
	slices.SortFunc(all, func(a, b found) int { return int(a.number) - int(b.number) })
	return all, nil
}

// load reads a transcript that was listed.
func (f *found) load(folder string) error {
	data, err := keyfile.Read(filepath.Join(folder, f.File), MaxSize)
	if err != nil {
		return err
	}
	f.data, f.SHA256, f.State = data, sum(data), stateOf(data)
	return nil
}

// latest returns the transcript with the highest number, nil if there is none.
func latest(folder string) (*found, error) {
	all, err := list(folder)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	last := &all[len(all)-1]
	return last, last.load(folder)
}

// stateOf tells a transcript's state by its last line; nothing is verified.
func stateOf(data []byte) State {
	body, whole := bytes.CutSuffix(data, []byte("\n"))
	if !whole {
		return Cut
	}
	var line struct {
		Head *uint64 `json:"head"`
		Body *Fact   `json:"body"`
	}
	if json.Unmarshal(body[bytes.LastIndexByte(body, '\n')+1:], &line) != nil {
		return Cut
	}
	switch {
	case line.Head != nil:
		return Signed
	case line.Body != nil && line.Body.Type == TypeEnd:
		return Unsigned
	}
	return Cut
}
