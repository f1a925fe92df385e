package enroltest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Store is an enrol.Store, enrol.DeliveryStore, enrol.SightingStore and
// enrol.HealthStore in memory. What it returns and keeps are copies, so that
// only a commit changes it, as with a disk. It is safe for concurrent use. It
// is meant for large fleets and long times: every enrolment costs the same.
type Store struct {
	// Keep is how many finished enrolments of a device are kept; 0: all.
	Keep int
	// OnEvent is told of each event, which is then not kept; nil: they are.
	OnEvent func(enrol.Event)
	// OnCommit is called in front of each commit; its error is the commit's.
	OnCommit func(enrol.Change) error

	mu         sync.Mutex
	devices    map[string]fleet.Device
	enrolments map[enrol.ID]enrol.Enrolment
	open       map[string]enrol.ID
	finished   map[string][]enrol.ID // oldest first
	owners     map[[32]byte]enrol.ID // by certificate
	serials    map[string]enrol.ID
	events     []enrol.Event
	leased     map[string]bool
	deliveries []enrol.Delivery
	attempts   []enrol.Attempt
	sightings  map[string]enrol.Sighting
	breakers   map[string]enrol.Breaker
	updates    int
}

var (
	_ enrol.Store         = (*Store)(nil)
	_ enrol.DeliveryStore = (*Store)(nil)
	_ enrol.SightingStore = (*Store)(nil)
	_ enrol.HealthStore   = (*Store)(nil)
)

// NewStore returns a store of these devices.
func NewStore(devices ...fleet.Device) *Store {
	s := &Store{
		devices: map[string]fleet.Device{}, enrolments: map[enrol.ID]enrol.Enrolment{}, open: map[string]enrol.ID{},
		finished: map[string][]enrol.ID{}, owners: map[[32]byte]enrol.ID{}, serials: map[string]enrol.ID{}, leased: map[string]bool{},
		sightings: map[string]enrol.Sighting{}, breakers: map[string]enrol.Breaker{},
	}
	for _, d := range devices {
		s.devices[d.Name] = d
	}
	return s
}

// Device implements enrol.Store.
func (s *Store) Device(_ context.Context, name string) (fleet.Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices[name]
	if !ok {
		return d, fmt.Errorf("%w: %s", enrol.ErrNotFound, name)
	}
	return d, nil
}

// Put changes the row of a device by an operator's hand.
func (s *Store) Put(name string, change func(*fleet.Device)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[name]
	d.Name = name
	change(&d)
	s.devices[name] = d
}

// Devices returns all rows, by their names.
func (s *Store) Devices() []fleet.Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]fleet.Device, 0, len(s.devices))
	for _, d := range s.devices {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b fleet.Device) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Due returns the devices that should be worked on at now, those whose
