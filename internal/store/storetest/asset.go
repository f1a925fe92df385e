package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// bind binds devices to assets: device, asset, device, asset...
func bind(s Store, minute int, source string, pairs ...string) (store.Counts, error) {
	d := store.Delivery{At: epoch.Add(time.Duration(minute) * time.Minute), Source: source}
	for i := 0; i < len(pairs); i += 2 {
		d.Assets = append(d.Assets, store.Asset{Device: pairs[i], Asset: pairs[i+1]})
	}
	return s.PutDevices(context.Background(), d)
}

func testAssets(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "hw-1", "hw-2", "hw-3", "press-9")
	assets := func() (out []string) {
		for _, name := range []string{"hw-1", "hw-2", "hw-3"} {
			out = append(out, device(t, s, name).Asset)
		}
		return out
	}
	same(t, "spares", assets(), []string{"", "", ""})
	n, err := bind(s, 1, "csv", "hw-1", "Press 1", "hw-2", "Press 2")
	same(t, "bound", []any{n, err}, []any{store.Counts{Updated: 2}, nil})
	n, err = bind(s, 2, "csv", "hw-1", "Press 1", "hw-2", "Press 2")
	same(t, "again", []any{n, err}, []any{store.Counts{Unchanged: 2}, nil})
	put(t, s, "hw-1")
	same(t, "after a manifest", assets(), []string{"Press 1", "Press 2", ""})
	n, err = bind(s, 3, "csv", "hw-1", "Press 2", "hw-2", "press 1")
	same(t, "exchanged", []any{n, err}, []any{store.Counts{Updated: 2}, nil})
	same(t, "exchanged", assets(), []string{"Press 2", "press 1", ""})

	for what, c := range map[string]struct {
		pairs []string
		want  error
	}{
		"taken":                   {[]string{"hw-3", "Press 2"}, store.ErrInvalid},
		"taken, in other letters": {[]string{"hw-3", "PRESS 2"}, store.ErrInvalid},
		"twice":                   {[]string{"hw-1", "new", "hw-3", "NEW"}, store.ErrInvalid},
		"another device's name":   {[]string{"hw-3", "press-9"}, store.ErrInvalid},
		"no name of an asset":     {[]string{"hw-3", "a;b"}, store.ErrInvalid},
		"unknown device":          {[]string{"hw-3", "new", "hw-9", "newer"}, enrol.ErrNotFound},
	} {
		_, err := bind(s, 4, "csv", c.pairs...)
		wantError(t, what, err, c.want)
		same(t, what, assets(), []string{"Press 2", "press 1", ""})
	}

	// A broken device's place goes to a spare.
	if _, err := bind(s, 5, "csv", "hw-1", "", "hw-3", "Press 2"); err != nil {
		t.Fatal(err)
	}
	same(t, "replaced", assets(), []string{"", "press 1", "Press 2"})
	s = reopen(t, s, place)
	same(t, "reopened", assets(), []string{"", "press 1", "Press 2"})
}

func testAssetHistory(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "hw-1", "hw-2")
	for i, pairs := range [][]string{{"hw-1", "Press 1"}, {"hw-1", "Press 1"}, {"hw-1", "", "hw-2", "Press 1"}} {
		if _, err := bind(s, i, "label", pairs...); err != nil {
			t.Fatal(err)
		}
	}
	h, err := s.History(ctx, "hw-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "assets", h.Assets, []store.AssetEntry{
		{Asset: "Press 1", Source: "label", Since: epoch}, {Source: "label", Since: epoch.Add(2 * time.Minute)},
	})
	same(t, "events", lastEvents(t, s, "hw-1"), []string{"bound: Press 1 from label", "bound: no asset from label"})

	// Who asks for an asset gets the device that serves it now.
	if h, err = s.History(ctx, "press 1", 0); err != nil || h.Device.Name != "hw-2" || h.Device.Asset != "Press 1" {
		t.Errorf("by its asset: %s, %v", h.Device.Name, err)
	}
	listed, err := store.Collect(s.ListDevices(ctx, store.Filter{Names: []string{"Press 1", "hw-1", "hw-2"}}))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "listed", names(listed), []string{"hw-1", "hw-2"})
	_, err = store.Collect(s.ListDevices(ctx, store.Filter{Names: []string{"Press 2"}}))
	wantError(t, "unknown", err, enrol.ErrNotFound)
	d, e := device(t, s, "hw-2"), requested("hw-2", 1)
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	same(t, "due", due(t, s, store.Filter{Names: []string{"PRESS 1"}}, epoch), []string{"hw-2"})
}

func testNote(t *testing.T, place Place[Inventory]) {
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	before := device(t, s, "plc-1")
	for range 2 {
		if err := s.Note(context.Background(), action("plc-1", "seen twice"), store.EventCloned); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "device", device(t, s, "plc-1"), before)
	same(t, "events", lastEvents(t, s, "plc-1"), []string{"cloned: seen twice", "cloned: seen twice"})
	same(t, "the other's events", lastEvents(t, s, "plc-2"), []string(nil))
	wantError(t, "unknown", s.Note(context.Background(), action("plc-9", ""), store.EventCloned), enrol.ErrNotFound)
}
