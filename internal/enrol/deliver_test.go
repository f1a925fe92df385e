package enrol_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// issue makes the PKG's bundle of a later generation, and returns its delivery.
func (w *world) issue(generation uint32) enrol.Delivery {
	w.t.Helper()
	id := must[ibc.Identity](w.t)(ibc.NewIdentity(ibc.RoleDevice, device, 1, generation))
	sealed := "bundle of " + id.String()
	if w.device.Bundles == nil {
		w.device.Bundles = map[string]enroltest.Signer{}
	}
	w.device.Bundles[sealed] = must[*ibc.PrivateKey](w.t)(w.master.Extract(id))
	return enrol.NewDelivery(device, enrol.DeliverBundle, enrol.BundleVersion(id), []byte(sealed), w.now)
}

func (w *world) anchors(serial uint64) enrol.Delivery {
	return enrol.NewDelivery(device, enrol.DeliverAnchors, serial, []byte("statement"), w.now)
}

// enqueue queues as clmctl does.
func (w *world) enqueue(deliveries ...enrol.Delivery) {
	w.t.Helper()
	if _, err := w.runner.Deliveries.QueueDeliveries(context.Background(), deliveries); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) courier() *enrol.Courier {
	return &enrol.Courier{Store: w.runner.Store, Queue: w.runner.Deliveries, Dialer: w.device, Params: w.runner.Params, Now: w.runner.Now, Log: w.runner.Log}
}

func (w *world) deliver() enrol.Result { return w.courier().Run(context.Background(), device, false) }

func (w *world) outstanding() []enrol.Delivery {
	w.t.Helper()
	return must[[]enrol.Delivery](w.t)(w.queue.OutstandingDeliveries(context.Background(), device))
}

// TestDeliver: anchors go first, then the bundle; the device's later identity
// is proved in a second handshake and recorded, and the earlier one is refused.
func TestDeliver(t *testing.T) {
	w := newWorld(t)
	w.enqueue(w.issue(3), w.anchors(7))
	if r := w.deliver(); r.Outcome != enrol.OutcomeDelivered || r.Err != nil {
		t.Fatalf("%s: %v", r.Outcome, r.Err)
	}
	if len(w.outstanding()) != 0 || w.row().Identity.Generation != 3 || w.device.Dials != 2 {
		t.Errorf("outstanding %v, row %s, %d connections", w.outstanding(), w.row().Identity, w.device.Dials)
	}
	attempts := w.store.(*enroltest.Store).Attempts()
	if len(attempts) != 2 || attempts[0].Kind != enrol.DeliverAnchors || attempts[1].Kind != enrol.DeliverBundle {
		t.Errorf("attempts: %+v", attempts)
	}
	if r := w.deliver(); r.Outcome != enrol.OutcomeSkipped || !errors.Is(r.Err, enrol.ErrNothingQueued) || w.device.Dials != 2 {
		t.Errorf("again: %s: %v, %d connections", r.Outcome, r.Err, w.device.Dials)
	}
	w.renewed(true)
}

// TestEnrolmentDelivers: whoever enrols a device first gives it what waits, on
// the same visit.
func TestEnrolmentDelivers(t *testing.T) {
	w := newWorld(t)
	w.enqueue(w.anchors(7), w.issue(2))
	w.renewed(false)
	if len(w.outstanding()) != 0 || w.row().Identity.Generation != 2 || w.device.Dials != 2 {
		t.Errorf("outstanding %v, row %s, %d connections", w.outstanding(), w.row().Identity, w.device.Dials)
	}
	receipt := w.store.(*enroltest.Store).Enrolments()
	for _, e := range receipt {
		if e.Receipt.Identity.Generation != 2 || e.Identity.Generation != 2 {
			t.Errorf("the statement is by %s, the enrolment by %s", e.Receipt.Identity, e.Identity)
		}
	}
}

