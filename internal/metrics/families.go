package metrics

import (
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// families lists every metric; docs/metrics.md describes them.
func families(o Options) []*family {
	return slices.Concat(fleetFamilies(), deviceFamilies(o), caFamilies(), workFamilies())
}

func fleetFamilies() []*family {
	return []*family{
		{
			name: "build_info", help: "Version of the program and identity of the CLM; always 1.", kind: prometheus.GaugeValue,
			labels: []string{"version", "identity"},
			emit:   func(s Snapshot, set func(float64, ...string)) { set(1, s.Version, s.Identity) },
		},
		{
			name: "devices", help: "Devices of the inventory by state; a device may be in several.", kind: prometheus.GaugeValue, labels: []string{"state"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				c := s.Census
				for _, state := range []struct {
					name string
					n    int
				}{
					{"operational", c.Operational}, {"expired", c.Expired}, {"never_enrolled", c.NeverEnrolled}, {"due", c.Due}, {"failing", c.Failing},
					{"quarantined", c.Quarantined}, {"paused", c.Paused}, {"unfinished", c.Unfinished}, {"never_reached", c.NeverReached},
				} {
					set(float64(state.n), state.name)
				}
			},
		},
		gauge("inventory_devices", "Devices of the inventory.", func(s Snapshot) float64 { return float64(s.Census.Total) }),
		{
			name: "runway_seconds", help: "Time until the first certificate would end if the CA stopped now; missing if no device has a valid one.",
			kind: prometheus.GaugeValue,
			emit: func(s Snapshot, set func(float64, ...string)) {
				if first := s.Census.FirstExpiry; !first.IsZero() {
					set(first.Sub(s.Census.At).Seconds())
				}
			},
		},
		instant("first_expiry_timestamp_seconds", "End of the valid certificate that ends first.", func(s Snapshot) time.Time { return s.Census.FirstExpiry }),
		instant("last_success_timestamp_seconds", "When the last enrolment of any device was completed.", func(s Snapshot) time.Time { return s.Census.LastSuccess }),
		instant("last_try_timestamp_seconds", "When an enrolment was last worked on.", func(s Snapshot) time.Time { return s.Census.LastTry }),
		instant("next_due_timestamp_seconds", "When the next device becomes due.", func(s Snapshot) time.Time { return s.Census.NextDue }),
		instant("unreached_since_timestamp_seconds", "Since when the first device waits that was never reached.", func(s Snapshot) time.Time { return s.Census.UnreachedSince }),
		instant("snapshot_timestamp_seconds", "When these figures were read from the inventory.", func(s Snapshot) time.Time { return s.Census.At }),
	}
}

func deviceFamilies(o Options) []*family {
	perDevice := func(name, help string, value func(Device) time.Time) *family {
		return &family{name: name, help: help, kind: prometheus.GaugeValue, labels: []string{"device"}, emit: func(s Snapshot, set func(float64, ...string)) {
			if len(s.Devices) > o.PerDeviceUpTo {
				return
			}
			for _, d := range s.Devices {
				if at := value(d); !at.IsZero() {
					set(unix(at), d.Name)
				}
			}
		}}
	}
	ahead := func(name, help string, value func(Device) time.Time) *family {
		return &family{name: name, help: help, labels: []string{}, histogram: func(s Snapshot, set func(histogram, ...string)) {
			set(distribution(s, value))
		}}
	}
	return []*family{
		perDevice("certificate_not_after_timestamp_seconds", "End of a device's certificate; only of fleets up to metrics.per_device_up_to.",
			func(d Device) time.Time { return d.NotAfter }),
		perDevice("certificate_renew_at_timestamp_seconds", "When a device's certificate is due for renewal; only of fleets up to metrics.per_device_up_to.",
			func(d Device) time.Time { return d.RenewAt }),
		perDevice("certificate_activated_timestamp_seconds", "When a device's certificate became the active one; only of fleets up to metrics.per_device_up_to.",
			func(d Device) time.Time { return d.EnrolledAt }),
		ahead("certificate_remaining_seconds", "Devices by how long their certificates last; expired ones are in the first bucket.",
			func(d Device) time.Time { return d.NotAfter }),
		ahead("certificate_renewal_in_seconds", "Devices by how soon they are due for renewal; those that are due are in the first bucket.",
			func(d Device) time.Time { return d.RenewAt }),
	}
}

// horizons are the bounds of the buckets of what lies ahead, in seconds.
func horizons() []float64 {
	const hour = 3600
	return []float64{0, hour / 4, hour, 3 * hour, 6 * hour, 12 * hour, 24 * hour, 72 * hour, 168 * hour, 720 * hour, 2160 * hour, 8760 * hour}
}

func distribution(s Snapshot, value func(Device) time.Time) histogram {
	bounds := horizons()
	h := histogram{buckets: make(map[float64]uint64, len(bounds))}
	counts := make([]uint64, len(bounds)+1)
	for _, d := range s.Devices {
		at := value(d)
		if at.IsZero() {
			continue
		}
		ahead := math.Max(0, at.Sub(s.Census.At).Seconds())
		i, _ := slices.BinarySearch(bounds, ahead)
		counts[i]++
		h.n++
		h.sum += ahead
	}
	var sum uint64
	for i, bound := range bounds {
		sum += counts[i]
		h.buckets[bound] = sum
	}
	return h
}

func caFamilies() []*family {
	return []*family{
		{
			name: "ca_breaker", help: "1 for the state of a CA's breaker: closed, open (the CA is not asked) or half-open.", kind: prometheus.GaugeValue,
			labels: []string{"ca", "role", "state"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				for _, ca := range s.Authority {
					for _, state := range []enrol.BreakerState{enrol.BreakerClosed, enrol.BreakerOpen, enrol.BreakerHalfOpen} {
						set(truth(ca.State == state), ca.CA, ca.Role, string(state))
					}
				}
			},
		},
		perCA("ca_latency_seconds", "How long a CA takes to answer, smoothed.", func(ca Authority) (float64, bool) { return ca.Latency.Seconds(), ca.Latency > 0 }),
		perCA("ca_last_success_timestamp_seconds", "When a CA last issued, to about a minute.", func(ca Authority) (float64, bool) { return instantOf(ca.LastSuccess) }),
		perCA("ca_last_failure_timestamp_seconds", "When a CA last failed.", func(ca Authority) (float64, bool) { return instantOf(ca.LastFailure) }),
		perCA("ca_certificate_not_after_timestamp_seconds", "End of the pinned certificate of a CA that ends first.", func(ca Authority) (float64, bool) { return instantOf(ca.NotAfter) }),
		perCA("ca_rate_limit_per_second", "Requests for certificates that a CA may get; missing if there is no limit.", func(ca Authority) (float64, bool) { return ca.Rate, ca.Rate > 0 }),
	}
}

func workFamilies() []*family {
	return []*family{
		{
			name: "events_total", help: "What happened to devices since the inventory began, by kind, and by class of failure.", kind: prometheus.CounterValue,
			labels: []string{"kind", "class"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				for _, c := range s.Events {
					set(float64(c.N), string(c.Kind), string(c.Class))
				}
			},
		},
		{
			name: "step_duration_seconds", help: "Durations of the steps of completed enrolments.", labels: []string{"step"},
			histogram: func(s Snapshot, set func(histogram, ...string)) {
				for _, step := range s.Steps {
					h := histogram{n: step.N, sum: step.Sum.Seconds(), buckets: map[float64]uint64{}}
					for bound, n := range step.Buckets {
						h.buckets[bound.Seconds()] = n
					}
					set(h, step.Name)
				}
			},
		},
		instant("last_pass_timestamp_seconds", "When somebody last looked who is due, and renewed.", func(s Snapshot) time.Time { return s.Pass.At }),
		gauge("last_pass_success", "1 if that pass left no failed device and found the CA.", func(s Snapshot) float64 { return truth(s.Pass.OK) }),
		gauge("last_pass_duration_seconds", "How long it took.", func(s Snapshot) float64 { return s.Pass.Took.Seconds() }),
		{
			name: "last_pass_devices", help: "Devices of that pass by outcome.", kind: prometheus.GaugeValue, labels: []string{"outcome"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				for _, o := range outcomes() {
					set(float64(s.Pass.Count[o]), string(o))
				}
			},
		},
		gauge("notifications_pending", "Messages that were not delivered yet.", func(s Snapshot) float64 { return float64(s.Waiting) }),
		gauge("notifications_dead", "Messages that were given up.", func(s Snapshot) float64 { return float64(s.DeadLetter) }),
	}
}
