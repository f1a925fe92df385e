package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// families lists every metric; docs/metrics.md describes them.
func families() []*family {
	return slices.Concat(fleetFamilies(), deviceFamilies(), certificateFamilies(), caFamilies(), enrolmentFamilies(), passFamilies())
}

func fleetFamilies() []*family {
	return []*family{
		{
			name: "build_info", help: "Version of the program and identity of the CLM; always 1.", kind: prometheus.GaugeValue,
			labels: []string{"version", "identity"},
			emit:   func(s Snapshot, set func(float64, ...string)) { set(1, s.Version, s.Identity) },
		},
		{
			name: "devices", help: "Devices by their certificates: operational (a valid one), expired, never_enrolled. The sum is the inventory.",
			kind: prometheus.GaugeValue, labels: []string{"state"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				set(float64(s.Census.Operational), "operational")
				set(float64(s.Census.Expired), "expired")
				set(float64(s.Census.NeverEnrolled), "never_enrolled")
			},
		},
		gauge("devices_due", "Devices that would be worked on now.", func(s Snapshot) float64 { return float64(s.Census.Due) }),
		gauge("devices_failing", "Devices whose last try failed.", func(s Snapshot) float64 { return float64(s.Census.Failing) }),
		gauge("devices_quarantined", "Devices that have used up their attempts.", func(s Snapshot) float64 { return float64(s.Census.Quarantined) }),
		gauge("devices_paused", "Devices that an operator has paused.", func(s Snapshot) float64 { return float64(s.Census.Paused) }),
		gauge("devices_unfinished", "Devices with an enrolment under way.", func(s Snapshot) float64 { return float64(s.Census.Unfinished) }),
		gauge("devices_never_reached", "Devices that were commissioned and never proved their identity.", func(s Snapshot) float64 { return float64(s.Census.NeverReached) }),
		instant("runway_end_timestamp_seconds", "When the first certificate would end if the CA stopped now.", func(s Snapshot) time.Time { return s.Runway }),
		instant("first_expiry_timestamp_seconds", "End of the valid certificate that ends first, of devices that are neither paused nor quarantined.", func(s Snapshot) time.Time { return s.Census.FirstExpiry }),
		instant("due_since_timestamp_seconds", "Since when the first device waits for its renewal, retries apart.", func(s Snapshot) time.Time { return s.DueSince }),
		instant("next_due_timestamp_seconds", "When the next device becomes due.", func(s Snapshot) time.Time { return s.Census.NextDue }),
		instant("unreached_since_timestamp_seconds", "Since when the first device waits that was never reached.", func(s Snapshot) time.Time { return s.Census.UnreachedSince }),
		instant("last_success_timestamp_seconds", "When the last enrolment of any device was completed.", func(s Snapshot) time.Time { return s.Census.LastSuccess }),
		instant("last_try_timestamp_seconds", "When an enrolment was last worked on.", func(s Snapshot) time.Time { return s.Census.LastTry }),
		instant("snapshot_timestamp_seconds", "When these figures were read from the inventory.", func(s Snapshot) time.Time { return s.Census.At }),
		gauge("notifications_pending", "Notifications that were not delivered yet.", func(s Snapshot) float64 { return float64(s.NotificationsWaiting) }),
		gauge("notifications_dead_letters", "Notifications that were given up.", func(s Snapshot) float64 { return float64(s.DeadLetters) }),
	}
}

// deviceFamilies are of small fleets.
func deviceFamilies() []*family {
	perDevice := func(name, help string, value func(renewal.Row) time.Time) *family {
		return &family{
			name: name, help: help + "; only of fleets up to metrics.per_device_up_to.", kind: prometheus.GaugeValue, labels: []string{"device"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				if s.Certificates == nil {
					return
				}
				for _, d := range s.Certificates.devices {
					if at, ok := instantOf(value(d)); ok {
						set(at, d.Name)
					}
				}
			},
		}
	}
	return []*family{
		perDevice("certificate_not_after_timestamp_seconds", "End of a device's certificate", func(d renewal.Row) time.Time { return d.NotAfter }),
		perDevice("certificate_renew_at_timestamp_seconds", "When a device's certificate is due for renewal", func(d renewal.Row) time.Time { return d.RenewAt }),
		perDevice("certificate_activated_timestamp_seconds", "When a device's certificate became the active one", func(d renewal.Row) time.Time { return d.EnrolledAt }),
	}
}

