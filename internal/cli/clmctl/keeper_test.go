package clmctl

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/notify"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store/oslock"
)

// testKeeper has an empty inventory and the renewing lock, and its clock stands
// still at now.
func testKeeper(t *testing.T, now *time.Time) *keeper {
	t.Helper()
	dir := dataDir(t.TempDir())
	devices, err := dir.inventory(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = devices.Close() })
	a := &app{Deps: Deps{Now: func() time.Time { return *now }}}
	s := &site{dir: dir, Config: Config{Policy: enrol.DefaultPolicy(), Timeout: time.Minute, HistoryKeep: 24 * time.Hour}}
	return a.keeper(s, &works{inventory: devices, identity: "clm"}, slog.New(slog.DiscardHandler), true)
}

// A holder of the lock is quiet when it has not shown a sign of life for long,
// by whatever clock; who goes on is not.
func TestQuietHolder(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := testKeeper(t, &now)
	began := now
	unlock, err := oslock.RunLock(k.site.dir.path(renewLock), began)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name   string
		after  time.Duration
		beats  bool
		expect bool
	}{
		{"just taken", 0, false, false},
		{"for an hour", time.Hour, false, false},
		{"for two", 2 * time.Hour, false, true},
		{"it finishes a device", 2 * time.Hour, true, false},
		{"and for long none", 4 * time.Hour, false, true},
		{"the clock is put back", time.Minute - 3*time.Hour, false, true},
	} {
		now = began.Add(step.after)
		if step.beats {
			keptWatcher{silentWatcher{}, k}.done(enrol.Result{})
		}
		held, quiet := quietHolder(k.site, now)
		if quiet != step.expect || quiet && !held.Since.Equal(began.Truncate(time.Second)) {
			t.Errorf("%s: %v, since %v", step.name, quiet, held.Since)
		}
	}
	k.site.Limits.Rate = fleet.Rate{N: 1, Per: 24 * time.Hour}
	now = began.Add(20 * time.Hour)
	if _, quiet := quietHolder(k.site, now); quiet {
		t.Error("one that waits for the CA's rate is taken for one that hangs")
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	now = began.Add(240 * time.Hour)
	if _, quiet := quietHolder(k.site, now); quiet {
		t.Error("nobody holds the lock")
	}
}

