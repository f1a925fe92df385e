package fleet_test

import (
	"maps"
	"reflect"
	"testing"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Equal labels are the same map, others are their own, and none stay none.
func TestInterned(t *testing.T) {
	var i fleet.Interned
	first := map[string]string{"line": "3", "hall": "1"}
	same := func(a, b map[string]string) bool {
		return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
	}
	if !same(i.Labels(first), first) || !same(i.Labels(maps.Clone(first)), first) {
		t.Error("equal labels are not shared")
	}
	other := map[string]string{"line": "4", "hall": "1"}
	if got := i.Labels(other); !maps.Equal(got, other) {
		t.Errorf("other labels became %v", got)
	}
	if i.Labels(nil) != nil || len(i.Labels(map[string]string{})) != 0 {
		t.Error("no labels became some")
	}
}
