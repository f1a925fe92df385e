package oslock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// gateEnv makes the test binary another process, which enters the gate in the
// directory that it names, again and again, and says when.
const gateEnv = "EDGECLM_OSLOCK_GATE_DIR"

func gateLimits(string) fleet.Limits {
	return fleet.Limits{Rate: fleet.Rate{N: 20, Per: time.Second}, Concurrency: 3}
}

func passGate(dir string) error {
	g := OpenGate(dir, gateLimits, time.Now)
	for {
		leave, err := g.Enter(context.Background(), "lab")
		if err != nil {
			return err
		}
		fmt.Println(time.Now().UnixNano())
		leave()
	}
}

// virtual is a gate with a clock that moves when somebody waits.
func virtual(dir string, limits fleet.Limits, now *time.Time) *Gate {
	g := OpenGate(dir, func(string) fleet.Limits { return limits }, func() time.Time { return *now })
	g.Wait = func(ctx context.Context, d time.Duration) error {
		*now = now.Add(d)
		return ctx.Err()
	}
	return g
}

// TestGateRateIsStrict: whoever enters when, by however many gates, no time of
// the rate's unit has more entries than the rate allows.
func TestGateRateIsStrict(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		dir := fmt.Sprintf("%s/%d", root, runs)
		if err := os.Mkdir(dir, 0o700); err != nil {
			rt.Fatal(err)
		}
		now := lockTime
		rate := fleet.Rate{N: rapid.IntRange(1, 5).Draw(rt, "n"), Per: time.Minute}
		gates := []*Gate{virtual(dir, fleet.Limits{Rate: rate}, &now), virtual(dir, fleet.Limits{Rate: rate}, &now)}
		var entered []time.Time
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(40*time.Second)).Draw(rt, "passed")))
			before := now
			leave, err := rapid.SampledFrom(gates).Draw(rt, "gate").Enter(context.Background(), "lab")
			var later *enrol.TryLater
			switch {
			case errors.As(err, &later):
				if later.After < DefaultGateWait || later.After > rate.Per || !now.Equal(before) {
					rt.Fatalf("refused for %v, after a wait of %v", later.After, now.Sub(before))
				}
				continue
			case err != nil:
				rt.Fatal(err)
			}
			leave()
			entered = append(entered, now)
			if n := len(entered) - 1 - rate.N; n >= 0 && now.Sub(entered[n]) < rate.Per {
				rt.Fatalf("%d entries in %v", rate.N+1, now.Sub(entered[n]))
			}
		}
	})
}

// TestGateClockJumps: entries of a clock that was wrong count as now, once.
func TestGateClockJumps(t *testing.T) {
	t.Parallel()
	now := lockTime.AddDate(70, 0, 0)
	g := virtual(t.TempDir(), fleet.Limits{Rate: fleet.Rate{N: 2, Per: time.Minute}}, &now)
	enter := func() time.Duration {
		t.Helper()
		leave, err := g.Enter(context.Background(), "lab")
		var later *enrol.TryLater
		if errors.As(err, &later) {
			return later.After
		}
		if err != nil {
			t.Fatal(err)
		}
		leave()
		return 0
	}
	if a, b, c := enter(), enter(), enter(); a != 0 || b != 0 || c != time.Minute {
		t.Errorf("waits %v, %v, %v", a, b, c)
	}
	now = lockTime
	if got := enter(); got != time.Minute {
		t.Errorf("after the clock was set right: %v", got)
	}
	now = now.Add(time.Minute)
	if got := enter(); got != 0 {
		t.Errorf("a minute later: %v", got)
	}
}

