package metrics_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/metrics"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// distribution is a histogram as Prometheus reads it.
type distribution struct {
	n, sum  float64
	buckets map[float64]float64
}

func read(t testing.TB, text, name string) distribution {
	t.Helper()
	d := distribution{buckets: map[float64]float64{}}
	for line := range strings.Lines(text) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseFloat(value, 64)
		switch {
		case series == name+"_count":
			d.n = v
		case series == name+"_sum":
			d.sum = v
		case strings.HasPrefix(series, name+"_bucket"):
			var bound float64
			bound, err = strconv.ParseFloat(strings.Trim(strings.TrimPrefix(series, name+"_bucket"), `{le="}`), 64)
			d.buckets[bound] = v
		default:
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	if len(d.buckets) == 0 {
		t.Fatalf("no %s in\n%s", name, text)
	}
	return d
}

// TestBuckets: each histogram says of every bound how many devices there are up
// to it, and its sum is theirs.
func TestBuckets(t *testing.T) {
	t.Parallel()
	now := start()
	instant := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.IntRange(0, 9).Draw(t, "missing") == 0 {
			return time.Time{}
		}
		return now.Add(time.Duration(rapid.SampledFrom([]int{60, 3600, 86400, 90 * 86400}).Draw(t, "unit")) * time.Second * time.Duration(rapid.IntRange(-5, 30).Draw(t, "n")))
	})
	rapid.Check(t, func(r *rapid.T) {
		perDevice := rapid.IntRange(0, 20).Draw(r, "per device")
		c := metrics.NewCertificates(now, perDevice)
		values := map[string][]float64{"remaining_seconds": nil, "remaining_ratio": nil, "renewal_in_seconds": nil}
		keep := func(name string, v float64) { values[name] = append(values[name], v) }
		owned, expired := 0, 0
		for i := range rapid.IntRange(0, 30).Draw(r, "devices") {
			d := renewal.Row{
				Name: fmt.Sprint(i), EnrolledAt: instant.Draw(r, "enrolled"), RenewAt: instant.Draw(r, "renew"), NotAfter: instant.Draw(r, "end"),
				Paused: rapid.IntRange(0, 4).Draw(r, "paused") == 0, Quarantined: rapid.IntRange(0, 4).Draw(r, "quarantined") == 0,
			}
			c.Add(d)
			if !d.NotAfter.IsZero() {
				owned++
			}
			if d.NotAfter.IsZero() || d.Paused || d.Quarantined {
				continue
			}
			if !d.RenewAt.IsZero() {
				keep("renewal_in_seconds", max(0, d.RenewAt.Sub(now).Seconds()))
			}
			left := d.NotAfter.Sub(now).Seconds()
			if left <= 0 {
				expired++
				continue
			}
			keep("remaining_seconds", left)
			if !d.EnrolledAt.IsZero() && d.EnrolledAt.Before(d.NotAfter) {
				keep("remaining_ratio", min(1, left/d.NotAfter.Sub(d.EnrolledAt).Seconds()))
			}
		}
		text := exposition(t, metrics.Snapshot{Certificates: c})
		for name, want := range values {
			check(r, read(t, text, "edgeclm_certificate_"+name), want)
		}
		if want := fmt.Sprintf("\nedgeclm_certificates_expired %d\n", expired); !strings.Contains(text, want) {
			r.Fatalf("no line %s", want)
		}
		single := strings.Count(text, "edgeclm_certificate_not_after_timestamp_seconds{")
		if owned > perDevice && single != 0 || owned <= perDevice && single != owned {
			r.Fatalf("%d of %d devices, at most %d", single, owned, perDevice)
		}
	})
}

func check(t *rapid.T, got distribution, values []float64) {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	if got.n != float64(len(values)) || got.sum < sum-1e-6 || got.sum > sum+1e-6 {
		t.Fatalf("%v devices with %v in all, want %d with %v", got.n, got.sum, len(values), sum)
	}
	for _, bound := range slices.Sorted(maps.Keys(got.buckets)) {
		up := 0.0
		for _, v := range values {
			if v <= bound {
				up++
			}
		}
		if got.buckets[bound] != up {
			t.Fatalf("up to %v: %v, want %v of %v", bound, got.buckets[bound], up, values)
		}
	}
}
