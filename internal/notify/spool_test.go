package notify_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/notify"
)

// named is a fake of another name.
type named struct {
	fake
	name string
}

func (n *named) Name() string { return n.name }

// life is a short life of two channels: both are told of an alert, the second
// late; of its end the second hears only after its dead letter was tried again.
type life struct {
	dir    string
	now    clock
	first  named
	second named
	step   int
}

func newLife(t *testing.T) *life {
	return &life{
		dir: filepath.Join(t.TempDir(), "notify"), now: clock{start()},
		first: named{name: "exec"}, second: named{name: "webhook"},
	}
}

func (l *life) notifier(files keyfile.Files) *notify.Notifier {
	return &notify.Notifier{
		Dir: l.dir, CLM: "clm-1", Channels: []notify.Channel{&l.first, &l.second}, Now: func() time.Time { return l.now.now },
		Jitter: func() float64 { return 0.5 }, Log: slog.New(slog.DiscardHandler), Files: files,
	}
}

// run goes on where the last run ended; a step that failed is done again.
func (l *life) run(ctx context.Context, n *notify.Notifier) error {
	steps := []struct {
		after  time.Duration
		facts  alert.Facts
		second error
		do     func() error
	}{
		{0, bad(), errors.New("down"), nil},
		{2 * time.Minute, bad(), nil, nil},
		{time.Hour, alert.Facts{}, nil, nil},
		{time.Hour, alert.Facts{}, notify.ErrFinal, nil},
		{time.Minute, alert.Facts{}, nil, func() error {
			dead, err := n.DeadLetters()
			for _, letter := range dead {
				err = errors.Join(err, n.Retry(letter.ID))
			}
			return err
		}},
		{time.Hour, alert.Facts{}, nil, nil},
	}
	began := start()
	for i, s := range steps {
		began = began.Add(s.after)
		if i < l.step {
			continue
		}
		l.now.now, l.second.err = began, s.second
		if s.do != nil {
			if err := s.do(); err != nil {
				return err
			}
		}
		if err := n.Observe(ctx, began, s.facts); err != nil {
			return err
		}
		l.step++
	}
	return nil
}

// sent are the subjects that a channel took, once for each try that succeeded.
func (l *life) sent(n *named) (subjects []string, ids map[string]string) {
	ids = map[string]string{}
	for _, m := range n.got {
		subjects, ids[m.Data.ID] = append(subjects, m.Data.Subject), m.Data.Subject
	}
	return subjects, ids
}

// TestSpoolCut: whatever operation the process is killed or the power fails in,
// each channel gets each message, by one ID; what a crash repeats is one send.
func TestSpoolCut(t *testing.T) {
	t.Parallel()
	tell, over := "edgeclm: warning from clm-1: the clock of this host is in doubt: it is", "edgeclm: recovered from clm-1: clock"
	for run := range 4 {
		for cut := 1; ; cut++ {
			l := newLife(t)
			layer := keyfiletest.New(cut, min(keyfiletest.Mode(run), keyfiletest.PowerLoss))
			if run >= int(keyfiletest.Scatter) {
				layer = keyfiletest.NewScattered(cut, uint64(run))
			}
			err := l.run(t.Context(), l.notifier(keyfile.On(layer)))
			if layer.Cut() && !errors.Is(err, keyfiletest.ErrCut) {
				t.Fatalf("run %d, cut %d: %v", run, cut, err)
			}
			n := l.notifier(keyfile.On(keyfiletest.New(0, keyfiletest.Kill))) // spares the disk the work
			if err := l.run(t.Context(), n); err != nil {
				t.Fatalf("run %d, cut %d: %v", run, cut, err)
			}
			for channel, want := range map[*named][]string{&l.first: {tell, over}, &l.second: {tell, tell, over, over}} {
				got, ids := l.sent(channel)
				extra := len(got) - len(want)
				if unique := slices.Compact(slices.Clone(got)); !slices.Equal(unique, []string{tell, over}) || len(ids) != 2 || extra < 0 || extra > 1 || !layer.Cut() && extra > 0 {
					t.Errorf("run %d, cut %d: %s took %q by %v", run, cut, channel.name, got, ids)
				}
			}
			if counts, err := n.Counts(); err != nil || counts != (notify.Counts{}) {
				t.Errorf("run %d, cut %d: left: %+v, %v", run, cut, counts, err)
			}
			if left := leftovers(t, l.dir); len(left) > 0 {
				t.Errorf("run %d, cut %d: left: %v", run, cut, left)
			}
			if !layer.Cut() {
				if cut < 40 {
					t.Errorf("only %d operations", cut)
				}
				break
			}
		}
	}
}

