package tui

import (
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// item is a row made ready for the table, off the loop that answers keys. It is
// never changed, so that a goroutine may read it.
type item struct {
	renewal.Row
	// Cleaned for the screen.
	name, address, asset, labels, failure string
	pairs                                 string // ";k=v;k=v;" in lower case, for the filter
}

// labelText is what items of the same labels share.
type labelText struct{ shown, pairs string }

func newLabelText(labels string, plain bool) labelText {
	return labelText{clean(strings.ReplaceAll(labels, ";", " "), plain), ";" + strings.ToLower(labels) + ";"}
}

func newItems(rows []renewal.Row, plain bool) []*item {
	out := make([]*item, len(rows))
	seen := map[string]labelText{}
	for k, r := range rows {
		labels := fleet.FormatLabels(r.Labels)
		l, ok := seen[labels]
		if !ok {
			l = newLabelText(labels, plain)
			seen[labels] = l
		}
		out[k] = &item{
			Row: r, name: clean(r.Name, plain), address: clean(r.Address, plain), asset: clean(r.Asset, plain),
			labels: l.shown, failure: clean(inRow(r.LastError, r.Name), plain), pairs: l.pairs,
		}
	}
	return out
}

// inRow is what of an error needs to stand beside the device's name: not what
// was being done with the device of that name.
func inRow(failure, name string) string {
	if _, rest, ok := strings.Cut(failure, name+": "); ok {
		return rest
	}
	return failure
}

// register is every row that has been read. A device keeps its slot, so that an
// arrangement of slots stays valid while rows change under it.
type register struct {
	slots []*item // nil: the device is gone
	index map[string]int32
	lent  bool // a goroutine reads slots: copy before changing one
	gone  int
}

func newRegister() *register { return &register{index: map[string]int32{}} }

// len is the number of devices.
func (r *register) len() int { return len(r.slots) - r.gone }

// lend returns the slots to a goroutine, to which they stay as they are.
func (r *register) lend() []*item {
	r.lent = true
	return r.slots[:len(r.slots):len(r.slots)]
}

func (r *register) own() {
	if r.lent {
		r.slots, r.lent = slices.Clone(r.slots), false
	}
}

// put adds devices or replaces their rows.
func (r *register) put(items []*item) {
	for _, i := range items {
		slot, known := r.index[i.Name]
		if !known {
			// Beyond what was lent: nobody reads there.
			r.index[i.Name] = int32(len(r.slots))
			r.slots = append(r.slots, i)
			continue
		}
		r.own()
		r.slots[slot] = i
	}
}

// drop forgets a device.
func (r *register) drop(name string) {
	slot, known := r.index[name]
	if !known {
		return
	}
	r.own()
	r.slots[slot] = nil
	r.gone++
	delete(r.index, name)
}

func (r *register) at(slot int32) *item {
	if slot < 0 || int(slot) >= len(r.slots) {
		return nil
	}
	return r.slots[slot]
}

func (r *register) find(name string) *item {
	if slot, ok := r.index[name]; ok {
		return r.slots[slot]
	}
	return nil
}
