package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pin"
)

// Errors of FirstBoot.Run; those of bundle.Open, Provision and package pin are
// wrapped beside them.
var (
	// ErrSeveral: there is more than one bundle, or PIN file.
	ErrSeveral = errors.New("there are several, one was expected")
	// ErrNeedsPIN: the bundle is sealed to a PIN that is not beside it.
	ErrNeedsPIN = errors.New("sealed to a PIN, and there is no file pin or pin.txt beside it")
)

// Bounds of what is read from a boot partition, and the journal.
const (
	maxEntries   = 1024
	maxPINFile   = 1 << 10
	wipeName     = "first-boot.json"
	bundleSuffix = ".bundle.age"
)

// FirstBoot takes a device's identity from the boot partition of its memory
// card: a directory with one key bundle, and beside it, if it is sealed to a
// PIN, the PIN in a file pin or pin.txt.
//
// Once the identity is durable, the names of both files go into a journal in
// the state directory, the files are overwritten and removed, and the journal
// is. Whatever moment the power fails at, the next run goes on from there: a
// bundle that was not accepted yet is opened again, one that was is wiped.
type FirstBoot struct {
	Dir      string       // state directory of the agent
	From     string       // on the boot partition; need not exist
	ParamsID *bundle.Hash // of the PKG; nil: of any, on first use
	Layer    Layer        // nil: OS{}

	KeyStores []KeyStore // one may be a provision.Sealer, for what is sealed
	Seal      bool       // as ProvisionSealed
	// PIN asks for the PIN if it is not beside the bundle; nil: ErrNeedsPIN.
	PIN func() ([]byte, error)
	// Taken is told of the bundle in path once the identity is durable, before
	// anything is wiped: it may leave a receipt beside it. nil: nobody.
	Taken func(path string, b *bundle.Bundle, changed bool) error
}

// FirstBooted is what FirstBoot.Run did.
type FirstBooted struct {
	Identity ibc.Identity // of the bundle that was there; zero: there was none
	ParamsID bundle.Hash
	Changed  bool     // it was not the device's identity already
	Wiped    []string // files, also those that an earlier run had left
	// Unwiped says why something that was accepted is still on the boot
	// partition: the next run tries again.
	Unwiped error
	Untold  error // of Taken
}

// Run looks for a bundle, installs it and wipes it. That there is none is no
// error. Errors leave the bundle where it is and the device what it was.
func (f FirstBoot) Run() (done FirstBooted, err error) {
	dir := newStore(f.Dir, f.Layer, f.KeyStores...)
	if err := dir.checkReset(); err != nil {
		return done, err
	}
	pending, err := dir.readWipe()
	if err != nil {
		return done, err
	}
	found, err := f.find()
	if err != nil || found.bundle == "" && pending == nil {
		return done, err
	}
	if err := dir.files.EnsureDir(f.Dir); err != nil {
		return done, err
	}
	unlock, err := keyfile.Lock(dir.path(lockName))
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if pending != nil {
		if done.Unwiped = f.wipe(dir, *pending, &done); done.Unwiped != nil {
			return done, nil
		}
		if found, err = f.find(); err != nil || found.bundle == "" {
			return done, err
		}
	}
	return done, f.accept(dir, found, &done)
}

// onCard are the names of the files that were found in FirstBoot.From.
type onCard struct{ bundle, pin string }

func (f FirstBoot) find() (onCard, error) {
	var found onCard
	d, err := os.Open(f.From)
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return found, err
	}
	defer func() { _ = d.Close() }()
	entries, err := d.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return found, err
	}
	for _, e := range entries {
		// Other systems leave companions with a dot in front.
		name := e.Name()
		if !e.Type().IsRegular() || name[0] == '.' {
			continue
		}
		var slot *string
		switch lower := strings.ToLower(name); {
		case strings.HasSuffix(lower, bundleSuffix):
			slot = &found.bundle
		case lower == "pin", lower == "pin.txt":
			slot = &found.pin
		default:
			continue
		}
		if *slot != "" {
			return onCard{}, fmt.Errorf("%s: %s and %s: %w", f.From, *slot, name, ErrSeveral)
		}
		*slot = name
	}
	return found, nil
}

