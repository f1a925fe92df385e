package clmctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/oslock"
	"github.com/edgeclm/edgeclm/internal/tui"
)

func (a *app) watchCommand() *cobra.Command {
	var view bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show the fleet on a dashboard, and renew what is due",
		Long: `watch is a dashboard to be left open in tmux: counts, how long the certificates
last without the CA, the next hours' renewals, the CAs' health, a table of all
devices, and what happens. It renews what is due as "run" does, unless another
process does: then it shows, and takes over when that one ends. With --view it
only shows and changes nothing. ? shows the keys, q leaves; devices that are
being worked on are finished first.

In a pipe, or on a terminal that can do no more, it writes a line for each event
and renews nothing.`,
		Example: "  clmctl watch\n  clmctl watch --view",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return a.runWatch(cmd.Context(), s, view)
		},
	}
	registerBatch(cmd)
	cmd.Flags().BoolVar(&view, "view", false, "only show: do not renew, pause, resume or release")
	return cmd
}

func (a *app) runWatch(ctx context.Context, s *site, view bool) (err error) {
	inventory, err := s.dir.inventory(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inventory.Close()) }()
	if !clikit.IsTerminal(a.In) || !clikit.IsTerminal(a.Out) || a.Getenv("TERM") == "dumb" || a.Getenv("TERM") == "" {
		return a.followEvents(ctx, inventory)
	}
	w := &watching{app: a, site: s, source: a.newDashboardSource(s, inventory)}
	return w.show(ctx, view)
}

// watching is a dashboard, and the loop behind it while this process renews.
type watching struct {
	*app
	site   *site
	source *dashboardSource
	screen *tui.Dashboard
	log    *slog.Logger

	loop  atomic.Pointer[renewal.Loop] // nil: this process does not renew
	hurry chan struct{}                // closed when nobody waits for the devices any more
}

func (w *watching) show(ctx context.Context, view bool) error {
	// Somebody leaving has the loop take no more devices, and then ends it all.
	looping, stop := context.WithCancel(ctx)
	defer stop()
	o, err := w.options(ctx, view, stop)
	if err != nil {
		return err
	}
	w.screen = tui.New(o)
	// While the screen belongs to the dashboard, warnings are remarks on it.
	w.log = slog.New(sayer{say: func(level slog.Level, text string) { w.screen.Remark(clikit.OneLine(text), level >= slog.LevelError) }})
	w.hurry = make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		if view {
			<-looping.Done()
			ended <- nil
			return
		}
		ended <- w.renew(looping)
	}()
	err = w.screen.Run(ctx)
	stop()
	close(w.hurry)
	if errors.Is(err, context.Canceled) {
		err = nil // a signal asked for it
	}
	return errors.Join(err, <-ended)
}

func (w *watching) options(ctx context.Context, view bool, stop func()) (tui.Options, error) {
	o := tui.Options{
		Source: w.source, Role: tui.Role{ReadOnly: view}, Title: w.title(), Now: w.Now, Zone: time.Local, In: w.In, Out: w.Out,
		NoColour: w.Getenv("NO_COLOR") != "", ASCII: !unicodeTerminal(w.Getenv), Stop: stop,
	}
	if !view {
		o.Actions = tui.Actions{
			Renew: w.wish, Pause: w.act(store.EventPaused), Resume: w.act(store.EventResumed), Release: w.act(store.EventReleased),
		}
	}
	_, shortest, err := w.source.Patience(ctx, w.Now())
	if err != nil {
		return o, err
	}
	// What a certificate has left when it should have been renewed, halved.
	o.RunwayWarning = time.Duration(float64(shortest) * (1 - w.site.Policy.Window.To) / 2)
	if set := w.site.Alerts.Runway; set > 0 {
		o.RunwayWarning = set
	}
	o.RunwayCritical = o.RunwayWarning / 3
	return o, nil
}

// title is who watches: the CLM's name, or where its data lies.
func (w *watching) title() string {
	identity, err := w.site.dir.identity()
	if err != nil {
		return string(w.site.dir)
	}
	defer identity.Destroy()
	return identity.Identity.Name
}

