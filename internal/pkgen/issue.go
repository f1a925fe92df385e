package pkgen

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/pin"
)

// chunk is how many bundles share one append to the ledger, and how many are
// issued twice at worst when the run is cut.
const chunk = 32

// Issued is what a run of Issue left on the medium.
type Issued struct {
	Rows   []bundle.Row
	PINs   []pin.PIN // of the rows; zero where one has a recipient of its own
	Ledger bundle.LedgerHead
}

// Issue extracts a key for every request, records it in the ledger and writes
// the sealed bundles and the manifest, in this order, to the medium. All
// requests are checked before anything is written. When ctx ends, what was
// written by then is listed in the manifest.
//
// Issuing again what the ledger holds already, to the same recipient and with
// the same content, adds nothing to it: that is how an interrupted run is
// completed.
func (p *PKG) Issue(ctx context.Context, requests []Request, o IssueOptions) (*Issued, error) {
	m, err := openMedium(o.Medium, p.Files, p.Ledger)
	if err != nil {
		return nil, err
	}
	jobs, err := p.plan(m, requests, o)
	if err != nil {
		return nil, err
	}
	if err := m.prepare(jobs); err != nil {
		return nil, err
	}
	var rows []bundle.Row
	for len(rows) < len(jobs) && ctx.Err() == nil {
		next := jobs[len(rows):min(len(rows)+chunk, len(jobs))]
		done, err := p.issueChunk(m, next, o.Lab)
		if err != nil {
			return nil, err
		}
		for _, row := range done {
			rows = append(rows, row)
			if o.Progress != nil {
				o.Progress(len(rows), len(jobs), row)
			}
		}
	}
	if len(rows) == 0 {
		return nil, ctx.Err()
	}
	if err := m.finish(p.Ledger.Head(), p.authority); err != nil {
		return nil, err
	}
	issued := &Issued{Rows: rows, Ledger: p.Ledger.Head()}
	for _, j := range jobs[:len(rows)] {
		issued.PINs = append(issued.PINs, j.pin)
	}
	if len(rows) < len(jobs) {
		return issued, fmt.Errorf("interrupted after %d of %d bundles: %w", len(rows), len(jobs), ctx.Err())
	}
	return issued, nil
}

func (p *PKG) issueChunk(m *medium, jobs []job, lab bool) ([]bundle.Row, error) {
	sealed := make([][]byte, len(jobs))
	indexes := make([]uint64, len(jobs))
	var facts []Fact
	for i := range jobs {
		fact, data, err := p.seal(&jobs[i])
		if err != nil {
			return nil, err
		}
		sealed[i] = data
		if last, ok := p.Ledger.Latest(subject(jobs[i].bundle.Identity)); ok && last.same(fact) {
			indexes[i] = last.Index
			continue
		}
		fact.Lab = lab
		facts = append(facts, fact)
		indexes[i] = uint64(len(p.Ledger.Entries) + len(facts))
	}
	if err := p.record(facts); err != nil {
		return nil, err
	}
	if err := m.write(jobs, sealed); err != nil {
		return nil, err
	}
	rows := make([]bundle.Row, len(jobs))
	for i, j := range jobs {
		rows[i] = m.list(j, indexes[i], sha256.Sum256(sealed[i]))
	}
	return rows, nil
}

// seal extracts the key of a job and seals its bundle.
func (p *PKG) seal(j *job) (Fact, []byte, error) {
	id := j.bundle.Identity
	key, err := p.authority.Extract(id)
	if err != nil {
		return Fact{}, nil, err
	}
	b := j.bundle
	b.Key = key
	sealed, payload, err := bundle.Seal(&b, p.authority, j.recipient)
	key.Destroy()
	if err != nil {
		return Fact{}, nil, err
	}
	recipient := Hash(j.recipient.Hash())
	return Fact{
		Type: typeIssue, Identity: &id, Payload: &payload, Recipient: &recipient,
		Address: b.Address, Labels: j.labels, Names: b.Names,
	}, sealed, nil
}

// same reports whether an entry records this fact already; whether it was done
// in a lab does not matter.
func (e Entry) same(f Fact) bool {
	return *e.Identity == *f.Identity && *e.Payload == *f.Payload && *e.Recipient == *f.Recipient &&
		e.Address == f.Address && maps.Equal(e.Labels, f.Labels) && slices.Equal(e.Names, f.Names)
}
