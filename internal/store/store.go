// Package store names what the inventory keeps beside the rows that the core
// works on: what a commissioning brings, what an operator decides, and the
// history of a device. Implementations stand below it: sqlite is the one that
// the product uses, memstore serves tests, and storetest is what each of them
// must pass.
package store

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Sentinels; every error of a store wraps one of these, one of enrol's
// (ErrNotFound, ErrConflict, ErrLeased) or a failure of the medium.
var (
	// ErrVersion is wrapped by Open when a later release wrote the database.
	ErrVersion = errors.New("written by a later release")
	// ErrFull is wrapped where the file system of the inventory has no room. What
	// is stored is whole, but until there is room it may not even be readable.
	ErrFull = errors.New("no room is left on the inventory's file system")
	// ErrForeign is wrapped by Open when the file is no inventory at all.
	ErrForeign = errors.New("not an edgeclm inventory")
	// ErrInvalid is wrapped when a record breaks a rule of the inventory; it
	// would be refused again.
	ErrInvalid = errors.New("invalid record")
	// ErrClosed is wrapped by every change after Close.
	ErrClosed = errors.New("the store is closed")
)

// Address is where an operator says that a device is.
type Address struct {
	Device  string
	Address string // host:port; "" returns to what the manifest says
}

// Asset is what an operator says that a device serves.
type Asset struct {
	Device string
	Asset  string // "": nothing
}

// Validate reports, as an error that wraps ErrInvalid, what is wrong with a.
func (a Asset) Validate() error {
	if a.Asset == "" {
		return nil
	}
	if err := fleet.ValidateAsset(a.Asset); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, a.Device, err)
	}
	return nil
}

// Delivery is what one commissioning brings: rows of a manifest, addresses that
// override it, and assets. An asset is bound to one device at most, upper and
// lower case alike, and is no other device's name; a device is named once. They
// are exchanged within one delivery.
type Delivery struct {
	At        time.Time
	Source    string // where it came from, for the history of addresses and assets
	Rows      []Row
	Addresses []Address
	Assets    []Asset
	// Refuse refuses the earlier identities of the devices at once, also where
	// a bundle of the later one waits to be handed over.
	Refuse bool
	// Reinstate brings decommissioned devices back into service of which a row says
	// nothing new. A row of a higher ledger index always does, since the PKG then
	// issued for the device after it was taken in; what a manifest keeps listing
	// does not.
	Reinstate bool
	// Earliest, if its generation is not 0, is the earliest identity (its role
	// and name do not count) that devices may have which are new here, and for
	// which the bundle of a later one is at hand: an inventory was lost while
	// bundles were being handed over.
	Earliest ibc.Identity
	// Lifeboat is the one by which this CLM has come to the PKG of the rows, the
	// zero Lifeboat if there is none.
	Lifeboat Lifeboat
}

// Lifeboat is a lifeboat statement, by its serial number. A device that has none
// of this number, waiting or delivered, is as much as unknown under the root of
// trust that it leads to: whatever identity it had, later ones included, is void,
// and the row's lifeboat is queued for it, which is the statement with the row's
// sealed bundle behind it.
type Lifeboat struct {
	Serial    uint64 // 0: there is none
	Statement []byte
}

// Board returns what is known about a device under the root of a lifeboat, after
// a row of its manifest; what the row leaves open stays as it was. queue says
// that the row's bundle is at hand.
func (l Lifeboat) Board(known, row Row) (next Row, queue bool) {
	next = row
	if next.Address == "" {
		next.Address = known.Address
	}
	if len(next.Labels) == 0 {
		next.Labels = known.Labels
	}
	next.Sealed, next.PublicKey = nil, nil
	return next, len(row.Sealed) > 0
}

// Delivery is what is queued for the device of a row whose bundle is at hand.
func (l Lifeboat) Delivery(row Row, at time.Time) enrol.Delivery {
	return enrol.NewDelivery(row.Identity.Name, enrol.DeliverLifeboat, l.Serial, slices.Concat(l.Statement, row.Sealed), at)
}

// Begin returns what is known about a device that is new here; queue says that
// the row's bundle is to be queued.
func (d Delivery) Begin(row Row) (first Row, queue bool) {
	first = row
	first.Sealed = nil
	if len(row.Sealed) == 0 || d.Refuse || d.Earliest.Generation == 0 {
		return first, false
	}
	earliest := row.Identity
	earliest.Epoch, earliest.Generation = d.Earliest.Epoch, d.Earliest.Generation
	if earliest.Compare(row.Identity) >= 0 {
		return first, false
	}
	first.Identity = earliest
	return first, true
}

// Receive returns what is known about a device after one of the delivery's
// rows, beside the identity next whose bundle waits for it (zero: none). It is
// Merge, but where the bundle is at hand, or waits already, the earlier
// identity stays accepted until the device has proved the later one, since it
// is over the channel of the earlier one that the device gets it. queue says
// that the row's bundle is to be queued.
func (d Delivery) Receive(known Row, next ibc.Identity, row Row) (merged Row, queue bool, o Outcome) {
	atHand := len(row.Sealed) > 0
	waits := row.Identity.Compare(next) <= 0
	if d.Refuse || row.Identity.Compare(known.Identity) <= 0 || !atHand && !waits {
		merged, o = known.Merge(row)
		return merged, false, o
	}
	if row.Identity.Compare(next) < 0 {
		return known, false, Skipped
	}
	row.Identity = known.Identity
	merged, o = known.Merge(row)
	return merged, atHand, o
}

