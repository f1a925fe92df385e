// Package memstore is an enrol.Store in memory, for tests of what stands on
// one: it passes the same conformance suite as the one on disk, and can be cut
// before and after every commit.
package memstore

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

// Disk is what survives the stores that are opened on it.
type Disk struct {
	mu sync.Mutex
	content
	leases map[string]*Store
}

// content is what a commissioning may change; it replaces what it changes.
type content struct {
	devices      map[string]*device
	enrolments   []enrol.Enrolment     // in the order of their first commits
	serials      map[string]enrol.ID   // by serialKey; the first that had it
	certificates map[[32]byte]enrol.ID // by SHA-256; the first that had it
	events       []enrol.Event
	deliveries   []enrol.Delivery // in the order in which they were queued
}

type device struct {
	fleet.Device
	row    store.Row
	manual string // the operator's address
	seen   enrol.Sighting
}

// NewDisk returns an empty disk.
func NewDisk() *Disk {
	return &Disk{
		content: content{devices: map[string]*device{}, serials: map[string]enrol.ID{}, certificates: map[[32]byte]enrol.ID{}},
		leases:  map[string]*Store{},
	}
}

// Open returns a store on the disk, as a process would have it.
func (d *Disk) Open() *Store { return &Store{disk: d} }

// Events returns the events of all devices, oldest first.
func (d *Disk) Events() []enrol.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]enrol.Event(nil), d.events...)
}

// Enrolments returns all enrolments, oldest first.
func (d *Disk) Enrolments() []enrol.Enrolment {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]enrol.Enrolment, len(d.enrolments))
	for i := range d.enrolments {
		out[i] = cloneEnrolment(d.enrolments[i])
	}
	return out
}

// Store is one process's view of a Disk. It is safe for concurrent use.
type Store struct {
	disk *Disk
	// Cut, if set before use, is called before and after each commit takes
	// effect. What it returns is the error of the commit; if it panics, that
	// is the death of the process (Close then releases its leases).
	Cut func(committed bool) error

	mu     sync.Mutex
	closed bool
}

var _ enrol.Store = (*Store)(nil)

// Close releases the store's leases.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	for name, holder := range s.disk.leases {
		if holder == s {
			delete(s.disk.leases, name)
		}
	}
	return nil
}

func (s *Store) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	return nil
}

// Device implements enrol.Store.
func (s *Store) Device(_ context.Context, name string) (fleet.Device, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	d, ok := s.disk.devices[name]
	if !ok {
		return fleet.Device{}, fmt.Errorf("device %s: %w", name, enrol.ErrNotFound)
	}
	out := cloneDevice(d.Device)
	out.Next = s.disk.next(d)
	return out, nil
}

// OpenEnrolment implements enrol.Store.
func (s *Store) OpenEnrolment(_ context.Context, name string) (*enrol.Enrolment, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	e := s.disk.openEnrolment(name)
	if e == nil {
		return nil, fmt.Errorf("open enrolment of %s: %w", name, enrol.ErrNotFound)
	}
	out := cloneEnrolment(*e)
	return &out, nil
}

func (d *Disk) openEnrolment(name string) *enrol.Enrolment {
	for i := range d.enrolments {
		if e := &d.enrolments[i]; e.Device == name && !e.State.Final() {
			return e
		}
	}
	return nil
}

func (d *Disk) enrolment(id enrol.ID) *enrol.Enrolment {
	for i := range d.enrolments {
		if d.enrolments[i].ID == id {
			return &d.enrolments[i]
		}
	}
	return nil
}

// EnrolmentByCertificate implements enrol.Store.
func (s *Store) EnrolmentByCertificate(_ context.Context, certificate [32]byte) (*enrol.Enrolment, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if owner, known := s.disk.certificates[certificate]; known {
		out := cloneEnrolment(*s.disk.enrolment(owner))
		return &out, nil
	}
	return nil, fmt.Errorf("enrolment of certificate %x: %w", certificate, enrol.ErrNotFound)
}

// Commit implements enrol.Store.
func (s *Store) Commit(ctx context.Context, c enrol.Change) error {
	if err := s.cut(ctx, false); err != nil {
		return err
	}
	if err := s.disk.commit(c); err != nil {
		return fmt.Errorf("commit enrolment %s of %s: %w", c.Enrolment.ID, c.Enrolment.Device, err)
	}
	if err := s.cut(ctx, true); err != nil {
		return err
	}
	c.Enrolment.Revision++
	return nil
}

