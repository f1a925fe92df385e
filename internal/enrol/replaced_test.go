package enrol_test

import (
	"context"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// switching is a device to which somebody else brings a later bundle in front
// of a call, once. A channel then serves the identity that it proved no more.
type switching struct {
	*enroltest.Device
	before string
	later  *ibc.PrivateKey
}

func (s *switching) Dial(ctx context.Context, d fleet.Device) (enrol.Device, error) {
	dev, err := s.Device.Dial(ctx, d)
	if err != nil {
		return nil, err
	}
	return &switched{dev, s}, nil
}

type switched struct {
	enrol.Device
	s *switching
}

func (c *switched) enter(call string) error {
	if call == c.s.before {
		c.s.Key, c.s.before = c.s.later, ""
	}
	if c.Identity() != c.s.Identity() {
		return &enrol.DeviceError{Problem: enrol.ProblemReplaced, Detail: "connect again"}
	}
	return nil
}

func (c *switched) RequestCSR(ctx context.Context, req enrol.CSRRequest) ([]byte, error) {
	if err := c.enter("csr"); err != nil {
		return nil, err
	}
	return c.Device.RequestCSR(ctx, req)
}

func (c *switched) VerifyCertificate(ctx context.Context, req enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	if err := c.enter("verify"); err != nil {
		return enrol.VerifyResponse{}, err
	}
	return c.Device.VerifyCertificate(ctx, req)
}

func (c *switched) Activate(ctx context.Context, id enrol.ID, sha [32]byte, within time.Duration) error {
	if err := c.enter("activate"); err != nil {
		return err
	}
	return c.Device.Activate(ctx, id, sha, within)
}

func (c *switched) Confirm(ctx context.Context, id enrol.ID, sha [32]byte) error {
	if err := c.enter("confirm"); err != nil {
		return err
	}
	return c.Device.Confirm(ctx, id, sha)
}

// TestIdentityReplacedOnTheWay: the device's identity is replaced in front of
// each call of an enrolment. It goes on within the same run, on one more
// connection, and nothing counts as a failure.
func TestIdentityReplacedOnTheWay(t *testing.T) {
	for _, call := range []string{"csr", "verify", "activate", "confirm"} {
		t.Run(call, func(t *testing.T) {
			w := newWorld(t)
			w.renewed(false)
			later := w.row().Identity
			later.Generation++
			w.runner.Dialer = &switching{w.device, call, must[*ibc.PrivateKey](t)(w.master.Extract(later))}
			dials := w.device.Dials
			w.renewed(true)
			if got := w.row().Identity; got != later || w.device.Dials != dials+2 {
				t.Errorf("the inventory has %s after %d connections", got, w.device.Dials-dials)
			}
		})
	}
}
