package metrics

import (
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/renewal"
)

// Certificates sums up those of a fleet while it is read, in memory that does
// not grow with the fleet.
type Certificates struct {
	at time.Time
	// perDevice is the largest number of devices that get metrics of their own.
	perDevice int

	n         int
	devices   []renewal.Row // nil if there are more than perDevice
	expired   int
	remaining histogram
	ratio     histogram
	renewal   histogram
}

// NewCertificates returns the sums of no device. They are as of at, which
// should be the census' At; a fleet with more certificates than perDevice gets
// no metrics of single devices.
func NewCertificates(at time.Time, perDevice int) *Certificates {
	return &Certificates{
		at: at, perDevice: perDevice,
		remaining: newHistogram(horizons()[1:]), ratio: newHistogram(shares()), renewal: newHistogram(horizons()),
	}
}

// Add counts a device, if it has a certificate. Each may be added once, in any
// order.
func (c *Certificates) Add(d renewal.Row) {
	if d.NotAfter.IsZero() {
		return
	}
	c.n++
	if c.n <= c.perDevice {
		c.devices = append(c.devices, d)
	} else {
		c.devices = nil
	}
	if d.Paused || d.Quarantined {
		return
	}
	if !d.RenewAt.IsZero() {
		c.renewal.observe(max(0, d.RenewAt.Sub(c.at).Seconds()))
	}
	left := d.NotAfter.Sub(c.at)
	if left <= 0 {
		c.expired++
		return
	}
	c.remaining.observe(left.Seconds())
	if life := d.NotAfter.Sub(d.EnrolledAt); !d.EnrolledAt.IsZero() && life > 0 {
		c.ratio.observe(min(1, left.Seconds()/life.Seconds()))
	}
}

// horizons are the bounds of the buckets of what lies ahead, in seconds.
func horizons() []float64 {
	const hour = 3600
	return []float64{0, hour / 4, hour, 3 * hour, 6 * hour, 12 * hour, 24 * hour, 72 * hour, 168 * hour, 720 * hour, 2160 * hour, 8760 * hour}
}

// shares are the bounds of the buckets of what is left of lifetimes. There are
// no whole numbers among them: Prometheus 2 and 3 write those differently, so
// that no rule could name the bucket to both.
func shares() []float64 {
	return []float64{0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
}

// histogram counts values by upper bounds.
type histogram struct {
	n      uint64
	sum    float64
	bounds []float64
	counts []uint64 // by bound, of each bucket alone
}

func newHistogram(bounds []float64) histogram {
	return histogram{bounds: bounds, counts: make([]uint64, len(bounds))}
}

func (h *histogram) observe(value float64) {
	h.n++
	h.sum += value
	if i, _ := slices.BinarySearch(h.bounds, value); i < len(h.counts) {
		h.counts[i]++
	}
}

// cumulative returns how many values there are up to each bound.
func (h *histogram) cumulative() map[float64]uint64 {
	buckets := make(map[float64]uint64, len(h.bounds))
	var sum uint64
	for i, bound := range h.bounds {
		sum += h.counts[i]
		buckets[bound] = sum
	}
	return buckets
}
