package renewal

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Worker tries one device; *enrol.Runner is one.
type Worker interface {
	Run(ctx context.Context, device string, force bool) enrol.Result
}

// Observer is told how the loop goes on. Its calls do not overlap, and the loop
// waits for them.
type Observer interface {
	Started(device string)
	Finished(r enrol.Result)
	// Ticked is told that the loop has looked who is due.
	Ticked(t Tick)
}

// Tick is what the loop saw when it looked.
type Tick struct {
	At      time.Time
	Due     int       // devices, those that are being worked on apart
	Running int       // devices that are being worked on
	Next    time.Time // when the next device becomes due; zero: none will by itself
	Blocked time.Time // until when the CA is left alone; zero: it is not
	Err     error     // why the inventory could not be read
}

// Loop drives a Scheduler with real devices. Its fields are set once.
type Loop struct {
	Queue    Queue
	Worker   Worker
	Observer Observer
	Bounds   Bounds
	Timeout  time.Duration // of one device's try
	Tick     time.Duration // between two looks at who is due
	Grace    time.Duration // for devices that are being worked on when the loop is to end; 0: they are interrupted
	Now      func() time.Time
	Log      *slog.Logger

	wishes chan []string
	ending chan struct{} // closed when no more wishes are taken
}

// ErrEnded reports a wish to a loop that takes no more devices.
var ErrEnded = errors.New("the renewal loop is ending")

// NewLoop returns a copy of a loop that can take wishes; Run is for one use.
func NewLoop(l Loop) *Loop {
	l.wishes, l.ending = make(chan []string), make(chan struct{})
	return &l
}

// now reads the wall clock anew: the monotonic one stands still while the host
// is suspended, and knows nothing of a clock that was put forward or back.
func (l *Loop) now() time.Time { return l.Now().Round(0) }

// Pass is what came of a pass.
type Pass struct {
	Results     []enrol.Result // in the order in which the devices were done
	Left        []Job          // that were not tried
	Halt        Halt           // why they were not, if not for an interruption
	Interrupted bool
	NoCA        bool // a device waits for a CA that cannot be had
}

// drive is one use of a loop.
type drive struct {
	*Loop
	s       *Scheduler
	work    context.Context // of the devices
	results chan enrol.Result
	pass    *Pass // nil: nobody wants to know
}

func (l *Loop) drive(ctx context.Context, b Bounds) *drive {
	return &drive{Loop: l, s: NewScheduler(b), work: ctx, results: make(chan enrol.Result)}
}

// Pass tries each of the jobs once. It returns when every one has its result,
// or when it is of no use to go on, or soon after ctx ends.
func (l *Loop) Pass(ctx context.Context, jobs []Job) Pass {
	b := l.Bounds
	b.Once = true
	d := l.drive(ctx, b)
	d.pass = &Pass{}
	d.s.Offer(l.now(), jobs)
	for {
		wake := d.start(ctx)
		if d.s.Running() == 0 && (ctx.Err() != nil || d.s.Halted() != HaltNone || d.s.Waiting() == 0) {
			break
		}
		d.wait(ctx, wake)
	}
	d.pass.Left, d.pass.Halt, d.pass.Interrupted = d.s.Left(), d.s.Halted(), ctx.Err() != nil
	return *d.pass
}

// Run works for ever: it looks who is due at each tick, and when the next device
// becomes due, and has them tried. It returns when ctx has ended and the
// devices that were being worked on are done, which are interrupted when hurry
// is closed.
func (l *Loop) Run(ctx context.Context, hurry <-chan struct{}) {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	d := l.drive(work, l.Bounds)
	var last Tick
	for ctx.Err() == nil {
		if now := l.now(); last.At.IsZero() || last.due(now, l.Tick) {
			last = d.look(ctx, now)
		}
		wake := d.start(ctx)
		d.wait(ctx, d.earliest(wake, last))
	}
	close(l.ending)
	if l.Grace <= 0 {
		stop()
	}
	grace := time.AfterFunc(l.Grace, stop)
	defer grace.Stop()
	for d.s.Running() > 0 {
		select {
		case r := <-d.results:
			d.finish(r)
		case <-hurry:
			stop()
			hurry = nil
		}
	}
}

