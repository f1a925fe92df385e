package storetest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/memstore"
)

// pool is what random changes are made of. It is small, so that they meet.
type pool struct {
	names  []string
	leaves []*x509.Certificate
	chains [][]byte
}

func newPool(t testing.TB) *pool {
	one, two := newIssuer(t, "one"), newIssuer(t, "two")
	p := &pool{names: []string{"a", "b.c", "d:e-f"}}
	for i, serial := range []int64{1, 1, 2, 3} {
		hours := time.Duration(1+i) * time.Hour
		p.leaves = append(p.leaves, one.issue(t, serial, fmt.Sprint("one ", i), hours), two.issue(t, serial, fmt.Sprint("two ", i), hours))
	}
	p.chains = [][]byte{one.issue(t, 90, "x", time.Hour).Raw, two.issue(t, 91, "y", time.Hour).Raw}
	return p
}

// drawTime draws a time near epoch, or none.
func drawTime(t *rapid.T, name string) time.Time {
	n := rapid.IntRange(-1, 120).Draw(t, name)
	if n < 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(n) * time.Minute)
}

func (p *pool) drawRow(t *rapid.T) store.Row {
	r := row(rapid.SampledFrom(p.names).Draw(t, "name"), rapid.Uint32Range(1, 3).Draw(t, "generation"), rapid.Uint64Range(1, 5).Draw(t, "ledger index"))
	if rapid.Bool().Draw(t, "bare") {
		r.Address, r.Labels, r.Names = "", nil, nil
	}
	return r
}

// drawLeaf draws by a number, since rapid prints what it draws.
func (p *pool) drawLeaf(t *rapid.T, name string) *x509.Certificate {
	return p.leaves[rapid.IntRange(0, len(p.leaves)-1).Draw(t, name)]
}

// drawEnrolment draws the next value of an enrolment, of a revision that is
// mostly the stored one.
func (p *pool) drawEnrolment(t *rapid.T, current map[enrol.ID]enrol.Enrolment) *enrol.Enrolment {
	id := enrol.ID{rapid.ByteRange(1, 6).Draw(t, "id")}
	e, known := current[id]
	if !known {
		e = enrol.Enrolment{ID: id, Device: rapid.SampledFrom(p.names).Draw(t, "device")}
	}
	e.State = rapid.SampledFrom([]enrol.State{
		enrol.Requested, enrol.Submitted, enrol.PreVerified, enrol.Completed, enrol.Failed, enrol.Failed,
	}).Draw(t, "state")
	e.CA = rapid.SampledFrom([]string{"plant", "other"}).Draw(t, "ca")
	e.Tries, e.NextTry, e.UpdatedAt = rapid.IntRange(0, 3).Draw(t, "tries"), drawTime(t, "next try"), drawTime(t, "updated at")
	e.LastError = rapid.String().Draw(t, "last error")
	e.Pending = rapid.Bool().Draw(t, "pending")
	if rapid.Bool().Draw(t, "has certificate") {
		e.Certificate = p.drawLeaf(t, "certificate").Raw
		e.Chain = p.chains[:rapid.IntRange(0, len(p.chains)).Draw(t, "chain")]
		e.Receipt = enrol.Receipt{Identity: deviceIdentity(e.Device, 1), Statement: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "statement")}
	}
	if rapid.IntRange(0, 4).Draw(t, "stale") == 0 {
		e.Revision += int64(rapid.IntRange(-1, 1).Draw(t, "revision"))
	}
	return &e
}

// drawDevice draws a row, or none.
func (p *pool) drawDevice(t *rapid.T, name string) *fleet.Device {
	if rapid.Bool().Draw(t, "no row") {
		return nil
	}
	d := &fleet.Device{
		Name: name, Identity: deviceIdentity(name, rapid.Uint32Range(1, 4).Draw(t, "generation")), Address: "ignored:1",
		Paused: true, Quarantined: rapid.IntRange(0, 5).Draw(t, "quarantined") == 0,
		EnrolledAt: drawTime(t, "enrolled at"), RenewAt: drawTime(t, "renew at"), NextAttempt: drawTime(t, "next attempt"),
		Attempts: rapid.IntRange(0, 3).Draw(t, "attempts"), LastError: rapid.String().Draw(t, "last error"),
	}
	if rapid.Bool().Draw(t, "row has certificate") {
		c := enrol.Describe(p.drawLeaf(t, "row certificate"))
		d.Certificate = &c
	}
	return d
}

// drawEvents draws what happened to an enrolment.
func (p *pool) drawEvents(t *rapid.T, e *enrol.Enrolment) []enrol.Event {
	var events []enrol.Event
	for range rapid.IntRange(0, 2).Draw(t, "events") {
		events = append(events, enrol.Event{
			At: epoch.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "at")) * time.Minute), Device: e.Device, Enrolment: e.ID,
			State: e.State, Kind: enrol.EventFailed, Class: rapid.SampledFrom([]enrol.Class{enrol.ClassCAMismatch, enrol.ClassCSR}).Draw(t, "class"),
		})
	}
	return events
}

