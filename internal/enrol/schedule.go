package enrol

import (
	"encoding/binary"
	"hash/fnv"
	"time"
)

// Waits are given for certificates of a day, and grow and shrink with the
// lifetime within these bounds.
const (
	scheduleFor   = 24 * time.Hour
	largestScale  = 6
	leastFirst    = 2 * time.Second
	leastLongest  = 10 * time.Second
	leastFloor    = 10 * time.Second
	largestFactor = 4   // of schedule
	jitter        = 0.2 // each way
)

// schedule is how a class waits, as multiples of Policy.RetryFirst and
// Policy.RetryLongest: longer where somebody has to do something first, shorter
// where it passes by itself.
func (c Class) schedule() (first, longest float64) {
	switch c {
	case ClassCARejected, ClassCAMismatch, ClassCLMVerify:
		return 30, 4 // others may have the same meanwhile, and then it is the CA's fault
	case ClassIdentity, ClassDeviceVerify, ClassCSR, ClassDevice:
		return 5, 4
	case ClassFull, ClassHook, ClassNotServed:
		return 5, 2
	case ClassCAUnavail:
		return 1, 0.25
	case ClassBusy:
		return 1, 0.25
	}
	return 1, 1
}

// lifetime is that of the device's present certificate; a day if it has none.
func (s *session) lifetime() time.Duration {
	if c := s.d.Certificate; c != nil && c.NotAfter.After(c.NotBefore) {
		return c.NotAfter.Sub(c.NotBefore)
	}
	return scheduleFor
}

// BreakerFor returns the policy with the waits of a breaker as they are for
// certificates that live so long: no CA is left alone for more than a hundredth
// of that.
func (p Policy) BreakerFor(lifetime time.Duration) Policy {
	p.BreakerFirst = min(p.BreakerFirst, max(lifetime/1000, leastFirst))
	p.BreakerLongest = min(p.BreakerLongest, max(lifetime/100, leastLongest))
	return p
}

// retry is the wait after the n-th failure in a row, n from 1, of a device
// whose certificate lives so long. It doubles each time, and is spread by the
// device and the try, so that devices that failed together do not come back
// together.
func (p Policy) retry(c Class, n int, device string, lifetime time.Duration) time.Duration {
	scale := min(float64(lifetime)/float64(scheduleFor), largestScale)
	first, longest := c.schedule()
	most := max(float64(p.RetryLongest)*scale*longest, float64(min(p.RetryLongest, leastLongest)))
	wait := max(float64(p.RetryFirst)*scale*first, float64(min(p.RetryFirst, leastFirst)))
	for ; n > 1 && wait < most; n-- {
		wait *= 2
	}
	return time.Duration(min(wait, most) * (1 - jitter + 2*jitter*spread(device, n)))
}

// spread is a number in [0, 1) that is always the same for a device's try.
func spread(device string, n int) float64 {
	h := fnv.New64a()
	// Writing to a hash never fails.
	_, _ = h.Write(binary.BigEndian.AppendUint64([]byte(device), uint64(n)))
	// Multiplied, since the last bytes hardly reach the high bits otherwise.
	return float64(h.Sum64()*0x9e3779b97f4a7c15>>11) / (1 << 53)
}

// floor is the least time between two requests to the CA for a device whose
// certificate lives so long: less for those of hours and minutes, which must be
// renewed before it is over.
func (p Policy) floor(lifetime time.Duration) time.Duration {
	scaled := time.Duration(float64(p.Floor) * float64(lifetime) / float64(scheduleFor))
	return min(p.Floor, max(scaled, leastFloor))
}
