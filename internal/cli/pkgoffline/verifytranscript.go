package pkgoffline

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// isTranscript looks at the first line: a ledger has the same form.
func isTranscript(t target) bool {
	if t.dir {
		return false
	}
	f, err := os.Open(t.path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	line, err := bufio.NewReaderSize(f, hashlog.MaxLine).ReadSlice('\n')
	return err == nil && bytes.Contains(line, []byte(`"body":{"type":"`+transcript.TypeBegin+`"`))
}

// transcript checks one transcript by itself.
func (v *verifier) transcript(path string) error {
	data, err := keyfile.Read(path, transcript.MaxSize)
	if err != nil {
		return err
	}
	known := v.known()
	if len(known) == 0 {
		if known, err = paramsBeside(path); err != nil {
			return clikit.WithHint(fmt.Errorf("parameters of the transcript: %w", err), "give --params FILE")
		}
	}
	t, err := transcript.Parse(data, signedUnder(known))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if v.ledger != nil {
		if err := v.inLedger(transcript.Summary{Begin: t.Begin, End: t.End, State: t.State, ID: t.ID, Entries: entriesOf(t)}); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	v.heads = append(v.heads, t.Head)
	v.done = append(v.done, verified{"transcript", path, paramsIDOf(t, known), len(t.Lines), formatTranscriptHead(t.Head)})
	return nil
}

func entriesOf(t *transcript.Transcript) []transcript.Entry {
	var all []transcript.Entry
	for _, l := range t.Lines {
		all = append(all, l.Fact.Entries...)
	}
	return all
}

// paramsIDOf is that of the PKG when the run began; of an init, of the first.
func paramsIDOf(t *transcript.Transcript, known []*ibc.Params) string {
	if t.Begin.ParamsID != "" {
		return t.Begin.ParamsID
	}
	return bundle.Hash(known[0].ID()).String()
}

// paramsBeside returns the parameters of the PKG in whose directory a transcript
// lies.
func paramsBeside(path string) ([]*ibc.Params, error) {
	dir := filepath.Dir(filepath.Dir(path))
	ledger, err := pkgen.ReadPublic(dir)
	if err == nil {
		return ledger.Epochs(), nil
	}
	params, err := pkgen.ReadParams(filepath.Join(dir, pkgen.ParamsFile))
	return []*ibc.Params{params}, err
}

// signedUnder accepts what the PKG signed in any of its epochs.
func signedUnder(known []*ibc.Params) hashlog.Verifier {
	return func(document, signature []byte) error {
		var err error
		for _, params := range known {
			if err = params.VerifyStatement(ibc.KindTranscript, document, signature); err == nil {
				return nil
			}
		}
		return err
	}
}

// transcripts checks all transcripts of a PKG, against its ledger, and its files
// against them.
func (v *verifier) transcripts(dir string) error {
	folder := filepath.Join(dir, transcript.Dir)
	chain, err := transcript.ReadAll(dir, signedUnder(v.ledger.Epochs()))
	if errors.Is(err, transcript.ErrUnsigned) && chain != nil {
		if pending := v.pending(chain); pending != "" {
			v.notes = append(v.notes, fmt.Sprintf("a batch is pending (%s): nothing of it is issued until shares combine signs this transcript", filepath.Join(folder, pending)))
			err = nil
		}
	}
	if err != nil {
		return err
	}
	if err := named(v.ledger, chain); err != nil {
		return fmt.Errorf("%s: %w", folder, err)
	}
	last := "" // head of the last that is signed
	for _, s := range chain.Runs {
		if err := v.inLedger(s); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(folder, s.File), err)
		}
		if s.State == transcript.Signed {
			v.heads = append(v.heads, s.Head)
			last = formatTranscriptHead(s.Head)
		}
	}
	if err := chain.CheckFiles(dir); err != nil {
		return err
	}
	if n := len(chain.Runs); n > 0 {
		id := v.ledger.Params.ID()
		v.done = append(v.done, verified{"transcripts", folder, fmt.Sprintf("%x", id), n, last})
	}
	return nil
}

