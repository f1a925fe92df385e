package pkgen

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// foreseen is what is fixed of a run whose keys and statements the holders of
// shares make, each on a machine of his own: the run is gone through once to see
// what it would sign, and again when that is signed. Both times it has to come
// to the same documents.
type foreseen struct {
	after uint64 // entries of the ledger before
	lines []byte // that the run adds to the ledger, without their head
}

// group returns how many of some jobs one head of the ledger records. The line
// behind a head has the hash of its signature, which nobody can foresee: such a
// run has one head.
func (p *PKG) group(jobs int) int {
	if p.foreseen != nil {
		return jobs
	}
	return chunk
}

// counts reports whether an entry that records a fact already makes another one
// needless. To holders of shares each key is shown as an entry, also when it is
// issued again.
func (p *PKG) counts(e Entry) bool { return p.foreseen == nil || e.Index > p.foreseen.after }

// proposing reports whether the run only looks what it would sign.
func (p *PKG) proposing() bool {
	_, ok := p.authority.(*proposal)
	return ok
}

// note keeps the lines that a run adds to the ledger, of which the last is the
// head.
func (f *foreseen) note(data []byte) {
	head := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
	f.lines = slices.Concat(f.lines, data[:head])
}

// seeded derives the secrets of a run for which nobody has the master secret
// from a seed that was drawn for it.
type seeded struct{ seed []byte }

// Derive implements authority.
func (s seeded) Derive(purpose string, size int) ([]byte, error) {
	return hkdf.Key(sha256.New, s.seed, nil, purpose, size)
}

// proposal is the authority of a run that only looks what it would sign.
type proposal struct {
	seeded
	params     *ibc.Params
	statements []Statement
}

// Params implements authority.
func (a *proposal) Params() *ibc.Params { return a.params }

// Extract implements authority: there are no keys.
func (a *proposal) Extract(id ibc.Identity) (*ibc.PrivateKey, error) {
	return nil, fmt.Errorf("%w: %s: it is only proposed", ibc.ErrKey, id)
}

// Sign implements authority: it notes the document. What it returns is no
// statement.
func (a *proposal) Sign(kind ibc.Kind, document []byte) ([]byte, error) {
	a.statements = append(a.statements, Statement{Kind: kind, Document: slices.Clone(document)})
	return make([]byte, ibc.StatementSize), nil
}

// Destroy implements authority.
func (a *proposal) Destroy() {}

// errNotContributed is why a run that was foreseen cannot go on.
var errNotContributed = errors.New("nobody contributed to it")

// contributed is the authority of a run whose keys and statements were made of
// contributions.
type contributed struct {
	seeded
	params *ibc.Params
	made   *ibc.Made
}

// Params implements authority.
func (a contributed) Params() *ibc.Params { return a.params }

// Extract implements authority.
func (a contributed) Extract(id ibc.Identity) (*ibc.PrivateKey, error) {
	key, ok := a.made.Key(id)
	if !ok {
		return nil, fmt.Errorf("the key of %s: %w", id, errNotContributed)
	}
	return key, nil
}

// Sign implements authority.
func (a contributed) Sign(kind ibc.Kind, document []byte) ([]byte, error) {
	statement, ok := a.made.Statement(kind, document)
	if !ok {
		return nil, fmt.Errorf("a statement of kind %s: %w", kind, errNotContributed)
	}
	return statement, nil
}

// Destroy implements authority.
func (a contributed) Destroy() { a.made.Destroy() }
