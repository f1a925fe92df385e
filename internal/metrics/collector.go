package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgeclm/edgeclm/internal/alert"
)

const (
	// prefix is before the name of every metric.
	prefix = "edgeclm_"
	// maxLabel bounds the value of a label, in bytes.
	maxLabel = 200
)

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
	// Of the two, one is there.
	emit      func(s Snapshot, set func(value float64, labels ...string))
	histogram func(s Snapshot, set func(n uint64, sum float64, buckets map[float64]uint64, labels ...string))

	desc *prometheus.Desc
}

// registry returns what gathers the metrics of a snapshot.
func registry(s Snapshot) (*prometheus.Registry, error) {
	c := &collector{snapshot: s}
	for _, f := range families() {
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
		f.collect(c.snapshot, out)
	}
}

// collect sends the series of a family. Labels are made bounded lines of valid
// UTF-8, and of two series with the same labels the first counts: the library
// would rather say nothing at all.
func (f *family) collect(s Snapshot, out chan<- prometheus.Metric) {
	seen := map[string]bool{}
	send := func(labels []string, metric func(labels []string) (prometheus.Metric, error)) {
		clean := make([]string, len(labels))
		for i, l := range labels {
			clean[i] = alert.Clean(l, maxLabel)
		}
		key := strings.Join(clean, "\n")
		if seen[key] {
			return
		}
		seen[key] = true
		m, err := metric(clean)
		if err != nil {
			m = prometheus.NewInvalidMetric(f.desc, err)
		}
		out <- m
	}
	if f.histogram != nil {
		f.histogram(s, func(n uint64, sum float64, buckets map[float64]uint64, labels ...string) {
			send(labels, func(labels []string) (prometheus.Metric, error) {
				return prometheus.NewConstHistogram(f.desc, n, sum, buckets, labels...)
			})
		})
		return
	}
	f.emit(s, func(value float64, labels ...string) {
		send(labels, func(labels []string) (prometheus.Metric, error) {
			return prometheus.NewConstMetric(f.desc, f.kind, value, labels...)
		})
	})
}

func gauge(name, help string, value func(Snapshot) float64) *family {
	return maybe(name, help, func(s Snapshot) (float64, bool) { return value(s), true })
}

// maybe is a gauge that is missing if there is no value.
func maybe(name, help string, value func(Snapshot) (float64, bool)) *family {
	return &family{name: name, help: help, kind: prometheus.GaugeValue, emit: func(s Snapshot, set func(float64, ...string)) {
		if v, ok := value(s); ok {
			set(v)
		}
	}}
}

// instant is a gauge with a time, which is missing if there is none.
func instant(name, help string, value func(Snapshot) time.Time) *family {
	return maybe(name, help, func(s Snapshot) (float64, bool) { return instantOf(value(s)) })
}

func instantOf(at time.Time) (float64, bool) { return unix(at), !at.IsZero() }

func unix(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

func truth(v bool) float64 {
	if v {
		return 1
	}
	return 0
}