// certificateFamilies are of fleets of any size.
func certificateFamilies() []*family {
	distribution := func(name, help string, of func(*Certificates) *histogram) *family {
		return &family{name: name, help: help, histogram: func(s Snapshot, set func(uint64, float64, map[float64]uint64, ...string)) {
			if s.Certificates != nil {
				h := of(s.Certificates)
				set(h.n, h.sum, h.cumulative())
			}
		}}
	}
	return []*family{
		maybe("certificates_expired", "Certificates that have ended, of devices that are neither paused nor quarantined.", func(s Snapshot) (float64, bool) {
			if s.Certificates == nil {
				return 0, false
			}
			return float64(s.Certificates.expired), true
		}),
		distribution("certificate_remaining_seconds", "Valid certificates by how long they last, of devices that are neither paused nor quarantined; how it is now, not to be used with rate.",
			func(c *Certificates) *histogram { return &c.remaining }),
		distribution("certificate_remaining_ratio", "Valid certificates by the share of their lifetime that is left, counted from their activation, of devices that are neither paused nor quarantined; how it is now.",
			func(c *Certificates) *histogram { return &c.ratio }),
		distribution("certificate_renewal_in_seconds", "Certificates by how soon they are to be renewed, those that are due in the first bucket, of devices that are neither paused nor quarantined; how it is now.",
			func(c *Certificates) *histogram { return &c.renewal }),
		maybe("certificate_lifetime_seconds", "Lifetime of the fleet's certificates, the shortest kind of them.", func(s Snapshot) (float64, bool) {
			return s.Lifetime.Seconds(), s.Lifetime > 0
		}),
	}
}

func caFamilies() []*family {
	perCA := func(name, help string, value func(Authority) (float64, bool)) *family {
		return &family{name: name, help: help, kind: prometheus.GaugeValue, labels: []string{"ca"}, emit: func(s Snapshot, set func(float64, ...string)) {
			for _, ca := range s.Authorities {
				if v, ok := value(ca); ok {
					set(v, ca.CA)
				}
			}
		}}
	}
	return []*family{
		{
			name: "ca_info", help: "The CAs and what each is for (in-use, next, failover); always 1.", kind: prometheus.GaugeValue, labels: []string{"ca", "role"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				for _, ca := range s.Authorities {
					set(1, ca.CA, ca.Role)
				}
			},
		},
		{
			name: "ca_breaker", help: "1 for the state of a CA's breaker: closed, open (the CA is not asked) or half-open.", kind: prometheus.GaugeValue,
			labels: []string{"ca", "state"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				for _, ca := range s.Authorities {
					closed := ca.State != enrol.BreakerOpen && ca.State != enrol.BreakerHalfOpen
					set(truth(closed), ca.CA, string(enrol.BreakerClosed))
					set(truth(ca.State == enrol.BreakerOpen), ca.CA, string(enrol.BreakerOpen))
					set(truth(ca.State == enrol.BreakerHalfOpen), ca.CA, string(enrol.BreakerHalfOpen))
				}
			},
		},
		perCA("ca_latency_seconds", "How long a CA takes to answer, smoothed.", func(ca Authority) (float64, bool) { return ca.Latency.Seconds(), ca.Latency > 0 }),
		perCA("ca_last_success_timestamp_seconds", "When a CA last issued, to about a minute.", func(ca Authority) (float64, bool) { return instantOf(ca.LastSuccess) }),
		perCA("ca_last_failure_timestamp_seconds", "When a CA last failed.", func(ca Authority) (float64, bool) { return instantOf(ca.LastFailure) }),
		perCA("ca_certificate_not_before_timestamp_seconds", "Begin of the pinned certificate of a CA that ends first.", func(ca Authority) (float64, bool) { return instantOf(ca.NotBefore) }),
		perCA("ca_certificate_not_after_timestamp_seconds", "End of the pinned certificate of a CA that ends first.", func(ca Authority) (float64, bool) { return instantOf(ca.NotAfter) }),
		perCA("ca_rate_limit_per_second", "Requests for certificates that a CA may get; missing if there is no limit.", func(ca Authority) (float64, bool) { return ca.Rate, ca.Rate > 0 }),
	}
}

func passFamilies() []*family {
	ofPass := func(name, help string, value func(Pass) float64) *family {
		return maybe(name, help, func(s Snapshot) (float64, bool) { return value(s.Pass), !s.Pass.At.IsZero() })
	}
	return []*family{
		instant("last_pass_timestamp_seconds", "When the last pass over the due devices ended.", func(s Snapshot) time.Time { return s.Pass.At }),
		ofPass("last_pass_success", "1 if no device failed in the last pass and the CA was there.", func(p Pass) float64 { return truth(p.OK) }),
		ofPass("last_pass_duration_seconds", "How long the last pass took.", func(p Pass) float64 { return p.Took.Seconds() }),
		{
			name: "last_pass_devices", help: "Devices of the last pass by what became of them.", kind: prometheus.GaugeValue, labels: []string{"outcome"},
			emit: func(s Snapshot, set func(float64, ...string)) {
				if s.Pass.At.IsZero() {
					return
				}
				for _, o := range []enrol.Outcome{enrol.OutcomeRenewed, enrol.OutcomeFailed, enrol.OutcomePending, enrol.OutcomeSkipped} {
					set(float64(s.Pass.Count[o]), string(o))
				}
			},
		},
	}
}
