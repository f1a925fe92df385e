package pkgen

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Review is a batch that was read, all of it: what a holder is shown before he
// contributes. It is built from the documents that will be signed, and each of
// them agrees with the ledger's new entries and with the rules of issuing. So
// there are no words in a batch that could say something else than what is
// signed.
type Review struct {
	Batch      *Batch
	Before     bundle.LedgerHead
	After      bundle.LedgerHead // when the batch is done; as before if it adds nothing
	Keys       []ReviewedKey
	Anchors    []*bundle.AnchorSet
	Manifest   *bundle.Manifest // nil: none is signed
	Transcript []string         // the sentences of the run that made the batch

	sharing   *custody.Sharing
	ledger    *Ledger              // with the new entries
	keys      map[ibc.Identity]int // index of Keys
	added     []Entry
	connected bool
	seen      seen // what the holder remembers
}

// ReviewedKey is a private key that will be made, and the bundle that it goes
// into.
type ReviewedKey struct {
	Identity ibc.Identity
	Bundle   *bundle.Bundle
	Labels   map[string]string
	Index    uint64 // of the ledger entry that will record it
	Last     *Entry // the name's latest issue before; nil: its first
}

// Connected reports whether the batch was made on a machine that was not
// air-gapped.
func (r *Review) Connected() bool { return r.connected }

// Lab reports whether the PKG was made on one.
func (r *Review) Lab() bool { return r.ledger.Lab() }

// Review reads a batch as one whom a share of a sharing belongs to. What cannot
// be read, or does not agree with the rest, is refused: errors wrap
// ErrUnreadable, ErrForeign, custody.ErrSharing, those of reading a ledger
// (hashlog.LineError) or of the rules of issuing.
func (b *Batch) Review(sharing *custody.Sharing) (*Review, error) {
	r := &Review{Batch: b, sharing: sharing, keys: map[ibc.Identity]int{}}
	for _, step := range []func() error{r.checkParty, r.readLedger, r.readStatements, r.checkEntries, r.checkManifest} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("batch: %w", err)
		}
	}
	return r, nil
}

func (r *Review) checkParty() error {
	b, params := r.Batch, r.sharing.Params()
	if !b.Params.Equal(params) {
		return fmt.Errorf("%w: its params_id is %x in epoch %d, that of the shares %x in epoch %d", ErrForeign, b.Params.ID(), b.Params.Epoch(), params.ID(), params.Epoch())
	}
	if b.Sharing != r.sharing.ID() {
		return fmt.Errorf("%w: its sharing_sha256 is %s, that of these shares %s", custody.ErrSharing, b.Sharing, r.sharing.ID())
	}
	return nil
}

// readLedger reads the ledger as it is, and the entries that the batch adds, by
// the rules that hold for every ledger.
func (r *Review) readLedger() error {
	ledger, err := parseLedger(bytes.NewReader(r.Batch.Ledger), r.Batch.Params)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if !ledger.Params.Equal(r.Batch.Params) {
		return fmt.Errorf("ledger: %w: it is in epoch %d", ErrForeign, ledger.Params.Epoch())
	}
	if entry, shared := ledger.Sharing(); !shared || *entry.Sharing != r.sharing.ID() {
		return fmt.Errorf("ledger: %w: it records another sharing than these shares are of", custody.ErrSharing)
	}
	entries, head, err := ledger.Log.Extend(r.Batch.Lines)
	if err != nil {
		return fmt.Errorf("what the ledger gets: %w", err)
	}
	r.Before, r.After = ledger.Head(), bundle.LedgerHead{Index: head.Count, Hash: Hash(head.Hash)}
	for _, e := range entries {
		if err := r.addEntry(ledger, e); err != nil {
			return fmt.Errorf("what the ledger gets: %w", &hashlog.LineError{Line: e.Line, Err: err})
		}
	}
	r.ledger = ledger
	return nil
}

