package pkgen

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
)

// Errors of lifeboats; those of package lifeboat are wrapped beside them.
var (
	// ErrRecovery is wrapped when a file is no recovery key, or another one than
	// is wanted.
	ErrRecovery = errors.New("not that recovery key")
	// ErrSerial is wrapped when a recovery key has signed another statement under
	// a serial number, or a later one.
	ErrSerial = errors.New("the recovery key has signed")
)

// RecordSuffix is appended to the name of a recovery key's file: that file has a
// line for each statement that the key ever signed, public.
const RecordSuffix = ".lifeboats"

// RecoveryKey is an open recovery key.
type RecoveryKey struct {
	Hash   Hash // RecoveryHash of its public half
	key    slhdsa.PrivateKey
	record string // path
}

// OpenRecovery opens the file of a recovery key. Errors wrap ErrPassphrase or
// ErrRecovery.
func OpenRecovery(path string, passphrase []byte) (*RecoveryKey, error) {
	sealed, err := keyfile.Read(path, maxSmallFile)
	if err != nil {
		return nil, err
	}
	plain, err := unseal(sealed, passphrase)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer clear(plain)
	k := &RecoveryKey{record: path + RecordSuffix}
	if k.key, err = decodeRecovery(plain); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	public, err := k.key.PublicKey().MarshalBinary()
	if err != nil {
		return nil, err
	}
	k.Hash, err = RecoveryHash(slhdsa.ID.String(k.key.ID), public)
	return k, err
}

func decodeRecovery(plain []byte) (slhdsa.PrivateKey, error) {
	var j struct {
		Version   int             `json:"version"`
		Algorithm string          `json:"algorithm"`
		Key       json.RawMessage `json:"private_key"`
	}
	defer func() { clear(j.Key) }()
	fail := fmt.Errorf("%w: it holds none", ErrRecovery)
	if err := json.Unmarshal(plain, &j); err != nil || j.Version != 1 {
		return slhdsa.PrivateKey{}, fail
	}
	digits := bytes.Trim(j.Key, `"`)
	raw := make([]byte, hex.DecodedLen(len(digits)))
	defer clear(raw)
	id, err := slhdsa.IDByName(j.Algorithm)
	if _, hexErr := hex.Decode(raw, digits); err != nil || hexErr != nil {
		return slhdsa.PrivateKey{}, fail
	}
	key := slhdsa.PrivateKey{ID: id}
	if err := key.UnmarshalBinary(raw); err != nil {
		return slhdsa.PrivateKey{}, fail
	}
	return key, nil
}

// signedLifeboat is a line of the record.
type signedLifeboat struct {
	Serial   uint32    `json:"serial"`
	Document Hash      `json:"document_sha256"`
	ParamsID Hash      `json:"params_id"` // of the PKG to follow
	Time     time.Time `json:"time"`
}

