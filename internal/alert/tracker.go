package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Version of the tracker's stored form.
const Version = 1

// ErrVersion is wrapped when a stored tracker is of another version.
var ErrVersion = errors.New("unknown version")

// Policy says how often somebody is told.
type Policy struct {
	MinInterval time.Duration // between two messages; 0: 15 min
	Remind      time.Duration // between two reminders of what is still open; 0: 24 h
	Hold        time.Duration // how long an alert must be gone before it has recovered; 0: 10 min
	Burst       int           // messages beyond one in an interval for what is critical; 0: 3, negative: none
}

func (p Policy) withDefaults() Policy {
	if p.MinInterval <= 0 {
		p.MinInterval = 15 * time.Minute
	}
	if p.Remind <= 0 {
		p.Remind = 24 * time.Hour
	}
	if p.Hold <= 0 {
		p.Hold = 10 * time.Minute
	}
	if p.Burst == 0 {
		p.Burst = 3
	}
	p.Burst = max(p.Burst, 0)
	return p
}

// Tracker remembers which alerts are open and what was told of them. It is a
// durable value: whoever keeps it stores its JSON when Update says so. The zero
// value has nothing open.
type Tracker struct {
	Version  int              `json:"version"`
	Sequence uint64           `json:"sequence"` // of the last digest that was not empty
	Open     map[string]*open `json:"open,omitempty"`
	Sent     []time.Time      `json:"sent,omitempty"` // the last digests, oldest first
}

// open is an alert that was there, and perhaps is.
type open struct {
	Alert    Alert                 `json:"alert"` // as it was seen last
	Opened   time.Time             `json:"opened"`
	Gone     time.Time             `json:"gone,omitzero"`   // since when it is not seen
	Told     time.Time             `json:"told,omitzero"`   // when last; zero: not yet
	Severity Severity              `json:"severity"`        // as it was told
	Count    int                   `json:"count"`           // likewise
	Better   time.Time             `json:"better,omitzero"` // since when it is less than was told
	Members  map[string]*time.Time `json:"members,omitempty"`
}

// Digest is what somebody should be told at once.
type Digest struct {
	Sequence  uint64
	At        time.Time
	New       []Alert
	Worse     []Alert
	Ongoing   []Alert // a reminder
	Recovered []Recovery
	Open      int // alerts that are open, told or not
}

// Recovery is an alert that is no more.
type Recovery struct {
	Alert
	After time.Duration `json:"-"`
}

// Empty reports whether there is nothing to tell.
func (d Digest) Empty() bool {
	return len(d.New)+len(d.Worse)+len(d.Ongoing)+len(d.Recovered) == 0
}

// Severity returns the worst of what is told; Info if all of it is good news.
func (d Digest) Severity() Severity {
	worst := Info
	for _, a := range slices.Concat(d.New, d.Worse, d.Ongoing) {
		worst = max(worst, a.Severity)
	}
	return worst
}

// Parse reads a stored tracker.
func Parse(data []byte) (*Tracker, error) {
	var t Tracker
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("read the open alerts: %w", err)
	}
	if t.Version != Version {
		return nil, fmt.Errorf("read the open alerts: %w %d", ErrVersion, t.Version)
	}
	for key, o := range t.Open {
		if o == nil {
			return nil, fmt.Errorf("read the open alerts: %q is empty", key)
		}
	}
	return &t, nil
}

// Bytes returns the stored form.
func (t *Tracker) Bytes() ([]byte, error) {
	t.Version = Version
	return json.Marshal(t)
}

// Update takes down what is wrong at now, and says what somebody should be told
// and whether the tracker has to be stored. The alerts of a kind that it is
// unsure of do not recover by not being there; see Facts.Unsure, nil is never.
// Who stores the tracker before the digest is kept loses the digest if it dies
// in between.
func (t *Tracker) Update(now time.Time, alerts []Alert, unsure func(Kind) bool, p Policy) (d Digest, changed bool) {
	now = now.Round(0) // a suspended host's monotonic clock may stand still
	p = p.withDefaults()
	if t.Open == nil {
		t.Open = map[string]*open{}
	}
	if unsure == nil {
		unsure = func(Kind) bool { return false }
	}
	changed = t.clamp(now)
	changed = t.see(now, alerts, unsure, p) || changed
	changed = t.settle(now, p) || changed
	pending := t.pending(now, p)
	pending.Open = t.present()
	if pending.Empty() || !t.may(now, p, pending) {
		pending = Digest{Open: pending.Open}
		return pending, changed
	}
	t.Sequence++
	pending.Sequence, pending.At = t.Sequence, now
	t.Sent = append(t.Sent, now)
	t.Sent = slices.Clone(t.Sent[max(0, len(t.Sent)-1-p.Burst):])
	t.told(now, pending)
	return pending, true
}

