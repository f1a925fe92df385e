package enrol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Courier hands over to devices what is queued for them. Its fields are set
// once; it is safe for concurrent use on different devices.
type Courier struct {
	Store     Store
	Queue     DeliveryStore
	Sightings SightingStore // told of the trust anchors that were handed over; nil: nobody is
	Dialer    Dialer
	Boats     Boatman                              // nil: there are no lifeboats
	Params    func(epoch uint32) (Verifier, error) // that verify devices
	Now       func() time.Time
	Log       *slog.Logger
	// Visit visits devices for which nothing waits too, and those that are
	// paused or that another process works on, without handing anything over to
	// these. A device that has answered once refuses the earlier keys of this CLM
	// from then on, and is known to be there under its identity.
	Visit bool
}

// ErrNothingQueued says that a device has all that was queued for it.
var ErrNothingQueued = errors.New("nothing is queued for it")

// Run hands over what is outstanding for one device, unless that is paused;
// force is of no meaning.
func (c *Courier) Run(ctx context.Context, device string, _ bool) Result {
	return c.visit(ctx, device, c.Visit, func(h *handover, waiting []Delivery) error {
		if len(waiting) == 0 {
			if _, err := h.status(ctx); err != nil {
				return fmt.Errorf("visit %s: %w", device, err)
			}
		}
		if err := h.run(ctx, waiting); err != nil {
			return err
		}
		return h.failure
	})
}

// visit does what is to be done on a channel to one device. Unless idle is set,
// a device for which nothing waits is skipped.
func (c *Courier) visit(ctx context.Context, device string, idle bool, do func(h *handover, waiting []Delivery) error) Result {
	skipped := func(err error) Result { return Result{Device: device, Outcome: OutcomeSkipped, Err: err} }
	failed := func(err error) Result {
		if errors.Is(ctx.Err(), context.Canceled) {
			return Result{Device: device, Outcome: OutcomePending, Err: fmt.Errorf("interrupted: %w", context.Canceled)}
		}
		return Result{Device: device, Outcome: OutcomeFailed, Err: classify(err)}
	}
	release, err := c.Store.Lease(ctx, device)
	free := err == nil
	if free {
		defer release()
	} else if !c.Visit || !errors.Is(err, ErrLeased) {
		return skipped(err)
	}
	d, err := c.Store.Device(ctx, device)
	if err != nil {
		return failed(fmt.Errorf("load device %s: %w", device, err))
	}
	if !d.InService() {
		return skipped(fmt.Errorf("%w: %s is %w", ErrNotNow, device, ErrDecommissioned))
	}
	if d.Paused && !c.Visit {
		return skipped(fmt.Errorf("%w: %s is paused", ErrNotNow, device))
	}
	var waiting []Delivery
	if free && !d.Paused {
		if waiting, err = c.Queue.OutstandingDeliveries(ctx, device); err != nil {
			return failed(fmt.Errorf("load the deliveries of %s: %w", device, err))
		}
	}
	if len(waiting) == 0 && !idle {
		return skipped(ErrNothingQueued)
	}
	h := &handover{c: c, d: d}
	defer h.hangUp()
	if h.dev, err = c.Dialer.Dial(ctx, d); err != nil {
		err = h.rescue(ctx, waiting, err)
	}
	if err != nil {
		return failed(fmt.Errorf("connect to %s: %w", device, err))
	}
	if err := do(h, waiting); err != nil {
		return failed(err)
	}
	return Result{Device: device, Outcome: OutcomeDelivered}
}

// handover is one visit to a device.
type handover struct {
	c       *Courier
	d       fleet.Device
	dev     Device // nil if the channel broke
	failure error  // the first thing that the device did not take
}

// status has one request answered, and records whom it met and what he trusts.
// A device makes our generation its floor before it answers.
func (h *handover) status(ctx context.Context) (DeviceStatus, error) {
	status, err := h.dev.Status(ctx)
	if err == nil {
		err = saw(ctx, h.c.Sightings, h.d.Name, h.dev.Identity(), status, h.c.Now())
	}
	if err == nil && h.dev.Identity() != h.d.Identity {
		err = h.c.Queue.RecordDelivery(ctx, Attempt{Device: h.d.Name, At: h.c.Now(), Identity: h.dev.Identity()})
	}
	return status, err
}