// leftovers are the files of a spool but its state and its lock.
func leftovers(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != "alerts.json" && entry.Name() != "lock" {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFullDisk: what was sent, and could not be taken down, is not sent again
// each minute.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	first, second, now := &named{name: "exec"}, &named{name: "webhook"}, &clock{start()}
	second.err = errors.New("down")
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), nil, now)
	n.Channels = []notify.Channel{&named{name: "exec", fake: fake{err: errors.New("down")}}, second}
	if err := n.Observe(t.Context(), now.now, bad()); err != nil {
		t.Fatal(err)
	}
	n.Channels = []notify.Channel{first, second}
	n.Files = keyfile.On(keyfiletest.New(1, keyfiletest.Kill))
	for range 5 {
		now.now = now.now.Add(time.Hour)
		if err := n.Deliver(t.Context()); !errors.Is(err, keyfiletest.ErrCut) {
			t.Fatal(err)
		}
	}
	n.Files = keyfile.Files{}
	second.err = nil
	now.now = now.now.Add(time.Hour)
	if err := n.Deliver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(first.got) != 1 {
		t.Errorf("sent %d times", len(first.got))
	}
	if counts, err := n.Counts(); err != nil || counts != (notify.Counts{}) {
		t.Error(counts, err)
	}
}

// TestDigestThatCannotBeKept is told once it can, and what was kept before is
// delivered all the same.
func TestDigestThatCannotBeKept(t *testing.T) {
	t.Parallel()
	c, now := &fake{err: errors.New("down")}, &clock{start()}
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), c, now)
	full := alert.Facts{ClockDoubt: "it is", Disk: alert.Disk{Path: "/d", Size: 1 << 30}}
	if err := n.Observe(t.Context(), now.now, bad()); err != nil {
		t.Fatal(err)
	}
	c.err = nil
	now.now = now.now.Add(time.Hour)
	n.Files = keyfile.On(keyfiletest.New(1, keyfiletest.Kill))
	if err := n.Observe(t.Context(), now.now, full); !errors.Is(err, keyfiletest.ErrCut) || !strings.Contains(err.Error(), "0 MiB are left on the disk of /d") {
		t.Fatal(err)
	}
	if len(c.got) != 2 {
		t.Fatalf("%d tries", len(c.got))
	}
	n.Files = keyfile.Files{}
	now.now = now.now.Add(time.Hour)
	if err := n.Observe(t.Context(), now.now, full); err != nil {
		t.Fatal(err)
	}
	if len(c.got) != 3 || len(c.got[2].Data.New) != 1 || c.got[2].Data.New[0].Kind != alert.KindDisk {
		t.Fatalf("%+v", c.got)
	}
}

// TestOneOfAKindIsDown: the others of the kind are not tried in vain; where it is
// the one receiver that does not work, they are.
func TestOneOfAKindIsDown(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{1: &notify.Down{Err: errors.New("no route")}, 3: errors.New("451 later")} {
		n := newNotifier(filepath.Join(t.TempDir(), "notify"), nil, &clock{start()})
		n.Channels = nil
		var all []*named
		for _, name := range []string{"smtp:a", "smtp:b", "smtp:c"} {
			c := &named{name: name, fake: fake{err: err}}
			all, n.Channels = append(all, c), append(n.Channels, c)
		}
		if err := n.Observe(t.Context(), start(), bad()); err != nil {
			t.Fatal(err)
		}
		tries := 0
		for _, c := range all {
			tries += len(c.got)
		}
		if tries != want {
			t.Errorf("%v: %d tries, want %d", err, tries, want)
		}
	}
}

// TestLostStateKeepsDeadLetters: what is told anew takes the place of none.
func TestLostStateKeepsDeadLetters(t *testing.T) {
	t.Parallel()
	c, now := &fake{err: notify.ErrFinal}, &clock{start()}
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), c, now)
	for range 2 {
		if err := n.Observe(t.Context(), now.now, bad()); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(n.Dir, "alerts.json")); err != nil {
			t.Fatal(err)
		}
	}
	if dead, err := n.DeadLetters(); err != nil || len(dead) != 2 {
		t.Errorf("%+v, %v", dead, err)
	}
}

