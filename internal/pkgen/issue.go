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

// chunk is how many bundles share one append to the ledger, unless all of a run
// do (PKG.group), and how many are issued twice at worst when the run is cut.
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
	if err := p.keepRecipients(jobs); err != nil {
		return nil, err
	}
	var rows []bundle.Row
	for len(rows) < len(jobs) && ctx.Err() == nil {
		next := jobs[len(rows):min(len(rows)+p.group(len(jobs)), len(jobs))]
		done, err := p.issueGroup(ctx, m, next, o, func(row bundle.Row) {
			rows = append(rows, row)
			if o.Progress != nil {
				o.Progress(len(rows), len(jobs), row)
			}
		})
		if err != nil {
			return nil, err
		}
		if !done {
			break
		}
	}
	if len(rows) == 0 || len(rows) < len(jobs) && p.foreseen != nil {
		return nil, ctx.Err() // a manifest of a part was not foreseen
	}
	if err := p.bring(m); err != nil {
		return nil, err
	}
	if err := m.finish(p.Ledger.Head(), p.authority); err != nil {
		return nil, err
	}
	if other, err := m.strangers(); err != nil {
		return nil, err
	} else if other != "" {
		p.Warn(other + "; issue its name again")
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

// issueGroup issues what one head of the ledger records, and reports whether
// all of it is on the medium. each is told of every row.
func (p *PKG) issueGroup(ctx context.Context, m *medium, jobs []job, o IssueOptions, each func(bundle.Row)) (bool, error) {
	signed, indexes, err := p.enter(jobs, o.Lab)
	if err != nil {
		return false, err
	}
	for from := 0; from < len(jobs); from += chunk {
		to := min(from+chunk, len(jobs))
		hashes, err := p.writeBundles(m, jobs[from:to], signed[from:to])
		if err != nil {
			return false, err
		}
		for i := from; i < to; i++ {
			each(m.list(jobs[i], indexes[i], hashes[i-from], p.foreseen == nil))
		}
		if to < len(jobs) && ctx.Err() != nil {
			return false, nil
		}
	}
	return true, nil
}

// enter signs the bundles of jobs and records them in the ledger. It returns
// them with the indexes of their entries.
func (p *PKG) enter(jobs []job, lab bool) ([]*bundle.Signed, []uint64, error) {
	signed := make([]*bundle.Signed, len(jobs))
	indexes := make([]uint64, len(jobs))
	var facts []Fact
	for i := range jobs {
		j := &jobs[i]
		var err error
		if signed[i], err = bundle.Sign(&j.bundle, p.authority, j.recipient); err != nil {
			return nil, nil, err
		}
		id, recipient := j.bundle.Identity, Hash(j.recipient.Hash())
		fact := Fact{
			Type: typeIssue, Identity: &id, Payload: &signed[i].Hash, Recipient: &recipient,
			Address: j.bundle.Address, Labels: j.labels, Names: j.bundle.Names, CLMs: j.clms,
		}
		if last, ok := p.Ledger.Latest(subject(id)); ok && last.same(fact) && p.counts(last) {
			indexes[i] = last.Index
			continue
		}
		fact.Lab = lab
		facts = append(facts, fact)
		indexes[i] = uint64(len(p.Ledger.Entries) + len(facts))
	}
	return signed, indexes, p.record(facts)
}

// writeBundles extracts the keys of jobs, seals their bundles and writes them to
// the medium. It returns the hashes of the files.
func (p *PKG) writeBundles(m *medium, jobs []job, signed []*bundle.Signed) ([]Hash, error) {
	hashes := make([]Hash, len(jobs))
	if p.proposing() {
		return hashes, nil // there are no keys yet
	}
	sealed := make([][]byte, len(jobs))
	for i, s := range signed {
		key, err := p.authority.Extract(jobs[i].bundle.Identity)
		if err != nil {
			return nil, err
		}
		sealed[i], err = s.Seal(key)
		key.Destroy()
		if err != nil {
			return nil, err
		}
		hashes[i] = sha256.Sum256(sealed[i])
	}
	return hashes, m.write(jobs, sealed)
}

// same reports whether an entry records this fact already; whether it was done
// in a lab does not matter.
func (e Entry) same(f Fact) bool {
	return *e.Identity == *f.Identity && *e.Payload == *f.Payload && *e.Recipient == *f.Recipient &&
		e.Address == f.Address && maps.Equal(e.Labels, f.Labels) && slices.Equal(e.Names, f.Names)
}