// pending returns the last transcript if it, and every one since the last that is
// signed, is of a batch of which nothing was issued; "" if not. Nobody has signed
// those, and nothing is believed of them.
func (v *verifier) pending(chain *transcript.Chain) string {
	last, all := "", true
	for _, s := range chain.Runs {
		switch {
		case s.State == transcript.Signed:
			last, all = "", true
		case s.End != nil && s.End.Outcome == transcript.Proposed && v.made()[s.ID] == 0:
			last = s.File
		default:
			all = false
		}
	}
	if !all {
		return ""
	}
	return last
}

// named demands the transcript of every entry of the ledger, from the first one
// that names its own.
func named(l *pkgen.Ledger, chain *transcript.Chain) error {
	known := make(map[hashlog.Hash]bool, len(chain.Runs))
	for _, s := range chain.Runs {
		known[s.ID] = true
	}
	began := false
	for _, e := range l.Entries {
		if e.Transcript == nil {
			if began {
				return fmt.Errorf("%w: ledger entry %d names none", transcript.ErrMissing, e.Index)
			}
			continue
		}
		began = true
		if !known[hashlog.Hash(*e.Transcript)] {
			return fmt.Errorf("%w: that of ledger entry %d, whose first line has the SHA-256 %s", transcript.ErrMissing, e.Index, e.Transcript)
		}
	}
	return nil
}

// inLedger holds what a transcript says to the ledger.
func (v *verifier) inLedger(s transcript.Summary) error {
	heads := []*transcript.Head{s.Begin.Ledger}
	// What was proposed and never signed has not happened.
	proposed := s.End != nil && s.End.Outcome == transcript.Proposed && s.State != transcript.Signed
	if proposed && v.made()[s.ID] == 0 {
		s.Entries = nil
	} else if s.End != nil {
		heads = append(heads, s.End.Ledger)
	}
	for _, h := range heads {
		if h == nil {
			continue
		}
		if err := v.ledger.Covers(bundle.LedgerHead{Index: h.Count, Hash: bundle.Hash(h.SHA256)}); err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
	}
	listed := make(map[uint64]bool, len(s.Entries))
	for _, e := range s.Entries {
		if e.Index == 0 || e.Index > uint64(len(v.ledger.Entries)) {
			return fmt.Errorf("%w: the ledger has no entry %d", hashlog.ErrTruncated, e.Index)
		}
		if have := v.ledger.Entries[e.Index-1]; have.Type != e.Type || have.Identity != nil && have.What() != e.What || have.Transcript == nil || hashlog.Hash(*have.Transcript) != s.ID {
			return fmt.Errorf("%w: ledger entry %d is another one", hashlog.ErrTruncated, e.Index)
		}
		listed[e.Index] = true
	}
	if made := v.made()[s.ID]; s.State == transcript.Signed && made != len(listed) {
		return fmt.Errorf("%w: it lists %d of the %d ledger entries that name it", transcript.ErrMissing, len(listed), made)
	}
	return nil
}

// made counts the entries of the ledger by the transcripts that they name.
func (v *verifier) made() map[hashlog.Hash]int {
	if v.perRun == nil {
		v.perRun = map[hashlog.Hash]int{}
		for _, e := range v.ledger.Entries {
			if e.Transcript != nil {
				v.perRun[hashlog.Hash(*e.Transcript)]++
			}
		}
	}
	return v.perRun
}

// headKnown reports whether a head that was written down is one of the ledger or
// of a transcript that was checked.
func (v *verifier) headKnown(head bundle.LedgerHead) error {
	for _, h := range v.heads {
		if h.Count == head.Index && bundle.Hash(h.Hash) == head.Hash {
			return nil
		}
	}
	err := errors.New("--head: there is no ledger or transcript to look for it in")
	for _, l := range v.ledgers {
		if err = l.Covers(head); err == nil {
			return nil
		}
	}
	return err
}