// clamp brings times that lie ahead to now: the clock was wrong then, or is.
// Left alone they would silence everything until they come; brought back
// without being stored, they would be brought back again by the next process.
func (t *Tracker) clamp(now time.Time) (changed bool) {
	back := func(at *time.Time) {
		if at.After(now) {
			*at, changed = now, true
		}
	}
	for i := range t.Sent {
		back(&t.Sent[i])
	}
	for _, o := range t.Open {
		back(&o.Opened)
		back(&o.Gone)
		back(&o.Told)
		back(&o.Better)
		for _, gone := range o.Members {
			if gone != nil {
				back(gone)
			}
		}
	}
	return changed
}

// see takes down which alerts are there.
func (t *Tracker) see(now time.Time, alerts []Alert, unsure func(Kind) bool, p Policy) (changed bool) {
	seen := map[string]bool{}
	for _, a := range alerts {
		seen[a.Key] = true
	}
	for _, a := range alerts {
		o := t.Open[a.Key]
		if o == nil {
			o = t.heir(now, a, seen)
			t.Open[a.Key] = o
			changed = true
		}
		if !o.Gone.IsZero() {
			o.Gone = time.Time{}
			changed = true
		}
		changed = changed || !slices.Equal(o.Alert.Devices, a.Devices)
		if !o.Alert.Since.IsZero() && (a.Since.IsZero() || o.Alert.Since.Before(a.Since)) {
			a.Since = o.Alert.Since
		}
		o.Alert = a
		changed = o.leave(now, p.Hold) || changed
	}
	for key, o := range t.Open {
		switch {
		case seen[key]:
		case o.Told.IsZero():
			delete(t.Open, key)
			changed = true
		case unsure(o.Alert.Kind):
		case o.Gone.IsZero():
			o.Gone = now
			changed = true
		}
	}
	return changed
}

// heir returns what is known of an alert that is there for the first time:
// nothing, unless its devices are those of another of its kind that is there no
// more. Then only the class of their failure has changed, which is no news.
func (t *Tracker) heir(now time.Time, a Alert, seen map[string]bool) *open {
	if !a.Kind.aboutDevices() || len(a.Devices) == 0 || a.Count > len(a.Devices) {
		return &open{Opened: now}
	}
	for _, key := range slices.Sorted(maps.Keys(t.Open)) {
		o := t.Open[key]
		if seen[key] || o.Told.IsZero() || o.Alert.Kind != a.Kind || !slices.Equal(o.Alert.Devices, a.Devices) {
			continue
		}
		delete(t.Open, key)
		return o
	}
	return &open{Opened: now}
}

// settle forgets, after a while, how bad an alert was that has become less, so
// that it is told if it becomes worse again, and drops those that are not over
// but stand elsewhere.
func (t *Tracker) settle(now time.Time, p Policy) (changed bool) {
	for key, o := range t.Open {
		switch {
		case o.Told.IsZero():
		case !o.Gone.IsZero():
			if now.Sub(o.Gone) >= p.Hold && t.moved(o, (*open).told) {
				delete(t.Open, key)
				changed = true
			}
		case !o.less():
			changed = changed || !o.Better.IsZero()
			o.Better = time.Time{}
		case o.Better.IsZero():
			o.Better, changed = now, true
		case now.Sub(o.Better) >= calm*p.Hold:
			o.Severity, o.Count, o.Better = o.Alert.Severity, o.Alert.Count, time.Time{}
			changed = true
		}
	}
	return changed
}

// calm is for how many times the policy's Hold an alert must have been less
// than was told.
const calm = 6

// less reports whether an alert is less than was told.
func (o *open) less() bool {
	return o.Alert.Severity < o.Severity || o.Count > 1 && 2*o.Alert.Count <= o.Count
}

func (o *open) told() bool { return !o.Told.IsZero() }

