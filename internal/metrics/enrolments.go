package metrics

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

const (
	// other is the value of a label for what this release does not know: an
	// inventory may have been written by a later one.
	other = "other"
	// maxKinds bounds the kinds of events that are not of enrolments.
	maxKinds = 32
)

func enrolmentFamilies() []*family {
	return []*family{
		{
			name: "events_total", help: "What happened to devices since the inventory began, by kind.", kind: prometheus.CounterValue, labels: []string{"kind"},
			emit: emitEvents,
		},
		{
			name: "enrolment_failures_total", help: "Failures since the inventory began, by class and by what followed: retry (the state is kept) or failed (the enrolment ended).",
			kind: prometheus.CounterValue, labels: []string{"kind", "class"},
			emit: emitFailures,
		},
		{
			name: "enrolment_duration_seconds", help: "Durations of completed enrolments.",
			histogram: func(s Snapshot, set func(uint64, float64, map[float64]uint64, ...string)) {
				for _, step := range s.Steps {
					if step.Name == renewal.StepTotal {
						set(step.N, step.Sum.Seconds(), inSeconds(step.Buckets))
					}
				}
			},
		},
		{
			name: "enrolment_step_duration_seconds", help: "Durations of the steps of completed enrolments; they do not overlap.", labels: []string{"step"},
			histogram: func(s Snapshot, set func(uint64, float64, map[float64]uint64, ...string)) {
				for _, step := range s.Steps {
					if step.Name != renewal.StepTotal {
						set(step.N, step.Sum.Seconds(), inSeconds(step.Buckets), step.Name)
					}
				}
			},
		},
	}
}

// emitEvents says of every kind of an enrolment's events how often there were
// some, also never, and of those of operators and of later releases if there
// were.
func emitEvents(s Snapshot, set func(float64, ...string)) {
	kinds := enrol.EventKinds()
	most := len(kinds) + maxKinds
	for _, c := range s.Events {
		if !slices.Contains(kinds, c.Kind) && len(kinds) < most && isWord(string(c.Kind)) {
			kinds = append(kinds, c.Kind)
		}
	}
	n := map[enrol.EventKind]uint64{}
	for _, c := range s.Events {
		n[known(c.Kind, kinds)] += c.N
	}
	for _, kind := range append(kinds, other) {
		set(float64(n[kind]), string(kind))
	}
}

// isWord reports whether s may be the name of a kind.
func isWord(s string) bool {
	return s != "" && s != other && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// emitFailures says of every class how often it was met, also never: a rate
// needs a zero before the first failure.
func emitFailures(s Snapshot, set func(float64, ...string)) {
	classes := enrol.Classes()
	for _, kind := range []enrol.EventKind{enrol.EventRetry, enrol.EventFailed} {
		n := map[enrol.Class]uint64{}
		for _, c := range s.Events {
			if c.Kind == kind {
				n[known(c.Class, classes)] += c.N
			}
		}
		for _, class := range append(slices.Clone(classes), other) {
			set(float64(n[class]), string(kind), string(class))
		}
	}
}

// known keeps the values of a label to those that there are.
func known[T ~string](value T, all []T) T {
	if slices.Contains(all, value) {
		return value
	}
	return other
}

// inSeconds returns buckets by their bounds in seconds.
func inSeconds(buckets map[time.Duration]uint64) map[float64]uint64 {
	seconds := make(map[float64]uint64, len(buckets))
	for bound, n := range buckets {
		seconds[bound.Seconds()] = n
	}
	return seconds
}