// run hands over all that waits. What a device refuses is recorded, and the
// rest goes on: it must not keep a device from its next certificate. An error
// is the store's, or the end of ctx.
func (h *handover) run(ctx context.Context, waiting []Delivery) error {
	for _, delivery := range waiting {
		if h.dev == nil {
			return nil // what is left waits for the next channel
		}
		err := h.one(ctx, delivery)
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err() // somebody ended the run: that says nothing about the device
		}
		if recordErr := h.record(ctx, delivery, err); recordErr != nil {
			return recordErr
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// one hands over one delivery; nil means that the device has it.
func (h *handover) one(ctx context.Context, delivery Delivery) error {
	var err error
	switch delivery.Kind {
	case DeliverAnchors:
		err = h.anchors(ctx, AnchorChange{Statement: delivery.Payload})
	case DeliverCrossSigned:
		err = h.anchors(ctx, AnchorChange{CrossSigned: delivery.Payload})
	case DeliverBundle:
		return h.bundle(ctx, delivery)
	case DeliverLifeboat:
		return nil // by proving itself the device has shown that it has it
	default:
		return fmt.Errorf("%w: of the unknown kind %q", ErrDelivery, delivery.Kind)
	}
	if errors.Is(err, ErrUnreachable) {
		h.hangUp()
	}
	return err
}

// anchors changes the device's trust anchors and records what it says of them
// then. That record is not worth a failure: the next visit makes it.
func (h *handover) anchors(ctx context.Context, change AnchorChange) error {
	if err := h.dev.DeliverAnchors(ctx, change); err != nil || h.c.Sightings == nil {
		return err
	}
	if _, err := h.status(ctx); err != nil {
		h.c.Log.Warn("the trust anchors were not recorded", "device", h.d.Name, "error", err)
	}
	return nil
}

// bundle hands over a bundle. The device's word is not enough: it has the
// bundle when it proves the later identity, in a handshake of its own. A
// process that dies in between finds that proof at its first handshake.
func (h *handover) bundle(ctx context.Context, delivery Delivery) error {
	if h.proven(delivery) {
		return nil
	}
	// We could not tell the device from a stranger afterwards.
	if _, err := h.c.Params(delivery.Identity().Epoch); err != nil {
		return fmt.Errorf("not handed over before this CLM is of its epoch: %w", err)
	}
	err := h.dev.DeliverBundle(ctx, delivery.Payload)
	var refusal *DeviceError
	if errors.As(err, &refusal) {
		return err
	}
	// It may have taken the bundle though no answer came.
	h.hangUp()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// As the one that it should be now: then it meets our key of its epoch, and
	// knows from then on that we know it.
	later := h.d
	later.Identity = delivery.Identity()
	dev, dialErr := h.c.Dialer.Dial(ctx, later)
	if errors.Is(dialErr, ErrIdentity) {
		dev, dialErr = h.c.Dialer.Dial(ctx, h.d)
	}
	if dialErr != nil {
		return errors.Join(err, fmt.Errorf("connect again, for the proof of %s: %w", delivery.Identity(), dialErr))
	}
	h.dev = dev
	if h.proven(delivery) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the device took the bundle, but still presents %s", dev.Identity())
}

// proven reports whether the channel's peer has proved the identity of a
// bundle, or a later one.
func (h *handover) proven(delivery Delivery) bool {
	return h.dev.Identity().Compare(delivery.Identity()) >= 0
}

// record stores what came of it. The identity that was proved is the earliest
// that the inventory accepts from then on.
func (h *handover) record(ctx context.Context, delivery Delivery, err error) error {
	a := Attempt{Device: h.d.Name, Kind: delivery.Kind, Version: delivery.Version, At: h.c.Now()}
	if h.dev != nil {
		a.Identity = h.dev.Identity()
		if a.Identity.Compare(h.d.Identity) > 0 {
			h.d.Identity = a.Identity
		}
	}
	if err != nil {
		a.Failure = err.Error()
		h.c.Log.Warn("not delivered", "device", h.d.Name, "what", delivery.String(), "error", err)
		if h.failure == nil {
			h.failure = fmt.Errorf("deliver %s: %w", delivery, err)
		}
	} else {
		h.c.Log.Info("delivered", "device", h.d.Name, "what", delivery.String())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitGrace)
	defer cancel()
	if err := h.c.Queue.RecordDelivery(ctx, a); err != nil {
		return fmt.Errorf("record a delivery to %s: %w", h.d.Name, err)
	}
	return nil
}

// rescue brings a device its lifeboat, if one waits for it, after it could not be
// reached as one of our root of trust. It has it when it proves itself under that
// root, in a handshake of its own. The error of the first try is the answer if
// there is nothing to bring.
func (h *handover) rescue(ctx context.Context, waiting []Delivery, unreached error) error {
	if h.c.Boats == nil || len(waiting) == 0 || waiting[0].Kind != DeliverLifeboat || !errors.Is(unreached, ErrIdentity) {
		return unreached
	}
	boat := waiting[0]
	h.c.Log.Warn("bringing a lifeboat", "device", h.d.Name, "what", boat.String())
	err := h.c.Boats.DeliverLifeboat(ctx, h.d, boat.Payload)
	var refusal *DeviceError
	if !errors.As(err, &refusal) {
		// It may have taken the lifeboat though no answer came.
		dev, dialErr := h.c.Dialer.Dial(ctx, h.d)
		if dialErr == nil {
			h.dev = dev
			return nil
		}
		err = errors.Join(err, fmt.Errorf("connect again, for the proof of %s: %w", h.d.Identity, dialErr))
	}
	if recordErr := h.record(ctx, boat, err); recordErr != nil {
		return recordErr
	}
	return err
}

func (h *handover) hangUp() {
	if h.dev == nil {
		return
	}
	if err := h.dev.Close(); err != nil {
		h.c.Log.Debug("close channel", "device", h.d.Name, "error", err)
	}
	h.dev = nil
}

func (s *session) courier() *Courier {
	return &Courier{
		Store: s.r.Store, Queue: s.r.Deliveries, Sightings: s.r.Sightings, Dialer: s.r.Dialer, Boats: s.r.Boats,
		Params: s.r.Params, Now: s.r.Now, Log: s.r.Log,
	}
}

// rescue is handover.rescue, once in a run.
func (s *session) rescue(ctx context.Context, unreached error) (Device, error) {
	if s.r.Deliveries == nil || s.delivered || !errors.Is(unreached, ErrIdentity) {
		return nil, unreached
	}
	waiting, err := s.r.Deliveries.OutstandingDeliveries(ctx, s.d.Name)
	if err != nil {
		return nil, fmt.Errorf("load the deliveries of %s: %w", s.d.Name, err)
	}
	h := &handover{c: s.courier(), d: s.d}
	err = h.rescue(ctx, waiting, unreached)
	return h.dev, err
}

// deliver hands over what waits for the device, once in a run and on the
// channel that was just opened. Afterwards the session may have another
// channel, of a later identity, or none.
func (s *session) deliver(ctx context.Context) error {
	if s.r.Deliveries == nil || s.delivered {
		return nil
	}
	s.delivered = true
	waiting, err := s.r.Deliveries.OutstandingDeliveries(ctx, s.d.Name)
	if err != nil {
		return fmt.Errorf("load the deliveries of %s: %w", s.d.Name, err)
	}
	if len(waiting) == 0 {
		return nil
	}
	h := &handover{
		c: s.courier(), d: s.d, dev: s.dev,
	}
	err = h.run(ctx, waiting)
	s.dev, s.d.Identity = h.dev, h.d.Identity
	return err
}
