package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// Config is what an Agent is made of; only Dir is needed.
type Config struct {
	Dir             string             // state directory, see the package
	Layer           Layer              // file system; nil: OS{}
	Random          io.Reader          // nil: crypto/rand
	Now             func() time.Time   // the device's clock; nil: time.Now
	Log             *slog.Logger       // nil: none
	Version         string             // of the agent, for Status
	Key             fleet.KeyAlgorithm // of a request that leaves the choice; "": ECDSA P-256
	LabAllowRSA1024 bool               // RSA-1024 keys on request, as the paper measured them
	Endpoint        string             // host:port where TLS serves the active pair, for Status; "": none is named
	KeyStores       []KeyStore         // the first makes new keys, all load theirs; nil: FileKeys
	Seal            bool               // what the device was provisioned with, if it is not sealed yet
	Reload          Reload             // after each switch of the active pair; nil: none

	// Stale reports whether Reload has to be run though nothing was switched;
	// each start asks. nil: never.
	Stale func(active Paths) bool
	// Withdraw takes back what Reload did, when the device has no active pair
	// any more; it is repeated at each start. nil: nothing.
	Withdraw func() error
	// Again says that this is no start of the agent, but one of a command beside
	// it or of the same process with another configuration: it does not count
	// against a pair that awaits its confirmation.
	Again bool
}

// Reload makes the device's services use the active pair. It is run again
// after a crash, so it may be run when nothing has changed.
type Reload func(ctx context.Context, active Paths) error

// Paths are where the active pair is found.
type Paths struct {
	Dir         string // holds the others
	Key         string // PEM: PKCS#8, or what a TPM loads in its place; OpenSSL's tpm2 provider reads that
	Certificate string // PEM
	Chain       string // PEM: the certificate and those of its issuers, without the anchor
	CA          string // PEM: the trust anchor of the enrolment
	Restored    bool   // the pair is one that was active before, so a failure changes nothing
}

// Agent is the device. It is safe for concurrent use.
type Agent struct {
	cfg    Config
	dir    store
	self   self
	peers  *peers
	unlock func() error

	// turn is held by whoever changes the state, reload hook included. It
	// guards the next four too.
	turn   chan struct{}
	held   atomic.Pointer[time.Time] // since when the turn is held; nil: it is free
	heard  time.Time                 // last word of the owner of the pending slot, or start
	timer  *time.Timer
	alarm  int // counts timers, so that one that was stopped too late is known
	closed bool

	mu sync.Mutex
	st state
}

// Open starts the agent on a provisioned directory: it takes the directory's
// lock, finishes what a crash interrupted, and counts the start if the active
// pair awaits its confirmation. Errors wrap provision.ErrNone, ErrState,
// ErrReset, keyfile.ErrLocked or keyfile.ErrPermissions; that something could not be
// finished is none of them, and is logged.
func Open(cfg Config) (*Agent, error) {
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Key == "" {
		cfg.Key = fleet.ECDSAP256
	}
	if len(cfg.KeyStores) == 0 {
		cfg.KeyStores = []KeyStore{FileKeys{Random: cfg.Random}}
	}
	a := &Agent{cfg: cfg, dir: newStore(cfg.Dir, cfg.Layer, cfg.KeyStores...), turn: make(chan struct{}, 1), heard: time.Now()}
	if err := a.checkKey(cfg.Key); err != nil {
		return nil, err
	}
	if err := a.dir.checkReset(); err != nil {
		return nil, err
	}
	// An unprovisioned directory is left as it is.
	if _, err := os.Lstat(a.dir.path(provision.IdentityFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, provision.ErrNone
	}
	if err := a.dir.files.EnsureDir(cfg.Dir); err != nil {
		return nil, err
	}
	var err error
	if a.unlock, err = keyfile.Lock(a.dir.path(lockName)); err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		return nil, errors.Join(err, a.unlock())
	}
	return a, nil
}

