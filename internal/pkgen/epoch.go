package pkgen

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// ParamsDir holds, of every epoch but the present one, the parameters
// (e<epoch>.json) and the statement that leads on from them
// (e<epoch>.next.json). All of it is in the ledger too.
const ParamsDir = "params"

// nextMasterFile is the sealed master secret of an epoch that is being begun.
const nextMasterFile = "master.next.age"

// EpochOptions are the choices of NewEpoch.
type EpochOptions struct {
	Passphrase []byte // that the new master secret is sealed to; nil with Shares
	// Shares: the new master secret is shared out, to the same or other holders.
	// One that was in shares becomes no other.
	Shares *SharesOptions
	Lab    bool // the machine is not air-gapped: recorded in the ledger
}

// NewEpoch begins a new epoch: it draws a master secret, states with the
// present one that the new parameters follow, records that in the ledger, and
// overwrites the present master secret. From the ledger's entry on the new
// epoch has begun: before it an interrupted run has changed nothing that
// counts, after it the next run that opens the PKG, or FinishEpoch, completes it.
//
// The old secret is not kept. Nothing is ever issued again in an earlier epoch:
// a device that is left behind is sealed a bundle of the present one, which
// carries the statements that lead there.
func (p *PKG) NewEpoch(o EpochOptions) error {
	if _, shared := p.Ledger.Sharing(); shared && o.Shares == nil {
		return fmt.Errorf("new epoch: %w", ErrShared)
	}
	next, err := ibc.Setup(p.Random, p.Params().Epoch()+1)
	if err != nil {
		return fmt.Errorf("make the master secret: %w", err)
	}
	successor := whole{next}
	if err := p.begin(successor, o); err != nil {
		successor.Destroy()
		return err
	}
	p.authority.Destroy()
	p.authority = successor
	_, err = p.finishEpoch()
	return err
}

// begin makes the next master secret durable, and then the fact that its epoch
// has begun. The last head that the present secret signs covers that fact.
func (p *PKG) begin(next whole, o EpochOptions) error {
	document, err := ibc.EpochDocument(next.Params())
	if err != nil {
		return err
	}
	statement, err := p.authority.Sign(ibc.KindEpoch, document)
	if err != nil {
		return err
	}
	fact := Fact{Type: typeEpoch}
	if o.Shares != nil {
		last, _ := p.Ledger.Sharing()
		d, err := p.deal(next.MasterSecret, last.Serial+1, *o.Shares)
		if err != nil {
			return err
		}
		if err := d.write(p.Config); err != nil {
			return err
		}
		fact = sharingFact(typeEpoch, d.sharing, last)
	} else if err := p.sealNext(next, o.Passphrase); err != nil {
		return err
	}
	fact.Lab, fact.Params, fact.Statement = o.Lab, next.Params(), hex.EncodeToString(statement)
	return p.record([]Fact{fact})
}

// sealNext makes the next master secret durable beside the present one.
func (c Config) sealNext(next whole, passphrase []byte) error {
	plain := encodeMaster(next.MasterSecret)
	defer clear(plain)
	sealed, err := seal(plain, passphrase, c.WorkFactor)
	if err != nil {
		return fmt.Errorf("seal the master secret: %w", err)
	}
	// What cannot be opened again must not replace what can.
	again, err := unseal(sealed, passphrase)
	if err != nil {
		return fmt.Errorf("open the sealed master secret again: %w", err)
	}
	same := bytes.Equal(again, plain)
	clear(again)
	if !same {
		return errors.New("the sealed master secret does not open again")
	}
	file := c.path(nextMasterFile)
	if err := c.Files.WriteDurable(file, sealed, keyfile.SecretPerm); err != nil {
		return err
	}
	return keyfile.ReadBack(file, sealed)
}

// FinishEpoch completes a NewEpoch that was interrupted, without any
// secret, and returns the ledger. finished reports whether there was one.
func FinishEpoch(c Config) (ledger *Ledger, finished bool, err error) {
	unlock, err := c.lock()
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if finished, err = c.finishEpoch(); err != nil {
		return nil, false, err
	}
	ledger, err = ReadPublic(c.Dir)
	return ledger, finished, err
}

// finishEpoch brings the directory to where its ledger is, as whoever holds
// the lock: the next master secret in its place, the one before overwritten,
// params.json last. One whose epoch did not begin is overwritten.
func (c Config) finishEpoch() (finished bool, err error) {
	present, err := ReadParams(c.path(ParamsFile))
	if err != nil {
		return false, err
	}
	next, err := keyfile.ReadSecret(c.path(nextMasterFile), maxSmallFile)
	waits := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	ledger, err := ReadLedger(c.path(LedgerFile), present)
	if err != nil {
		return false, err
	}
	if finished = !ledger.Params.Equal(present); finished {
		if waits {
			if err := c.replaceMaster(next); err != nil {
				return false, err
			}
		}
		// A secret in shares: their description, and what was in one piece before.
		if _, shared := ledger.Sharing(); shared {
			if err := (&PKG{Config: c, Ledger: ledger}).settleSharing(); err != nil {
				return false, err
			}
		}
		if err := c.writeParams(ledger); err != nil {
			return false, err
		}
	}
	return finished, c.Files.Wipe(c.path(nextMasterFile))
}

