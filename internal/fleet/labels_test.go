package fleet_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

func TestParseLabels(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                      {},
		"line=3":                {"line": "3"},
		" line=3 ; site=bilbao": {"line": "3", "site": "bilbao"},
		"a/b.c-d_e=; x=é ü;":    {"a/b.c-d_e": "", "x": "é ü"},
	} {
		got, err := fleet.ParseLabels(text)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if back, err := fleet.ParseLabels(fleet.FormatLabels(got)); err != nil || !maps.Equal(back, want) {
			t.Errorf("%q, there and back: %v, %v", text, back, err)
		}
	}
	many := strings.Repeat("x", 64)
	for _, bad := range []string{"line", "=3", "a=1;a=2", "a=b=c", "-a=1", "ä=1", "a=\x1b[2J", "a=x\u009by", "a=\xff", many + "=1", "a=" + many} {
		if got, err := fleet.ParseLabels(bad); !errors.Is(err, fleet.ErrLabel) {
			t.Errorf("%q: %v, error %v, want ErrLabel", bad, got, err)
		}
	}
	var all []string
	for i := range fleet.MaxLabels + 1 {
		all = append(all, "k"+strings.Repeat("x", i)+"=1")
	}
	if _, err := fleet.ParseLabels(strings.Join(all[:fleet.MaxLabels], ";")); err != nil {
		t.Errorf("%d labels: %v", fleet.MaxLabels, err)
	}
	if _, err := fleet.ParseLabels(strings.Join(all, ";")); !errors.Is(err, fleet.ErrLabel) {
		t.Errorf("%d labels: error %v, want ErrLabel", len(all), err)
	}
}

func FuzzParseLabels(f *testing.F) {
	f.Add("line=3;site=bilbao")
	f.Add(";;=")
	f.Fuzz(func(t *testing.T, s string) {
		labels, err := fleet.ParseLabels(s)
		if err != nil {
			return
		}
		back, err := fleet.ParseLabels(fleet.FormatLabels(labels))
		if err != nil || !maps.Equal(labels, back) {
			t.Fatalf("%q: %v becomes %v, %v", s, labels, back, err)
		}
	})
}
