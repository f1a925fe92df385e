package clmctl

import (
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/receipt"
	"github.com/edgeclm/edgeclm/internal/store"
)

// leaveCommissioned writes the receipt for a manifest whose devices are in the
// inventory. It lists them all: where a later identity was known, the inventory
// has what is worth more.
func (a *app) leaveCommissioned(s *site, o commissionOptions, key *ibc.PrivateKey, told receipt.Commissioned, d store.Delivery, n store.Counts) (path string, err error) {
	told.Added, told.Updated, told.Unchanged, told.Skipped = n.Added, n.Updated, n.Unchanged, n.Skipped
	rows := make([]receipt.Row, len(d.Rows))
	for i, r := range d.Rows {
		rows[i] = receipt.Row{Identity: r.Identity, LedgerIndex: r.LedgerIndex}
	}
	return a.clerk(s, o.receipt, key).Leave(a.Streams, o.manifest, receipt.Receipt{Commissioned: &told}, rows)
}
