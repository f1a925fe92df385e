package clmctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/scep"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/oslock"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
	"github.com/edgeclm/edgeclm/internal/tlsprobe"
)

// inventory is what the commands need of the store beside the core's part.
type inventory interface {
	enrol.Store
	enrol.DeliveryStore
	enrol.SightingStore
	enrol.HealthStore
	enrol.Planner
	records
	PutDevices(ctx context.Context, d store.Delivery) (store.Counts, error)
	ListDevices(ctx context.Context, f store.Filter) iter.Seq2[fleet.Device, error]
	NextDue(ctx context.Context, now time.Time) (time.Time, error)
	DueJobs(ctx context.Context, f store.Filter, now time.Time, longest time.Duration) ([]renewal.Job, error)
	Rows(ctx context.Context, after string, limit int) ([]renewal.Row, error)
	Renewals(ctx context.Context, from time.Time, step time.Duration, n int) ([]int, error)
	Census(ctx context.Context, now time.Time, longest time.Duration) (renewal.Census, error)
	Patience(ctx context.Context, now time.Time) (since time.Time, shortest time.Duration, err error)
	RowsOf(ctx context.Context, names []string) ([]renewal.Row, error)
	Entries(ctx context.Context, after int64, limit int) ([]renewal.Entry, error)
	LastEntry(ctx context.Context) (int64, error)
	Tallies(ctx context.Context) ([]renewal.Count, []renewal.Step, error)
	CountDevices(ctx context.Context, f store.Filter) (int, error)
	History(ctx context.Context, device string, events int) (store.History, error)
	Note(ctx context.Context, a store.Action, kind enrol.EventKind) error
	SetLabels(ctx context.Context, a store.Action, labels map[string]string) error
	SetPaused(ctx context.Context, a store.Action, paused bool) error
	Release(ctx context.Context, a store.Action) error
	Decommission(ctx context.Context, a store.Action) error
	Outstanding(ctx context.Context) ([]enrol.Delivery, error)
	Aboard(ctx context.Context, serial uint64) (map[string]bool, error)
	CertificateByHash(ctx context.Context, sha256 [32]byte) (store.Certificate, error)
	Close() error
}

// inventory opens the inventory; one that must exist is not made.
func (d dataDir) inventory(ctx context.Context, mustExist bool) (inventory, error) {
	s, err := sqlite.Open(ctx, d.path(inventoryFile), sqlite.Options{MustExist: mustExist})
	switch {
	case mustExist && errors.Is(err, fs.ErrNotExist):
		return nil, clikit.WithHint(clikit.Usage("there is no inventory in %s yet", d), "commission devices: clmctl commission manifest.json")
	case errors.Is(err, store.ErrVersion):
		return nil, clikit.WithHint(err, "install the release of clmctl that wrote it, or a later one")
	case errors.Is(err, store.ErrFull):
		return nil, clikit.WithHint(err, "make room on the file system of "+string(d)+"; nothing is lost")
	case errors.Is(err, store.ErrForeign):
		return nil, clikit.WithHint(err, "move the file away, or give another --data-dir")
	case err != nil:
		return nil, err
	}
	return s, nil
}

// withInventory opens the inventory, which must exist, for one use.
func (d dataDir) withInventory(ctx context.Context, use func(inventory) error) error {
	devices, err := d.inventory(ctx, true)
	if err != nil {
		return err
	}
	return errors.Join(use(devices), devices.Close())
}

// works is the machinery of a run: the core with its adapters.
type works struct {
	runner    *enrol.Runner  // at the CA in use
	worker    renewal.Worker // the runner; during a rollover, whichever is the device's
	inventory inventory
	identity  string // of this CLM
	close     func() error
}