func TestGateOtherLimits(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), lockTime
	few := virtual(dir, fleet.Limits{Rate: fleet.Rate{N: 2, Per: time.Hour}}, &now)
	many := virtual(dir, fleet.Limits{Rate: fleet.Rate{N: 4, Per: time.Hour}}, &now)
	results := ""
	for _, g := range []*Gate{few, few, few, many, many, many, few, many} {
		leave, err := g.Enter(context.Background(), "lab")
		if err == nil {
			leave()
		}
		results += fmt.Sprint(err == nil, " ")
	}
	if results != "true true false true true false false false " {
		t.Error(results)
	}
	if leave, err := few.Enter(context.Background(), "other"); err != nil {
		t.Errorf("another CA: %v", err)
	} else {
		leave()
	}
	calendar, err := fleet.ParseCalendar([]string{"09:00-12:00"}, time.UTC) // lockTime is 09:30:15
	if err != nil {
		t.Fatal(err)
	}
	closed := virtual(dir, fleet.Limits{Calendar: calendar}, &now)
	_, err = closed.Enter(context.Background(), "third")
	var later *enrol.TryLater
	if !errors.As(err, &later) || later.After != 2*time.Hour+29*time.Minute+45*time.Second {
		t.Errorf("in maintenance: %v", err)
	}
}

// TestGateConcurrency: within a process, at most so many at once, and a wait
// ends with its context.
func TestGateConcurrency(t *testing.T) {
	t.Parallel()
	g := OpenGate(t.TempDir(), func(string) fleet.Limits { return fleet.Limits{Concurrency: 2} }, time.Now)
	var (
		wait         sync.WaitGroup
		mu           sync.Mutex
		inside, most int
	)
	for range 10 {
		wait.Go(func() {
			leave, err := g.Enter(context.Background(), "lab")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			mu.Lock()
			inside--
			mu.Unlock()
			leave()
		})
	}
	wait.Wait()
	if most > 2 {
		t.Errorf("%d at once", most)
	}
	var held []func()
	for range 2 {
		leave, err := g.Enter(context.Background(), "lab")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, leave)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := g.Enter(ctx, "lab"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, leave := range held {
		leave()
	}
}

// TestGateOverProcesses: three processes enter as they can, one is killed, and
// the rate holds over all of them.
func TestGateOverProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var (
		mu      sync.Mutex
		wait    sync.WaitGroup
		entered []int64
		enough  = make(chan struct{})
		once    sync.Once
		killers []func()
	)
	for i := range 3 {
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), gateEnv+"="+dir)
		output, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		kill := sync.OnceFunc(func() {
			// That it was killed is no news.
			_ = command.Process.Kill()
			_ = command.Wait()
		})
		killers = append(killers, kill)
		wait.Go(func() {
			lines := bufio.NewScanner(output)
			for n := 0; lines.Scan(); n++ {
				at, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64)
				if err != nil {
					t.Errorf("process %d says %q", i, lines.Text())
					return
				}
				mu.Lock()
				entered = append(entered, at)
				if len(entered) >= 70 {
					once.Do(func() { close(enough) })
				}
				mu.Unlock()
				if i == 0 && n == 5 {
					_ = command.Process.Kill()
				}
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(2 * time.Minute):
		t.Error("they do not get through")
	}
	for _, kill := range killers[1:] {
		kill()
	}
	wait.Wait()
	killers[0]()
	slices.Sort(entered)
	// A process notes its entry a moment after it, so two notes may be nearer to
	// each other than the entries were.
	const slack = 200 * time.Millisecond
	for i := 20; i < len(entered); i++ {
		if d := time.Duration(entered[i] - entered[i-20]); d < time.Second-slack {
			t.Errorf("21 entries within %v", d)
		}
	}
}

// FuzzGateFile: whatever stands in the file, the gate works.
func FuzzGateFile(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 40))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x09\x7f\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, content []byte) {
		now := lockTime
		g := virtual(t.TempDir(), fleet.Limits{Rate: fleet.Rate{N: 3, Per: time.Second}}, &now)
		if err := os.WriteFile(g.path("lab", "rate"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			leave, err := g.Enter(context.Background(), "lab")
			if err != nil {
				t.Fatal(err)
			}
			leave()
		}
		if passed := now.Sub(lockTime); passed > 10*time.Second {
			t.Errorf("five entries took %v", passed)
		}
	})
}