// Counts says what a delivery did to the devices that it names.
type Counts struct {
	Added     int // devices that were not known
	Updated   int // a later identity, other labels, names or address
	Unchanged int
	Skipped   int // rows of an earlier (epoch, generation) than the stored one
	Queued    int // bundles that wait to be handed over from now on

	Reinstated     int // devices that are back in service, among those updated
	Decommissioned int // devices of rows that stay out of service, among those unchanged
}

// Tally counts a delivery: each device once, by the most that happened to it.
// The zero Tally is ready for use.
type Tally struct {
	skipped int
	queued  int
	back    int
	out     int
	devices map[string]Outcome
}

// Note takes down what a row or an address did to a device.
func (t *Tally) Note(device string, o Outcome) {
	if o == Skipped {
		t.skipped++
		return
	}
	if t.devices == nil {
		t.devices = map[string]Outcome{}
	}
	t.devices[device] = max(t.devices[device], o)
}

// NoteQueued takes down that a bundle was queued for a device.
func (t *Tally) NoteQueued(device string) {
	t.queued++
	t.Note(device, Updated)
}

// NoteReinstated takes down that a device is back in service.
func (t *Tally) NoteReinstated(device string) {
	t.back++
	t.Note(device, Updated)
}

// NoteDecommissioned takes down that a device stays out of service, where a row
// of an outcome changed nothing.
func (t *Tally) NoteDecommissioned(device string, o Outcome) {
	if o != Skipped {
		t.out++
		o = Unchanged
	}
	t.Note(device, o)
}

// Counts returns the sums.
func (t *Tally) Counts() Counts {
	c := Counts{Skipped: t.skipped, Queued: t.queued, Reinstated: t.back, Decommissioned: t.out}
	for _, o := range t.devices {
		switch o {
		case Added:
			c.Added++
		case Updated:
			c.Updated++
		default:
			c.Unchanged++
		}
	}
	return c
}

// Filter selects devices; the zero Filter selects all.
type Filter struct {
	Names  []string          // these, or of these assets; one that does not exist is enrol.ErrNotFound
	Labels map[string]string // devices that have all of them
	// Decommissioned selects devices that are out of service too; without it one
	// that is named is enrol.ErrDecommissioned.
	Decommissioned bool
}

// History is all that is known about a device.
type History struct {
	Device         fleet.Device
	CommissionedAt time.Time
	LedgerIndex    uint64             // of the row that the inventory has of it
	Addresses      []AddressEntry     // oldest first; the last one counts
	Assets         []AssetEntry       // oldest first; the last one counts
	Enrolments     []*enrol.Enrolment // oldest first; with certificates, chains, receipts and the paper's steps
	Certificates   []Certificate      // oldest first
	Deliveries     []enrol.Delivery   // oldest first, without payloads; superseded ones are gone
	Events         []enrol.Event      // oldest first
}

// AddressEntry is an address that a device had since a time.
type AddressEntry struct {
	Address string
	Source  string // of the Delivery
	Manual  bool   // an operator's override, not the manifest's
	Since   time.Time
}

// AssetEntry is what a device served since a time.
type AssetEntry struct {
	Asset  string // "": nothing
	Source string // of the Delivery
	Since  time.Time
}

// Certificate is a certificate on record, with the proof of who made its key.
type Certificate struct {
	fleet.Certificate
	Device    string
	Enrolment enrol.ID // for which it was issued
	DER       []byte
	Chain     [][]byte // the CA certificates that came with it, DER
	Receipt   enrol.Receipt
	Active    bool     // the device's present one
	Tenures   []Tenure // when it was the active one, oldest first; empty if it never was
}

// Tenure is a time in which a certificate was its device's active one.
type Tenure struct {
	From  time.Time
	Until time.Time // zero: still is
}

// The kinds of event that a store adds to enrol's: what an operator did.
const (
	EventCommissioned enrol.EventKind = "commissioned" // the device became known, or its identity later
	EventPaused       enrol.EventKind = "paused"
	EventResumed      enrol.EventKind = "resumed"
	EventReleased     enrol.EventKind = "released" // from quarantine
	EventLabelled     enrol.EventKind = "labelled"
	EventBound        enrol.EventKind = "bound"  // to an asset
	EventCloned       enrol.EventKind = "cloned" // several prove its identity at once
	EventAddressed    enrol.EventKind = "addressed"

	// EventAbandoned: the epoch of its identity was closed though it knows no later one.
	EventAbandoned enrol.EventKind = "abandoned"

	EventDecommissioned enrol.EventKind = "decommissioned" // out of service; EventCommissioned is the way back
)

// Action is an operator's decision about a device.
type Action struct {
	Device string
	At     time.Time
	Reason string // in the operator's words; no secrets
}

// Collect gathers a sequence of devices, up to its first error.
func Collect(devices iter.Seq2[fleet.Device, error]) ([]fleet.Device, error) {
	var out []fleet.Device
	for d, err := range devices {
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// CheckSighting reports, as an error that wraps ErrInvalid, what keeps a
// sighting out of the inventory.
func CheckSighting(s enrol.Sighting) error {
	id := s.Identity
	if id.Validate() != nil || id.Role != ibc.RoleDevice || id.Name != s.Device || s.At.IsZero() || s.Serial > math.MaxInt64 {
		return fmt.Errorf("%w: a sighting of %s as %s at %v", ErrInvalid, s.Device, id, s.At)
	}
	return nil
}