// accept installs the bundle and wipes what it came with.
func (f FirstBoot) accept(dir store, found onCard, done *FirstBooted) error {
	b, err := f.open(dir, found)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(f.From, found.bundle), err)
	}
	defer b.Key.Destroy()
	if f.ParamsID != nil {
		if err := dir.provisioned().HeldTo(b, *f.ParamsID); err != nil {
			return err
		}
	}
	changed, err := dir.install(b, f.Seal)
	if err != nil {
		return err
	}
	done.Identity, done.ParamsID, done.Changed = b.Identity, b.Params.ID(), changed
	if f.Taken != nil {
		done.Untold = f.Taken(filepath.Join(f.From, found.bundle), b, changed)
	}
	w := wipeList{Version: formatVersion, Dir: f.From, Names: []string{found.bundle}}
	if found.pin != "" {
		w.Names = append(w.Names, found.pin)
	}
	if err := dir.writeWipe(w); err != nil {
		done.Unwiped = err
		return nil
	}
	done.Unwiped = f.wipe(dir, w, done)
	return nil
}

// open opens the bundle with the device's own key, or the PIN.
func (f FirstBoot) open(dir store, found onCard) (*bundle.Bundle, error) {
	sealed, err := keyfile.Read(filepath.Join(f.From, found.bundle), bundle.MaxSize)
	if err != nil {
		return nil, err
	}
	kinds, err := bundle.SealedTo(sealed)
	if err != nil {
		return nil, err
	}
	if len(kinds) != 1 || kinds[0] != "scrypt" {
		opener, _, err := dir.provisioned().Recipient()
		if err != nil {
			return nil, err
		}
		return bundle.Open(sealed, opener)
	}
	typed, err := f.readPIN(found.pin)
	if err != nil {
		return nil, err
	}
	defer clear(typed)
	b, err := bundle.OpenTyped(sealed, typed)
	if errors.Is(err, bundle.ErrPassphrase) {
		if _, form := pin.Parse(typed); errors.Is(form, pin.ErrForm) {
			return nil, fmt.Errorf("%w: %w", err, form)
		}
	}
	return b, err
}

func (f FirstBoot) readPIN(name string) ([]byte, error) {
	switch {
	case name != "":
		typed, err := keyfile.Read(filepath.Join(f.From, name), maxPINFile)
		return bytes.TrimRight(typed, "\r\n"), err
	case f.PIN != nil:
		return f.PIN()
	}
	return nil, ErrNeedsPIN
}

// wipe wipes what the journal lists, and then the journal.
func (f FirstBoot) wipe(dir store, w wipeList, done *FirstBooted) error {
	if _, err := os.Lstat(w.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil // not mounted: another time
	}
	var errs []error
	for _, name := range w.Names {
		path := filepath.Join(w.Dir, name)
		_, before := os.Lstat(path)
		if err := dir.files.Wipe(path); err != nil {
			errs = append(errs, err)
		} else if before == nil {
			done.Wiped = append(done.Wiped, path)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return dir.files.RemoveDurable(dir.path(wipeName))
}

// wipeList is first-boot.json: what was accepted and is to be wiped.
type wipeList struct {
	Version int      `json:"version"`
	Dir     string   `json:"dir"`
	Names   []string `json:"names"`
}

func (s store) writeWipe(w wipeList) error {
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return s.files.WriteDurable(s.path(wipeName), append(data, '\n'), keyfile.SecretPerm)
}

// readWipe reads the journal; nil if there is none. Errors wrap ErrState.
func (s store) readWipe() (*wipeList, error) {
	data, err := keyfile.ReadSecret(s.path(wipeName), maxStateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w, err := parseWipe(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", wipeName, err)
	}
	return &w, nil
}

func parseWipe(data []byte) (wipeList, error) {
	var w wipeList
	if err := json.Unmarshal(data, &w); err != nil {
		return w, fmt.Errorf("%w: %w", ErrState, err)
	}
	if w.Version != formatVersion {
		return w, fmt.Errorf("%w: version %d, this release reads %d", ErrState, w.Version, formatVersion)
	}
	for _, name := range w.Names {
		// What it names is destroyed: only what find returns belongs there.
		if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
			return w, fmt.Errorf("%w: %.100q is not the name of a file", ErrState, name)
		}
	}
	return w, nil
}
