package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// batchOf has the writer take changes into one transaction, and returns what
// each of them got. It keeps the writer busy while they queue up, and calls
// queued before it goes on.
func batchOf(t *testing.T, s *Store, queued func(), changes []func(ctx context.Context) error) []error {
	t.Helper()
	blocked, release := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() {
		held <- s.writer.do(context.Background(), func(context.Context, *tx) error {
			close(blocked)
			<-release
			return nil
		})
	}()
	<-blocked
	errs := make([]error, len(changes))
	finished := make(chan struct{}, len(changes))
	for i, change := range changes {
		go func() {
			errs[i] = change(context.Background())
			finished <- struct{}{}
		}()
		// The next one follows when this one is in the queue.
		for len(s.writer.jobs) != i+1 {
			runtime.Gosched()
		}
	}
	queued()
	close(release)
	for range changes {
		<-finished
	}
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	return errs
}

func enrolment(device string, id byte) *enrol.Enrolment {
	return &enrol.Enrolment{ID: enrol.ID{id}, Device: device, State: enrol.Requested}
}

// TestGroupCommit: changes that wait together share a transaction, and each
// gets its own answer.
func TestGroupCommit(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "inventory.db"))
	putTest(t, s, "a", "b", "c")
	refused := errors.New("refused")
	var alone bool
	commit := func(e *enrol.Enrolment) func(context.Context) error {
		return func(ctx context.Context) error { return s.Commit(ctx, enrol.Change{Enrolment: e}) }
	}
	errs := batchOf(t, s, func() {}, []func(context.Context) error{
		commit(enrolment("a", 1)),
		commit(enrolment("a", 2)),
		func(ctx context.Context) error {
			return s.writer.do(ctx, func(ctx context.Context, x *tx) error {
				// Nobody else sees the first change yet: it is of this
				// transaction.
				_, err := s.OpenEnrolment(ctx, "a")
				alone = errors.Is(err, enrol.ErrNotFound)
				if err := x.exec(ctx, "UPDATE device SET paused = 1"); err != nil {
					return err
				}
				return refused
			})
		},
		commit(enrolment("b", 3)),
		commit(enrolment("none", 4)),
		commit(enrolment("c", 5)),
	})
	for i, want := range []error{nil, enrol.ErrConflict, refused, nil, enrol.ErrNotFound, nil} {
		if !errors.Is(errs[i], want) {
			t.Errorf("change %d: %v, want %v", i, errs[i], want)
		}
	}
	if !alone {
		t.Error("the changes did not share a transaction")
	}
	for name, id := range map[string]byte{"a": 1, "b": 3, "c": 5} {
		if e, err := s.OpenEnrolment(context.Background(), name); err != nil || e.ID[0] != id {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		if d, err := s.Device(context.Background(), name); err != nil || d.Paused {
			t.Errorf("%s: what a refused change did has stayed: %+v, %v", name, d, err)
		}
	}
	checkIntegrity(t, s)
}

// TestGiveUpWaiting: a caller who gives up before its turn has changed nothing.
func TestGiveUpWaiting(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "inventory.db"))
	putTest(t, s, "a", "b")
	ctx, cancel := context.WithCancel(context.Background())
	gaveUp := make(chan struct{})
	giveUp := func() {
		cancel()
		<-gaveUp
	}
	errs := batchOf(t, s, giveUp, []func(context.Context) error{
		func(context.Context) error {
			defer close(gaveUp)
			return s.Commit(ctx, enrol.Change{Enrolment: enrolment("a", 1)})
		},
		func(ctx context.Context) error { return s.Commit(ctx, enrol.Change{Enrolment: enrolment("b", 2)}) },
	})
	if !errors.Is(errs[0], context.Canceled) || errs[1] != nil {
		t.Errorf("errors %v", errs)
	}
	if _, err := s.OpenEnrolment(context.Background(), "a"); !errors.Is(err, enrol.ErrNotFound) {
		t.Errorf("its change was made: %v", err)
	}
	if _, err := s.OpenEnrolment(context.Background(), "b"); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
}

