package pkgen

import (
	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// ParseContribution parses the plaintext of a contribution.
func ParseContribution(plain []byte, b *Batch, s *custody.Sharing) (ibc.Contribution, error) {
	return parseContribution(plain, b, s)
}

// ParseTask parses the file by which a batch is kept and returns how it is
// written again.
func ParseTask(data []byte) ([]byte, error) {
	t, err := parseTask(data)
	if err != nil {
		return nil, err
	}
	return t.marshal()
}

// WithFastRecovery returns c with the parameter set whose keys are made sixty
// times faster, for tests that make many.
func (c Config) WithFastRecovery() Config {
	c.recovery = slhdsa.SHA2_128f
	return c
}

// CheckFact checks a fact about shares as if it came next in the ledger.
func (p *PKG) CheckFact(f Fact) error { return p.Ledger.checkShares(f) }

// ParsePending parses the note of share files and returns how it is written
// again.
func ParsePending(data []byte) ([]byte, error) {
	p, err := sharesNote().parse(data)
	if err != nil {
		return nil, err
	}
	return p.marshal()
}

// ParseProgress parses a note of progress under a key and returns how many
// bundles it tells of, and how many bytes of it hold.
func ParseProgress(key, data []byte) (bundles, bytes int) {
	n := progress{key: key, known: map[string]written{}}
	n.parse(data)
	return len(n.known), len(n.kept)
}

// ProgressLine is a line of a note of progress.
func ProgressLine(key []byte, body string) string {
	n := progress{key: key}
	return string(n.mac([]byte(body))) + " " + body + "\n"
}
