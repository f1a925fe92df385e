package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// prefix is before the name of every metric.
const prefix = "edgeclm_"

// Options bound what a Collector says.
type Options struct {
	// PerDeviceUpTo is the largest fleet that gets metrics of single devices.
	PerDeviceUpTo int
}

// collector is one Snapshot, as the Prometheus library reads it.
type collector struct {
	families []*family
	snapshot Snapshot
}

// family is one metric.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	emit       func(s Snapshot, set func(value float64, labels ...string))
	histogram  func(s Snapshot, set func(h histogram, labels ...string))

	desc *prometheus.Desc
}

// histogram has cumulative buckets by their upper bounds, in seconds.
type histogram struct {
	n       uint64
	sum     float64
	buckets map[float64]uint64
}

// registry returns what gathers the metrics of a snapshot.
func registry(s Snapshot, o Options) (*prometheus.Registry, error) {
	c := &collector{snapshot: s}
	for _, f := range families(o) {
		f.desc = prometheus.NewDesc(prefix+f.name, f.help, f.labels, nil)
		c.families = append(c.families, f)
	}
	r := prometheus.NewPedanticRegistry()
	return r, r.Register(c)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.families {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, f := range c.families {
		send := func(m prometheus.Metric, err error) {
			if err != nil {
				m = prometheus.NewInvalidMetric(f.desc, err)
			}
			out <- m
		}
		if f.histogram != nil {
			f.histogram(c.snapshot, func(h histogram, labels ...string) {
				send(prometheus.NewConstHistogram(f.desc, h.n, h.sum, h.buckets, labels...))
			})
			continue
		}
		f.emit(c.snapshot, func(value float64, labels ...string) {
			send(prometheus.NewConstMetric(f.desc, f.kind, value, labels...))
		})
	}
}

// WriteTextfile writes a snapshot to a file for node_exporter's textfile
// collector, whose name ends in ".prom": to a temporary file beside it that
// takes its place, so that nobody reads half of it. It is not synced to disk:
// after a power failure the next pass writes it anew.
func WriteTextfile(path string, s Snapshot, o Options) error {
	r, err := registry(s, o)
	if err != nil {
		return err
	}
	return prometheus.WriteToTextfile(path, r)
}

func gauge(name, help string, value func(Snapshot) float64) *family {
	return &family{name: name, help: help, kind: prometheus.GaugeValue, emit: func(s Snapshot, set func(float64, ...string)) {
		set(value(s))
	}}
}

// instant is a gauge with a time, which is missing if there is none.
func instant(name, help string, value func(Snapshot) time.Time) *family {
	return &family{name: name, help: help, kind: prometheus.GaugeValue, emit: func(s Snapshot, set func(float64, ...string)) {
		if at := value(s); !at.IsZero() {
			set(unix(at))
		}
	}}
}

// perCA is a gauge for each CA.
func perCA(name, help string, value func(Authority) (float64, bool)) *family {
	return &family{name: name, help: help, kind: prometheus.GaugeValue, labels: []string{"ca"}, emit: func(s Snapshot, set func(float64, ...string)) {
		for _, ca := range s.Authority {
			if v, ok := value(ca); ok {
				set(v, ca.CA)
			}
		}
	}}
}

func instantOf(at time.Time) (float64, bool) { return unix(at), !at.IsZero() }

func unix(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

func truth(v bool) float64 {
	if v {
		return 1
	}
	return 0
}

// outcomes are the label values of a pass' metric, so that none is missing.
func outcomes() []enrol.Outcome {
	return []enrol.Outcome{enrol.OutcomeRenewed, enrol.OutcomeFailed, enrol.OutcomePending, enrol.OutcomeSkipped}
}
