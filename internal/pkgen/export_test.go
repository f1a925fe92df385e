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
	p, err := parsePending(data)
	if err != nil {
		return nil, err
	}
	return p.marshal()
}
