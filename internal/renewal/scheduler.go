package renewal

import (
	"cmp"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Bounds are what a scheduler keeps to.
type Bounds struct {
	Devices int          // at once; 0 counts as 1
	CA      fleet.Limits // its rate and calendar; enrol.Gate keeps the concurrency
	Strikes int          // devices in a row that find the CA unavailable, after which it is left alone; 0: no number is enough
	Retry   time.Duration
	Once    bool // a single pass: with the CA gone it ends instead of waiting

	Canary      int     // so many devices go first, and unless one of them succeeds nobody follows; 0: none
	MaxFailures int     // more failed devices end the run; 0: no number does
	MaxShare    float64 // as does a larger share of those tried, from the tenth on; 0: none does
}

// shareFrom is from how many devices on a share of failures means something.
const shareFrom = 10

// urgency is how long before the end of its certificate a device is worked on
// within a maintenance window that lasts longer.
const urgency = 10 * time.Minute

// failingTurn gives a device whose last try failed every n-th turn while others
// wait, so that neither kind waits for the other for ever.
const failingTurn = 4

// Halt says why a scheduler starts nothing any more.
type Halt string

// The reasons to halt.
const (
	HaltNone     Halt = ""
	HaltCanary   Halt = "canary"   // none of the first devices succeeded
	HaltFailures Halt = "failures" // too many failed
	HaltCA       Halt = "ca"       // the CA cannot be had
)

// Done is what a scheduler has to know about a device that was worked on.
type Done struct {
	Renewed bool
	Failed  bool
	NoCA    bool          // it waits for a CA that cannot be had
	AskedCA bool          // a request for a certificate was sent
	After   time.Duration // when the CA may be asked again, if that is known
}

// Scheduler decides who is worked on next. It is offered the devices that are
// due, asked for the next one, and told how it went; time is what its callers
// say. It is not safe for concurrent use.
type Scheduler struct {
	bounds Bounds

	healthy, failing []Job // what is left to start, each most urgent first
	running          map[string]bool
	failingRunning   map[string]bool
	turn             int
	pace             time.Time // of the CA: no device is started before
	tried, failed    int
	succeeded        bool
	strikes          int
	blocked          time.Time // until when the CA is left alone
	halt             Halt
}

// NewScheduler returns a scheduler to which nothing was offered yet.
func NewScheduler(b Bounds) *Scheduler {
	b.Devices = max(b.Devices, 1)
	return &Scheduler{bounds: b, running: map[string]bool{}, failingRunning: map[string]bool{}}
}

// Offer replaces what is left to start by the devices that are due now. Those
// that are being worked on stay so, and are not started again.
func (s *Scheduler) Offer(jobs []Job) {
	s.healthy, s.failing = s.healthy[:0], s.failing[:0]
	for _, j := range jobs {
		switch {
		case s.running[j.Device]:
		case j.Failing:
			s.failing = append(s.failing, j)
		default:
			s.healthy = append(s.healthy, j)
		}
	}
	slices.SortStableFunc(s.healthy, moreUrgent)
	slices.SortStableFunc(s.failing, moreUrgent)
}

// moreUrgent orders by the ends of certificates; a device without one comes
// first.
func moreUrgent(a, b Job) int {
	return cmp.Or(a.NotAfter.Compare(b.NotAfter), a.Due.Compare(b.Due), cmp.Compare(a.Device, b.Device))
}

// Left returns the devices that were offered and not started.
func (s *Scheduler) Left() []Job { return slices.Concat(s.healthy, s.failing) }

// Running counts the devices that are being worked on.
func (s *Scheduler) Running() int { return len(s.running) }

// Halted says why nothing is started any more; HaltNone: something may be.
func (s *Scheduler) Halted() Halt { return s.halt }

// Blocked returns until when the CA is left alone; the zero time if it is not.
func (s *Scheduler) Blocked(now time.Time) time.Time {
	if s.blocked.After(now) {
		return s.blocked
	}
	return time.Time{}
}

// Next returns the device to start now, which the caller must start, or else
// the time at which to ask again; the zero time: when a device is done, or
// something is offered.
func (s *Scheduler) Next(now time.Time) (job Job, ok bool, wake time.Time) {
	if s.halt != HaltNone || len(s.healthy)+len(s.failing) == 0 || len(s.running) >= s.atOnce() {
		return Job{}, false, time.Time{}
	}
	// A stored pace or block that is further ahead than it can be was set
	// before the clock was put back.
	interval := s.bounds.CA.Rate.Interval()
	if fleet.Waits(s.pace, now, interval) {
		return Job{}, false, s.pace
	}
	if fleet.Waits(s.blocked, now, maxBlock) {
		return Job{}, false, s.blocked
	}
	job, ok, wake = s.choose(now)
	if !ok {
		return Job{}, false, wake
	}
	s.running[job.Device] = true
	s.turn++
	s.pace = now.Add(interval)
	return job, true, time.Time{}
}

// atOnce is how many devices may be worked on at once: the canaries, or one
// device that finds out whether the CA is back, go alone.
func (s *Scheduler) atOnce() int {
	switch {
	case s.bounds.Canary > 0 && !s.succeeded && s.tried < s.bounds.Canary:
		return min(s.bounds.Devices, s.bounds.Canary-s.tried)
	case s.struck():
		return 1
	}
	return s.bounds.Devices
}

func (s *Scheduler) struck() bool { return s.bounds.Strikes > 0 && s.strikes >= s.bounds.Strikes }

// choose takes the next device from what is left.
func (s *Scheduler) choose(now time.Time) (Job, bool, time.Time) {
	end, within := s.bounds.CA.Calendar.Within(now)
	pick := func(from *[]Job) (Job, bool) {
		for i, j := range *from {
			if !within || !j.NotAfter.IsZero() && j.NotAfter.Before(end.Add(urgency)) {
				// What is in front was passed over, and there is little of it.
				copy((*from)[1:i+1], (*from)[:i])
				*from = (*from)[1:]
				return j, true
			}
			if within && !j.NotAfter.IsZero() {
				break // the others end later
			}
		}
		return Job{}, false
	}
	// Devices that do not answer take their time; half of the places are kept
	// for others as long as there are any.
	turn := s.turn%failingTurn == failingTurn-1 && len(s.failingRunning) < max(1, s.bounds.Devices/2)
	if len(s.healthy) > 0 && !turn {
		if j, ok := pick(&s.healthy); ok {
			return j, true, time.Time{}
		}
	}
	if len(s.healthy) == 0 || turn || within {
		if j, ok := pick(&s.failing); ok {
			s.failingRunning[j.Device] = true
			return j, true, time.Time{}
		}
	}
	if j, ok := pick(&s.healthy); ok {
		return j, true, time.Time{}
	}
	return Job{}, false, end
}

// maxBlock bounds how long the CA is left alone without another look.
const maxBlock = time.Hour

// Claim marks a device as being worked on out of turn, unless it is already.
func (s *Scheduler) Claim(device string) bool {
	if s.running[device] {
		return false
	}
	s.running[device] = true
	for _, from := range []*[]Job{&s.healthy, &s.failing} {
		*from = slices.DeleteFunc(*from, func(j Job) bool { return j.Device == device })
	}
	return true
}

// Finish is told of each device that Next or Claim had given out.
func (s *Scheduler) Finish(now time.Time, device string, d Done) {
	delete(s.running, device)
	delete(s.failingRunning, device)
	if interval := s.bounds.CA.Rate.Interval(); interval > 0 && !d.AskedCA {
		s.pace = s.pace.Add(-interval)
	}
	switch {
	case d.NoCA:
		s.strikes++
		s.rest(now, d.After)
		return
	case d.Renewed:
		s.strikes, s.blocked, s.succeeded = 0, time.Time{}, true
	case d.AskedCA: // and it answered, if only to refuse
		s.strikes = 0
	}
	if !d.Renewed && !d.Failed {
		return
	}
	s.tried++
	if d.Failed {
		s.failed++
	}
	b := s.bounds
	switch {
	case b.Canary > 0 && !s.succeeded && s.tried >= b.Canary:
		s.halt = HaltCanary
	case b.MaxFailures > 0 && s.failed > b.MaxFailures,
		b.MaxShare > 0 && s.tried >= shareFrom && float64(s.failed) > b.MaxShare*float64(s.tried):
		s.halt = HaltFailures
	}
}

// rest leaves the CA alone, after enough devices in a row did not find it.
func (s *Scheduler) rest(now time.Time, after time.Duration) {
	if !s.struck() {
		return
	}
	if s.bounds.Once {
		s.halt = HaltCA
		return
	}
	s.blocked = now.Add(min(max(after, s.bounds.Retry), maxBlock))
}
