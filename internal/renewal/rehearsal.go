package renewal

import (
	"container/heap"
	"time"
)

// rehearsal drives a Scheduler on a clock of its own, with devices that all
// answer.
type rehearsal struct {
	s       *Scheduler
	now     time.Time
	took    time.Duration // of one device
	coming  agenda
	started func(j Job, at time.Time)
	done    func(j Job, at time.Time)
}

// rehearse returns one that begins at a time with nobody due.
func rehearse(b Bounds, now time.Time, took time.Duration) *rehearsal {
	return &rehearsal{s: NewScheduler(b), now: now, took: max(took, time.Millisecond), started: func(Job, time.Time) {}, done: func(Job, time.Time) {}}
}

// due has a device become due at a time.
func (r *rehearsal) due(j Job, at time.Time) { heap.Push(&r.coming, entry{at: at, job: j}) }

// skip lets devices become due until a time, and none be started.
func (r *rehearsal) skip(until time.Time) {
	for len(r.coming) > 0 && !r.coming[0].at.After(until) {
		r.now = r.coming[0].at
		r.happen()
	}
	r.now = until
}

// run goes on until a time, until nobody is due any more, or until so many
// devices were started; it returns how many were.
func (r *rehearsal) run(until time.Time, most int) int {
	n := 0
	for n < most {
		r.happen()
		job, ok, wake := r.s.Next(r.now)
		if ok {
			n++
			r.started(job, r.now)
			heap.Push(&r.coming, entry{at: r.now.Add(r.took), job: job, done: true})
			continue
		}
		next := wake
		if len(r.coming) > 0 && (next.IsZero() || r.coming[0].at.Before(next)) {
			next = r.coming[0].at
		}
		if next.IsZero() || next.After(until) {
			break
		}
		r.now = next
	}
	return n
}

// happen takes what has come.
func (r *rehearsal) happen() {
	for len(r.coming) > 0 && !r.coming[0].at.After(r.now) {
		e, _ := heap.Pop(&r.coming).(entry)
		if !e.done {
			r.s.Add(r.now, e.job)
			continue
		}
		r.s.Finish(r.now, e.job.Device, Done{Renewed: true, AskedCA: true})
		r.done(e.job, r.now)
	}
}

// entry is a device that becomes due, or that is done.
type entry struct {
	at   time.Time
	job  Job
	done bool
}

// agenda is a heap of entries, the earliest on top.
type agenda []entry

// Len implements heap.Interface.
func (a *agenda) Len() int { return len(*a) }

// Less implements heap.Interface; what is done goes before what becomes due.
func (a *agenda) Less(i, j int) bool {
	x, y := (*a)[i], (*a)[j]
	if c := x.at.Compare(y.at); c != 0 {
		return c < 0
	}
	if x.done != y.done {
		return x.done
	}
	return x.job.Device < y.job.Device
}

// Swap implements heap.Interface.
func (a *agenda) Swap(i, j int) { (*a)[i], (*a)[j] = (*a)[j], (*a)[i] }

// Push implements heap.Interface.
func (a *agenda) Push(x any) {
	if e, ok := x.(entry); ok {
		*a = append(*a, e)
	}
}

// Pop implements heap.Interface.
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = entry{}
	*a = (*a)[:last]
	return e
}

// Start is when a device would be started.
type Start struct {
	Job
	At time.Time
}

// Rehearse says in which order and when a pass would start its jobs if each
// took so long and succeeded, and which it would leave, and why.
func Rehearse(b Bounds, now time.Time, jobs []Job, took time.Duration) (starts []Start, left []Job, halt Halt) {
	b.Once = true
	r := rehearse(b, now, took)
	r.started = func(j Job, at time.Time) { starts = append(starts, Start{j, at}) }
	r.s.Offer(now, jobs)
	r.run(now.Add(forEver), len(jobs))
	return starts, r.s.Left(), r.s.Halted()
}

// forEver is longer than any pass.
const forEver = 100 * 366 * 24 * time.Hour