func (r *Review) addEntry(ledger *Ledger, e hashlog.Entry) error {
	var fact Fact
	if err := json.Unmarshal(e.Body, &fact); err != nil {
		return fmt.Errorf("%w: %w", hashlog.ErrFormat, err)
	}
	if again, err := json.Marshal(fact); err != nil || !bytes.Equal(again, e.Body) {
		return errors.Join(fmt.Errorf("%w: an entry is not as this release writes it", ErrUnreadable), err)
	}
	if fact.Type == typeIssue && fact.Identity != nil {
		key := ReviewedKey{Identity: *fact.Identity, Labels: fact.Labels, Index: e.Index}
		if last, ok := ledger.Latest(subject(key.Identity)); ok {
			key.Last = &last
		}
		if _, twice := r.keys[key.Identity]; twice {
			return fmt.Errorf("%w: %s is there twice", ErrUnreadable, key.Identity)
		}
		r.keys[key.Identity] = len(r.Keys)
		r.Keys = append(r.Keys, key)
	}
	if err := ledger.add(e); err != nil {
		return err
	}
	if !e.Time.Equal(r.Batch.Time) {
		return fmt.Errorf("%w: an entry of %s in a batch of %s", ErrUnreadable, e.Time.Format(time.RFC3339), r.Batch.Time.Format(time.RFC3339))
	}
	r.added = append(r.added, ledger.Entries[len(ledger.Entries)-1])
	r.connected = r.connected || fact.Lab
	return nil
}

// readStatements parses each document according to its kind. Whatever is no
// document of a kind that is known is refused.
func (r *Review) readStatements() error {
	seen := map[Hash]bool{}
	for i, s := range r.Batch.Statements {
		err := r.readStatement(s)
		if id := Hash(sha256.Sum256(slices.Concat([]byte(s.Kind), []byte{0}, s.Document))); seen[id] {
			err = errors.Join(err, fmt.Errorf("%w: it is there twice", ErrUnreadable))
		} else {
			seen[id] = true
		}
		if err != nil {
			return fmt.Errorf("statement %d (%.20q): %w", i+1, s.Kind, err)
		}
	}
	return nil
}

func (r *Review) readStatement(s Statement) error {
	switch s.Kind {
	case ibc.KindBundle:
		return r.readBundle(s.Document)
	case ibc.KindAnchor:
		return r.readAnchors(s.Document)
	case ibc.KindLedger:
		head := hashlog.Head{Count: r.After.Index, Hash: hashlog.Hash(r.After.Hash)}
		if r.After == r.Before || !bytes.Equal(s.Document, head.Document()) {
			return fmt.Errorf("%w: it is not the head of the ledger with the entries of the batch", ErrUnreadable)
		}
		return nil
	case ibc.KindManifest:
		if r.Manifest != nil {
			return fmt.Errorf("%w: there is another manifest", ErrUnreadable)
		}
		var err error
		r.Manifest, err = bundle.ParseManifestContent(s.Document, r.Batch.Params)
		return err
	case ibc.KindTranscript:
		return r.readTranscript(s.Document)
	}
	return fmt.Errorf("%w: this release shows no document of this kind", ErrUnreadable)
}

// readBundle finds the entry that will record a bundle: there is one for each,
// also for a key that is issued again.
func (r *Review) readBundle(document []byte) error {
	b, err := bundle.ParsePayload(document)
	if err != nil {
		return err
	}
	if !b.Params.Equal(r.Batch.Params) {
		return fmt.Errorf("%w: %s is of other parameters", ErrForeign, b.Identity)
	}
	at, ok := r.keys[b.Identity]
	if !ok {
		return fmt.Errorf("%w: the ledger gets no entry of %s", ErrUnreadable, b.Identity)
	}
	entry, key := r.ledger.Entries[r.Keys[at].Index-1], &r.Keys[at]
	if key.Bundle != nil {
		return fmt.Errorf("%w: there is another bundle of %s", ErrUnreadable, b.Identity)
	}
	if *entry.Payload != Hash(sha256.Sum256(document)) || *entry.Recipient != b.Recipient ||
		entry.Address != b.Address || !slices.Equal(entry.Names, b.Names) || !entry.listensTo(b.Peers) {
		return fmt.Errorf("%w: the ledger gets another entry of %s than its bundle", ErrUnreadable, b.Identity)
	}
	if b.RecoveryHash != r.ledger.Recovery() {
		return fmt.Errorf("%w: %s would get another recovery key", ErrForeign, b.Identity)
	}
	for _, p := range b.Peers {
		last, ok := r.ledger.Latest(bundle.Subject{Role: ibc.RoleCLM, Name: p.Name})
		switch {
		case !ok:
			return fmt.Errorf("%s: %.70q: %w", b.Identity, p.Name, ErrUnknownCLM)
		case last.Identity.Epoch != p.Epoch || last.Identity.Generation != p.Generation:
			return fmt.Errorf("%w: %s would accept %s from e%d.g%d on, its latest key is e%d.g%d", ErrUnreadable,
				b.Identity, p.Name, p.Epoch, p.Generation, last.Identity.Epoch, last.Identity.Generation)
		}
	}
	key.Bundle = b
	return nil
}

