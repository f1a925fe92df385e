package clmctl

import (
	"context"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/memstore"
)

// The new CA issues only for a device that is known to trust it: by a list that
// this very device gave, not its predecessor under the name, and only once the
// stage is reached; when the old CA is dropped there is no other.
func TestRolloverChoosesCA(t *testing.T) {
	t.Parallel()
	ctx, now := context.Background(), time.Now()
	old, next := [32]byte{1}, [32]byte{2}
	id := func(generation uint32) ibc.Identity {
		return ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: generation}
	}
	for _, tc := range []struct {
		name  string
		stage stage
		seen  *enrol.Sighting
		isNew bool
	}{
		{"trust-both, trusts it", stageTrustBoth, &enrol.Sighting{Identity: id(2), Anchors: [][32]byte{old, next}}, false},
		{"issue-from-new, trusts it", stageIssueNew, &enrol.Sighting{Identity: id(2), Anchors: [][32]byte{old, next}}, true},
		{"issue-from-new, later identity", stageIssueNew, &enrol.Sighting{Identity: id(3), Anchors: [][32]byte{next}}, true},
		{"issue-from-new, does not", stageIssueNew, &enrol.Sighting{Identity: id(2), Anchors: [][32]byte{old}}, false},
		{"issue-from-new, was replaced", stageIssueNew, &enrol.Sighting{Identity: id(1), Anchors: [][32]byte{old, next}}, false},
		{"issue-from-new, never seen", stageIssueNew, nil, false},
		{"drop-old, never seen", stageDropOld, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := memstore.NewDisk().Open()
			row := store.Row{Identity: id(2), Names: fleet.DefaultNames("plc-1"), LedgerIndex: 1}
			if _, err := s.PutDevices(ctx, store.Delivery{At: now, Source: "test", Rows: []store.Row{row}}); err != nil {
				t.Fatal(err)
			}
			if tc.seen != nil {
				tc.seen.Device, tc.seen.At = "plc-1", now
				if err := s.PutSighting(ctx, *tc.seen); err != nil {
					t.Fatal(err)
				}
			}
			w := &rolloverWorker{
				old: &enrol.Runner{}, next: &enrol.Runner{}, store: s, sightings: s,
				turnover: &turnover{rollover: rollover{Stage: tc.stage}, newAnchors: [][32]byte{next}},
			}
			got, err := w.choose(ctx, "plc-1")
			if err != nil || (got == w.next) != tc.isNew {
				t.Errorf("the new CA: %t, want %t (%v)", got == w.next, tc.isNew, err)
			}
			if r := w.Run(ctx, "plc-2", false); r.Outcome != enrol.OutcomeFailed {
				t.Errorf("an unknown device: %s", r.Outcome)
			}
		})
	}
}

// What acknowledges a stage.
func TestRolloverFits(t *testing.T) {
	t.Parallel()
	old, next := [32]byte{1}, [32]byte{2}
	both := [][32]byte{old, next}
	set := statement{AnchorSet: &bundle.AnchorSet{Serial: 3, Pattern: "plc-*"}}
	later := statement{AnchorSet: &bundle.AnchorSet{Serial: 4, Pattern: "plc-1"}}
	for _, tc := range []struct {
		name    string
		stage   stage
		device  string
		anchors [][32]byte
		serial  uint64
		fits    bool
	}{
		{"both", stageTrustBoth, "plc-2", both, 3, true},
		{"both by a later statement", stageIssueNew, "plc-2", both, 9, true},
		{"both, but by chance", stageTrustBoth, "plc-2", both, 2, false},
		{"the old one only", stageTrustBoth, "plc-2", both[:1], 3, false},
		{"the later statement counts", stageTrustBoth, "plc-1", both, 3, false},
		{"no statement for it", stageTrustBoth, "cell-1", both, 0, true},
		{"dropped", stageDropOld, "plc-2", both[1:], 3, true},
		{"not dropped", stageDropOld, "plc-2", both, 3, false},
		{"dropped too much", stageDropOld, "plc-2", nil, 3, false},
	} {
		u := &turnover{rollover: rollover{Stage: tc.stage}, statements: []statement{set, later}, oldAnchors: both[:1], newAnchors: both[1:]}
		if got := u.fits(enrol.Sighting{Device: tc.device, Anchors: tc.anchors, Serial: tc.serial}); got != tc.fits {
			t.Errorf("%s: %t, want %t", tc.name, got, tc.fits)
		}
	}
}