// TestDeliveryRefused: what a device does not take is on record, and keeps it
// neither from the rest nor from its next certificate, on which its life hangs.
func TestDeliveryRefused(t *testing.T) {
	unreachable := fmt.Errorf("%w: no answer", enrol.ErrUnreachable)
	refusal := &enrol.DeviceError{Problem: enrol.ProblemForbidden, Detail: "not from you"}
	for name, c := range map[string]struct {
		prepare    func(w *world)
		generation uint32 // of the row afterwards
		left       int
		text       string // of the failure
	}{
		"anchors refused":     {func(w *world) { w.device.Refuse["anchors"] = refusal }, 2, 1, "not from you"},
		"anchors unanswered":  {func(w *world) { w.device.Refuse["anchors"] = unreachable }, 1, 2, "no answer"},
		"bundle refused":      {func(w *world) { w.device.Refuse["bundle"] = refusal }, 1, 1, "not from you"},
		"bundle unanswered":   {func(w *world) { w.device.Refuse["bundle"] = unreachable }, 1, 1, "no answer"},
		"bundle not taken up": {func(w *world) { w.device.Stubborn = true }, 1, 1, "still presents edgeclm/v1/dev/plc-0001/e1.g1"},
		"answer lost":         {func(w *world) { w.device.Deaf = true }, 2, 0, ""},
	} {
		for _, enrols := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, enrols %v", name, enrols), func(t *testing.T) {
				w := newWorld(t)
				w.enqueue(w.anchors(7), w.issue(2))
				c.prepare(w)
				if enrols {
					w.renewed(true)
				} else if r := w.deliver(); (r.Outcome == enrol.OutcomeDelivered) != (c.text == "") || r.Err != nil && !strings.Contains(r.Err.Error(), c.text) {
					t.Errorf("%s: %v", r.Outcome, r.Err)
				}
				left := w.outstanding()
				if len(left) != c.left || w.row().Identity.Generation != c.generation {
					t.Errorf("left %v, row %s", left, w.row().Identity)
				}
				if c.text != "" && (len(left) == 0 || left[0].Tries != 1 || !strings.Contains(left[0].LastError, c.text)) {
					t.Errorf("left: %+v", left)
				}
			})
		}
	}
}

// TestDeliveryOfLaterEpoch: a CLM that could not verify the device afterwards
// keeps the bundle until it is of the new epoch itself.
func TestDeliveryOfLaterEpoch(t *testing.T) {
	w := newWorld(t)
	id := ibc.Identity{Role: ibc.RoleDevice, Name: device, Epoch: 2, Generation: 1}
	w.enqueue(enrol.NewDelivery(device, enrol.DeliverBundle, enrol.BundleVersion(id), []byte("of epoch 2"), w.now))
	params := w.runner.Params
	w.runner.Params = func(epoch uint32) (enrol.Verifier, error) {
		if epoch > 1 {
			return nil, errors.New("epoch 2 is not known here")
		}
		return params(epoch)
	}
	w.renewed(true)
	if left := w.outstanding(); len(left) != 1 || w.device.Calls["bundle"] != 0 || !strings.Contains(left[0].LastError, "epoch 2") {
		t.Errorf("left %+v, handed over %d times", left, w.device.Calls["bundle"])
	}
}

// TestDeliverySkipped: nobody visits a paused device, or one that another
// process works on; a quarantined one may be what the delivery is to help.
func TestDeliverySkipped(t *testing.T) {
	w := newWorld(t)
	w.enqueue(w.issue(2))
	change := func(f func(*fleet.Device)) {
		w.store.(*enroltest.Store).Put(device, f)
	}
	change(func(d *fleet.Device) { d.Paused = true })
	if r := w.deliver(); r.Outcome != enrol.OutcomeSkipped || !errors.Is(r.Err, enrol.ErrNotNow) {
		t.Errorf("paused: %s: %v", r.Outcome, r.Err)
	}
	change(func(d *fleet.Device) { d.Paused, d.Quarantined = false, true })
	release := must[func()](t)(w.store.Lease(context.Background(), device))
	if r := w.deliver(); r.Outcome != enrol.OutcomeSkipped || !errors.Is(r.Err, enrol.ErrLeased) {
		t.Errorf("leased: %s: %v", r.Outcome, r.Err)
	}
	release()
	if w.device.Dials != 0 {
		t.Errorf("%d connections", w.device.Dials)
	}
	if r := w.deliver(); r.Outcome != enrol.OutcomeDelivered {
		t.Errorf("quarantined: %s: %v", r.Outcome, r.Err)
	}
}