func (s *Store) cut(ctx context.Context, committed bool) error {
	if s.Cut != nil {
		if err := s.Cut(committed); err != nil {
			return err
		}
	}
	if committed {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	return ctx.Err()
}

// commit checks everything before it changes anything.
func (d *Disk) commit(c enrol.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	row, ok := d.devices[c.Enrolment.Device]
	if !ok {
		return enrol.ErrNotFound
	}
	serial, err := serialKey(c.Enrolment.Certificate)
	if err != nil {
		return err
	}
	stored := d.enrolment(c.Enrolment.ID)
	if err := d.checkRevision(stored, c.Enrolment); err != nil {
		return err
	}
	if err := d.checkRows(c); err != nil {
		return err
	}
	e := cloneEnrolment(*c.Enrolment)
	e.Revision++
	if stored != nil {
		*stored = e
	} else {
		d.enrolments = append(d.enrolments, e)
	}
	if serial != "" {
		if sum := sha256.Sum256(e.Certificate); d.certificates[sum] == (enrol.ID{}) {
			d.certificates[sum] = e.ID
		}
		if _, known := d.serials[serial]; !known {
			d.serials[serial] = e.ID
		}
	}
	if c.Device != nil {
		row.decide(*c.Device)
	}
	for _, event := range c.Events {
		event.At = micro(event.At)
		d.events = append(d.events, event)
	}
	return nil
}

func (d *Disk) checkRevision(stored, e *enrol.Enrolment) error {
	switch {
	case stored == nil && e.Revision != 0, stored != nil && (e.Revision != stored.Revision || e.Device != stored.Device):
		return fmt.Errorf("%w: revision %d is not the stored one", enrol.ErrConflict, e.Revision)
	case e.State.Final():
		return nil
	}
	if open := d.openEnrolment(e.Device); open != nil && open.ID != e.ID {
		return fmt.Errorf("%w: enrolment %s is open", enrol.ErrConflict, open.ID)
	}
	return nil
}

// checkRows checks the device's row and the events of a change.
func (d *Disk) checkRows(c enrol.Change) error {
	for _, event := range c.Events {
		_, known := d.devices[event.Device]
		if !known || event.Enrolment != (enrol.ID{}) && event.Enrolment != c.Enrolment.ID && d.enrolment(event.Enrolment) == nil {
			return fmt.Errorf("%w: an event of something unknown", store.ErrInvalid)
		}
	}
	switch device := c.Device; {
	case device == nil:
	case device.Name != c.Enrolment.Device:
		return fmt.Errorf("%w: the row of another device, %s", store.ErrInvalid, device.Name)
	case device.Certificate != nil && !d.onRecord(c, device.Certificate.SHA256):
		return fmt.Errorf("%w: its certificate is not on record", store.ErrInvalid)
	case device.Identity.Compare(d.devices[device.Name].Identity) > 0 && (device.Identity.Name != device.Name || device.Identity.Role != d.devices[device.Name].Identity.Role):
		return fmt.Errorf("%w: %s is not an identity of %s", store.ErrInvalid, device.Identity, device.Name)
	}
	return nil
}

func (d *Disk) onRecord(c enrol.Change, hash [32]byte) bool {
	return d.certificates[hash] != (enrol.ID{}) || sha256.Sum256(c.Enrolment.Certificate) == hash
}

// decide takes over what an enrolment decides of a row.
func (d *device) decide(from fleet.Device) {
	from = cloneDevice(from)
	if from.Identity.Compare(d.Identity) > 0 {
		d.Identity = from.Identity
		d.row.Identity = from.Identity
	}
	d.Quarantined = d.Quarantined || from.Quarantined
	d.Certificate, d.EnrolledAt, d.RenewAt = from.Certificate, from.EnrolledAt, from.RenewAt
	d.Attempts, d.NextAttempt, d.LastError = from.Attempts, from.NextAttempt, from.LastError
}

// serialKey names a certificate by its issuer and serial number; "" for none.
func serialKey(der []byte) (string, error) {
	if len(der) == 0 {
		return "", nil
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "", fmt.Errorf("%w: the certificate: %w", store.ErrInvalid, err)
	}
	return enrol.Describe(c).Serial + " " + string(c.RawIssuer), nil
}

// SerialOwner implements enrol.Store.
func (s *Store) SerialOwner(_ context.Context, issuer []byte, serial string) (enrol.ID, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	id, ok := s.disk.serials[serial+" "+string(issuer)]
	if !ok {
		return id, fmt.Errorf("owner of serial number %s: %w", serial, enrol.ErrNotFound)
	}
	return id, nil
}

// Lease implements enrol.Store.
func (s *Store) Lease(_ context.Context, name string) (func(), error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.disk.leases[name] != nil {
		return nil, fmt.Errorf("lease %s: %w", name, enrol.ErrLeased)
	}
	s.disk.leases[name] = s
	return sync.OnceFunc(func() {
		s.disk.mu.Lock()
		defer s.disk.mu.Unlock()
		if s.disk.leases[name] == s {
			delete(s.disk.leases, name)
		}
	}), nil
}