// TestWithoutChannelsNothingIsLost: a command with another configuration leaves
// alone what waits.
func TestWithoutChannelsNothingIsLost(t *testing.T) {
	t.Parallel()
	c, now := &fake{err: errors.New("down")}, &clock{start()}
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), c, now)
	if err := n.Observe(t.Context(), now.now, bad()); err != nil {
		t.Fatal(err)
	}
	none := newNotifier(n.Dir, c, now)
	none.Channels = nil
	now.now = now.now.Add(time.Hour)
	if err := errors.Join(none.Observe(t.Context(), now.now, bad()), none.Deliver(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := none.Retry("msg_0"); !errors.Is(err, notify.ErrNoChannel) {
		t.Error(err)
	}
	c.err = nil
	if err := n.Deliver(t.Context()); err != nil || len(c.got) != 2 {
		t.Errorf("%d tries, %v", len(c.got), err)
	}
}

// TestRetryElsewhere: a dead letter of a channel that is no more goes to those
// that are.
func TestRetryElsewhere(t *testing.T) {
	t.Parallel()
	old, now := &fake{err: notify.ErrFinal}, &clock{start()}
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), old, now)
	if err := n.Observe(t.Context(), now.now, bad()); err != nil {
		t.Fatal(err)
	}
	dead, err := n.DeadLetters()
	if err != nil || len(dead) != 1 {
		t.Fatal(dead, err)
	}
	next := &named{name: "next"}
	n.Channels = []notify.Channel{next}
	if err := errors.Join(n.Retry(dead[0].ID), n.Deliver(t.Context())); err != nil || len(next.got) != 1 {
		t.Errorf("%d sent, %v", len(next.got), err)
	}
	if !next.got[0].Timestamp.Equal(start()) {
		t.Errorf("it is of %v", next.got[0].Timestamp)
	}
}

// TestDamagedFiles are set aside, and few of them are kept; what is damaged
// among the dead letters hides no other.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	c, now := &fake{err: notify.ErrFinal}, &clock{start()}
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), c, now)
	if err := n.Observe(t.Context(), now.now, bad()); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		name := fmt.Sprintf("%020d%02d.json", 0, i)
		for _, dir := range []string{"queue", "dead"} {
			if err := os.WriteFile(filepath.Join(n.Dir, dir, name), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Observe(t.Context(), now.now, bad()); err != nil {
			t.Fatal(err)
		}
	}
	aside, err := filepath.Glob(filepath.Join(n.Dir, "queue", "*"))
	if err != nil || len(aside) != 10 {
		t.Errorf("%d are set aside, %v", len(aside), err)
	}
	if dead, err := n.DeadLetters(); err != nil || len(dead) != 1 {
		t.Error(dead, err)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "alerts.json"), []byte(strings.Repeat("x", 17<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Observe(t.Context(), now.now, bad()); err != nil || len(c.got) != 2 {
		t.Errorf("with a state that is damaged: %d told, %v", len(c.got), err)
	}
}

// TestMessageThatIsTooOld is given up after three days and some tries, whatever
// the clock does, and however seldom somebody tries.
func TestMessageThatIsTooOld(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		steps []time.Duration // of the clock; the last is repeated
		least int
		most  int
	}{
		"each while":          {[]time.Duration{5 * time.Minute}, 70, 90},
		"each day":            {[]time.Duration{24 * time.Hour}, 8, 8},
		"clock put forward":   {[]time.Duration{300 * 24 * time.Hour, 5 * time.Minute}, 8, 8},
		"clock put back":      {[]time.Duration{-300 * 24 * time.Hour, 5 * time.Minute}, 200, 200},
		"clock behind itself": {[]time.Duration{time.Hour, -5 * time.Hour, 5 * time.Minute}, 60, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, now := &fake{err: errors.New("down")}, &clock{start()}
			n := newNotifier(filepath.Join(t.TempDir(), "notify"), c, now)
			if err := n.Observe(t.Context(), now.now, bad()); err != nil {
				t.Fatal(err)
			}
			n.Files = keyfile.On(keyfiletest.New(0, keyfiletest.Kill)) // spares the disk the work
			for step := 0; ; step++ {
				if step > 300*60 {
					t.Fatal("it is never given up")
				}
				now.now = now.now.Add(tt.steps[min(step, len(tt.steps)-1)])
				if err := n.Deliver(t.Context()); err != nil {
					t.Fatal(err)
				}
				if counts, err := n.Counts(); err != nil || counts.Waiting == 0 {
					break
				}
			}
			if len(c.got) < tt.least || len(c.got) > tt.most {
				t.Errorf("%d tries", len(c.got))
			}
		})
	}
}
