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
// completed. A run of more than a chunk notes on the medium what is durable
// there, and no key is extracted again for that.
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
	p.Ledger.expect(len(jobs))
	if len(jobs) > chunk && p.foreseen == nil {
		if m.progress, err = p.openProgress(m); err != nil {
			return nil, err
		}
	}
	rows, fresh := make([]bundle.Row, 0, len(jobs)), 0
	for len(rows) < len(jobs) && !ended(ctx) {
		next := jobs[len(rows):min(len(rows)+p.group(len(jobs)), len(jobs))]
		done, err := p.issueGroup(ctx, m, next, o, func(b *made) {
			rows = append(rows, m.list(b, p.foreseen == nil))
			if b.signed != nil {
				fresh++
			}
			if o.Progress != nil {
				o.Progress(len(rows), len(jobs), fresh)
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
	other, err := m.strangers()
	if err != nil {
		return nil, err
	}
	if other != "" {
		p.Warn(other + "; issue its name again")
	}
	if len(rows) == len(jobs) {
		if err := m.progress.end(); err != nil {
			return nil, err
		}
	}
	issued := &Issued{Rows: rows, Ledger: p.Ledger.Head()}
	issued.PINs = make([]pin.PIN, len(rows))
	for i := range rows {
		issued.PINs[i] = jobs[i].pin
	}
	if len(rows) < len(jobs) {
		return issued, fmt.Errorf("interrupted after %d of %d bundles: %w", len(rows), len(jobs), ctx.Err())
	}
	return issued, nil
}

// issueGroup issues what one head of the ledger records, and reports whether
// all of it is on the medium. each is told of every bundle.
func (p *PKG) issueGroup(ctx context.Context, m *medium, jobs []job, o IssueOptions, each func(*made)) (bool, error) {
	made, err := p.enter(m, jobs, o.Lab)
	if err != nil {
		return false, err
	}
	for from := 0; from < len(jobs); from += chunk {
		to := min(from+chunk, len(jobs))
		if err := p.writeBundles(m, made[from:to]); err != nil {
			return false, err
		}
		for i := range made[from:to] {
			each(&made[from+i])
		}
		if to < len(jobs) && ended(ctx) {
			return false, nil
		}
	}
	return true, nil
}

// ended reports that a run shall stop: no error, what is done by then counts.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

// made is a bundle on its way to the medium.
type made struct {
	job       *job
	publicKey string         // of its identity, in hex
	signed    *bundle.Signed // nil: it is on the medium already
	written   written
}

// enter signs the bundles of jobs and records them in the ledger. What a run
// that was cut has brought to the medium is left as it is.
func (p *PKG) enter(m *medium, jobs []job, lab bool) ([]made, error) {
	out := make([]made, len(jobs))
	err := p.onAllCores(len(jobs), func(i int) error {
		j := &jobs[i]
		out[i] = made{job: j, publicKey: publicKey(j.identity)}
		w, done, err := p.onMedium(m, j)
		if err == nil && !done {
			w = written{File: j.file}
			out[i].signed, err = bundle.Sign(j.bundle(), p.authority, j.recipient)
		}
		out[i].written = w
		return err
	})
	if err != nil {
		return nil, err
	}
	var facts []Fact
	for i := range out {
		b := &out[i]
		if b.signed == nil {
			continue
		}
		payload := b.signed.Hash // a copy: the ledger does not keep what was signed
		fact := factOf(b.job, &payload)
		if last, ok := p.Ledger.Latest(subject(*fact.Identity)); ok && last.same(fact) && p.counts(last) {
			b.written.Index = last.Index
			continue
		}
		fact.Lab = lab
		facts = append(facts, fact)
		b.written.Index = uint64(len(p.Ledger.Entries) + len(facts))
	}
	return out, p.record(facts)
}

// writeBundles extracts the keys of bundles, seals them and writes them to the
// medium. It fills in the hashes of the files.
func (p *PKG) writeBundles(m *medium, bundles []made) error {
	if p.proposing() {
		return nil // there are no keys yet
	}
	sealed := make([][]byte, len(bundles))
	err := p.onAllCores(len(bundles), func(i int) error {
		b := &bundles[i]
		if b.signed == nil {
			return nil
		}
		key, err := p.authority.Extract(b.job.identity)
		if err != nil {
			return err
		}
		sealed[i], err = b.signed.Seal(key)
		key.Destroy()
		b.written.SHA256 = sha256.Sum256(sealed[i])
		return err
	})
	if err != nil {
		return err
	}
	return m.write(bundles, sealed)
}

// same reports whether an entry records this fact already; whether it was done
// in a lab does not matter.
func (e Entry) same(f Fact) bool {
	return *e.Identity == *f.Identity && *e.Payload == *f.Payload && *e.Recipient == *f.Recipient &&
		e.Address == f.Address && maps.Equal(e.Labels, f.Labels) && slices.Equal(e.Names, f.Names)
}