// testModel does random things to a store and to the one in memory, and holds
// that nobody can tell them apart.
func testModel(t *testing.T, place func(t testing.TB) Place[Store]) {
	p := newPool(t)
	rapid.Check(t, func(rt *rapid.T) {
		here := place(t)
		disk := memstore.NewDisk()
		m := &modelTest{pool: p, place: here, real: here(t), disk: disk, model: disk.Open(), current: map[enrol.ID]enrol.Enrolment{}}
		defer func() { m.must(rt, "close", m.real.Close()) }()
		m.deliver(rt)
		rt.Repeat(map[string]func(*rapid.T){
			// What is named more often is drawn more often.
			"commit": m.commit, "commit 2": m.commit, "commit 3": m.commit, "commit 4": m.commit,
			"deliver": m.deliver, "deliver 2": m.deliver,
			"reopen": func(rt *rapid.T) {
				m.must(rt, "close", m.real.Close())
				m.real = here(t)
				m.compare(rt)
			},
		})
		m.compare(rt)
	})
}

type modelTest struct {
	*pool
	place       Place[Store]
	real, model Store
	disk        *memstore.Disk // of the model
	current     map[enrol.ID]enrol.Enrolment
}

func (m *modelTest) must(t *rapid.T, what string, err error) {
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// agree fails unless two errors are both nil or wrap the same sentinel.
func (m *modelTest) agree(t *rapid.T, what string, real, model error) {
	if !errors.Is(kind(real), kind(model)) {
		t.Fatalf("%s: %v, but the model says %v", what, real, model)
	}
}

func (m *modelTest) deliver(t *rapid.T) {
	d := store.Delivery{At: epoch, Source: "usb"}
	for range rapid.IntRange(1, 3).Draw(t, "rows") {
		d.Rows = append(d.Rows, m.drawRow(t))
	}
	if rapid.Bool().Draw(t, "manual") {
		d.Addresses = []store.Address{{
			Device: rapid.SampledFrom(m.names).Draw(t, "manual device"), Address: rapid.SampledFrom([]string{"", "m:1", "m:2"}).Draw(t, "manual address"),
		}}
	}
	got, err := m.real.PutDevices(context.Background(), d)
	want, wantErr := m.model.PutDevices(context.Background(), d)
	m.agree(t, "put devices", err, wantErr)
	if got != want {
		t.Fatalf("put devices: %+v, want %+v", got, want)
	}
	for _, name := range m.names {
		m.compareDevice(t, name)
	}
}

func (m *modelTest) commit(t *rapid.T) {
	e := m.drawEnrolment(t, m.current)
	mine, modelled := *e, *e
	d, events := m.drawDevice(t, e.Device), m.drawEvents(t, e)
	err := m.real.Commit(context.Background(), enrol.Change{Enrolment: &mine, Device: d, Events: events})
	modelErr := m.model.Commit(context.Background(), enrol.Change{Enrolment: &modelled, Device: d, Events: events})
	m.agree(t, "commit", err, modelErr)
	if mine.Revision != modelled.Revision {
		t.Fatalf("revision %d, want %d", mine.Revision, modelled.Revision)
	}
	if err == nil {
		m.current[e.ID] = mine
	}
	m.compareDevice(t, e.Device)
}

// equal compares what is printed if it has to, see same.
func (m *modelTest) equal(t *rapid.T, what string, got, want any) {
	if reflect.DeepEqual(got, want) {
		return
	}
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s:\n got %s\nwant %s", what, g, w)
	}
}

func (m *modelTest) compareDevice(t *rapid.T, name string) {
	ctx := context.Background()
	d, err := m.real.Device(ctx, name)
	want, wantErr := m.model.Device(ctx, name)
	m.agree(t, "device", err, wantErr)
	if (d.Certificate == nil) != (want.Certificate == nil) {
		t.Fatalf("certificate of %s: %v, want %v", name, d.Certificate, want.Certificate)
	}
	if d.Certificate != nil {
		m.equal(t, "certificate of "+name, *d.Certificate, *want.Certificate)
		d.Certificate, want.Certificate = nil, nil
	}
	m.equal(t, "device", d, want)

	e, err := m.real.OpenEnrolment(ctx, name)
	wantE, wantErr := m.model.OpenEnrolment(ctx, name)
	m.agree(t, "open enrolment", err, wantErr)
	m.equal(t, "open enrolment", e, wantE)
}

// compareEvents compares those of a device's enrolments, of a store that can
// tell.
func (m *modelTest) compareEvents(t *rapid.T, name string) {
	records, ok := m.real.(interface {
		History(ctx context.Context, device string, events int) (store.History, error)
	})
	if !ok {
		return
	}
	h, err := records.History(context.Background(), name, 0)
	if !errors.Is(err, enrol.ErrNotFound) {
		m.must(t, "history", err)
	}
	got := slices.DeleteFunc(h.Events, func(e enrol.Event) bool { return e.Enrolment == enrol.ID{} })
	want := slices.DeleteFunc(m.disk.Events(), func(e enrol.Event) bool { return e.Device != name })
	m.equal(t, "events of "+name, got, want)
}

func (m *modelTest) compare(t *rapid.T) {
	ctx := context.Background()
	for _, name := range m.names {
		m.compareDevice(t, name)
		m.compareEvents(t, name)
	}
	for _, leaf := range m.leaves {
		id, err := m.real.SerialOwner(ctx, leaf.RawIssuer, serialOf(leaf))
		wantID, wantErr := m.model.SerialOwner(ctx, leaf.RawIssuer, serialOf(leaf))
		m.agree(t, "serial owner", err, wantErr)
		m.equal(t, "serial owner", id, wantID)
	}
}
