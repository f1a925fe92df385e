package pkgen

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// PKG is an open PKG: it holds what makes keys and statements, and the lock of its
// directory. It is not safe for concurrent use.
type PKG struct {
	Config
	Ledger    *Ledger
	authority authority
	foreseen  *foreseen // nil: the master secret is at hand
	unlock    func() error
}

// InitOptions are the choices that Init makes for good.
type InitOptions struct {
	Lab          bool   // the machine is not air-gapped
	RecoveryFile string // where the sealed recovery key goes; "": into the directory
	Recovery     []byte // passphrase that seals the recovery key; nil: the PKG's
	// Witness is called when everything is written, before the master secret is
	// destroyed: it signs the transcript. nil: nobody.
	Witness func(*Ledger, bundle.Signer) error
	// Shares: the master secret is shared out, and the passphrase seals the
	// recovery key alone; nil: the passphrase seals both.
	Shares *SharesOptions
	// RecoveryShares: what opens the recovery key is shared out, and neither
	// passphrase seals it. Without Shares the passphrase seals the master secret
	// alone.
	RecoveryShares *SharesOptions
}

// Init makes a PKG of epoch 1 in an empty or new directory and returns its
// ledger. The master secret, or the description of its shares, is written last:
// a directory without either is the remains of an interrupted Init and may be
// used again.
func Init(c Config, passphrase []byte, o InitOptions) (*Ledger, error) {
	if err := c.Files.EnsureDir(c.Dir); err != nil {
		return nil, err
	}
	unlock, err := keyfile.Lock(c.path(lockFile))
	if err != nil {
		return nil, err
	}
	ledger, err := c.init(passphrase, o)
	return ledger, errors.Join(err, unlock())
}