// due reports whether it is time for the next look. The wall clock is read
// anew each time: it may have been put back, and the host may have slept.
func (t Tick) due(now time.Time, every time.Duration) bool {
	return now.Before(t.At) || now.Sub(t.At) >= every || !t.Next.IsZero() && !now.Before(t.Next)
}

// earliest returns when the loop has something to do if nothing happens. It
// never waits longer than a tick, since the clock may be put forward.
func (d *drive) earliest(wake time.Time, last Tick) time.Time {
	next := last.At.Add(d.Tick)
	for _, t := range []time.Time{wake, last.Next} {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// look asks who is due.
func (d *drive) look(ctx context.Context, now time.Time) Tick {
	t := Tick{At: now, Blocked: d.s.Blocked(now)}
	jobs, err := d.Queue.DueJobs(ctx, now)
	if err == nil {
		d.s.Offer(now, jobs)
		t.Next, err = d.Queue.NextDue(ctx, now)
	}
	if err != nil && ctx.Err() == nil {
		t.Err = err
		d.Log.Error("read who is due; the next look tries again", "error", err)
	}
	t.Due, t.Running = d.s.Waiting(), d.s.Running()
	d.Observer.Ticked(t)
	return t
}

// start starts what may be started, and returns when to ask again.
func (d *drive) start(ctx context.Context) time.Time {
	for ctx.Err() == nil {
		job, ok, wake := d.s.Next(d.now())
		if !ok {
			return wake
		}
		d.begin(job)
	}
	return time.Time{}
}

func (d *drive) begin(j Job) {
	d.Observer.Started(j.Device)
	go func() {
		ctx, cancel := context.WithTimeout(d.work, d.Timeout)
		defer cancel()
		d.results <- d.Worker.Run(ctx, j.Device, j.Force)
	}()
}

// wait waits for a device to be done, an operator's wish, a time, or the end.
func (d *drive) wait(ctx context.Context, until time.Time) {
	var alarm <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(max(until.Sub(d.now()), 0))
		defer timer.Stop()
		alarm = timer.C
	}
	ended := ctx.Done()
	if ctx.Err() != nil {
		ended = nil // it has, and the devices are waited for
	}
	select {
	case r := <-d.results:
		d.finish(r)
	case devices := <-d.wishes:
		d.s.Wish(devices...)
	case <-alarm:
	case <-ended:
	}
}

func (d *drive) finish(r enrol.Result) {
	d.s.Finish(d.now(), r.Device, Judge(r))
	if d.pass != nil {
		d.pass.Results = append(d.pass.Results, r)
		d.pass.NoCA = d.pass.NoCA || Judge(r).NoCA
	}
	d.Observer.Finished(r)
}

// Wish has devices tried before all others, whatever their times of the next
// try say. It returns an error that wraps ErrEnded if the loop takes no more.
func (l *Loop) Wish(ctx context.Context, devices ...string) error {
	select {
	case l.wishes <- devices:
		return nil
	case <-l.ending:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Judge says what a result means for the scheduler.
func Judge(r enrol.Result) Done {
	d := Done{Renewed: r.Outcome == enrol.OutcomeRenewed || r.Outcome == enrol.OutcomeDelivered, Failed: r.Outcome == enrol.OutcomeFailed}
	d.AskedCA = r.Outcome == enrol.OutcomeRenewed
	var f *enrol.Fault
	if errors.As(r.Err, &f) {
		d.NoCA = f.Class == enrol.ClassCAUnavail
		d.AskedCA = f.By == enrol.PartyCA
		d.After = f.After
	}
	return d
}

// Limit returns the bounds of a run with a CA's limits.
func Limit(devices int, ca fleet.Limits) Bounds {
	return Bounds{Devices: devices, CA: ca, Strikes: DefaultStrikes, Retry: time.Minute}
}

// DefaultStrikes is how many devices in a row have to find the CA unavailable
// before it is left alone: each further one would cost its device a key pair,
// and itself a retry time, through no fault of its own.
const DefaultStrikes = 3