// TestDiskFull: when the disk is full everybody is told, what was acknowledged
// stays, and the store works again when there is room.
func TestDiskFull(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := openTest(t, path)
	names := make([]string, 40)
	for i := range names {
		names[i] = fmt.Sprintf("plc-%02d", i)
	}
	putTest(t, s, names...)
	limit := func(pages string) {
		t.Helper()
		err := s.writer.do(ctx, func(ctx context.Context, x *tx) error {
			var now int
			if err := x.queryRow(ctx, "PRAGMA page_count", nil, &now); err != nil {
				return err
			}
			return x.queryRow(ctx, strings.ReplaceAll(pages, "now", fmt.Sprint(now)), nil, &now)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit("PRAGMA max_page_count = now")
	big := func(name string, id byte) func(context.Context) error {
		return func(ctx context.Context) error {
			e := enrolment(name, id)
			e.LastError = strings.Repeat("x", 1<<18)
			return s.Commit(ctx, enrol.Change{Enrolment: e})
		}
	}
	small := func(name string, id byte) func(context.Context) error {
		return func(ctx context.Context) error { return s.Commit(ctx, enrol.Change{Enrolment: enrolment(name, id)}) }
	}
	changes := []func(context.Context) error{small(names[0], 1), big(names[1], 2), small(names[2], 3), big(names[3], 4)}
	errs := batchOf(t, s, func() {}, changes)
	if errs[1] == nil || errs[3] == nil {
		t.Fatalf("the disk is not full: %v", errs)
	}
	check := func() {
		t.Helper()
		for i := range changes {
			_, err := s.OpenEnrolment(ctx, names[i])
			if (err == nil) != (errs[i] == nil) {
				t.Errorf("change %d was answered with %v, and it is there: %v", i, errs[i], err == nil)
			}
			if errors.Is(errs[i], enrol.ErrConflict) || errors.Is(errs[i], store.ErrInvalid) {
				t.Errorf("change %d: %v does not tell of the disk", i, errs[i])
			}
		}
		checkIntegrity(t, s)
	}
	check()
	limit("PRAGMA max_page_count = 1000000")
	for i := range changes {
		if errs[i] != nil {
			errs[i] = changes[i](ctx)
		}
		if errs[i] != nil {
			t.Errorf("with room again: %v", errs[i])
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, path)
	check()
}

// TestCloseWhileWriting: who is in the queue when the store closes gets an
// answer that is true.
func TestCloseWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := openTest(t, path)
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("plc-%03d", i)
	}
	putTest(t, s, names...)
	type result struct {
		name string
		err  error
	}
	results := map[string]error{}
	out := make(chan result, len(names))
	for i, name := range names {
		go func() {
			out <- result{name, s.Commit(context.Background(), enrol.Change{Enrolment: enrolment(name, byte(i+1))})}
		}()
	}
	first := <-out
	results[first.name] = first.err
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range len(names) - 1 {
		r := <-out
		results[r.name] = r.err
	}
	s = openTest(t, path)
	for _, name := range names {
		err := results[name]
		if err != nil && !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, readErr := s.OpenEnrolment(context.Background(), name); (readErr == nil) != (err == nil) {
			t.Errorf("%s was answered with %v, and it is there: %v", name, err, readErr == nil)
		}
	}
}

// expiring is a context that ends after its error was asked for so often.
type expiring struct {
	context.Context
	left atomic.Int64
}

func (c *expiring) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// TestInterruptDelivery: a delivery of a whole plant can be interrupted, and
// has then changed nothing.
func TestInterruptDelivery(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "inventory.db"))
	d := store.Delivery{}
	for i := range 100 {
		id := ibc.Identity{Role: ibc.RoleDevice, Name: fmt.Sprintf("plc-%03d", i), Epoch: 1, Generation: 1}
		d.Rows = append(d.Rows, store.Row{Identity: id, LedgerIndex: 1})
	}
	ctx := &expiring{Context: context.Background()}
	ctx.left.Store(50)
	if _, err := s.PutDevices(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if n, err := s.CountDevices(context.Background(), store.Filter{}); n != 0 || err != nil {
		t.Errorf("%d devices are stored, %v", n, err)
	}
}
