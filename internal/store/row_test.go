package store_test

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

func row(epoch, generation uint32, ledgerIndex uint64) store.Row {
	return store.Row{
		Identity:    ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: epoch, Generation: generation},
		LedgerIndex: ledgerIndex, Address: fmt.Sprint("a:", ledgerIndex), Labels: map[string]string{"n": fmt.Sprint(ledgerIndex)},
		Names: []fleet.Name{{Kind: fleet.KindCN, Value: fmt.Sprint(ledgerIndex)}},
	}
}

func TestMerge(t *testing.T) {
	same := row(1, 2, 5)
	same.LedgerIndex = 6
	for name, c := range map[string]struct {
		known, next, want store.Row
		outcome           store.Outcome
	}{
		"equal":                       {row(1, 2, 5), row(1, 2, 5), row(1, 2, 5), store.Unchanged},
		"an earlier generation":       {row(1, 2, 5), row(1, 1, 9), row(1, 2, 5), store.Skipped},
		"an earlier epoch":            {row(2, 1, 5), row(1, 7, 9), row(2, 1, 5), store.Skipped},
		"a later generation":          {row(1, 2, 5), row(1, 3, 6), row(1, 3, 6), store.Updated},
		"a later epoch":               {row(1, 2, 5), row(2, 1, 6), row(2, 1, 6), store.Updated},
		"a newer entry":               {row(1, 2, 5), row(1, 2, 6), row(1, 2, 6), store.Updated},
		"a newer entry, nothing new":  {row(1, 2, 5), same, same, store.Unchanged},
		"an older entry":              {row(1, 2, 5), row(1, 2, 4), row(1, 2, 5), store.Unchanged},
		"a later one, an older entry": {row(1, 2, 5), row(1, 3, 4), func() store.Row { r := row(1, 2, 5); r.Identity.Generation = 3; return r }(), store.Updated},
	} {
		got, outcome := c.known.Merge(c.next)
		if fmt.Sprint(got) != fmt.Sprint(c.want) || outcome != c.outcome {
			t.Errorf("%s: %v, %v, want %v, %v", name, got, outcome, c.want, c.outcome)
		}
	}
}

// TestMergeAnyOrder: as a PKG only raises (epoch, generation) along its
// ledger, sticks may arrive in any order and more than once.
func TestMergeAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := []store.Row{row(1, 1, 1)}
		for range rapid.IntRange(1, 6).Draw(t, "issues") {
			last := rows[len(rows)-1]
			next := row(last.Identity.Epoch, last.Identity.Generation, last.LedgerIndex+rapid.Uint64Range(1, 3).Draw(t, "entries"))
			switch rapid.IntRange(0, 2).Draw(t, "raises") {
			case 1:
				next.Identity.Generation++
			case 2:
				next.Identity.Epoch, next.Identity.Generation = next.Identity.Epoch+1, 1
			}
			rows = append(rows, next)
		}
		order := append(rapid.Permutation(rows).Draw(t, "order"), rapid.SliceOf(rapid.SampledFrom(rows)).Draw(t, "again")...)
		known := order[0]
		for _, next := range order[1:] {
			known, _ = known.Merge(next)
		}
		if want := rows[len(rows)-1]; fmt.Sprint(known) != fmt.Sprint(want) {
			t.Fatalf("%v, want %v", known, want)
		}
	})
}

func TestRowValidate(t *testing.T) {
	if err := row(1, 1, math.MaxInt64).Validate(); err != nil {
		t.Error(err)
	}
	if err := row(1, 1, math.MaxInt64+1).Validate(); err == nil {
		t.Error("a ledger index that SQLite cannot store is accepted")
	}
}

func TestTally(t *testing.T) {
	var tally store.Tally
	for _, n := range []struct {
		device string
		o      store.Outcome
	}{
		{"a", store.Added},
		{"a", store.Updated},
		{"b", store.Unchanged},
		{"b", store.Updated},
		{"b", store.Unchanged},
		{"c", store.Unchanged},
		{"c", store.Skipped},
		{"d", store.Skipped},
	} {
		tally.Note(n.device, n.o)
	}
	if got, want := tally.Counts(), (store.Counts{Added: 1, Updated: 1, Unchanged: 1, Skipped: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
