package pkgen

import (
	"errors"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Transcript is the record that a run keeps of itself (internal/transcript). It
// was begun before the PKG is opened.
type Transcript interface {
	// ID names the run in every entry that it adds to the ledger: so a transcript
	// that is missing is noticed.
	ID() Hash
	// Recorded notes entries that the ledger has from now on, and its head.
	Recorded(entries []Entry, head bundle.LedgerHead) error
}

// SignTranscript signs the document of a transcript's head. It is the last thing
// that a run does before Close.
func (p *PKG) SignTranscript(document []byte) ([]byte, error) {
	if p.authority == nil {
		return nil, errors.New("sign the transcript: the PKG is not open")
	}
	return p.authority.Sign(ibc.KindTranscript, document)
}

// named puts the run's name on a fact.
func (c Config) named(f Fact) Fact {
	if c.Transcript != nil {
		id := c.Transcript.ID()
		f.Transcript = &id
	}
	return f
}

// tell notes the ledger's entries behind the first known ones in the transcript.
func (c Config) tell(l *Ledger, known int) error {
	if c.Transcript == nil {
		return nil
	}
	return c.Transcript.Recorded(l.Entries[known:], l.Head())
}
