package pkgen

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
)

// Entry is one fact of the ledger.
type Entry struct {
	Index uint64    `json:"index"`
	Time  time.Time `json:"time"`
	Fact
}

// Fact is the body of a ledger entry: an "init", which is the first and only
// one of its kind, an "issue" or an "anchor".
type Fact struct {
	Type string `json:"type"`
	// Lab: it was done on a machine that was not air-gapped.
	Lab bool `json:"lab,omitempty"`

	// Of an init.
	Params   *ibc.Params `json:"params,omitempty"`
	Recovery *Hash       `json:"recovery_sha256,omitempty"`

	// Of an issue or an anchor: the signed part of the bundle or statement.
	Payload *Hash `json:"payload_sha256,omitempty"`

	// Of an issue.
	Identity  *ibc.Identity     `json:"identity,omitempty"`
	Recipient *Hash             `json:"recipient_sha256,omitempty"`
	Address   string            `json:"address,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Names     []fleet.Name      `json:"names,omitempty"`

	// Of an anchor.
	Serial  uint64         `json:"serial,omitempty"`
	Pattern bundle.Pattern `json:"pattern,omitempty"`
	Anchors []Hash         `json:"anchors_sha256,omitempty"`
}

// Ledger is a ledger that was read and found whole.
type Ledger struct {
	Params  *ibc.Params
	Entries []Entry
	Log     *hashlog.Log
	latest  map[bundle.Subject]uint64 // index of the latest issue
	anchor  uint64                    // index of the latest anchor statement; 0: none
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
// PKG: chain, signed heads, and the rules of issuing. A line that does not hold
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
	log, err := hashlog.Read(f, func(document, signature []byte) error {
		return params.VerifyStatement(ibc.KindLedger, document, signature)
	})
	if err != nil {
		return nil, err
	}
	l := &Ledger{Params: params, Log: log, latest: map[bundle.Subject]uint64{}}
	for _, e := range log.Entries {
		if err := l.add(e); err != nil {
			return nil, &hashlog.LineError{Line: e.Line, Err: err}
		}
	}
	if len(l.Entries) == 0 {
		return nil, &hashlog.LineError{Line: 1, Err: errors.New("there is no init entry")}
	}
	return l, nil
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
	}
	if err != nil {
		return err
	}
	l.append(entry)
	return nil
}

// append adds an entry that was checked, or made here.
func (l *Ledger) append(e Entry) {
	l.Entries = append(l.Entries, e)
	switch e.Type {
	case typeIssue:
		l.latest[subject(*e.Identity)] = e.Index
	case typeAnchor:
		l.anchor = e.Index
	}
}

func (l *Ledger) checkInit(f Fact) error {
	if f.Params == nil || f.Recovery == nil {
		return fmt.Errorf("%w: an init entry without parameters or recovery key", hashlog.ErrFormat)
	}
	if f.Params.ID() != l.Params.ID() || f.Params.Epoch() != l.Params.Epoch() {
		return fmt.Errorf("%w: the ledger is that of params_id %x", ErrForeign, f.Params.ID())
	}
	return nil
}

func (l *Ledger) checkIssue(f Fact) error {
	if f.Identity == nil || f.Payload == nil || f.Recipient == nil {
		return fmt.Errorf("%w: an issue entry without identity, payload or recipient", hashlog.ErrFormat)
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
// the parameters beside it.
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
