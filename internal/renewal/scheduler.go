package renewal

import (
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
	Doubt   bool // the CA could not be had lately: one device finds out before others follow
	Once    bool // a single pass: where it would have to wait for the CA or the calendar it ends

	Canary      int     // so many devices go first, and unless one of them succeeds nobody follows; 0: none
	MaxFailures int     // more failed devices end the run; 0: no number does
	MaxShare    float64 // as does a larger share of those tried, from the tenth on; 0: none does
}

// shareFrom is from how many devices on a share of failures means something.
const shareFrom = 10

// maxBlock bounds how long the CA is left alone without another look.
const maxBlock = time.Hour

// Halt says why a scheduler starts nothing any more.
type Halt string

// The reasons to halt.
const (
	HaltNone        Halt = ""
	HaltCanary      Halt = "canary"      // none of the first devices succeeded
	HaltFailures    Halt = "failures"    // too many failed
	HaltCA          Halt = "ca"          // the CA cannot be had
	HaltMaintenance Halt = "maintenance" // a maintenance window has begun
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

	lanes         [numLanes]lane
	running       map[string]laneName
	doubtful      int // of the running, those that may well not answer
	turn          int
	pace          time.Time // of the CA: no device is started before
	tried, failed int
	succeeded     bool
	strikes       int
	blocked       time.Time // until when the CA is left alone
	halt          Halt
}

// NewScheduler returns a scheduler to which nothing was offered yet.
func NewScheduler(b Bounds) *Scheduler {
	b.Devices = max(b.Devices, 1)
	s := &Scheduler{bounds: b, running: map[string]laneName{}}
	if b.Doubt {
		s.strikes = b.Strikes
	}
	return s
}

// Offer replaces what is left to start by the devices that are due at now;
// wishes stay. Those that are being worked on are not started again.
func (s *Scheduler) Offer(now time.Time, jobs []Job) {
	wished := make(map[string]bool, len(s.lanes[laneWished]))
	for _, j := range s.lanes[laneWished] {
		wished[j.Device] = true
	}
	for name := laneWished + 1; name < numLanes; name++ {
		s.lanes[name] = s.lanes[name][:0]
	}
	for _, j := range jobs {
		if _, running := s.running[j.Device]; !running && !wished[j.Device] {
			name := laneOf(j, now)
			s.lanes[name] = append(s.lanes[name], j)
		}
	}
	for name := range s.lanes {
		s.lanes[name].order()
	}
}

// Add offers one more device, which must neither be left to start nor be worked
// on.
func (s *Scheduler) Add(now time.Time, j Job) { s.lanes[laneOf(j, now)].push(j) }

// Wish has devices started before all others and with force; those that are
// being worked on are not started again.
func (s *Scheduler) Wish(devices ...string) {
	wished := make(map[string]bool, len(devices))
	for _, device := range devices {
		if _, running := s.running[device]; !running {
			wished[device] = true
		}
	}
	for name := range s.lanes {
		s.lanes[name] = slices.DeleteFunc(s.lanes[name], func(j Job) bool { return wished[j.Device] })
		s.lanes[name].order()
	}
	for device := range wished {
		s.lanes[laneWished].push(Job{Device: device, Force: true})
	}
}

// Waiting counts the devices that were offered or wished and not started.
func (s *Scheduler) Waiting() int {
	n := 0
	for _, l := range s.lanes {
		n += len(l)
	}
	return n
}

// Left returns them, the most urgent first.
func (s *Scheduler) Left() []Job {
	left := slices.Concat(s.lanes[laneWished], s.lanes[laneSound], s.lanes[laneLost], s.lanes[laneFailing])
	slices.SortFunc(left, moreUrgent)
	return left
}

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
	if s.halt != HaltNone || s.Waiting() == 0 || len(s.running) >= s.atOnce() {
		return Job{}, false, time.Time{}
	}
	if end, within := s.bounds.CA.Calendar.Within(now); within {
		if s.bounds.Once {
			s.halt = HaltMaintenance
			return Job{}, false, time.Time{}
		}
		return Job{}, false, end
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
	s.demote(now)
	name := s.choose()
	job = s.lanes[name].pop()
	s.running[job.Device] = name
	if name.doubtful() {
		s.doubtful++
	}
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

// demote puts those among the others whose certificates ended while they waited.
func (s *Scheduler) demote(now time.Time) {
	for sound := &s.lanes[laneSound]; len(*sound) > 0 && !(*sound)[0].NotAfter.After(now); {
		s.lanes[laneLost].push(sound.pop())
	}
}

// choose finds the lane whose turn it is; one of them has devices. Those that
// may not answer take their time: half of the places are kept for others as
// long as there are any.
func (s *Scheduler) choose() laneName {
	crowded := len(s.lanes[laneSound]) > 0 && s.doubtful >= max(1, s.bounds.Devices/2)
	for _, name := range order(s.turn) {
		if len(s.lanes[name]) > 0 && (!crowded || !name.doubtful()) {
			return name
		}
	}
	return laneSound
}

// Finish is told of each device that Next had given out.
func (s *Scheduler) Finish(now time.Time, device string, d Done) {
	if s.running[device].doubtful() {
		s.doubtful--
	}
	delete(s.running, device)
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
