// Package storetest is the conformance suite of the inventory's stores.
package storetest

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

// Store is what every store has. Times are kept in UTC to the microsecond,
// rounded down; durations exactly.
type Store interface {
	enrol.Store
	enrol.DeliveryStore
	enrol.SightingStore
	// PutDevices stores a delivery in one transaction, or nothing of it.
	//
	// A row of a later (epoch, generation) replaces the identity, unless its
	// bundle can be handed over (store.Delivery.Receive); an earlier one is
	// skipped and counted; addresses, labels and names follow the
	// higher ledger index. So rows may arrive in any order, and twice. What an
	// operator decided (Delivery.Addresses, SetLabels) stays in force over
	// what manifests say until it is taken back. An address or asset for a
	// device that is not known wraps enrol.ErrNotFound; a row that is no
	// device's, and an asset that is taken, store.ErrInvalid.
	//
	// Under store.Delivery.Lifeboat a device that has none of that number gets the
	// row's identity, whatever it had, and loses what was queued or delivered.
	PutDevices(ctx context.Context, d store.Delivery) (store.Counts, error)
	// Aboard returns the devices for which a lifeboat of at least this serial
	// number waits, or was delivered.
	Aboard(ctx context.Context, serial uint64) (map[string]bool, error)
	Close() error
}

// Inventory is what the command line needs beyond that.
type Inventory interface {
	Store
	// ListDevices yields devices in the order of their names. A name of the
	// filter that does not exist yields an error that wraps enrol.ErrNotFound,
	// one that is out of service enrol.ErrDecommissioned unless such devices are
	// asked for.
	// The sequence holds a snapshot of the inventory while it runs; it is not
	// for work between the elements that takes long.
	ListDevices(ctx context.Context, f store.Filter) iter.Seq2[fleet.Device, error]
	// CountDevices counts what ListDevices would yield.
	CountDevices(ctx context.Context, f store.Filter) (int, error)
	// DueJobs returns the devices that should be worked on at now, those whose
	// certificates end first in front: not paused, not quarantined, with an open
	// enrolment, a certificate that is due (fleet.Device.Due) or a failure to get
	// one, and no next try ahead (fleet.Waits with longest, see
	// enrol.Policy.LongestWait).
	DueJobs(ctx context.Context, f store.Filter, now time.Time, longest time.Duration) ([]renewal.Job, error)
	// NextDue returns the time before which no device becomes due that is not
	// due at now, and the zero time if none ever will.
	NextDue(ctx context.Context, now time.Time) (time.Time, error)
	// History returns all that is known about a device, by its name or asset, with at most so many
	// of its last events (0: all).
	History(ctx context.Context, device string, events int) (store.History, error)
	// Outstanding returns what is outstanding for any device, without payloads,
	// in the order of the devices' names.
	Outstanding(ctx context.Context) ([]enrol.Delivery, error)
	// CertificateByHash returns a certificate on record by its SHA-256.
	CertificateByHash(ctx context.Context, sha256 [32]byte) (store.Certificate, error)
	// Note takes down an event that concerns a device, and changes nothing else.
	Note(ctx context.Context, a store.Action, kind enrol.EventKind) error
	// SetPaused pauses a device or resumes it.
	SetPaused(ctx context.Context, a store.Action, paused bool) error
	// SetLabels overrides the manifest's labels; nil returns to them.
	SetLabels(ctx context.Context, a store.Action, labels map[string]string) error
	// Release ends a device's quarantine; its attempts count from 0 again.
	Release(ctx context.Context, a store.Action) error
	// Decommission takes a device out of service; PutDevices brings it back.
	Decommission(ctx context.Context, a store.Action) error
}

// A Place is where the records of one test lie. It is called for each store
// that is opened there, one after the other or at the same time, as processes
// would; the suite closes them.
type Place[S Store] func(t testing.TB) S

// Run runs the suite of every store. place makes a new, empty place.
func Run(t *testing.T, place func(t testing.TB) Place[Store]) {
	runEach(t, place, map[string]func(*testing.T, Place[Store]){
		"NotFound":          testNotFound,
		"RoundTrip":         testRoundTrip,
		"ZeroRoundTrip":     testZeroRoundTrip,
		"OddStrings":        testOddStrings,
		"OddTimes":          testOddTimes,
		"Revisions":         testRevisions,
		"OneOpen":           testOneOpen,
		"OneOpenEach":       testOneOpenEach,
		"Atomic":            testAtomic,
		"Invalid":           testInvalid,
		"DeviceColumns":     testDeviceColumns,
		"DeviceNil":         testDeviceNil,
		"IdentityRises":     testIdentityRises,
		"QuarantineStays":   testQuarantineStays,
		"SerialOwner":       testSerialOwner,
		"SameCertificate":   testSameCertificate,
		"ByCertificate":     testEnrolmentByCertificate,
		"Aliasing":          testAliasing,
		"CancelledContext":  testCancelledContext,
		"Closed":            testClosed,
		"Race":              testRace,
		"RaceToOpen":        testRaceToOpen,
		"ManyDevices":       testManyDevices,
		"Lease":             testLease,
		"LeaseAcrossStores": testLeaseAcrossStores,
		"LeaseRace":         testLeaseRace,
		"Commission":        testCommission,
		"CommissionOrder":   testCommissionOrder,
		"CommissionAtomic":  testCommissionAtomic,
		"ManualAddress":     testManualAddress,
		"CommissionBundle":  testCommissionBundle,
		"Assets":            testAssets,
		"Deliveries":        testDeliveries,
		"Lifeboat":          testLifeboat,
		"DeliverySupersede": testDeliverySupersede,
		"DeliveryAtomic":    testDeliveryAtomic,
		"DeliveryBundle":    testDeliveryBundle,
		"DeliveryRace":      testDeliveryRace,
		"Sightings":         testSightings,
	})
	t.Run("Model", func(t *testing.T) { testModel(t, place) })
}

// RunInventory runs the suite of what the command line needs; Run is not part
// of it.
func RunInventory(t *testing.T, place func(t testing.TB) Place[Inventory]) {
	runEach(t, place, map[string]func(*testing.T, Place[Inventory]){
		"List":              testList,
		"ListStops":         testListStops,
		"Pause":             testPause,
		"Labels":            testLabels,
		"Release":           testRelease,
		"History":           testHistory,
		"HistoryOfNothing":  testHistoryOfNothing,
		"HistoryAtomic":     testHistoryAtomic,
		"Tenures":           testTenures,
		"CertificateByHash": testCertificateByHash,
		"Addresses":         testAddresses,
		"AssetHistory":      testAssetHistory,
		"Note":              testNote,
		"Due":               testDue,
		"Outstanding":       testOutstanding,
		"PublicKeys":        testPublicKeys,
		"Decommission":      testDecommission,
		"DecommissionStops": testDecommissionStops,
		"DecommissionLists": testDecommissionLists,
	})
	t.Run("Reinstate", func(t *testing.T) { testReinstate(t, place) })
	t.Run("DueModel", func(t *testing.T) { testDueModel(t, place) })
}

// runEach runs each test in a place of its own.
func runEach[S Store](t *testing.T, place func(t testing.TB) Place[S], tests map[string]func(*testing.T, Place[S])) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, place(t)) })
	}
}
