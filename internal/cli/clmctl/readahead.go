package clmctl

import (
	"iter"
	"sync"
)

// readAhead reads a sequence in a goroutine of its own while its elements are
// worked on, some of them ahead.
func readAhead[T any](sequence iter.Seq2[T, error]) iter.Seq2[T, error] {
	type element struct {
		value T
		err   error
	}
	const most = 256
	return func(yield func(T, error) bool) {
		elements, enough := make(chan element, most), make(chan struct{})
		var reader sync.WaitGroup
		reader.Go(func() {
			defer close(elements)
			for value, err := range sequence {
				select {
				case elements <- element{value, err}:
				case <-enough:
					return
				}
			}
		})
		// Nothing of the sequence goes on after it was left.
		defer reader.Wait()
		defer close(enough)
		for e := range elements {
			if !yield(e.value, e.err) {
				return
			}
		}
	}
}
