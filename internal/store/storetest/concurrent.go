package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

const racers = 16

// race runs a function on many goroutines at once.
func race(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// testRace: of many who swap the same revision, one wins each time.
func testRace(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s, other := open(t, place), open(t, place)
	put(t, s, "plc-1")
	e := requested("plc-1", 1)
	commit(t, s, enrol.Change{Enrolment: e})
	for round := range 5 {
		var winner atomic.Int64
		winner.Store(-1)
		race(racers, func(i int) {
			mine := *e
			mine.Tries = i
			at := s
			if i%2 == 1 {
				at = other
			}
			switch err := at.Commit(ctx, enrol.Change{Enrolment: &mine}); {
			case errors.Is(err, enrol.ErrConflict):
			case err != nil:
				t.Errorf("racer %d: %v", i, err)
			case !winner.CompareAndSwap(-1, int64(i)):
				t.Errorf("round %d: %d won and %d, too", round, winner.Load(), i)
			}
		})
		e = openEnrolment(t, s, "plc-1")
		if int64(e.Tries) != winner.Load() || e.Revision != int64(round+2) {
			t.Errorf("round %d: %d won, stored is that of %d, revision %d", round, winner.Load(), e.Tries, e.Revision)
		}
	}
}

// testRaceToOpen: of many who open an enrolment for one device, one does.
func testRaceToOpen(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s, other := open(t, place), open(t, place)
	put(t, s, "plc-1")
	var won atomic.Int64
	race(racers, func(i int) {
		at := s
		if i%2 == 1 {
			at = other
		}
		switch err := at.Commit(ctx, enrol.Change{Enrolment: requested("plc-1", byte(i+1))}); {
		case err == nil:
			won.Add(1)
		case !errors.Is(err, enrol.ErrConflict):
			t.Errorf("racer %d: %v", i, err)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d enrolments were opened", won.Load())
	}
}

// testManyDevices: changes of different devices do not disturb each other, and
// a refused one none of its neighbours.
func testManyDevices(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	names := make([]string, racers)
	for i := range names {
		names[i] = fmt.Sprintf("plc-%02d", i)
	}
	put(t, s, names...)
	race(racers, func(i int) {
		e := requested(names[i], byte(i+1))
		for round := range 10 {
			e.Tries = round
			if err := s.Commit(ctx, enrol.Change{Enrolment: e}); err != nil {
				t.Errorf("%s: %v", names[i], err)
			}
			stale := *e
			stale.Revision--
			if err := s.Commit(ctx, enrol.Change{Enrolment: &stale}); !errors.Is(err, enrol.ErrConflict) {
				t.Errorf("%s: a stale revision: %v", names[i], err)
			}
			if got, err := s.OpenEnrolment(ctx, names[i]); err != nil || got.Revision != int64(round+1) {
				t.Errorf("%s: read back %+v, %v", names[i], got, err)
			}
		}
	})
	s = reopen(t, s, place)
	for _, name := range names {
		if e := openEnrolment(t, s, name); e.Revision != 10 || e.Tries != 9 {
			t.Errorf("%s: revision %d, tries %d", name, e.Revision, e.Tries)
		}
	}
}

func testLease(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	release, err := s.Lease(ctx, "plc-1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Lease(ctx, "plc-1")
	wantError(t, "a second lease", err, enrol.ErrLeased)
	releaseOther, err := s.Lease(ctx, "plc-2")
	if err != nil {
		t.Fatalf("another device: %v", err)
	}
	release()
	again, err := s.Lease(ctx, "plc-1")
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	// A release that is called again must not end somebody else's lease.
	release()
	_, err = s.Lease(ctx, "plc-1")
	wantError(t, "after the old one was released twice", err, enrol.ErrLeased)
	again()
	releaseOther()
}

func testLeaseAcrossStores(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s, other := open(t, place), open(t, place)
	put(t, s, "plc-1")
	release, err := s.Lease(ctx, "plc-1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = other.Lease(ctx, "plc-1")
	wantError(t, "another store's lease", err, enrol.ErrLeased)
	release()
	if _, err = other.Lease(ctx, "plc-1"); err != nil {
		t.Fatalf("after release: %v", err)
	}
	_, err = s.Lease(ctx, "plc-1")
	wantError(t, "the first store's lease", err, enrol.ErrLeased)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	release, err = s.Lease(ctx, "plc-1")
	if err != nil {
		t.Fatalf("after the other store was closed: %v", err)
	}
	release()
}

// testLeaseRace: no two hold a lease at a time.
func testLeaseRace(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s, other := open(t, place), open(t, place)
	var holders, taken atomic.Int64
	race(racers, func(i int) {
		at := s
		if i%2 == 1 {
			at = other
		}
		for range 50 {
			release, err := at.Lease(ctx, "plc-1")
			if errors.Is(err, enrol.ErrLeased) {
				continue
			}
			if err != nil {
				t.Errorf("lease: %v", err)
				return
			}
			if n := holders.Add(1); n != 1 {
				t.Errorf("%d hold the lease", n)
			}
			taken.Add(1)
			holders.Add(-1)
			release()
		}
	})
	if taken.Load() == 0 {
		t.Error("nobody got the lease")
	}
}
