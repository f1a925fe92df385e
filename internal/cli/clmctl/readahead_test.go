package clmctl

import (
	"errors"
	"slices"
	"testing"
)

// TestReadAhead: all elements in their order, errors among them; and a sequence that
// is left ends.
func TestReadAhead(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk")
	ended := false
	numbers := func(yield func(int, error) bool) {
		defer func() { ended = true }()
		for i := range 1000 {
			if !yield(i, nil) {
				return
			}
		}
		yield(0, broken)
	}
	var got []int
	var failed error
	for n, err := range readAhead(numbers) {
		if failed = err; err == nil {
			got = append(got, n)
		}
	}
	if len(got) != 1000 || !slices.IsSorted(got) || !errors.Is(failed, broken) {
		t.Errorf("%d elements, %v", len(got), failed)
	}
	ended = false
	for n := range readAhead(numbers) {
		if n == 3 {
			break
		}
	}
	if !ended {
		t.Error("it goes on after it was left")
	}
}