// listensTo reports whether an entry names these CLMs; entries of earlier
// releases name none.
func (e Entry) listensTo(peers []bundle.Peer) bool {
	return e.CLMs == nil || slices.EqualFunc(e.CLMs, peers, func(name string, p bundle.Peer) bool { return name == p.Name })
}

func (r *Review) readAnchors(document []byte) error {
	set, err := bundle.ParseAnchorPayload(document)
	if err != nil {
		return err
	}
	if set.ParamsID != Hash(r.Batch.Params.ID()) || set.Epoch != r.Batch.Params.Epoch() {
		return fmt.Errorf("%w: anchor statement %d is of other parameters", ErrForeign, set.Serial)
	}
	last, ok := r.ledger.LatestAnchor()
	if !ok || last.Serial != set.Serial || *last.Payload != Hash(sha256.Sum256(document)) ||
		last.Pattern != set.Pattern || !slices.Equal(last.Anchors, bundle.AnchorHashes(set.Anchors)) {
		return fmt.Errorf("%w: the ledger's latest anchor statement is another than statement %d", ErrUnreadable, set.Serial)
	}
	r.Anchors = append(r.Anchors, set)
	return nil
}

// readTranscript reads the lines behind the head of a transcript: sentences for
// people.
func (r *Review) readTranscript(document []byte) error {
	log, err := hashlog.Read(bytes.NewReader(r.Batch.Transcript), func(_, _ []byte) error {
		return errors.New("a transcript that is signed already")
	})
	if err != nil {
		return err
	}
	if open := log.Open(); len(log.Entries) > 0 || len(log.Tail()) == 0 || r.Transcript != nil ||
		open.Size != int64(len(r.Batch.Transcript)) || !bytes.Equal(document, open.Head.Document()) {
		return fmt.Errorf("%w: it is not the head of the transcript of the batch", ErrUnreadable)
	}
	for _, e := range log.Tail() {
		var fact struct {
			Text string `json:"text"`
		}
		if err := json.Unmarshal(e.Body, &fact); err != nil {
			return fmt.Errorf("%w: line %d: %w", ErrUnreadable, e.Line, err)
		}
		r.Transcript = append(r.Transcript, e.Time.Format(time.RFC3339)+" "+fact.Text)
	}
	return nil
}

// checkEntries demands that each new entry is one of a document of the batch.
func (r *Review) checkEntries() error {
	for _, k := range r.Keys {
		if k.Bundle == nil {
			return fmt.Errorf("%w: the ledger gets an entry of %s, and no bundle is signed", ErrUnreadable, k.Identity)
		}
	}
	first, _, _ := bytes.Cut(r.Batch.Transcript, []byte("\n"))
	for _, e := range r.added {
		stated := e.Type == typeAnchor && slices.ContainsFunc(r.Anchors, func(s *bundle.AnchorSet) bool { return s.Serial == e.Serial })
		if e.Type != typeIssue && !stated {
			return fmt.Errorf("%w: the ledger gets an entry %q", ErrUnreadable, e.Type)
		}
		if e.Transcript != nil && *e.Transcript != Hash(sha256.Sum256(first)) {
			return fmt.Errorf("%w: an entry names another transcript", ErrUnreadable)
		}
	}
	if signed := slices.ContainsFunc(r.Batch.Statements, func(s Statement) bool { return s.Kind == ibc.KindLedger }); signed != (len(r.added) > 0) {
		return fmt.Errorf("%w: entries of the ledger without its head", ErrUnreadable)
	}
	return nil
}