// TestVisit: a device for which nothing waits is visited on demand, until it has
// answered once, and a later identity that it shows is recorded.
func TestVisit(t *testing.T) {
	w := newWorld(t)
	later := w.issue(5)
	w.device.Key = w.device.Bundles[string(later.Payload)] // brought by hand
	c := w.courier()
	c.Visit = true
	if r := c.Run(context.Background(), device, false); r.Outcome != enrol.OutcomeDelivered || w.device.Calls["status"] != 1 {
		t.Errorf("%s: %v, %d requests", r.Outcome, r.Err, w.device.Calls["status"])
	}
	if w.row().Identity.Generation != 5 {
		t.Errorf("row %s", w.row().Identity)
	}
	w.device.Refuse["status"] = fmt.Errorf("%w: no answer", enrol.ErrUnreachable)
	if r := c.Run(context.Background(), device, false); r.Outcome != enrol.OutcomeFailed {
		t.Errorf("no answer: %s", r.Outcome)
	}
}

// TestVisitOfHeldDevice: that a device is paused, or worked on by another
// process, must not leave it open to a stolen key. It is visited, and no more.
func TestVisitOfHeldDevice(t *testing.T) {
	for name, hold := range map[string]func(w *world) (release func()){
		"paused": func(w *world) func() {
			w.store.(*enroltest.Store).Put(device, func(d *fleet.Device) { d.Paused = true })
			return func() {}
		},
		"leased": func(w *world) func() {
			return must[func()](w.t)(w.store.Lease(context.Background(), device))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.enqueue(w.issue(2))
			defer hold(w)()
			c := w.courier()
			c.Visit = true
			if r := c.Run(context.Background(), device, false); r.Outcome != enrol.OutcomeDelivered {
				t.Errorf("%s: %v", r.Outcome, r.Err)
			}
			if w.device.Calls["status"] != 1 || w.device.Calls["bundle"] != 0 || len(w.outstanding()) != 1 {
				t.Errorf("calls %v, left %v", w.device.Calls, w.outstanding())
			}
		})
	}
}

// TestDeliveryUnreachable: a device that cannot be reached keeps what waits
// for it, untried.
func TestDeliveryUnreachable(t *testing.T) {
	w := newWorld(t)
	w.enqueue(w.issue(2))
	w.device.Refuse["dial"] = fmt.Errorf("%w: no route", enrol.ErrUnreachable)
	var f *enrol.Fault
	if r := w.deliver(); r.Outcome != enrol.OutcomeFailed || !errors.As(r.Err, &f) || f.Class != enrol.ClassUnreachable {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
	if left := w.outstanding(); len(left) != 1 || left[0].Tries != 0 {
		t.Errorf("left: %+v", left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r := w.courier().Run(ctx, device, false); r.Outcome != enrol.OutcomePending {
		t.Errorf("interrupted: %s: %v", r.Outcome, r.Err)
	}
}

// TestDeliveryEveryCut kills clmctl before and after every effect between the
// queue and the record. Whatever the cut, the next run ends in the same state:
// the device has its anchors and its later identity, both sides know, and it
// renews.
func TestDeliveryEveryCut(t *testing.T) {
	for _, c := range []struct {
		enrols, deaf bool
	}{{false, false}, {false, true}, {true, false}} {
		visit := func(w *world) {
			if c.enrols {
				w.run(true)
			} else {
				w.deliver()
			}
		}
		scenario := func(w *world) {
			w.device.Deaf = c.deaf
			w.enqueue(w.anchors(7), w.issue(2))
			visit(w)
		}
		total := func() int {
			w := newWorld(t)
			scenario(w)
			return w.points
		}()
		if total < 10 {
			t.Fatalf("only %d cut points", total)
		}
		for cut := 1; cut <= total; cut++ {
			t.Run(fmt.Sprintf("enrols %v, deaf %v, cut %d", c.enrols, c.deaf, cut), func(t *testing.T) {
				w := newWorld(t)
				w.cut = cut
				w.untilKilled(func() { scenario(w) })
				w.cut = 0
				w.restart()
				w.now = w.now.Add(2 * time.Hour)
				if len(w.store.(*enroltest.Store).Deliveries()) == 0 { // it died before it had queued
					w.enqueue(w.anchors(7), w.issue(2))
				}
				visit(w)
				if len(w.outstanding()) != 0 || w.row().Identity.Generation != 2 || w.device.Key.Identity().Generation != 2 {
					t.Errorf("outstanding %v, row %s, device %s", w.outstanding(), w.row().Identity, w.device.Key.Identity())
				}
				if c.enrols {
					w.checkWhole()
				}
			})
		}
	}
}