// moved reports whether all devices of an alert that is gone are in such others
// that are there: it has not recovered, and the end of those will be told.
func (t *Tracker) moved(gone *open, such func(*open) bool) bool {
	a := gone.Alert
	if !a.Kind.aboutDevices() || len(a.Devices) == 0 || a.Count > len(a.Devices) {
		return false
	}
	for _, name := range a.Devices {
		there := false
		for _, o := range t.Open {
			if o.Gone.IsZero() && o.Alert.Kind.aboutDevices() && such(o) {
				_, in := slices.BinarySearch(o.Alert.Devices, name)
				there = there || in
			}
		}
		if !there {
			return false
		}
	}
	return true
}

// leave forgets devices that have long left an alert, so that they are told
// again if they come back.
func (o *open) leave(now time.Time, hold time.Duration) (changed bool) {
	for name, gone := range o.Members {
		_, there := slices.BinarySearch(o.Alert.Devices, name)
		switch {
		case there && gone != nil:
			o.Members[name] = nil
			changed = true
		case !there && gone == nil:
			at := now
			o.Members[name] = &at
			changed = true
		case !there && now.Sub(*gone) >= hold:
			delete(o.Members, name)
			changed = true
		}
	}
	return changed
}

// worse reports whether an alert that was told has to be told again.
func (o *open) worse() bool {
	if o.Alert.Severity > o.Severity || o.Alert.Count >= 2*max(o.Count, 1) && o.Alert.Count > o.Count {
		return true
	}
	if !o.Alert.Kind.each() {
		return false
	}
	if o.Alert.Count > len(o.Alert.Devices) {
		// Of a list that is cut, who stands in it says nothing.
		return o.Alert.Count >= o.Count+max(1, o.Count/10)
	}
	for _, name := range o.Alert.Devices {
		if _, told := o.Members[name]; !told {
			return true
		}
	}
	return false
}

// pending collects what there is to tell.
func (t *Tracker) pending(now time.Time, p Policy) Digest {
	var d Digest
	remind := false
	for _, key := range slices.Sorted(maps.Keys(t.Open)) {
		switch o := t.Open[key]; {
		case o.Told.IsZero():
			d.New = append(d.New, o.Alert)
		case !o.Gone.IsZero():
			if now.Sub(o.Gone) >= p.Hold && !t.moved(o, func(*open) bool { return true }) {
				since := o.Opened
				if !o.Alert.Since.IsZero() && o.Alert.Since.Before(since) {
					since = o.Alert.Since
				}
				d.Recovered = append(d.Recovered, Recovery{o.Alert, max(0, o.Gone.Sub(since))})
			}
		case o.worse():
			d.Worse = append(d.Worse, o.Alert)
		default:
			remind = remind || now.Sub(o.Told) >= p.Remind
			d.Ongoing = append(d.Ongoing, o.Alert)
		}
	}
	if !remind {
		d.Ongoing = nil
	}
	return d
}

// may reports whether a message may be sent: one in each interval, and a few
// more if something critical is new.
func (t *Tracker) may(now time.Time, p Policy, d Digest) bool {
	recent := 0
	for _, at := range t.Sent {
		if now.Sub(at) < p.MinInterval {
			recent++
		}
	}
	if recent == 0 {
		return true
	}
	critical := slices.ContainsFunc(slices.Concat(d.New, d.Worse), func(a Alert) bool { return a.Severity == Critical })
	return critical && recent <= p.Burst
}

// told takes down what a digest says.
func (t *Tracker) told(now time.Time, d Digest) {
	for _, a := range slices.Concat(d.New, d.Worse, d.Ongoing) {
		o := t.Open[a.Key]
		o.Told, o.Severity, o.Count = now, a.Severity, max(o.Count, a.Count)
		if !o.less() {
			o.Better = time.Time{}
		}
		if !a.Kind.each() {
			continue
		}
		if o.Members == nil {
			o.Members = map[string]*time.Time{}
		}
		for _, name := range a.Devices {
			if _, known := o.Members[name]; !known {
				o.Members[name] = nil
			}
		}
	}
	for _, r := range d.Recovered {
		delete(t.Open, r.Key)
	}
}

func (t *Tracker) present() int {
	n := 0
	for _, o := range t.Open {
		if o.Gone.IsZero() {
			n++
		}
	}
	return n
}
