package tui

import (
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// TestHints: an operator is told what to do about each class of failures.
func TestHints(t *testing.T) {
	t.Parallel()
	for _, c := range enrol.Classes() {
		if hint(c) == "" {
			t.Errorf("nothing is said of %s", c)
		}
	}
}
