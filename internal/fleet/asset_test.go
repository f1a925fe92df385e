package fleet_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

func TestValidateAsset(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"A", "PRESS-07", "hall 3/press:7.b_c", strings.Repeat("x", 64)} {
		if err := fleet.ValidateAsset(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", " a", "a ", "-a", "a\n", "a;b", "a,b", "ñ", "a\x00b", strings.Repeat("x", 65)} {
		if err := fleet.ValidateAsset(bad); !errors.Is(err, fleet.ErrAsset) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A certificate may name the asset, once there is one.
func TestProfileForAsset(t *testing.T) {
	t.Parallel()
	p := fleet.Profile{
		Name: "press", Subject: []fleet.Attribute{{Type: "CN", Value: "{asset}"}},
		SANs: []fleet.Name{{Kind: fleet.KindURI, Value: "urn:plant:{name}:{asset}"}},
	}
	got, err := p.For(fleet.Device{Name: "hw-1", Asset: "press-7"})
	if err != nil || got.Subject[0].Value != "press-7" || got.SANs[0].Value != "urn:plant:hw-1:press-7" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := p.For(fleet.Device{Name: "hw-1"}); !errors.Is(err, fleet.ErrProfile) || !strings.Contains(err.Error(), "no asset") {
		t.Errorf("a spare: %v", err)
	}
}
