package pkgen

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Types of ledger entries.
const (
	typeInit   = "init"
	typeIssue  = "issue"
	typeAnchor = "anchor"
	typeEpoch  = "epoch"
	typeShares = "shares"

	typeLifeboat = "lifeboat"
)

// Entry is one fact of the ledger.
type Entry struct {
	Index uint64    `json:"index"`
	Time  time.Time `json:"time"`
	Fact
}

// Fact is the body of a ledger entry: an "init", which is the first and only
// one of its kind, an "issue", an "anchor", an "epoch", "shares", or a
// "lifeboat".
type Fact struct {
	Type string `json:"type"`
	// Lab: it was done on a machine that was not air-gapped.
	Lab bool `json:"lab,omitempty"`
	// Transcript: the SHA-256 of the first line of the run's transcript.
	Transcript *Hash `json:"transcript_sha256,omitempty"`

	// Of an init, and of an epoch.
	Params   *ibc.Params `json:"params,omitempty"`
	Recovery *Hash       `json:"recovery_sha256,omitempty"` // of an init; of a lifeboat: of the PKG that is left

	// Of an epoch: by the master secret before, over ibc.EpochDocument(Params).
	Statement string `json:"statement,omitempty"` // in hex

	// Of an issue, an anchor or a lifeboat: the signed part of the bundle or statement.
	Payload *Hash `json:"payload_sha256,omitempty"`

	// Of an issue.
	Identity  *ibc.Identity     `json:"identity,omitempty"`
	Recipient *Hash             `json:"recipient_sha256,omitempty"`
	Address   string            `json:"address,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Names     []fleet.Name      `json:"names,omitempty"`
	CLMs      []string          `json:"clms,omitempty"` // that a device listens to

	// Of an anchor, of a sharing and of a lifeboat.
	Serial uint64 `json:"serial,omitempty"`

	// Of an anchor.
	Pattern bundle.Pattern `json:"pattern,omitempty"`
	Anchors []Hash         `json:"anchors_sha256,omitempty"`

	// Of shares, and of an init with shares: the sharing that is in force from
	// now on (custody.Sharing.ID) and the one before; or a share of it that was
	// made again, by its number.
	Sharing   *Hash    `json:"sharing_sha256,omitempty"`
	Previous  *Hash    `json:"previous_sha256,omitempty"`
	Threshold int      `json:"threshold,omitempty"`
	Holders   []string `json:"holders,omitempty"`
	Recovered int      `json:"recovered,omitempty"`
}

// What says what an entry is about, for people.
func (e Entry) What() string {
	switch {
	case e.Recovered > 0:
		return fmt.Sprintf("share %d of sharing %s, made again", e.Recovered, e.Sharing)
	case e.Sharing != nil:
		what := fmt.Sprintf("sharing %d, %s: any %d of %s", e.Serial, e.Sharing, e.Threshold, strings.Join(e.Holders, ", "))
		if e.Params != nil {
			what = fmt.Sprintf("params_id %x; %s", e.Params.ID(), what)
		}
		return what
	case e.Identity != nil:
		return e.Identity.String()
	case e.Params != nil:
		return fmt.Sprintf("epoch %d, params_id %x", e.Params.Epoch(), e.Params.ID())
	case e.Type == typeLifeboat:
		return fmt.Sprintf("lifeboat %d from the PKG with the recovery key %s", e.Serial, e.Recovery)
	case e.Serial > 0:
		return fmt.Sprintf("statement %d for %s", e.Serial, e.Pattern)
	}
	return ""
}

// Ledger is a ledger that was read and found whole.
type Ledger struct {
	Params  *ibc.Params // of the present epoch
	Entries []Entry
	Log     *hashlog.Log
	chain   []ibc.Succession          // of epochs, from the second to the present one
	latest  map[bundle.Subject]uint64 // index of the latest issue
	anchor  uint64                    // index of the latest anchor statement; 0: none
	sharing uint64                    // index of the entry with the sharing in force; 0: none
	boat    uint64                    // index of the latest lifeboat; 0: none
	labels  fleet.Interned
}

// ReadParams reads the public parameters of a PKG's directory.
func ReadParams(path string) (*ibc.Params, error) {
	data, err := keyfile.Read(path, maxSmallFile)
	if err != nil {
		return nil, err
	}
	params := new(ibc.Params)
	if err := json.Unmarshal(data, params); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return params, nil
}

// ReadLedger reads a ledger and checks all of it under the parameters of its
// PKG, those of any of its epochs: chain, signed heads, each under the
// parameters of its time, and the rules of issuing. A line that does not hold
// is a *hashlog.LineError. What stands behind the last signed head is left
// out; Ledger.Log tells.
func ReadLedger(path string, params *ibc.Params) (*Ledger, error) {
	l, err := readLedger(path, params)
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	return l, nil
}

func readLedger(path string, params *ibc.Params) (ledger *Ledger, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxLedger {
		return nil, errors.Join(err, errors.New("not a regular file of at most 1 GiB"))
	}
	return parseLedger(f, params)
}

func parseLedger(in io.Reader, params *ibc.Params) (*Ledger, error) {
	l := &Ledger{latest: map[bundle.Subject]uint64{}}
	first := params // until the init entry says whose the first heads are
	var bad *hashlog.LineError
	log, err := hashlog.ReadSuccession(in, func(document, signature []byte) error {
		return first.VerifyStatement(ibc.KindLedger, document, signature)
	}, func(e hashlog.Entry) hashlog.Verifier {
		before := l.Params
		if bad == nil {
			if err := l.add(e); err != nil {
				bad = &hashlog.LineError{Line: e.Line, Err: err}
			}
		}
		switch {
		case l.Params == before:
			return nil
		case before == nil:
			first = l.Params
			return nil
		}
		return verifyHead(l.Params)
	})
	var head *hashlog.LineError
	if bad != nil && (err == nil || errors.As(err, &head) && bad.Line < head.Line) {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	if len(l.Entries) == 0 {
		return nil, &hashlog.LineError{Line: 1, Err: errors.New("there is no init entry")}
	}
	if !l.has(params) {
		return nil, &hashlog.LineError{Line: 1, Err: fmt.Errorf("%w: the ledger is that of params_id %x", ErrForeign, first.ID())}
	}
	l.Log = log
	return l, nil
}

func verifyHead(params *ibc.Params) hashlog.Verifier {
	return func(document, signature []byte) error {
		return params.VerifyStatement(ibc.KindLedger, document, signature)
	}
}

// add checks the next entry against those before it and adds it.
func (l *Ledger) add(e hashlog.Entry) error {
	entry := Entry{Index: e.Index, Time: e.Time}
	if err := json.Unmarshal(e.Body, &entry.Fact); err != nil {
		return fmt.Errorf("%w: %w", hashlog.ErrFormat, err)
	}
	var err error
	switch {
	case (e.Index == 1) != (entry.Type == typeInit):
		err = errors.New("the init entry is the first and only the first")
	case entry.Type == typeInit:
		err = l.checkInit(entry.Fact)
	case entry.Type == typeIssue:
		err = l.checkIssue(entry.Fact)
	case entry.Type == typeAnchor:
		err = l.checkAnchor(entry.Fact)
	case entry.Type == typeEpoch:
		err = l.checkEpoch(entry.Fact)
	case entry.Type == typeShares:
		err = l.checkShares(entry.Fact)
	case entry.Type == typeLifeboat:
		err = l.checkLifeboat(entry.Fact)
	}
	if err != nil {
		return err
	}
	if entry.Type == typeIssue {
		entry.shareText()
	}
	l.append(entry)
	return nil
}

// expect makes room for n more entries.
func (l *Ledger) expect(n int) { l.Entries = slices.Grow(l.Entries, n) }

// append adds an entry that was checked, or made here.
func (l *Ledger) append(e Entry) {
	if e.Type == typeIssue {
		l.share(&e)
	}
	l.Entries = append(l.Entries, e)
	switch e.Type {
	case typeInit:
		l.Params = e.Params
	case typeEpoch:
		statement, _ := hex.DecodeString(e.Statement) // it was checked, or made here
		l.Params = e.Params
		l.chain = append(l.chain, ibc.Succession{Params: e.Params, Statement: statement})
		l.sharing = 0 // of the secret before
	case typeIssue:
		l.latest[subject(*e.Identity)] = e.Index
	case typeAnchor:
		l.anchor = e.Index
	case typeLifeboat:
		l.boat = e.Index
	}
	if e.Sharing != nil && e.Recovered == 0 {
		l.sharing = e.Index
	}
}

func (l *Ledger) checkInit(f Fact) error {
	if f.Params == nil || f.Recovery == nil {
		return fmt.Errorf("%w: an init entry without parameters or recovery key", hashlog.ErrFormat)
	}
	if f.Sharing != nil {
		return l.checkShares(f)
	}
	return nil
}

func (l *Ledger) checkIssue(f Fact) error {
	if f.Identity == nil || f.Payload == nil || f.Recipient == nil {
		return fmt.Errorf("%w: an issue entry without identity, payload or recipient", hashlog.ErrFormat)
	}
	if f.Identity.Epoch != l.Params.Epoch() {
		return fmt.Errorf("%w: %s in epoch %d", ibc.ErrEpoch, f.Identity, l.Params.Epoch())
	}
	return l.mayIssue(*f.Identity, *f.Recipient)
}

// mayIssue applies the rules: (epoch, generation) of a name never falls, and
// one identity has one recipient.
func (l *Ledger) mayIssue(id ibc.Identity, recipient Hash) error {
	last, known := l.Latest(subject(id))
	if !known {
		return nil
	}
	switch version := id.Compare(*last.Identity); {
	case version < 0:
		return fmt.Errorf("%s %w by %s (entry %d)", id, ErrSuperseded, last.Identity, last.Index)
	case version == 0 && *last.Recipient != recipient:
		return fmt.Errorf("%s %w (entry %d)", id, ErrOtherRecipient, last.Index)
	}
	return nil
}

// Latest returns the latest issue to a subject.
func (l *Ledger) Latest(s bundle.Subject) (Entry, bool) {
	index, ok := l.latest[s]
	if !ok {
		return Entry{}, false
	}
	return l.Entries[index-1], true
}

// Recovery returns the hash of the recovery key.
func (l *Ledger) Recovery() Hash { return *l.Entries[0].Recovery }

// Lab reports whether the PKG was made on a machine that was not air-gapped.
func (l *Ledger) Lab() bool { return l.Entries[0].Lab }

// Head returns the ledger's last signed head.
func (l *Ledger) Head() bundle.LedgerHead {
	head := l.Log.State.Head
	return bundle.LedgerHead{Index: head.Count, Hash: Hash(head.Hash)}
}

// Covers reports, as an error that wraps hashlog.ErrTruncated, that the ledger
// does not contain a head known from elsewhere.
func (l *Ledger) Covers(known bundle.LedgerHead) error {
	return l.Log.Covers(hashlog.Head{Count: known.Index, Hash: hashlog.Hash(known.Hash)})
}

func subject(id ibc.Identity) bundle.Subject {
	return bundle.Subject{Role: id.Role, Name: id.Name}
}

// ReadPublic reads what needs no secret of a PKG's directory: the ledger, under
// the parameters beside it. While a new epoch is being begun these may still be
// the ones before; Ledger.Params are the present ones.
func ReadPublic(dir string) (*Ledger, error) {
	params, err := ReadParams(filepath.Join(dir, ParamsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: %w", ErrNoPKG, dir, err)
	}
	if err != nil {
		return nil, err
	}
	return ReadLedger(filepath.Join(dir, LedgerFile), params)
}
