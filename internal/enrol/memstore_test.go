package enrol_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// memStore is enrol.Store in memory. What it returns and keeps are copies, so
// that only a commit changes it, as with a disk.
type memStore struct {
	mu         sync.Mutex
	devices    map[string]fleet.Device
	enrolments map[enrol.ID]enrol.Enrolment
	mismatches []enrol.Event
	events     []enrol.Event
	ca         map[enrol.ID]string
	leased     map[string]bool
	deliveries []enrol.Delivery
	attempts   []enrol.Attempt
}

func newStore(_ testing.TB, devices ...fleet.Device) *memStore {
	s := &memStore{
		devices: map[string]fleet.Device{}, enrolments: map[enrol.ID]enrol.Enrolment{},
		ca: map[enrol.ID]string{}, leased: map[string]bool{},
	}
	for _, d := range devices {
		s.devices[d.Name] = d
	}
	return s
}

func (s *memStore) Device(_ context.Context, name string) (fleet.Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices[name]
	if !ok {
		return d, fmt.Errorf("%w: %s", enrol.ErrNotFound, name)
	}
	return d, nil
}

func (s *memStore) OpenEnrolment(_ context.Context, name string) (*enrol.Enrolment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openEnrolment(name)
}

func (s *memStore) openEnrolment(name string) (*enrol.Enrolment, error) {
	for _, e := range s.enrolments {
		if e.Device == name && !e.State.Final() {
			return &e, nil
		}
	}
	return nil, enrol.ErrNotFound
}

func (s *memStore) Commit(ctx context.Context, c enrol.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.enrolments[c.Enrolment.ID].Revision != c.Enrolment.Revision {
		return enrol.ErrConflict
	}
	if open, err := s.openEnrolment(c.Enrolment.Device); err == nil && open.ID != c.Enrolment.ID && !c.Enrolment.State.Final() {
		return enrol.ErrConflict
	}
	c.Enrolment.Revision++
	s.enrolments[c.Enrolment.ID] = *c.Enrolment
	if c.Device != nil {
		s.devices[c.Device.Name] = *c.Device
	}
	s.events = append(s.events, c.Events...)
	for _, e := range c.Events {
		if e.Class == enrol.ClassCAMismatch {
			s.ca[e.Enrolment] = c.Enrolment.CA
			s.mismatches = append(s.mismatches, e)
		}
	}
	return nil
}

func (s *memStore) EnrolmentByCertificate(_ context.Context, certificate [32]byte) (*enrol.Enrolment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.enrolments {
		if len(e.Certificate) > 0 && sha256.Sum256(e.Certificate) == certificate {
			return &e, nil
		}
	}
	return nil, enrol.ErrNotFound
}

func (s *memStore) SerialOwner(ctx context.Context, issuer []byte, serial string) (enrol.ID, error) {
	if err := ctx.Err(); err != nil {
		return enrol.ID{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.enrolments {
		c, err := x509.ParseCertificate(e.Certificate)
		if err == nil && string(c.RawIssuer) == string(issuer) && enrol.Describe(c).Serial == serial {
			return id, nil
		}
	}
	return enrol.ID{}, enrol.ErrNotFound
}

func (s *memStore) Mismatches(_ context.Context, ca, except string, from, to time.Time) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	devices := map[string]bool{}
	for _, e := range s.mismatches {
		if s.ca[e.Enrolment] == ca && e.Device != except && !e.At.Before(from) && !e.At.After(to) {
			devices[e.Device] = true
		}
	}
	return len(devices), nil
}

// AddMismatch records another device's mismatch.
func (s *memStore) AddMismatch(ca, name string, at time.Time) {
	s.ca[enrol.ID{0xff}] = ca
	s.mismatches = append(s.mismatches, enrol.Event{At: at, Device: name, Enrolment: enrol.ID{0xff}})
}

func (s *memStore) Lease(_ context.Context, name string) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leased[name] {
		return nil, enrol.ErrLeased
	}
	s.leased[name] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.leased, name)
	}, nil
}

func (s *memStore) QueueDeliveries(_ context.Context, deliveries []enrol.Delivery) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveries = append(s.deliveries, deliveries...)
	return len(deliveries), nil
}

func (s *memStore) OutstandingDeliveries(ctx context.Context, device string) ([]enrol.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []enrol.Delivery
	for _, d := range s.deliveries {
		if d.Device == device && d.Outstanding() {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, enrol.CompareDeliveries)
	return out, ctx.Err()
}

func (s *memStore) RecordDelivery(ctx context.Context, a enrol.Attempt) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts = append(s.attempts, a)
	row := s.devices[a.Device]
	if a.Identity != (ibc.Identity{}) && a.Identity.Compare(row.Identity) > 0 {
		row.Identity = a.Identity
		s.devices[a.Device] = row
	}
	for i := range s.deliveries {
		d := &s.deliveries[i]
		if d.Device != a.Device || d.Kind != a.Kind || d.Version != a.Version || !d.Outstanding() {
			continue
		}
		if a.Failure == "" {
			d.DeliveredAt, d.Payload = a.At, nil
		} else {
			d.Tries++
			d.LastError = a.Failure
		}
	}
	return nil
}