// certificates end first in front: see renewal.Queue.
func (s *Store) Due(now time.Time, longest time.Duration) []fleet.Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []fleet.Device
	for name, d := range s.devices {
		_, open := s.open[name]
		if !d.Paused && !d.Quarantined && !fleet.Waits(d.NextAttempt, now, longest) && (open || d.Due(now)) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b fleet.Device) int {
		return cmp.Or(notAfter(a).Compare(notAfter(b)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// NextDue returns the time before which no device becomes due that is not due
// at now; the zero time if none ever will by itself.
func (s *Store) NextDue(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next time.Time
	for name, d := range s.devices {
		at := d.RenewAt
		if _, open := s.open[name]; open || d.Certificate == nil {
			at = time.Time{}
		}
		if d.NextAttempt.After(at) {
			at = d.NextAttempt
		}
		if !d.Paused && !d.Quarantined && at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func notAfter(d fleet.Device) time.Time {
	if d.Certificate == nil {
		return time.Time{}
	}
	return d.Certificate.NotAfter
}

// PlannedRenewals counts the renewals that are planned from one time to
// another, the latter excluded.
func (s *Store) PlannedRenewals(_ context.Context, from, to time.Time) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, d := range s.devices {
		if !d.RenewAt.Before(from) && d.RenewAt.Before(to) {
			n++
		}
	}
	return n, nil
}

// OpenEnrolment implements enrol.Store.
func (s *Store) OpenEnrolment(_ context.Context, name string) (*enrol.Enrolment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.open[name]
	if !ok {
		return nil, fmt.Errorf("%w: open enrolment of %s", enrol.ErrNotFound, name)
	}
	e := s.enrolments[id]
	return &e, nil
}

// Commit implements enrol.Store.
func (s *Store) Commit(ctx context.Context, c enrol.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.OnCommit != nil {
		if err := s.OnCommit(c); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.enrolments[c.Enrolment.ID].Revision != c.Enrolment.Revision {
		return fmt.Errorf("%w: revision %d", enrol.ErrConflict, c.Enrolment.Revision)
	}
	if open, ok := s.open[c.Enrolment.Device]; ok && open != c.Enrolment.ID && !c.Enrolment.State.Final() {
		return fmt.Errorf("%w: %s is open", enrol.ErrConflict, open)
	}
	c.Enrolment.Revision++
	if err := s.record(*c.Enrolment); err != nil {
		return err
	}
	if c.Device != nil {
		s.devices[c.Device.Name] = *c.Device
	}
	for _, e := range c.Events {
		if s.OnEvent != nil {
			s.OnEvent(e)
		} else {
			s.events = append(s.events, e)
		}
	}
	return nil
}

// record takes an enrolment in, with its certificate, and drops what is more
// than Keep.
func (s *Store) record(e enrol.Enrolment) error {
	s.enrolments[e.ID] = e
	if len(e.Certificate) > 0 {
		c, err := x509.ParseCertificate(e.Certificate)
		if err != nil {
			return err
		}
		s.owners[sha256.Sum256(e.Certificate)] = e.ID
		if serial := serialKey(c.RawIssuer, enrol.Describe(c).Serial); s.serials[serial] == (enrol.ID{}) {
			s.serials[serial] = e.ID
		}
	}
	if !e.State.Final() {
		s.open[e.Device] = e.ID
		return nil
	}
	if s.open[e.Device] == e.ID {
		delete(s.open, e.Device)
	}
	s.finished[e.Device] = append(s.finished[e.Device], e.ID)
	for s.Keep > 0 && len(s.finished[e.Device]) > s.Keep {
		old := s.finished[e.Device][0]
		s.finished[e.Device] = slices.Delete(s.finished[e.Device], 0, 1)
		delete(s.owners, sha256.Sum256(s.enrolments[old].Certificate))
		delete(s.enrolments, old)
	}
	return nil
}

func serialKey(issuer []byte, serial string) string { return serial + " " + string(issuer) }

// PutEnrolment puts an enrolment on record, as a commit of it would.
func (s *Store) PutEnrolment(e enrol.Enrolment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record(e)
}

// Enrolments returns those on record, in no order.
func (s *Store) Enrolments() []enrol.Enrolment {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]enrol.Enrolment, 0, len(s.enrolments))
	for _, e := range s.enrolments {
		out = append(out, e)
	}
	return out
}

// Events returns those that were kept, oldest first.
func (s *Store) Events() []enrol.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// EnrolmentByCertificate implements enrol.Store.
func (s *Store) EnrolmentByCertificate(_ context.Context, certificate [32]byte) (*enrol.Enrolment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.enrolments[s.owners[certificate]]
	if !ok {
		return nil, fmt.Errorf("%w: certificate %x", enrol.ErrNotFound, certificate[:4])
	}
	return &e, nil
}

// SerialOwner implements enrol.Store.
func (s *Store) SerialOwner(ctx context.Context, issuer []byte, serial string) (enrol.ID, error) {
	if err := ctx.Err(); err != nil {
		return enrol.ID{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.serials[serialKey(issuer, serial)]
	if !ok {
		return id, fmt.Errorf("%w: serial number %s", enrol.ErrNotFound, serial)
	}
	return id, nil
}

// Lease implements enrol.Store.
func (s *Store) Lease(_ context.Context, name string) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leased[name] {
		return nil, enrol.ErrLeased
	}
	s.leased[name] = true
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.leased, name)
	}), nil
}

// Breaker implements enrol.HealthStore.
func (s *Store) Breaker(_ context.Context, ca string) (enrol.Breaker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.breaker(ca), nil
}

func (s *Store) breaker(ca string) enrol.Breaker {
	b, ok := s.breakers[ca]
	if !ok {
		b = enrol.Breaker{CA: ca, State: enrol.BreakerClosed}
	}
	b.Rejected, b.Mismatched = slices.Clone(b.Rejected), slices.Clone(b.Mismatched)
	return b
}

// UpdateBreaker implements enrol.HealthStore.
func (s *Store) UpdateBreaker(_ context.Context, ca string, change func(*enrol.Breaker) bool) (enrol.Breaker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.breaker(ca)
	if !change(&b) {
		return s.breaker(ca), nil
	}
	s.updates++
	s.breakers[ca] = b
	return s.breaker(ca), nil
}

// BreakerWrites is how often UpdateBreaker has changed something.
func (s *Store) BreakerWrites() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}
