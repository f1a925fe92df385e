package bundle_test

import (
	"errors"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
)

// Attack: the list of recipients is exchanged while a run is under way. Nothing
// is sealed to another recipient than the one that was read first.
func TestAttackRecipientChangedElsewhere(t *testing.T) {
	_, alice, err := bundle.GenerateOpener()
	if err != nil {
		t.Fatal(err)
	}
	_, mallory, err := bundle.GenerateOpener()
	if err != nil {
		t.Fatal(err)
	}
	text := alice.String()
	to := alice.Elsewhere(func() (string, error) { return text, nil })
	if got, ok, err := to.Text(); err != nil || !ok || got != alice.String() || to.Hash() != alice.Hash() || !to.PostQuantum() || !to.HasText() {
		t.Fatalf("%.20s %v %v", got, ok, err)
	}
	if _, err := to.Seal([]byte("key")); err != nil {
		t.Fatal(err)
	}
	for _, text = range []string{"", alice.String()[1:], mallory.String()} {
		if _, err := to.Seal([]byte("key")); !errors.Is(err, bundle.ErrRecipient) && !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%.20s: %v", text, err)
		}
	}
}
