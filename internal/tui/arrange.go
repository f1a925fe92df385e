package tui

import (
	"context"
	"slices"
	"strings"
	"time"
)

// order is what the table is sorted by.
type order uint8

// The orders, as s goes through them.
const (
	byStatus order = iota
	byName
	byEnd
	byRenewal
	byFailure
	byLabels
	byAddress
	orders
)

// String names the order as the table's heading does.
func (o order) String() string {
	return [...]string{"state", "name", "end", "renewal", "last error", "labels", "address"}[o%orders]
}

// query is what the table shows, and how sorted.
type query struct {
	terms   []term
	by      order
	reverse bool
}

// arrangement is the answer to a query: slots of the register.
type arrangement struct {
	query
	all   []int32 // every device, in order
	slots []int32 // those that pass
	at    time.Time
	until time.Time // when time alone changes it
	took  time.Duration
}

// checkEvery is after how many rows a goroutine looks whether it is still wanted.
const checkEvery = 4096

// arrange answers a query over rows. An earlier order of all devices makes it
// quick where little has moved; sorted: it is the order that is asked for. It
// returns false if it was no longer wanted.
func arrange(ctx context.Context, rows []*item, earlier []int32, sorted bool, q query, now time.Time) (arrangement, bool) {
	out := arrangement{query: q, all: earlier, at: now}
	if !sorted {
		var ok bool
		if out.all, ok = sortAll(ctx, rows, earlier, q, now); !ok {
			return out, false
		}
	}
	out.until = now.Add(ageMost)
	byClock := q.by == byStatus || usesClock(q.terms)
	// Rows are looked at as they lie in memory, which is much quicker.
	passes := make([]bool, len(rows))
	for slot, i := range rows {
		if slot%checkEvery == 0 && ctx.Err() != nil {
			return out, false
		}
		if i == nil {
			continue
		}
		if byClock {
			out.until = i.changes(now, out.until)
		}
		passes[slot] = i.fits(q.terms, now)
	}
	out.slots = make([]int32, 0, len(out.all))
	for _, slot := range out.all {
		if passes[slot] {
			out.slots = append(out.slots, slot)
		}
	}
	return out, ctx.Err() == nil
}

// ageMost is for how long an arrangement holds at most. Times that a wrong clock
// has written are no times at which anything changes.
const ageMost = time.Minute

// changes returns when time alone changes what is said of the device, if that
// is before a time.
func (i *item) changes(now, before time.Time) time.Time {
	for _, t := range [...]time.Time{i.NotAfter, i.RenewAt, i.NextAttempt} {
		if t.Before(before) && t.After(now) {
			before = t
		}
	}
	return before
}

// sortAll returns the slots of all devices in order.
func sortAll(ctx context.Context, rows []*item, earlier []int32, q query, now time.Time) ([]int32, bool) {
	bySlot := make([]sortKey, len(rows))
	for slot, i := range rows {
		if slot%checkEvery == 0 && ctx.Err() != nil {
			return nil, false
		}
		if i != nil {
			bySlot[slot] = newSortKey(i, int32(slot), q.by, now)
		}
	}
	keys := make([]sortKey, 0, len(rows))
	known := make([]bool, len(rows))
	add := func(slot int32) {
		if rows[slot] != nil && !known[slot] {
			known[slot] = true
			keys = append(keys, bySlot[slot])
		}
	}
	for _, slot := range earlier {
		add(slot)
	}
	for slot := range rows {
		add(int32(slot))
	}
	slices.SortFunc(keys, func(a, b sortKey) int {
		c := a.compare(b)
		if q.reverse {
			c = -c
		}
		if c == 0 {
			return strings.Compare(rows[a.slot].Name, rows[b.slot].Name)
		}
		return c
	})
	all := make([]int32, len(keys))
	for k := range keys {
		all[k] = keys[k].slot
	}
	return all, ctx.Err() == nil
}

// sortKey is what a comparison needs, in one place of memory.
type sortKey struct {
	number int64
	text   string
	slot   int32
}

func (a sortKey) compare(b sortKey) int {
	switch {
	case a.number < b.number:
		return -1
	case a.number > b.number:
		return 1
	case a.text == b.text:
		return 0
	}
	return strings.Compare(a.text, b.text)
}

// last sorts what has no time, or no text, behind the rest.
const last = int64(1)<<62 - 1

func newSortKey(i *item, slot int32, by order, now time.Time) sortKey {
	k := sortKey{slot: slot}
	seconds := func(t time.Time) int64 {
		if t.IsZero() {
			return last
		}
		return t.Unix()
	}
	words := func(s string) {
		if k.text = s; s == "" {
			k.number = last
		}
	}
	switch by {
	case byStatus:
		// The worst first, and among them those that end first.
		k.number = int64(statusOf(&i.Row, now))<<50 + min(seconds(i.NotAfter), 1<<50-1)
	case byName:
		k.text = i.Name
	case byEnd:
		k.number = seconds(i.NotAfter)
	case byRenewal:
		k.number = seconds(i.RenewAt)
	case byFailure:
		words(i.failure)
	case byLabels:
		if words(i.pairs); i.labels == "" {
			k.number = last
		}
	case byAddress:
		words(i.Address)
	}
	return k
}