// What cannot be found out is unknown, and the rest is known.
func TestFactsAreUnknown(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := testKeeper(t, &now)
	if f := k.facts(t.Context(), now); len(f.Unknown) != 0 || f.Disk.Size == 0 {
		t.Errorf("unknown %v, disk %+v", f.Unknown, f.Disk)
	}
	k.holds = false
	if f := k.facts(t.Context(), now); !f.Unsure(alert.KindLock) {
		t.Error("who has not the lock knows of it")
	}
	k.holds = true
	if err := os.WriteFile(k.site.dir.path(authorityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := k.facts(ctx, now)
	for _, kind := range alert.Kinds() {
		known := kind == alert.KindDisk || kind == alert.KindLock
		if f.Unsure(kind) == known {
			t.Errorf("%s: unsure %v", kind, f.Unsure(kind))
		}
	}
}

func TestClockDoubt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		name  string
		facts alert.Facts
		want  string
	}{
		{"nothing yet", alert.Facts{}, ""},
		{"a try just now, elsewhere", alert.Facts{Census: renewal.Census{LastTry: now.Add(smallSkew)}}, ""},
		{"a try to come", alert.Facts{Census: renewal.Census{LastTry: now.Add(time.Hour)}}, "in the future"},
		{"another failure", alert.Facts{Troubles: []alert.Trouble{{Class: enrol.ClassUnreachable}}}, ""},
		{"the CA's word", alert.Facts{Troubles: []alert.Trouble{{}, {Class: enrol.ClassClock, LastError: "our clock says"}}}, "our clock says"},
	} {
		if got := clockDoubt(now, tt.facts); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

// What a loop does from one look to the next is a pass.
func TestLoopsPass(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := testKeeper(t, &now)
	unavailable := &enrol.Fault{By: enrol.PartyCA, Class: enrol.ClassCAUnavail, Transient: true, Err: errors.New("down")}
	for i, step := range []struct {
		results []enrol.Result
		tick    error
		ok      bool
	}{
		{ok: true},
		{results: []enrol.Result{{Outcome: enrol.OutcomeRenewed}, {Outcome: enrol.OutcomeFailed}}},
		{results: []enrol.Result{{Outcome: enrol.OutcomeRenewed}}, ok: true},
		{results: []enrol.Result{{Outcome: enrol.OutcomePending, Err: unavailable}}},
		{tick: errors.New("locked")},
	} {
		for _, r := range step.results {
			k.Finished(r)
		}
		now = now.Add(30 * time.Second)
		k.Ticked(renewal.Tick{At: now, Err: step.tick})
		s, err := k.measure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, n := range s.Pass.Count {
			sum += n
		}
		if s.Pass.OK != step.ok || sum != len(step.results) || !s.Pass.At.Equal(now) || i > 0 && s.Pass.Took != 30*time.Second {
			t.Errorf("step %d: %+v", i, s.Pass)
		}
	}
}

// messages is a notify.Channel that counts them.
type messages struct{ atomic.Int64 }

// Name implements notify.Channel.
func (*messages) Name() string { return "test" }

// Send implements notify.Channel.
func (m *messages) Send(context.Context, notify.Message) error {
	m.Add(1)
	return nil
}

// tellingKeeper has a disk that is full, and a channel; its clock goes.
func tellingKeeper(t *testing.T) (*keeper, *messages) {
	t.Helper()
	k, told := testKeeper(t, nil), &messages{}
	k.Now = time.Now
	k.notifier = &notify.Notifier{
		Dir: k.site.dir.path(notifyDir), Channels: []notify.Channel{told}, Thresholds: alert.Thresholds{DiskFree: math.MaxUint64},
		Now: time.Now, Jitter: func() float64 { return 0 }, Log: k.log,
	}
	return k, told
}

// Beside a loop somebody is told after a minute and not before, the textfile is
// there at once and again each minute, and history is seen to.
func TestKeepsBesideALoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, told := tellingKeeper(t)
		k.site.Metrics.Textfile = filepath.Join(t.TempDir(), "edgeclm.prom")
		stop := k.start(t.Context(), nil)
		after := func(d time.Duration, messages int64, written bool) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			err := os.Remove(k.site.Metrics.Textfile)
			if n := told.Load(); n != messages || (err == nil) != written {
				t.Errorf("%d messages, textfile: %v", n, err)
			}
		}
		after(time.Second, 0, true)
		after(time.Minute-2*time.Second, 0, false)
		after(2*time.Second, 1, true)
		if now := time.Now(); k.pruneDue(now) || !k.pruneDue(now.Add(pruneEvery)) || !k.pruneDue(now.Add(-time.Hour)) {
			t.Error("history was not seen to, or is for ever")
		}
		after(2*time.Minute, 1, true)
		stop()
		after(2*time.Minute, 1, false)
	})
}

// Beside a pass somebody is told, and nothing else is done.
func TestTellsBesideAPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, told := tellingKeeper(t)
		stop := k.startTelling(t.Context())
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		stop()
		if n := told.Load(); n != 1 || !k.pruneDue(time.Now()) {
			t.Errorf("%d messages", n)
		}
	})
}

// Without configuration nothing is gathered and nothing written, however long it
// works.
func TestKeepsNothing(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := testKeeper(t, &now)
	k.records, k.site.HistoryKeep = nil, 0 // whoever asks the inventory panics
	before := listing(t, k.site.dir)
	k.measured(t.Context(), (&report{}).pass(now, now))
	k.after(t.Context())
	k.start(t.Context(), nil)()
	if after := listing(t, k.site.dir); after != before {
		t.Errorf("%s, before %s", after, before)
	}
}

func listing(t *testing.T, dir dataDir) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(string(dir), func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// Warnings are lines of the command, one each.
func TestWarnings(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	a := &app{Streams: clikit.Streams{Err: &out}}
	log := a.warnings().With("part", 1)
	log.Info("all is well")
	log.Warn("cannot notify", "channel", "exec", "error", errors.New("no\nend"))
	if got := out.String(); got != "clmctl: warning: cannot notify, part 1, channel exec: no; end\n" {
		t.Errorf("%q", got)
	}
}
