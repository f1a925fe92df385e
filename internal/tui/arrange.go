package tui

import (
	"cmp"
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
	return [...]string{"state", "name", "ends in", "renews in", "last error", "labels", "address"}[o%orders]
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
	slots []int32
	upTo  int // slots of the register that were looked at
	at    time.Time
}

// checkEvery is after how many rows a goroutine looks whether it is still wanted.
const checkEvery = 4096

// arrange answers a query over rows. It looks only at the slots in among, in
// their order, unless that is nil. It returns false if it was no longer wanted.
func arrange(ctx context.Context, rows []*item, among []int32, q query, now time.Time) (arrangement, bool) {
	out := arrangement{query: q, upTo: len(rows), at: now}
	sorted := among != nil
	n := len(among)
	if !sorted {
		n = len(rows)
	}
	out.slots = make([]int32, 0, n)
	for k := range n {
		if k%checkEvery == 0 && ctx.Err() != nil {
			return out, false
		}
		slot := int32(k)
		if sorted {
			slot = among[k]
		}
		if i := rows[slot]; i != nil && i.fits(q.terms, now) {
			out.slots = append(out.slots, slot)
		}
	}
	if sorted {
		return out, true
	}
	keys := make([]sortKey, len(out.slots))
	for k, slot := range out.slots {
		if k%checkEvery == 0 && ctx.Err() != nil {
			return out, false
		}
		keys[k] = newSortKey(rows[slot], slot, q.by, now)
	}
	slices.SortFunc(keys, func(a, b sortKey) int {
		c := a.compare(b)
		if q.reverse {
			c = -c
		}
		return cmp.Or(c, strings.Compare(a.name, b.name))
	})
	for k := range keys {
		out.slots[k] = keys[k].slot
	}
	return out, ctx.Err() == nil
}

// sortKey is what a comparison needs, in one place of memory.
type sortKey struct {
	number int64
	text   string
	name   string
	slot   int32
}

func (a sortKey) compare(b sortKey) int {
	return cmp.Or(cmp.Compare(a.number, b.number), strings.Compare(a.text, b.text))
}

// last sorts what has no time, or no text, behind the rest.
const last = int64(1)<<62 - 1

func newSortKey(i *item, slot int32, by order, now time.Time) sortKey {
	k := sortKey{name: i.Name, slot: slot}
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
		k.number = int64(statusOf(i.Row, now))<<50 + min(seconds(i.NotAfter), 1<<50-1)
	case byEnd:
		k.number = seconds(i.NotAfter)
	case byRenewal:
		k.number = seconds(i.RenewAt)
	case byFailure:
		words(i.failure)
	case byLabels:
		words(i.pairs)
		if i.labels == "" {
			k.number = last
		}
	case byAddress:
		words(i.Address)
	}
	return k
}
