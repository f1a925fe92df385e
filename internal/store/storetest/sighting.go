package storetest

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

func testSightings(t *testing.T, place Place[Store]) {
	s, ctx := open(t, place), context.Background()
	put(t, s, "a", "b")
	for _, unknown := range []error{
		func() error { _, err := s.LastSighting(ctx, "c"); return err }(),
		s.PutSighting(ctx, enrol.Sighting{Device: "c", At: epoch, Identity: deviceIdentity("c", 1)}),
	} {
		if !errors.Is(unknown, enrol.ErrNotFound) {
			t.Errorf("of an unknown device: %v, want ErrNotFound", unknown)
		}
	}
	if err := s.PutSighting(ctx, enrol.Sighting{Device: "a", Identity: deviceIdentity("a", 1)}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("seen at no time: %v, want ErrInvalid", err)
	}
	for _, seen := range []enrol.Sighting{
		{Device: "a", Identity: deviceIdentity("a", 2), At: epoch, Anchors: [][32]byte{{1}, {}, {3}}, Serial: 7},
		{Device: "a", Identity: deviceIdentity("a", 2), At: epoch.Add(time.Hour), Anchors: [][32]byte{{3}}, Serial: 1<<63 - 1},
		{Device: "a", Identity: deviceIdentity("a", 1), At: epoch.Add(-time.Hour)}, // a clock that goes back is believed
	} {
		if err := s.PutSighting(ctx, seen); err != nil {
			t.Fatal(err)
		}
		if got, err := s.LastSighting(ctx, "a"); err != nil || !reflect.DeepEqual(got, seen) {
			t.Errorf("got %+v, %v; want %+v", got, err, seen)
		}
	}
	if err := s.PutSighting(ctx, enrol.Sighting{Device: "a", Identity: deviceIdentity("b", 1), At: epoch}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("of another device's identity: %v, want ErrInvalid", err)
	}
	if got, err := s.LastSighting(ctx, "b"); err != nil || !reflect.DeepEqual(got, enrol.Sighting{Device: "b"}) {
		t.Errorf("of a device that was never asked: %+v, %v", got, err)
	}
}