func (c Config) init(passphrase []byte, o InitOptions) (*Ledger, error) {
	if err := c.checkUnused(); err != nil {
		return nil, err
	}
	if err := c.Files.Sweep(c.Dir); err != nil {
		return nil, err
	}
	master, err := ibc.Setup(c.Random, 1)
	if err != nil {
		return nil, fmt.Errorf("make the master secret: %w", err)
	}
	defer master.Destroy()
	recovery, err := c.makeRecovery(passphrase, o)
	if err != nil {
		return nil, err
	}
	if err := recovery.writeShares(c); err != nil {
		return nil, err
	}
	fact := Fact{Type: typeInit, Lab: o.Lab, Params: master.Params(), Recovery: &recovery.hash}
	last, finish, err := c.keep(master, passphrase, o.Shares, &fact)
	if err != nil {
		return nil, err
	}
	params, err := json.MarshalIndent(master.Params(), "", "  ")
	if err != nil {
		return nil, err
	}
	ledger, err := c.firstEntry(master, fact)
	if err != nil {
		return nil, err
	}
	files := append(recovery.files,
		initFile{c.path(LedgerFile), ledger, keyfile.SecretPerm},
		initFile{c.path(ParamsFile), append(params, '\n'), keyfile.PublicPerm},
		last)
	for _, f := range files {
		if err := c.Files.WriteDurable(f.path, f.data, f.perm); err != nil {
			return nil, err
		}
		if err := keyfile.ReadBack(f.path, f.data); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(finish(), c.settleRecovery()); err != nil {
		return nil, err
	}
	read, err := ReadLedger(c.path(LedgerFile), master.Params())
	if err != nil {
		return nil, err
	}
	if err := c.tell(read, 0); err != nil {
		return nil, err
	}
	if o.Witness != nil {
		return read, o.Witness(read, master)
	}
	return read, nil
}

// Unused refuses a directory that Init would refuse, before anything else is
// written to it.
func (c Config) Unused() error { return c.checkUnused() }

type initFile struct {
	path string
	data []byte
	perm fs.FileMode
}

// keep seals the master secret, whole or in shares, whose files it writes. It
// returns the file that makes the directory a PKG, to be written last, and what
// is to be done then.
func (c Config) keep(master *ibc.MasterSecret, passphrase []byte, shares *SharesOptions, fact *Fact) (last initFile, finish func() error, err error) {
	if shares == nil {
		plain := encodeMaster(master)
		defer clear(plain)
		sealed, err := seal(plain, passphrase, c.WorkFactor)
		if err != nil {
			return last, nil, fmt.Errorf("seal the master secret: %w", err)
		}
		return initFile{c.path(MasterFile), sealed, keyfile.SecretPerm}, func() error { return nil }, sharesNote().drop(c)
	}
	d, err := c.deal(master, 1, *shares)
	if err != nil {
		return last, nil, err
	}
	of := sharingFact(typeInit, d.sharing, Entry{})
	of.Lab, of.Params, of.Recovery = fact.Lab, fact.Params, fact.Recovery
	*fact = of
	description, err := d.sharing.Marshal()
	if err != nil {
		return last, nil, err
	}
	finish = func() error { return c.Files.RemoveDurable(c.path(pendingFile)) }
	return initFile{c.path(SharesFile), description, keyfile.PublicPerm}, finish, d.write(c)
}

// checkUnused refuses a directory that holds a PKG, or a ledger that records
// more than its making: its master secret may only be missing for now.
func (c Config) checkUnused() error {
	if c.isPKG() {
		return fmt.Errorf("%w in %s", ErrExists, c.Dir)
	}
	if _, err := os.Lstat(c.path(LedgerFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ledger, err := ReadPublic(c.Dir)
	if errors.Is(err, ErrNoPKG) {
		return nil // cut between ledger and parameters
	}
	if err != nil || len(ledger.Entries) > 1 {
		return errors.Join(fmt.Errorf("%w in %s, without its %s or %s", ErrExists, c.Dir, MasterFile, SharesFile), err)
	}
	return nil
}

func (c Config) firstEntry(master *ibc.MasterSecret, fact Fact) ([]byte, error) {
	body, err := json.Marshal(c.named(fact))
	if err != nil {
		return nil, err
	}
	data, _, err := hashlog.State{}.Append(c.Now(), ledgerSigner(master), body)
	return data, err
}

func ledgerSigner(s bundle.Signer) hashlog.Signer {
	return func(document []byte) ([]byte, error) { return s.Sign(ibc.KindLedger, document) }
}

// Open opens a PKG with its passphrase, takes the lock of its directory and
// drops what an interrupted run left at the end of its ledger. The caller
// closes it. Errors wrap ErrShared if its master secret is in shares.
func Open(c Config, passphrase []byte) (*PKG, error) {
	return c.openWith(func(ledger *Ledger) (authority, error) {
		if entry, shared := ledger.Sharing(); shared {
			return nil, fmt.Errorf("%w: %d of those of %s make it", ErrShared, entry.Threshold, strings.Join(entry.Holders, ", "))
		}
		return c.openMaster(passphrase)
	})
}

// OpenShares is Open with shares that were brought together, which the PKG
// destroys when it is closed, or not opened. Errors wrap ErrWhole or those of
// custody.Together.
func OpenShares(c Config, shares []*custody.Share) (*PKG, error) {
	p, err := c.openWith(func(ledger *Ledger) (authority, error) { return c.openShares(ledger, shares) })
	if err != nil {
		for _, x := range shares {
			x.Destroy()
		}
		return nil, err
	}
	if err := p.settleSharing(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (c Config) openWith(key func(*Ledger) (authority, error)) (*PKG, error) {
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	p := &PKG{Config: c, unlock: unlock}
	if err := p.open(key); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// lock takes the lock of a PKG's directory.
func (c Config) lock() (unlock func() error, err error) {
	if _, err := os.Lstat(c.path(ParamsFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: %w", ErrNoPKG, c.Dir, err)
	}
	return keyfile.Lock(c.path(lockFile))
}

// isPKG reports whether the directory is a PKG, and not what an interrupted
// Init left.
func (c Config) isPKG() bool {
	for _, name := range []string{MasterFile, SharesFile} {
		if _, err := os.Lstat(c.path(name)); err == nil {
			return true
		}
	}
	return false
}

func (p *PKG) open(key func(*Ledger) (authority, error)) error {
	if _, err := p.finishEpoch(); err != nil {
		return err
	}
	if !p.isPKG() {
		return fmt.Errorf("%w in %s: neither %s nor %s is there", ErrNoPKG, p.Dir, MasterFile, SharesFile)
	}
	ledger, err := ReadPublic(p.Dir)
	if err != nil {
		return err
	}
	if p.authority, err = key(ledger); err != nil {
		return err
	}
	if own, params := p.authority.Params(), ledger.Params; params.ID() != own.ID() || params.Epoch() != own.Epoch() {
		return fmt.Errorf("%s: %w: it says params_id %x, the master secret's is %x", p.path(ParamsFile), ErrForeign, params.ID(), own.ID())
	}
	p.Ledger = ledger
	if err := p.Files.Sweep(p.Dir); err != nil {
		return err
	}
	if err := p.settleRecovery(); err != nil {
		return err
	}
	state := ledger.Log.State
	if state.Unfinished == 0 {
		return nil
	}
	p.Warn(fmt.Sprintf("the last run was interrupted: %d bytes at the end of the ledger record nothing that was handed out and are dropped", state.Unfinished))
	return p.Files.TruncateDurable(p.path(LedgerFile), state.Size)
}

func (c Config) openMaster(passphrase []byte) (authority, error) {
	sealed, err := keyfile.ReadSecret(c.path(MasterFile), maxSmallFile)
	if err != nil {
		return nil, err
	}
	plain, err := unseal(sealed, passphrase)
	runtime.GC() // else scrypt's 256 MiB set the heap's goal for the run
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.path(MasterFile), err)
	}
	defer clear(plain)
	master, err := decodeMaster(plain)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.path(MasterFile), err)
	}
	return whole{master}, nil
}

// Params returns the public parameters.
func (p *PKG) Params() *ibc.Params { return p.authority.Params() }

// Close destroys the master secret in memory and releases the lock.
func (p *PKG) Close() error {
	if p.authority != nil {
		p.authority.Destroy()
	}
	return p.unlock()
}

// record appends facts to the ledger, durably.
func (p *PKG) record(facts []Fact) error {
	if len(facts) == 0 {
		return nil
	}
	bodies := make([]json.RawMessage, len(facts))
	for i := range facts {
		facts[i] = p.named(facts[i])
		var err error
		if bodies[i], err = json.Marshal(facts[i]); err != nil {
			return err
		}
	}
	now := p.Now()
	data, next, err := p.Ledger.Log.State.Append(now, ledgerSigner(p.authority), bodies...)
	if err != nil {
		return err
	}
	if err := p.Files.AppendDurable(p.path(LedgerFile), data); err != nil {
		return err
	}
	if p.foreseen != nil {
		p.foreseen.note(data)
	}
	for _, f := range facts {
		p.Ledger.append(Entry{Index: uint64(len(p.Ledger.Entries)) + 1, Time: now.UTC(), Fact: f})
	}
	p.Ledger.Log.Advance(next)
	return p.tell(p.Ledger, len(p.Ledger.Entries)-len(facts))
}
