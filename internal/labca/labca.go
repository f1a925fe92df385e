package labca

import (
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// Path is where Handler serves SCEP.
const Path = "/scep/scepca"

// Options of a lab CA. Layout and Key matter when the directory holds no CA
// yet; a CA that is there must have them unless they are empty.
type Options struct {
	Layout    Layout
	Key       KeyType
	Lifetime  time.Duration    // of certificates: 0: 24 h, else at least a minute
	Backdate  time.Duration    // how long before now they begin
	Challenge []byte           // challengePassword that CSRs must carry; nil: none
	MinRSA    int              // bits of RSA keys at least; 0: 2048
	Reissue   bool             // a repeated request gets a second certificate, as at step-ca
	Pending   int              // how often each request is answered PENDING first
	Hostile   Hostile          // how it misbehaves
	Now       func() time.Time // nil: time.Now
	Random    io.Reader        // nil: crypto/rand
	Log       *slog.Logger     // nil: none
}

// Layout is how a CA presents itself in SCEP.
type Layout string

// The layouts.
const (
	LayoutRA     Layout = "ra"     // an RSA RA decrypts requests and signs answers
	LayoutSingle Layout = "single" // the issuing CA does everything, so it is RSA
)

// KeyType is that of the root and issuing CA keys.
type KeyType string

// The key types.
const (
	KeyECDSA KeyType = "ecdsa-p256"
	KeyRSA   KeyType = "rsa-2048"
)

// MinLifetime is the shortest lifetime of a certificate.
const MinLifetime = time.Minute

const (
	defaultLifetime = 24 * time.Hour
	defaultMinRSA   = 2048
)

// ErrOptions is wrapped when the options do not fit each other or the CA in the
// directory.
var ErrOptions = errors.New("the lab CA cannot be run like that")

// File names in the directory of a CA.
const (
	fileCA     = "lab-ca.json"  // keys and certificates
	fileRoot   = "root.pem"     // the root certificate
	fileChain  = "chain.pem"    // the issuing CA's certificate
	fileIssued = "issued.jsonl" // one line per issued certificate
	fileLock   = "lock"
)

// CA is an open lab CA. It may be used by many goroutines at once.
type CA struct {
	options Options
	keys    hierarchy
	hostile atomic.Value              // Hostile
	stray   func() (hierarchy, error) // another CA of the same names, for a hostile one
	unlock  func() error

	mu           sync.Mutex // guards what follows
	transactions transactions
	index        *os.File
}

// Open opens the CA in a directory, making one if there is none. One process at
// a time has it open; for another the error wraps keyfile.ErrLocked. The caller
// closes it.
func Open(dir string, o Options) (*CA, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if !pkimessage.Configured() {
		return nil, pkimessage.ErrConfiguration
	}
	if err := keyfile.EnsureDir(dir); err != nil {
		return nil, fmt.Errorf("open lab CA: %w", err)
	}
	unlock, err := keyfile.Lock(filepath.Join(dir, fileLock))
	if err != nil {
		return nil, fmt.Errorf("open lab CA: %w", err)
	}
	ca := &CA{options: o, unlock: unlock, transactions: newTransactions()}
	ca.stray = sync.OnceValues(func() (hierarchy, error) { return newHierarchy(o.Random, LayoutRA, "") })
	if err := ca.load(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("open lab CA: %w", err), unlock())
	}
	ca.SetHostile(o.Hostile)
	return ca, nil
}

func (o *Options) complete() error {
	o.Lifetime = cmp.Or(o.Lifetime, defaultLifetime)
	o.MinRSA = cmp.Or(o.MinRSA, defaultMinRSA)
	o.Random = cmp.Or(o.Random, rand.Reader)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Lifetime < MinLifetime:
		return fmt.Errorf("%w: a lifetime of %v is shorter than %v", ErrOptions, o.Lifetime, MinLifetime)
	case o.Backdate < 0:
		return fmt.Errorf("%w: certificates cannot begin later than now", ErrOptions)
	case o.Layout != "" && o.Layout != LayoutRA && o.Layout != LayoutSingle:
		return fmt.Errorf("%w: layout %.20q is none of ra, single", ErrOptions, o.Layout)
	case o.Key != "" && o.Key != KeyECDSA && o.Key != KeyRSA:
		return fmt.Errorf("%w: key type %.20q is none of ecdsa-p256, rsa-2048", ErrOptions, o.Key)
	case o.Layout == LayoutSingle && o.Key == KeyECDSA:
		return fmt.Errorf("%w: without an RA the issuing CA's key must be RSA (RFC 8894 section 3.1)", ErrOptions)
	}
	return nil
}

// load reads or makes the hierarchy and opens the index.
func (ca *CA) load(dir string) error {
	path := filepath.Join(dir, fileCA)
	stored, err := keyfile.ReadSecret(path, maxFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if ca.keys, err = newHierarchy(ca.options.Random, ca.options.Layout, ca.options.Key); err != nil {
			return err
		}
		if stored, err = ca.keys.marshal(); err != nil {
			return err
		}
		if err = keyfile.CreateDurable(path, stored, keyfile.SecretPerm); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if ca.keys, err = parseHierarchy(stored); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	clear(stored)
	if err := ca.keys.fits(ca.options); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for name, c := range map[string]*x509.Certificate{fileRoot: ca.keys.root.certificate, fileChain: ca.keys.issuing.certificate} {
		if err := keyfile.WriteDurable(filepath.Join(dir, name), certificatePEM(c), keyfile.SecretPerm); err != nil {
			return err
		}
	}
	ca.index, err = os.OpenFile(filepath.Join(dir, fileIssued), os.O_WRONLY|os.O_APPEND|os.O_CREATE, keyfile.SecretPerm)
	return err
}

// Close closes the index and releases the directory.
func (ca *CA) Close() error {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return errors.Join(ca.index.Close(), ca.unlock())
}

// Root returns the root certificate.
func (ca *CA) Root() *x509.Certificate { return ca.keys.root.certificate }

// Issuing returns the issuing CA's certificate.
func (ca *CA) Issuing() *x509.Certificate { return ca.keys.issuing.certificate }

// RA returns the RA's certificate, nil in LayoutSingle.
func (ca *CA) RA() *x509.Certificate { return ca.keys.ra.certificate }

// SetHostile changes how the CA misbehaves from the next request on.
func (ca *CA) SetHostile(h Hostile) { ca.hostile.Store(h) }

// Handler returns the SCEP service, at Path.
func (ca *CA) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(Path, ca.serve)
	return mux
}
