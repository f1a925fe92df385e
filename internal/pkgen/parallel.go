package pkgen

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// onAllCores calls do for 0 to n-1 and returns the errors. A run that only looks
// what it would sign does it in order: the order is what it notes.
func (p *PKG) onAllCores(n int, do func(i int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n)
	if p.proposing() {
		workers = 1
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