// load reads what the directory holds, under its lock.
func (a *Agent) load() error {
	own := a.dir.provisioned()
	if a.cfg.Seal {
		switch changed, err := own.SealFiles(); {
		case err != nil:
			return err
		case changed:
			a.cfg.Log.Info("sealed the identity")
		}
	}
	self, err := own.Load()
	if err != nil {
		return err
	}
	a.self.store(self)
	if a.peers, err = openPeers(a.dir, a.present); err != nil {
		return err
	}
	st, damage, err := loadState(a.dir)
	if err != nil {
		return err
	}
	a.st = st
	if damage != nil {
		a.cfg.Log.Error("a certificate is unreadable", "error", damage)
		a.st.LastError = clip(damage.Error())
	} else if err := a.dir.tryKey(st.Active); err != nil {
		a.cfg.Log.Error("the private key in use does not work", "error", err)
		a.st.LastError = clip(err.Error())
	}
	a.resume(a.st)
	return nil
}

// resume finishes what a crash interrupted. Failures are logged: a device that
// cannot write must still say so over the network.
func (a *Agent) resume(st state) {
	ctx := context.Background()
	if root := a.present().Lifeboat.Serial; st.Lifeboat != root {
		st = a.shed(st, root)
	}
	if err := a.dir.sweep(st); err != nil {
		a.cfg.Log.Error("sweep temporary files", "error", err)
	}
	if left, err := a.dir.expose(st); err != nil {
		a.cfg.Log.Error("expose the active pair", "error", err)
	} else if err := a.dir.tidy(st, left); err != nil {
		a.cfg.Log.Error("sweep pairs", "error", err)
	}
	if st.onTrial() && !a.cfg.Again {
		t := *st.Trial
		t.Starts++
		st.Trial = &t
		if err := a.commit(st); err != nil {
			a.cfg.Log.Error("count the start", "error", err)
		}
	}
	a.set(st)
	if err := a.keepUp(ctx); err != nil {
		a.cfg.Log.Error("resume activation", "error", err)
		a.arm(retryInterval)
	}
}

// Close stops the agent after the request in progress, hook included, and
// releases the directory.
func (a *Agent) Close() error {
	a.take()
	defer a.release()
	if a.closed {
		return nil
	}
	a.closed = true
	a.disarm()
	return a.unlock()
}

// paths returns where the active pair is found.
func (a *Agent) paths(st state) Paths {
	dir := a.dir.path(activeName)
	return Paths{
		Dir: dir, Key: dir + "/" + keyName, Certificate: dir + "/" + certName,
		Chain: dir + "/" + chainName, CA: dir + "/" + caName, Restored: st.Phase == restoring,
	}
}

// current returns the state as it was committed last.
func (a *Agent) current() state {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.st
}

func (a *Agent) set(st state) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.st = st
}

// commit makes st the state, durably, and the link follow it. If it fails, the
// disk has either state; what is repeated then finds the one that memory has,
// and a restart finishes the other.
func (a *Agent) commit(st state) error {
	if err := a.dir.writeState(st); err != nil {
		return fmt.Errorf("store state: %w", err)
	}
	a.set(st)
	left, err := a.dir.expose(st)
	if err != nil {
		return fmt.Errorf("expose the active pair: %w", err)
	}
	if err := a.dir.tidy(st, left); err != nil {
		a.cfg.Log.Warn("sweep pairs", "error", err)
	}
	return nil
}

// serve runs one request of a peer, alone.
func (a *Agent) serve(ctx context.Context, peer ibc.Identity, request func(state) error) error {
	root := a.Root()
	return a.alone(ctx, func(st state) error {
		if a.Root() != root {
			return refuse(enrol.ProblemReplaced, "this device has another root of trust now, connect again")
		}
		if st.Pending != nil && st.Pending.Owner == peer.Name {
			a.heard = time.Now()
		}
		return request(st)
	})
}

// alone does what changes the state, in turn.
func (a *Agent) alone(ctx context.Context, do func(state) error) error {
	select {
	case a.turn <- struct{}{}:
		a.holding()
	case <-ctx.Done():
		return refuse(enrol.ProblemUnavailable, "the device is busy")
	}
	defer a.release()
	if a.closed {
		return refuse(enrol.ProblemUnavailable, "the device is shutting down")
	}
	return do(a.current())
}

func (a *Agent) take() {
	a.turn <- struct{}{}
	a.holding()
}

func (a *Agent) holding() {
	now := time.Now()
	a.held.Store(&now)
}

func (a *Agent) release() {
	a.held.Store(nil)
	<-a.turn
}

// Busy returns for how long, on uptime, the agent has been at the present
// request or its hooks; 0 if it waits for one.
func (a *Agent) Busy() time.Duration {
	since := a.held.Load()
	if since == nil {
		return 0
	}
	return time.Since(*since)
}