// checkManifest demands that each row of the manifest is as the ledger says, the
// new ones and those that were on the medium before.
func (r *Review) checkManifest() error {
	if r.Manifest == nil {
		return nil
	}
	if r.Manifest.Ledger != r.After {
		return fmt.Errorf("manifest: %w: it names another head of the ledger", ErrUnreadable)
	}
	listed := map[uint64]bool{}
	for i, row := range r.Manifest.Rows {
		err := r.ledger.holds(row)
		if q := row.Identity().PublicKey(); err == nil && hex.EncodeToString(q[:]) != row.PublicKey {
			err = fmt.Errorf("%w: public_key is not that of the identity", ErrMedium)
		}
		if err != nil {
			return fmt.Errorf("manifest: row %d: %s %s: %w", i+1, row.Role, row.Name, err)
		}
		listed[row.LedgerIndex] = true
	}
	for _, k := range r.Keys {
		if !listed[k.Index] {
			return fmt.Errorf("manifest: %w: it does not list %s", ErrUnreadable, k.Identity)
		}
	}
	return nil
}

// Consent is something in a batch that a holder has to agree to by itself, on
// top of the batch.
type Consent struct {
	Kind string // clm, reissue, reissues, anchor, other
	Name string // what is typed to agree
	Text string // what it means
}

// Word is how a script agrees.
func (c Consent) Word() string { return c.Kind + "=" + c.Name }

// maxReissues is how many keys that are issued again are agreed to one by one;
// more are by their number.
const maxReissues = 10

// Consents returns what in the batch needs a yes of its own.
func (r *Review) Consents() []Consent {
	var clms, again, anchors []Consent
	for _, k := range r.Keys {
		if k.Identity.Role == ibc.RoleCLM {
			clms = append(clms, Consent{"clm", k.Identity.Name, "the key of a CLM: devices do what its holder says: " + k.Identity.String()})
		}
		if k.Last != nil {
			again = append(again, Consent{"reissue", k.Identity.Name, fmt.Sprintf("%s is issued again: %s", k.Identity, k.again())})
		}
	}
	if n := len(again); n > maxReissues {
		again = []Consent{{"reissues", strconv.Itoa(n), fmt.Sprintf("%d keys are issued again; --verbose lists them", n)}}
	}
	for _, s := range r.Anchors {
		anchors = append(anchors, Consent{"anchor", strconv.FormatUint(s.Serial, 10),
			fmt.Sprintf("anchor statement %d: from now on the devices %q trust these CAs and no others", s.Serial, s.Pattern)})
	}
	if earlier, ok := r.other(); ok {
		anchors = append(anchors, Consent{"other", earlier.String()[:16],
			fmt.Sprintf("you contributed to batch %s on this state of the ledger already: if both are combined, the ledger has two histories", earlier)})
	}
	return slices.Concat(clms, again, anchors)
}

// again says how a key was issued before.
func (k ReviewedKey) again() string {
	last := k.Last
	same := "the same recipient"
	if *last.Recipient != k.Bundle.Recipient {
		same = "another recipient"
	}
	return fmt.Sprintf("before as e%d.g%d on %s (entry %d), now to %s", last.Identity.Epoch, last.Identity.Generation,
		last.Time.Format(time.DateOnly), last.Index, same)
}

// Contribute returns what the share contributes to a batch that was reviewed,
// sealed to the batch's recipient. That the holder agreed is for the caller.
func (r *Review) Contribute(x *custody.Share) ([]byte, error) {
	if x.Sharing.ID() != r.sharing.ID() {
		return nil, fmt.Errorf("%w: share %d of %s", custody.ErrSharing, x.Index(), x.Holder)
	}
	w, err := r.Batch.work(r.sharing.Commitments())
	if err != nil {
		return nil, err
	}
	return sealContribution(r.Batch, x, w)
}