// replaceMaster overwrites the master secret before and puts the next in its
// place.
func (c Config) replaceMaster(next []byte) error {
	file := c.path(MasterFile)
	before, err := keyfile.ReadSecret(file, maxSmallFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if bytes.Equal(before, next) {
		return nil
	}
	if err := c.Files.Wipe(file); err != nil {
		return err
	}
	if err := c.Files.WriteDurable(file, next, keyfile.SecretPerm); err != nil {
		return err
	}
	return keyfile.ReadBack(file, next)
}

// writeParams writes what is public of the epochs: those before, with the
// statements that lead on, and params.json.
func (c Config) writeParams(l *Ledger) error {
	if err := c.Files.EnsureDir(c.path(ParamsDir)); err != nil {
		return err
	}
	if err := c.Files.Sweep(c.path(ParamsDir)); err != nil {
		return err
	}
	from := l.Epochs()
	for i, s := range l.chain {
		statement, err := bundle.MarshalSuccession(from[i], s)
		if err == nil {
			err = c.Files.WriteDurable(c.path(StatementFile(from[i].Epoch())), statement, keyfile.PublicPerm)
		}
		if err == nil {
			err = c.writeParamsFile(filepath.Join(ParamsDir, fmt.Sprintf("e%d.json", from[i].Epoch())), from[i])
		}
		if err != nil {
			return err
		}
	}
	return c.writeParamsFile(ParamsFile, l.Params)
}

// StatementFile names, in a PKG's directory, the statement that leads on from
// an epoch.
func StatementFile(epoch uint32) string {
	return filepath.Join(ParamsDir, fmt.Sprintf("e%d.next.json", epoch))
}

func (c Config) writeParamsFile(name string, params *ibc.Params) error {
	data, err := json.MarshalIndent(params, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if err := c.Files.WriteDurable(c.path(name), data, keyfile.PublicPerm); err != nil {
		return err
	}
	return keyfile.ReadBack(c.path(name), data)
}

// checkEpoch applies the rules of epochs: one follows the other, and the
// master secret before says so.
func (l *Ledger) checkEpoch(f Fact) error {
	if f.Params == nil {
		return fmt.Errorf("%w: an epoch entry without parameters", hashlog.ErrFormat)
	}
	statement, err := hex.DecodeString(f.Statement)
	if err != nil {
		return fmt.Errorf("%w: statement: %w", hashlog.ErrFormat, err)
	}
	if f.Params.Epoch() != l.Params.Epoch()+1 {
		return fmt.Errorf("%w: epoch %d follows epoch %d", hashlog.ErrFormat, f.Params.Epoch(), l.Params.Epoch())
	}
	if f.Sharing != nil && f.Recovered == 0 {
		if err := l.checkShares(f); err != nil {
			return err
		}
	}
	return l.Params.Follow([]ibc.Succession{{Params: f.Params, Statement: statement}}, f.Params)
}

// Epochs returns the parameters of all epochs, the present one last.
func (l *Ledger) Epochs() []*ibc.Params {
	if len(l.Entries) == 0 {
		return nil
	}
	all := []*ibc.Params{l.Entries[0].Params}
	for _, s := range l.chain {
		all = append(all, s.Params)
	}
	return all
}

// Succession returns the statements that lead from earlier epochs to the present one: as
// many as a bundle carries, the latest.
func (l *Ledger) Succession() []ibc.Succession {
	return l.chain[max(0, len(l.chain)-bundle.MaxEpochs):]
}

// has reports whether the ledger has an epoch with these parameters.
func (l *Ledger) has(params *ibc.Params) bool { return slices.ContainsFunc(l.Epochs(), params.Equal) }

// verifyEpochs checks that a directory is where its ledger is, see NewEpoch.
func (c Config) verifyEpochs(l *Ledger) error {
	present, err := ReadParams(c.path(ParamsFile))
	if err != nil {
		return err
	}
	if _, err := os.Lstat(c.path(nextMasterFile)); err == nil || !present.Equal(l.Params) {
		return fmt.Errorf("%s: %w", c.Dir, ErrEpochUnfinished)
	}
	from := l.Epochs()
	for i, s := range l.chain {
		path := c.path(StatementFile(from[i].Epoch()))
		data, err := keyfile.Read(path, bundle.MaxSuccession)
		if err != nil {
			return err
		}
		before, next, err := bundle.ParseSuccession(data)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !before.Equal(from[i]) || !next.Params.Equal(s.Params) {
			return fmt.Errorf("%s: %w: the ledger records another epoch", path, ErrForeign)
		}
		path = c.path(filepath.Join(ParamsDir, fmt.Sprintf("e%d.json", from[i].Epoch())))
		if before, err = ReadParams(path); err != nil {
			return err
		}
		if !before.Equal(from[i]) {
			return fmt.Errorf("%s: %w: the ledger records other parameters", path, ErrForeign)
		}
	}
	return nil
}
