package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// stressEnv makes the test binary one of the processes that share the directory
// that it names.
const stressEnv = "EDGECLM_STORE_STRESS_DIR"

const (
	stressProcesses = 3
	stressWorkers   = 4 // of each process
	stressRounds    = 40
	stressDevices   = 5 // fewer than there are workers, so that they meet
)

// shared is what one process, or all of them, got into the inventory.
type shared struct {
	Commits   map[string]int // by device
	Conflicts int            // somebody else was faster
	Strikes   int            // of the breaker
	Pauses    int
}

func (s *shared) add(o shared) {
	if s.Commits == nil {
		s.Commits = map[string]int{}
	}
	for name, n := range o.Commits {
		s.Commits[name] += n
	}
	s.Conflicts, s.Strikes, s.Pauses = s.Conflicts+o.Conflicts, s.Strikes+o.Strikes, s.Pauses+o.Pauses
}

// share works on the inventory beside other processes, and prints what it did.
func share(dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, filepath.Join(dir, "inventory.db"), Options{MustExist: true})
	if err != nil {
		return err
	}
	var (
		mu   sync.Mutex
		all  shared
		errs []error
		wg   sync.WaitGroup
	)
	for i := range stressWorkers {
		wg.Go(func() {
			did, err := s.shareSome(ctx, i)
			mu.Lock()
			defer mu.Unlock()
			all.add(did)
			errs = append(errs, err)
		})
	}
	wg.Wait()
	if err := errors.Join(append(errs, s.Close())...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// shareSome does what the programs do at once: it moves enrolments, judges a
// CA, and acts on devices.
func (s *Store) shareSome(ctx context.Context, from int) (shared, error) {
	did := shared{Commits: map[string]int{}}
	for i := range stressRounds {
		name := crashName((from + i) % stressDevices)
		err := s.shareCommit(ctx, name)
		switch {
		case errors.Is(err, enrol.ErrConflict):
			did.Conflicts++
		case err != nil:
			return did, err
		default:
			did.Commits[name]++
		}
		if _, err := s.UpdateBreaker(ctx, "plant", func(b *enrol.Breaker) bool { b.Strikes++; return true }); err != nil {
			return did, err
		}
		did.Strikes++
		if i%8 == 0 {
			if err := s.Note(ctx, store.Action{Device: name}, store.EventPaused); err != nil {
				return did, err
			}
			did.Pauses++
		}
	}
	return did, nil
}

func (s *Store) shareCommit(ctx context.Context, name string) error {
	e, err := s.OpenEnrolment(ctx, name)
	if err != nil {
		return err
	}
	e.Tries++
	return s.Commit(ctx, enrol.Change{Enrolment: e, Events: []enrol.Event{{Device: name, Enrolment: e.ID, Kind: enrol.EventRetry}}})
}

// TestProcesses: several processes change one inventory at once. Nobody is
// refused since another one writes, and nothing that anybody wrote is lost.
func TestProcesses(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := openTest(t, filepath.Join(dir, "inventory.db"))
	names := make([]string, stressDevices)
	for i := range names {
		names[i] = crashName(i)
	}
	putTest(t, s, names...)
	for i, name := range names {
		commitTest(t, s, enrolment(name, byte(i+1)))
	}
	var all shared
	for did := range startSharing(t, dir) {
		all.add(did)
	}
	want := stressProcesses * stressWorkers * stressRounds
	if all.Strikes != want {
		t.Fatalf("%d rounds, want %d", all.Strikes, want)
	}
	for _, name := range names {
		e, err := s.OpenEnrolment(ctx, name)
		if err != nil || e.Tries != all.Commits[name] || e.Revision != int64(all.Commits[name]+1) {
			t.Errorf("%s: %d tries, revision %d, %v; %d commits were acknowledged", name, e.Tries, e.Revision, err, all.Commits[name])
		}
		want -= all.Commits[name]
	}
	if want != all.Conflicts || all.Conflicts == 0 {
		t.Errorf("%d conflicts, want %d and some", all.Conflicts, want)
	}
	if b, err := s.Breaker(ctx, "plant"); err != nil || b.Strikes != all.Strikes {
		t.Errorf("%d strikes, %v, want %d", b.Strikes, err, all.Strikes)
	}
	counts, _, err := s.Tallies(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		switch got := int(c.N); c.Kind {
		case store.EventPaused:
			if got != all.Pauses {
				t.Errorf("%d pauses are counted, want %d", got, all.Pauses)
			}
		case enrol.EventRetry:
			if got != all.Strikes-all.Conflicts {
				t.Errorf("%d retries are counted, want %d", got, all.Strikes-all.Conflicts)
			}
		}
	}
	checkIntegrity(t, s)
}

// startSharing runs the processes and returns what each did.
func startSharing(t *testing.T, dir string) <-chan shared {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan shared)
	var wg sync.WaitGroup
	for range stressProcesses {
		wg.Go(func() {
			cmd := exec.Command(program)
			cmd.Env, cmd.Stderr = append(os.Environ(), stressEnv+"="+dir), os.Stderr
			text, err := cmd.Output()
			var did shared
			if err == nil {
				err = json.Unmarshal(text, &did)
			}
			if err != nil {
				t.Errorf("a process: %v\n%s", err, text)
			}
			out <- did
		})
	}
	go func() { wg.Wait(); close(out) }()
	return out
}

// runAsProcess is for TestMain: it reports whether this is one of the processes.
func runAsProcess() bool {
	dir := os.Getenv(stressEnv)
	if dir == "" {
		return false
	}
	if err := share(dir); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	return true
}
