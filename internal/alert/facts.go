package alert

import (
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// Facts is what is known of a fleet and its surroundings. What is not known is
// left zero and raises no alert; the kinds of alerts for which not all could be
// found out this time stand in Unknown: none of them is raised or recovers.
type Facts struct {
	Unknown []Kind

	Census renewal.Census

	// Lifetime is how long the certificates of the fleet live, the shortest kind
	// of them; the automatic thresholds are shares of it.
	Lifetime time.Duration
	// RenewBy is the share of its lifetime after which a certificate should have
	// been renewed: the later end of the renewal window. 0: a half.
	RenewBy float64
	// DueSince says since when the first of the due devices waits.
	DueSince time.Time
	// Maintenance are the windows in which no CA is asked. They do not count
	// where something waits for success.
	Maintenance fleet.Calendar
	// Runway is when the first certificate would end if the CA stopped now; zero:
	// the census' FirstExpiry.
	Runway       time.Time
	RunwayDevice string

	CAs          []enrol.Breaker
	Certificates []Certificate // of CAs, RAs and trust anchors

	// Troubles are the devices in trouble that are not paused, bounded; those
	// whose certificates end first in front.
	Troubles []Trouble
	More     int // how many more there are than Troubles has

	ClockDoubt string // why our clock may be wrong; "": nothing speaks against it
	Disk       Disk
	Lock       Lock
}

// Certificate is one that the fleet depends on and that is not a device's.
type Certificate struct {
	Role      string // "CA", "RA", "trust anchor"
	Name      string // its subject, or the CA's address
	NotBefore time.Time
	NotAfter  time.Time
}

// Trouble is a device whose last try failed, that is quarantined, or whose
// certificate has ended.
type Trouble struct {
	Device      string
	Class       enrol.Class // of the last failure; "": it has not failed
	LastError   string
	Since       time.Time // since when it fails; zero: not known
	EnrolledAt  time.Time // when it got its certificate; zero: not known
	NotAfter    time.Time // of its certificate; zero: it has none
	Quarantined bool
}

// Disk is the file system that the inventory lies on.
type Disk struct {
	Path string
	Free uint64 // bytes
	Size uint64 // bytes; 0: not known
}

// Lock is the lock between renewing runs.
type Lock struct {
	Since  time.Time // when its holder took it; zero: nobody has it, or an endless loop does
	Holder string
}

// Thresholds say when something becomes an alert. Of those that say so, zero is
// automatic: from the lifetime of the certificates.
type Thresholds struct {
	NoSuccessWithin time.Duration // 0: an eighth of the lifetime, two minutes at least and three days at most
	NeverReached    time.Duration // 0: 24 h
	Runway          time.Duration // 0: half of what a certificate has left when it should have been renewed
	CAExpiry        time.Duration // 0: 30 days; never more than a third of the certificate's life
	DiskFree        uint64        // bytes; 0: 64 MiB
	LockHeld        time.Duration // 0: 6 h
}

// Defaults and bounds of the automatic thresholds.
const (
	defaultLifetime     = 24 * time.Hour // if nothing is known of the certificates
	maxNoSuccess        = 72 * time.Hour
	minNoSuccess        = 2 * time.Minute // the loop looks each minute
	defaultNeverReached = 24 * time.Hour
	defaultCAExpiry     = 30 * 24 * time.Hour
	defaultDiskFree     = 64 << 20
	defaultLockHeld     = 6 * time.Hour
	defaultRenewBy      = 0.5
)

// withDefaults fills in what is automatic.
func (t Thresholds) withDefaults(f Facts) Thresholds {
	life := f.Lifetime
	if life <= 0 {
		life = defaultLifetime
	}
	if t.NoSuccessWithin <= 0 {
		t.NoSuccessWithin = min(max(life/8, minNoSuccess), maxNoSuccess)
	}
	if t.NeverReached <= 0 {
		t.NeverReached = defaultNeverReached
	}
	if t.Runway <= 0 {
		t.Runway = f.rest(life) / 2
	}
	if t.CAExpiry <= 0 {
		t.CAExpiry = defaultCAExpiry
	}
	if t.DiskFree == 0 {
		t.DiskFree = defaultDiskFree
	}
	if t.LockHeld <= 0 {
		t.LockHeld = defaultLockHeld
	}
	return t
}

// rest is what a certificate of such a lifetime has left when it should have
// been renewed.
func (f Facts) rest(life time.Duration) time.Duration {
	by := f.RenewBy
	if by <= 0 || by >= 1 {
		by = defaultRenewBy
	}
	return time.Duration((1 - by) * float64(life))
}

// runway returns when the first certificate would end without the CA.
func (f Facts) runway() (time.Time, string) {
	if !f.Runway.IsZero() {
		return f.Runway, f.RunwayDevice
	}
	return f.Census.FirstExpiry, f.Census.FirstExpiring
}

// Unsure reports whether it says nothing that there is no alert of the kind:
// our clock would have to be right, or the facts are not all there.
func (f Facts) Unsure(k Kind) bool {
	switch {
	case slices.Contains(f.Unknown, k), f.ClockDoubt != "" && k.timed():
		return true
	case f.More > 0:
		return k == KindFailing || k == KindEnding
	}
	return false
}