// unicodeTerminal reports whether the terminal is told to be UTF-8, as POSIX has
// it, and has the characters: the font of the Linux console has few.
func unicodeTerminal(getenv func(string) string) bool {
	if getenv("TERM") == "linux" {
		return false
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// takeOverEvery is how often a process that only shows looks whether the one
// that renews has ended.
const takeOverEvery = 5 * time.Second

// renew renews from the time on at which no other process does. What keeps it
// from that is said on the screen, which stays.
func (w *watching) renew(ctx context.Context) error {
	said := ""
	for {
		unlock, err := w.lockRenewing(w.site)
		if err == nil {
			err = w.renewLocked(ctx)
			if closing := unlock(); closing != nil || ctx.Err() != nil {
				return errors.Join(err, closing)
			}
		}
		if why := whyNotRenewing(err); why != said {
			w.screen.SetRole(tui.Role{Why: why})
			said = why
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(takeOverEvery):
		}
	}
}

// whyNotRenewing says on the screen why this process only shows.
func whyNotRenewing(err error) string {
	var held *oslock.HeldError
	switch {
	case errors.As(err, &held) && held.PID != 0:
		return fmt.Sprintf("process %d renews since %s", held.PID, held.Since.Local().Format("2 Jan 15:04"))
	case errors.As(err, &held):
		return "another process renews"
	case err != nil:
		return clikit.OneLine(err.Error())
	}
	return "the renewal loop has ended"
}

// renewLocked is the loop, once this process holds the lock.
func (w *watching) renewLocked(ctx context.Context) (err error) {
	parts, err := w.works(ctx, w.site, w.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parts.close()) }()
	pulse := &pulse{now: w.Now}
	keep := w.keeper(w.site, parts, w.log, true)
	loop := w.newLoop(w.site, parts, observers{screenObserver{w.screen}, pulse, keep}, w.log)
	defer keep.start(ctx, func(context.Context) error { return pulse.alive(w.site.Tick) })()
	w.loop.Store(loop)
	defer w.loop.Store(nil)
	w.screen.SetRole(tui.Role{Renewing: true})
	loop.Run(ctx, w.hurry)
	return nil
}

// wish implements tui.Act: the loop takes the devices next.
func (w *watching) wish(ctx context.Context, names []string, _ string) error {
	loop := w.loop.Load()
	if loop == nil {
		return errors.New("this process does not renew: clmctl renew --force NAME does it")
	}
	return loop.Wish(ctx, names...)
}

// act returns the tui.Act that takes a decision into the inventory.
func (w *watching) act(kind enrol.EventKind) tui.Act {
	return func(ctx context.Context, names []string, reason string) error {
		for i, name := range names {
			if err := w.decide(ctx, kind, store.Action{Device: name, At: w.Now(), Reason: reason}); err != nil {
				return fmt.Errorf("%d of %s done: %w", i, devices(len(names)), err)
			}
		}
		return nil
	}
}

func (w *watching) decide(ctx context.Context, kind enrol.EventKind, action store.Action) error {
	if kind == store.EventReleased {
		return w.source.Release(ctx, action)
	}
	return w.source.SetPaused(ctx, action, kind == store.EventPaused)
}

// screenObserver tells the dashboard how the loop goes on.
type screenObserver struct{ screen *tui.Dashboard }

// Started implements renewal.Observer.
func (o screenObserver) Started(device string) { o.screen.Started(device) }

// Finished implements renewal.Observer.
func (o screenObserver) Finished(r enrol.Result) { o.screen.Finished(r.Device) }

// Ticked implements renewal.Observer.
func (o screenObserver) Ticked(t renewal.Tick) { o.screen.Queued(t.Due) }

// followed is how many events a pipe begins with, and pageOfEvents how many are
// read at once.
const (
	followed     = 10
	pageOfEvents = 1000
	followEvery  = time.Second
)

// followEvents writes the last events, and each one that comes, as a line (or a
// JSON object a line) until the context ends or nobody reads any more.
func (a *app) followEvents(ctx context.Context, inventory inventory) error {
	last, err := inventory.LastEntry(ctx)
	if err != nil {
		return err
	}
	last = max(0, last-followed)
	for {
		entries, err := inventory.Entries(ctx, last, pageOfEvents)
		if err != nil {
			return endOf(ctx, err)
		}
		for _, e := range entries {
			last = e.ID
			if err := a.writeEntry(e); err != nil {
				return err
			}
		}
		if len(entries) == pageOfEvents {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// endOf is nil for what a signal has cut off.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // nothing is wrong
	}
	return err
}

func (a *app) writeEntry(e renewal.Entry) error {
	if !a.Output.Structured() {
		_, err := fmt.Fprintln(a.Out, tui.Line(e))
		return err
	}
	return json.NewEncoder(a.Out).Encode(entryView{ID: e.ID, Device: e.Device, eventView: viewEvent(e.Event)})
}

// entryView is an event of the fleet, as watch writes it.
type entryView struct {
	ID     int64  `json:"id"`
	Device string `json:"device"`
	eventView
}