// signedBefore reads the record. A line that was cut short by a power failure was never
// signed; it is dropped with the next one that is written.
func (k *RecoveryKey) signedBefore() (lines []signedLifeboat, whole []byte, err error) {
	data, err := keyfile.Read(k.record, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	whole = data[:bytes.LastIndexByte(data, '\n')+1]
	for line := range bytes.Lines(whole) {
		var l signedLifeboat
		if err := json.Unmarshal(line, &l); err != nil || l.Serial == 0 {
			return nil, nil, fmt.Errorf("%s: line %d does not parse", k.record, len(lines)+1)
		}
		lines = append(lines, l)
	}
	return lines, whole, nil
}

// LifeboatRequest asks for the statement by which a fleet follows this PKG.
type LifeboatRequest struct {
	Key    *RecoveryKey // of the PKG that is left
	Old    *Ledger      // of that PKG; nil: not at hand
	Serial uint32       // 0: the next one that is known
	Medium string       // the directory to write to; made if need be
	Lab    bool         // the machine is not air-gapped: recorded in the ledger
}

// Launched is what a run of Lifeboat left on the medium.
type Launched struct {
	Statement lifeboat.Statement
	Left      Hash   // the recovery key that signed
	File      string // its path
	Index     uint64 // of the ledger entry
}

// Lifeboat signs, with the recovery key of another PKG, that its fleet follows
// this one from now on. What is signed is recorded beside the recovery key
// before: under one serial number it never says two things. Then it is recorded
// in this PKG's ledger, kept in its directory, and written to the medium. To do
// it again completes an interrupted run.
func (p *PKG) Lifeboat(r LifeboatRequest) (*Launched, error) {
	if r.Key.Hash == p.Ledger.Recovery() {
		return nil, fmt.Errorf("%w: it is that of the PKG in %s itself, not of the one that is left", ErrRecovery, p.Dir)
	}
	if r.Old != nil && r.Old.Recovery() != r.Key.Hash {
		return nil, fmt.Errorf("%w: the ledger of the PKG that is left names %s, this is %s", ErrRecovery, r.Old.Recovery(), r.Key.Hash)
	}
	statement, data, err := p.launch(r)
	if err != nil {
		return nil, err
	}
	accepted, err := statement.Accepted()
	if err != nil {
		return nil, err
	}
	digest := Hash(accepted.Digest)
	last, _ := p.Ledger.LatestLifeboat()
	if last.Serial != uint64(statement.Serial) {
		fact := Fact{Type: typeLifeboat, Lab: r.Lab, Serial: uint64(statement.Serial), Payload: &digest, Recovery: &r.Key.Hash}
		if err := p.Ledger.checkLifeboat(fact); err != nil {
			return nil, err
		}
		if err := p.record([]Fact{fact}); err != nil {
			return nil, err
		}
	}
	entry, _ := p.Ledger.LatestLifeboat()
	l := &Launched{Statement: statement, Left: r.Key.Hash, Index: entry.Index, File: filepath.Join(r.Medium, lifeboat.FileName(statement.Serial))}
	if err := p.Files.EnsureDirPerm(r.Medium, mediumDirPerm); err != nil {
		return nil, err
	}
	return l, p.writeStatement(l.File, data)
}

// launch returns the statement, signed, from the PKG's directory if it was
// signed before.
func (p *PKG) launch(r LifeboatRequest) (lifeboat.Statement, []byte, error) {
	signed, whole, err := r.Key.signedBefore()
	if err != nil {
		return lifeboat.Statement{}, nil, err
	}
	s := lifeboat.Statement{Serial: r.Serial, Params: p.Ledger.Epochs()[0], Recovery: p.Ledger.Recovery()}
	of := p.boarded(r.Key.Hash)
	if s.Serial == 0 {
		s.Serial = nextSerial(signed, r.Old, of, s)
	}
	accepted, err := s.Accepted()
	if err != nil {
		return s, nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	known := false
	for _, l := range signed {
		if l.Serial == s.Serial && l.Document == accepted.Digest {
			known = true
		} else if l.Serial >= s.Serial {
			return s, nil, fmt.Errorf("%w lifeboat %d for params_id %s already: devices that have it take no other one up to that number", ErrSerial, l.Serial, l.ParamsID)
		}
	}
	if !known && s.Serial <= of {
		return s, nil, fmt.Errorf("%w: lifeboat %d brought another fleet to this PKG, and numbers rise", ErrRequest, of)
	}
	path := p.path(lifeboat.FileName(s.Serial))
	if known {
		data, err := keyfile.Read(path, lifeboat.MaxSize)
		if err == nil {
			_, err = verifyLifeboat(data, r.Key.Hash)
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return s, data, err
		}
	} else {
		line, err := json.Marshal(signedLifeboat{s.Serial, accepted.Digest, s.Params.ID(), p.Now().UTC().Truncate(time.Second)})
		if err != nil {
			return s, nil, err
		}
		whole = append(append(whole, line...), '\n')
		if err := p.Files.WriteDurable(r.Key.record, whole, keyfile.PublicPerm); err != nil {
			return s, nil, fmt.Errorf("record beside the recovery key what it signs: %w", err)
		}
	}
	boat, err := lifeboat.Sign(p.Random, &r.Key.key, s)
	if err != nil {
		return s, nil, err
	}
	data, err := boat.Marshal()
	if err != nil {
		return s, nil, err
	}
	// A fault while signing would be found out by 30,000 devices.
	if _, err := verifyLifeboat(data, r.Key.Hash); err != nil {
		return s, nil, err
	}
	return s, data, p.writeStatement(path, data)
}

// nextSerial is the number of a statement: the one that it had, or the next to
// what is known to have been signed, by this recovery key or to this PKG (last).
func nextSerial(signed []signedLifeboat, old *Ledger, last uint32, s lifeboat.Statement) uint32 {
	if old != nil {
		entry, _ := old.LatestLifeboat()
		last = max(last, uint32(entry.Serial))
	}
	for _, l := range signed {
		s.Serial = l.Serial
		if accepted, err := s.Accepted(); err == nil && accepted.Digest == l.Document && l.Serial == signed[len(signed)-1].Serial {
			return l.Serial
		}
		last = max(last, l.Serial)
	}
	return last + 1
}

// boarded returns the number of the lifeboat by which the fleet of another PKG
// than that of a recovery key came here last; 0: none did.
func (p *PKG) boarded(recovery Hash) uint32 {
	last, ok := p.Ledger.LatestLifeboat()
	if !ok || *last.Recovery == recovery {
		return 0
	}
	return uint32(last.Serial)
}

func (p *PKG) writeStatement(path string, data []byte) error {
	if err := p.Files.WriteDurable(path, data, keyfile.PublicPerm); err != nil {
		return err
	}
	return p.Files.ReadBack(path, data)
}

// bring copies the PKG's lifeboat to a medium, where its bundles are.
func (p *PKG) bring(m *medium) error {
	entry, ok := p.Ledger.LatestLifeboat()
	if !ok || p.proposing() {
		return nil
	}
	name := lifeboat.FileName(uint32(entry.Serial))
	data, err := keyfile.Read(p.path(name), lifeboat.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the run that records it was interrupted
	}
	if err != nil {
		return err
	}
	if present, err := keyfile.Read(m.path(name), lifeboat.MaxSize); err == nil && bytes.Equal(present, data) {
		return nil
	}
	return p.writeStatement(m.path(name), data)
}

func verifyLifeboat(data []byte, recovery Hash) (lifeboat.Statement, error) {
	signed, rest, err := lifeboat.Parse(data)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes behind the statement", lifeboat.ErrFormat, len(rest))
	}
	if err != nil {
		return lifeboat.Statement{}, err
	}
	return signed.Verify(recovery)
}

// VerifyLifeboat checks the file of a lifeboat statement by itself, and with the
// ledger (nil: none at hand) of either PKG: it must be signed by the recovery key
// of the one, or be recorded in the ledger of the other.
func VerifyLifeboat(path string, ledger *Ledger) (*Launched, error) {
	data, err := keyfile.Read(path, lifeboat.MaxSize)
	if err != nil {
		return nil, err
	}
	l := &Launched{File: path}
	if l.Statement, l.Left, err = claimedLifeboat(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if ledger == nil || l.Left == ledger.Recovery() {
		return l, nil
	}
	accepted, err := l.Statement.Accepted()
	if err != nil {
		return nil, err
	}
	for _, e := range ledger.Entries {
		if e.Type == typeLifeboat && e.Serial == uint64(l.Statement.Serial) && *e.Payload == Hash(accepted.Digest) && *e.Recovery == l.Left {
			l.Index = e.Index
			return l, nil
		}
	}
	return nil, fmt.Errorf("%s: %w: neither signed by the recovery key of the PKG nor recorded in its ledger", path, ErrForeign)
}

// claimedLifeboat verifies a statement under the key that it names.
func claimedLifeboat(data []byte) (lifeboat.Statement, Hash, error) {
	signed, _, err := lifeboat.Parse(data)
	if err != nil {
		return lifeboat.Statement{}, Hash{}, err
	}
	by, err := signed.KeyHash()
	if err != nil {
		return lifeboat.Statement{}, Hash{}, err
	}
	statement, err := verifyLifeboat(data, by)
	return statement, by, err
}

// LatestLifeboat returns the entry of the latest lifeboat to this PKG.
func (l *Ledger) LatestLifeboat() (Entry, bool) {
	if l.boat == 0 {
		return Entry{}, false
	}
	return l.Entries[l.boat-1], true
}

// checkLifeboat applies the rules of lifeboats: serial numbers rise.
func (l *Ledger) checkLifeboat(f Fact) error {
	if f.Payload == nil || f.Recovery == nil || f.Serial < 1 || f.Serial > lifeboat.MaxSerial {
		return fmt.Errorf("%w: a lifeboat entry without payload, recovery key or serial", hashlog.ErrFormat)
	}
	if last, _ := l.LatestLifeboat(); f.Serial <= last.Serial {
		return fmt.Errorf("%w: lifeboat %d follows lifeboat %d (entry %d)", hashlog.ErrFormat, f.Serial, last.Serial, last.Index)
	}
	return nil
}
