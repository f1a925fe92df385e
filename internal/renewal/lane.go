package renewal

import (
	"cmp"
	"container/heap"
	"time"
)

// laneName is a kind of devices that wait together.
type laneName int

const (
	laneWished  laneName = iota // an operator asked for them
	laneSound                   // have a valid certificate, and answered the last time
	laneLost                    // have none, or an expired one: they may be cut off, or scrap
	laneFailing                 // failed the last time
	numLanes
)

// order is who is served first at a turn: sound devices have half of the turns,
// so that neither they nor the others wait for ever.
func order(turn int) [numLanes]laneName {
	switch turn % 4 {
	case 0:
		return [...]laneName{laneWished, laneLost, laneSound, laneFailing}
	case 2:
		return [...]laneName{laneWished, laneFailing, laneLost, laneSound}
	}
	return [...]laneName{laneWished, laneSound, laneLost, laneFailing}
}

// doubtful reports whether devices of a lane may well not answer.
func (n laneName) doubtful() bool { return n == laneLost || n == laneFailing }

func laneOf(j Job, now time.Time) laneName {
	switch {
	case j.Failing:
		return laneFailing
	case !j.NotAfter.After(now):
		return laneLost
	}
	return laneSound
}

// moreUrgent orders by the ends of certificates; a device without one comes
// first.
func moreUrgent(a, b Job) int {
	if c := a.NotAfter.Compare(b.NotAfter); c != 0 {
		return c
	}
	return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Device, b.Device))
}

// lane is a heap with the most urgent device on top.
type lane []Job

func (l *lane) order()     { heap.Init((*byUrgency)(l)) }
func (l *lane) push(j Job) { heap.Push((*byUrgency)(l), j) }

func (l *lane) pop() Job {
	j, _ := heap.Pop((*byUrgency)(l)).(Job)
	return j
}

// byUrgency is a lane for container/heap.
type byUrgency []Job

// Len implements heap.Interface.
func (u *byUrgency) Len() int { return len(*u) }

// Less implements heap.Interface.
func (u *byUrgency) Less(i, j int) bool { return moreUrgent((*u)[i], (*u)[j]) < 0 }

// Swap implements heap.Interface.
func (u *byUrgency) Swap(i, j int) { (*u)[i], (*u)[j] = (*u)[j], (*u)[i] }

// Push implements heap.Interface.
func (u *byUrgency) Push(x any) {
	if j, ok := x.(Job); ok {
		*u = append(*u, j)
	}
}

// Pop implements heap.Interface.
func (u *byUrgency) Pop() any {
	last := len(*u) - 1
	j := (*u)[last]
	(*u)[last] = Job{}
	*u = (*u)[:last]
	return j
}
