package pkgen

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// openForeseen opens a PKG in shares without any secret, for a run that is
// foreseen as of a time. seed is that of what the run derives.
func openForeseen(c Config, now time.Time, seed []byte) (*PKG, *custody.Sharing, error) {
	var sharing *custody.Sharing
	c.Now = func() time.Time { return now }
	p, err := c.openWith(func(ledger *Ledger) (authority, error) {
		var err error
		if sharing, err = ReadSharing(c.Dir, ledger); err != nil {
			return nil, err
		}
		return &proposal{seeded: seeded{seed}, params: ledger.Params}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	if err := p.settleSharing(); err != nil {
		return nil, nil, errors.Join(err, p.Close())
	}
	p.foreseen = &foreseen{after: p.Ledger.Head().Index}
	return p, sharing, nil
}

// propose goes through a task without doing it and returns what it would sign.
// The PKG's view of its ledger is that behind it.
func (p *PKG) propose(ctx context.Context, t Task) ([]Statement, error) {
	seen := *p
	seen.Files = keyfile.Discard()
	seen.Warn = func(string) {}
	if _, err := t.run(ctx, &seen); err != nil {
		return nil, err
	}
	return seen.authority.(*proposal).statements, nil
}

// Ended is called when a proposed run has come to its end, with the head that
// the ledger would have: it returns the lines of the run's transcript and the
// document of their head, which the holders sign too.
type Ended func(ledger bundle.LedgerHead) (lines, document []byte, err error)

// MakeBatch goes through a task without doing it: nothing is recorded, and
// nothing is written to the medium. It returns the file of the batch, for the
// holders of shares, and keeps in the PKG's directory what Combine will need. It
// needs no secret. ended may be nil: no transcript is to be signed.
func MakeBatch(ctx context.Context, c Config, t Task, ended Ended) (file []byte, b *Batch, err error) {
	identity, to, seed, err := draw(c.Random)
	if err != nil {
		return nil, nil, err
	}
	task := &pendingTask{Task: t, time: c.Now().UTC(), identity: identity, seed: seed}
	defer task.destroy()
	p, sharing, err := openForeseen(c, task.time, seed)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	b = &Batch{Params: p.Params(), Sharing: sharing.ID(), Time: task.time, Recipient: to}
	if b.Ledger, err = committed(p.path(LedgerFile), p.Ledger.Log); err != nil {
		return nil, nil, err
	}
	task.after = p.Ledger.Head()
	if c.Transcript != nil {
		id := c.Transcript.ID()
		task.run = &id
	}
	if b.Statements, err = p.propose(ctx, t); err != nil {
		return nil, nil, err
	}
	b.Lines = p.foreseen.lines
	if ended != nil {
		lines, document, err := ended(p.Ledger.Head())
		if err != nil {
			return nil, nil, err
		}
		b.Transcript = lines
		b.Statements = append(b.Statements, Statement{Kind: ibc.KindTranscript, Document: document})
	}
	if file, err = b.marshal(); err != nil {
		return nil, nil, err
	}
	// What the holders would refuse is not carried to them.
	if _, err := b.Review(sharing); err != nil {
		return nil, nil, err
	}
	task.batch = b.id
	return file, b, p.writeTask(task)
}

// CombineOptions are what Combine is told beside the batch.
type CombineOptions struct {
	Medium        string
	Passphrase    []byte // of the bundles, the one that the batch was made with; nil: none
	Progress      func(done, total, made int)
	Contributions []SealedContribution
	// Finish is called when all is on the medium, before what the batch was kept
	// by is wiped, to write what only it makes: PINs, and the signature of the
	// proposed run's transcript (by its ID; nil: there is none). It may be nil, and
	// be called again after a cut.
	Finish func(done Done, transcript *Hash, sign func(document []byte) ([]byte, error)) error
}

// SealedContribution is what came from a holder.
type SealedContribution struct {
	Name   string // of the file, for errors
	Sealed []byte
}

// Combined is what a batch came to.
type Combined struct {
	Done
	Holders []string // whose contributions were used
	Refused []error  // contributions that do not hold; enough others did
	Already bool     // it was combined before, nothing was done
}

// Combine makes the keys and statements of a batch of the contributions of
// enough holders and does what the batch is about. The master secret is nowhere,
// at no time. A contribution that does not hold is named, and does no harm if
// there are enough others. An interrupted run is completed by running it again.
//
// Errors wrap ErrMoved, custody.ErrTooFew, and of each contribution that does
// not hold what is wrong with it (*ibc.PartialError, ErrOtherBatch,
// custody.ErrSharing, custody.ErrTwice, those of bundle.Opener.Unseal).
func Combine(ctx context.Context, c Config, file []byte, o CombineOptions) (done *Combined, err error) {
	b, err := ParseBatch(file)
	if err != nil {
		return nil, err
	}
	task, taskErr := c.readTask(b.id)
	if taskErr != nil {
		task = &pendingTask{time: b.Time, seed: make([]byte, seedSize)}
	}
	defer task.destroy()
	c.Transcript = task.as(c.Transcript)
	p, sharing, err := openForeseen(c, task.time, task.seed)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	r, err := b.Review(sharing)
	if err != nil {
		return nil, errors.Join(moved(err), taskErr)
	}
	if taskErr != nil {
		return p.combinedBefore(r, taskErr)
	}
	if err := p.mayCombine(ctx, r, task, o); err != nil {
		return nil, err
	}
	opener, _, err := bundle.ParseOpener(task.identity)
	if err != nil {
		return nil, err
	}
	made, done, err := combine(c, b, sharing, opener, o.Contributions)
	if err != nil {
		return nil, err
	}
	p.authority = contributed{seeded{task.seed}, p.Params(), made}
	if done.Done, err = task.on(o).run(ctx, p); err != nil {
		return done, err
	}
	if o.Finish != nil {
		if err := o.Finish(done.Done, task.run, p.SignTranscript); err != nil {
			return done, err
		}
	}
	return done, p.wipeTasks(b.id)
}

// namedAs is the transcript of a run that does what another proposed: the
// ledger's entries name that one.
type namedAs struct {
	id Hash
	to Transcript // nil: nobody is told
}

// ID implements Transcript.
func (n namedAs) ID() Hash { return n.id }

// Recorded implements Transcript.
func (n namedAs) Recorded(entries []Entry, head bundle.LedgerHead) error {
	if n.to == nil {
		return nil
	}
	return n.to.Recorded(entries, head)
}

// as returns the transcript of a run for what a task proposed.
func (t *pendingTask) as(own Transcript) Transcript {
	if t.run == nil {
		return nil
	}
	return namedAs{*t.run, own}
}

// moved marks the reasons for which a batch that was right once is not any more.
func moved(err error) error {
	if errors.Is(err, custody.ErrSharing) {
		return fmt.Errorf("%w: %w", ErrMoved, err)
	}
	return err
}

// combinedBefore is for a batch of which nothing is kept.
func (p *PKG) combinedBefore(r *Review, reason error) (*Combined, error) {
	if r.After != r.Before && p.Ledger.Covers(r.After) == nil {
		return &Combined{Already: true}, p.wipeTasks(r.Batch.id)
	}
	if errors.Is(reason, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s knows no batch %s: it was changed, made elsewhere, or made of an earlier state of the ledger", ErrMoved, p.path(BatchesDir), r.Batch.id)
	}
	return nil, reason
}

// mayCombine goes through the task without doing it: it has to come to the
// statements of the batch and no others.
func (p *PKG) mayCombine(ctx context.Context, r *Review, t *pendingTask, o CombineOptions) error {
	head := p.Ledger.Head()
	if head != r.Before && head != r.After {
		return fmt.Errorf("%w: the ledger is at %d:%s, the batch was made of %d:%s", ErrMoved, head.Index, head.Hash, r.Before.Index, r.Before.Hash)
	}
	p.foreseen.after = r.Before.Index
	// What is gone through changes the view of the ledger.
	seen := *p
	ledger, err := ReadPublic(p.Dir)
	if err != nil {
		return err
	}
	seen.Ledger, seen.foreseen, seen.Transcript = ledger, &foreseen{after: r.Before.Index}, t.as(nil)
	o.Progress = nil
	statements, err := seen.propose(ctx, t.on(o))
	if err != nil {
		return err
	}
	known := map[Hash]bool{}
	for _, s := range r.Batch.Statements {
		known[s.hash()] = true
	}
	for _, s := range statements {
		switch {
		case known[s.hash()]:
		case s.Kind == ibc.KindManifest:
			return fmt.Errorf("%w: the medium is not as it was: its manifest would be another", ErrMoved)
		default:
			return fmt.Errorf("%w: a statement of kind %s would be another (was a passphrase mistyped?)", ErrMoved, s.Kind)
		}
	}
	return nil
}

func (s Statement) hash() Hash {
	return sha256.Sum256(slices.Concat([]byte(s.Kind), []byte{0}, s.Document))
}

// combine opens and checks contributions and makes keys and statements of them.
func combine(c Config, b *Batch, sharing *custody.Sharing, opener bundle.Opener, sealed []SealedContribution) (*ibc.Made, *Combined, error) {
	w, err := b.work(sharing.Commitments())
	if err != nil {
		return nil, nil, err
	}
	done := &Combined{}
	var checked []*ibc.Checked
	from := map[int]string{}
	for _, s := range sealed {
		x, err := openContribution(s.Sealed, opener, b, sharing)
		if first, twice := from[x.Index]; err == nil && twice {
			err = fmt.Errorf("%w: share %d of %s, as in %s", custody.ErrTwice, x.Index, sharing.Holder(x.Index), first)
		}
		var ok *ibc.Checked
		if err == nil {
			ok, err = w.Check(c.Random, x)
		}
		clear(x.Points)
		if err != nil {
			done.Refused = append(done.Refused, fmt.Errorf("%s: %w", s.Name, withHolder(err, sharing)))
			continue
		}
		from[x.Index] = s.Name
		checked = append(checked, ok)
		done.Holders = append(done.Holders, sharing.Holder(x.Index))
	}
	if missing := sharing.Threshold() - len(checked); missing > 0 {
		others := slices.DeleteFunc(sharing.Holders(), func(name string) bool { return slices.Contains(done.Holders, name) })
		few := fmt.Errorf("%w: %d of the %d that are needed hold; %d more, of %s", custody.ErrTooFew,
			len(checked), sharing.Threshold(), missing, strings.Join(others, ", "))
		return nil, nil, errors.Join(append([]error{few}, done.Refused...)...)
	}
	made, err := w.Combine(checked)
	return made, done, err
}

// withHolder names the holder beside the number of a share.
func withHolder(err error, sharing *custody.Sharing) error {
	var partial *ibc.PartialError
	if errors.As(err, &partial) {
		return fmt.Errorf("%s: %w", sharing.Holder(partial.Index), err)
	}
	return err
}

// BatchHasPINs reports whether Combine will come to PINs. A batch of which
// nothing is kept any more has none.
func BatchHasPINs(c Config, file []byte) (bool, error) {
	task, err := c.readTask(sha256.Sum256(file))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, bundle.ErrFormat) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer task.destroy()
	return task.Issue != nil && task.Issue.Options.PINs, nil
}