// works puts a run together. The caller closes it.
func (a *app) works(ctx context.Context, s *site, log *slog.Logger) (_ *works, err error) {
	identity, err := s.dir.identity()
	if err != nil {
		return nil, err
	}
	defer identity.Destroy()
	dialer, err := a.livingDialer(s, identity)
	if err != nil {
		return nil, err
	}
	file, err := s.dir.authorities()
	if err != nil {
		return nil, err
	}
	ra, err := s.dir.ra(identity.Identity.Name, a.Random)
	if err != nil {
		return nil, err
	}
	devices, err := s.dir.inventory(ctx, true)
	if err != nil {
		return nil, err
	}
	w := &works{inventory: devices, identity: identity.Identity.String(), close: devices.Close}
	gate := oslock.OpenGate(string(s.dir), func(string) fleet.Limits { return s.Limits }, a.Now)
	var runners []*enrol.Runner // as the CAs are in the file
	for _, ca := range slices.Concat(file.inUse(), file.Failover) {
		client, err := a.client(s, ca, ra, log)
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		closeOthers := w.close
		w.close = func() error { client.Close(); return closeOthers() }
		r := a.newRunner(s, dialer, devices, log)
		r.CA, r.CAName, r.Gate, r.Limits, r.Health, r.Planned = client, ca.Name, gate, s.Limits, devices, devices
		runners = append(runners, r)
	}
	w.runner = runners[0]
	if w.worker, err = file.worker(runners, identity.Verifying(), devices); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// spareLife is the part of a certificate's life, at its end, in which a device
// does not wait for a CA that cannot be had but goes on at the next one.
const spareLife = 0.2

// worker returns who enrols each device at the CA that is its own at the moment.
func (f authorityJSON) worker(runners []*enrol.Runner, params []*ibc.Params, sightings enrol.SightingStore) (renewal.Worker, error) {
	failover := runners[len(f.inUse()):]
	at := func(i int) renewal.Worker {
		if len(failover) == 0 {
			return runners[i]
		}
		return &enrol.Failover{Runners: append([]*enrol.Runner{runners[i]}, failover...), Share: spareLife}
	}
	if f.Rollover == nil {
		return at(0), nil
	}
	t, err := f.turnover(params)
	if err != nil {
		return nil, err
	}
	return &rolloverWorker{old: at(0), next: at(1), store: runners[0].Store, turnover: t, sightings: sightings}, nil
}

// newRunner returns a runner without a CA, which is enough to speak to devices.
func (a *app) newRunner(s *site, dialer *livingDialer, devices inventory, log *slog.Logger) *enrol.Runner {
	r := &enrol.Runner{
		Store: devices, Deliveries: devices, Sightings: devices, Boats: dialer,
		Dialer: dialer, Profiles: s.Profiles, Policy: s.Policy,
		Params: dialer.params, Now: a.Now, Random: a.Random, Log: log,
	}
	if s.ProbeWithin > 0 {
		r.Prober = &tlsprobe.Prober{Within: s.ProbeWithin, Allowed: s.ProbeAllow, Log: log}
	}
	return r
}

// contact puts together what needs no CA. The caller closes it.
func (a *app) contact(ctx context.Context, s *site, log *slog.Logger) (*works, error) {
	identity, err := s.dir.identity()
	if err != nil {
		return nil, err
	}
	defer identity.Destroy()
	dialer, err := a.livingDialer(s, identity)
	if err != nil {
		return nil, err
	}
	devices, err := s.dir.inventory(ctx, true)
	if err != nil {
		return nil, err
	}
	return &works{runner: a.newRunner(s, dialer, devices, log), inventory: devices, close: devices.Close}, nil
}

// client returns the SCEP client of a CA.
func (a *app) client(s *site, ca authority, ra scep.RA, log *slog.Logger) (*scep.Client, error) {
	client, err := scep.New(scep.Config{
		URL: ca.URL, Anchor: ca.Anchor, Certificates: ca.Certificates, Capabilities: ca.Capabilities,
		RA: ra, Challenge: s.dir.challenge(ca), HTTP: scep.HTTPOptions{Timeout: s.CATimeout},
		Random: a.Random, Now: a.Now, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", ca.Name, err)
	}
	return client, nil
}

// dialer returns the CLM's end of the channels to devices.
func (a *app) dialer(s *site, identity *provision.Endpoint) (*coaplink.Dialer, error) {
	keys, err := s.dir.credentials(identity, a.Random)
	if err != nil {
		return nil, err
	}
	return a.dialerWith(s, identity, keys), nil
}

// dialerWith accepts devices of every epoch that is open, and meets each with
// the key that it knows.
func (a *app) dialerWith(s *site, own *provision.Endpoint, keys credentials) *coaplink.Dialer {
	return &coaplink.Dialer{Credential: keys.present, Earlier: keys.earlier, Params: own.Accepted(), Random: a.Random, Timeouts: s.Device}
}

// findParams looks parameters up by their epoch.
func findParams(known []*ibc.Params) func(epoch uint32) (enrol.Verifier, error) {
	return func(epoch uint32) (enrol.Verifier, error) {
		for _, p := range known {
			if p.Epoch() == epoch {
				return p, nil
			}
		}
		return nil, fmt.Errorf("the parameters of epoch %d are not known here", epoch)
	}
}
