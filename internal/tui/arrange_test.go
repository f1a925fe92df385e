package tui

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/renewal"
)

func drawRows(t *rapid.T) []*item {
	at := func(name string) time.Time {
		if rapid.IntRange(0, 3).Draw(t, name+" known") == 0 {
			return time.Time{}
		}
		return noon.Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, name)) * 10 * time.Second)
	}
	rows := make([]renewal.Row, rapid.IntRange(0, 30).Draw(t, "devices"))
	for k := range rows {
		r := renewal.Row{Name: fmt.Sprintf("plc-%02d", 99-k), NotAfter: at("end"), RenewAt: at("renewal"), NextAttempt: at("try")}
		if !r.NotAfter.IsZero() {
			r.NotBefore = r.NotAfter.Add(-time.Hour)
		}
		r.Paused, r.Quarantined = rapid.IntRange(0, 5).Draw(t, "paused") == 0, rapid.IntRange(0, 5).Draw(t, "quarantined") == 0
		r.LastError = rapid.SampledFrom([]string{"", "", "disk full", "No answer"}).Draw(t, "error")
		r.Labels = rapid.SampledFrom([]map[string]string{nil, {"line": "3"}, {"line": "30", "k": "V"}}).Draw(t, "labels")
		rows[k] = r
	}
	return newItems(rows, false)
}

// TestArrangeFromEarlier: an earlier order, whatever has become of its rows,
// saves time and changes nothing; an arrangement stays true until it says.
func TestArrangeFromEarlier(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		rows := drawRows(rt)
		q := query{by: order(rapid.IntRange(0, int(orders)-1).Draw(rt, "by")), reverse: rapid.Bool().Draw(rt, "reverse")}
		earlier, _ := arrange(t.Context(), rows, nil, false, q, noon)

		words := rapid.SampledFrom([]string{"", "plc", "line=3", "line=", "state:due", "-state:operational", "no error:answer", "label:k"}).Draw(rt, "filter")
		q.terms = parseFilter(words)
		want, _ := arrange(t.Context(), rows, nil, false, q, noon)
		if got, _ := arrange(t.Context(), rows, earlier.all, true, q, noon); !slices.Equal(got.slots, want.slots) {
			rt.Fatalf("%q of an order: %v, anew %v", words, got.slots, want.slots)
		}
		later := noon.Add(time.Duration(rapid.Int64Range(0, int64(ageMost)-1).Draw(rt, "later")))
		if got, _ := arrange(t.Context(), rows, nil, false, q, later); later.Before(want.until) && !slices.Equal(got.slots, want.slots) {
			rt.Fatalf("%q was to hold until %v, at %v it is %v, not %v", words, want.until, later, got.slots, want.slots)
		}

		for k := range rows {
			if rapid.IntRange(0, 4).Draw(rt, "gone") == 0 {
				rows[k] = nil
			}
		}
		rows = append(rows, newItems([]renewal.Row{{Name: "new"}}, false)...)
		got, _ := arrange(t.Context(), rows, earlier.all, false, q, later)
		if want, _ = arrange(t.Context(), rows, nil, false, q, later); !slices.Equal(got.slots, want.slots) || !slices.Equal(got.all, want.all) {
			rt.Fatalf("from an earlier order %v, anew %v", got.slots, want.slots)
		}
	})
}

// TestFilterWhileRowsChange: a filter that is typed while the rows change loses
// none of them.
func TestFilterWhileRowsChange(t *testing.T) {
	t.Parallel()
	p := newPlant(200)
	m := screenOf(t, options(p), 80, 24)
	r := p.rows[7]
	r.LastError = "disk full"
	m.patch([]string{r.Name, "plc-new"}, newItems([]renewal.Row{r, {Name: "plc-new", LastError: "disk full too"}}, false))
	m.dirty = true
	press(t, m, "/")
	typed(t, m, "full")
	if n := len(m.shown.slots); n != 2 {
		t.Errorf("%d devices fit, want 2", n)
	}
}

func BenchmarkArrange(b *testing.B) {
	m := screenOf(b, options(newPlant(100_000)), 160, 50)
	rows := m.rows.lend()
	for by := range orders {
		b.Run(by.String(), func(b *testing.B) {
			for b.Loop() {
				arrange(b.Context(), rows, nil, false, query{by: by}, noon)
			}
		})
	}
	for name, words := range map[string]string{"again": "", "filter": "9.bilbao line=3"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				arrange(b.Context(), rows, m.shown.all, words != "", query{terms: parseFilter(words)}, noon)
			}
		})
	}
}
