package renewal

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sort"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Forecast asks what becomes of a fleet while its CA cannot be had, by driving
// the scheduler of the loop on a clock of its own. It takes it that every
// device answers, and that nobody is commissioned meanwhile.
type Forecast struct {
	Now    time.Time
	Outage fleet.Span    // of all CAs; a zero To: it never ends
	Resume time.Duration // how long after its end the CA may still be left alone
	Bounds Bounds        // of the loop
	Window fleet.Window  // when the certificates obtained meanwhile are renewed
	Took   time.Duration // of one renewal

	// LongestWait is how far ahead a next try can lie (enrol.Policy.LongestWait);
	// one that lies further was written by a clock that was wrong.
	LongestWait time.Duration
}

// Expiry is a certificate that ends before it could be renewed.
type Expiry struct {
	Device  string
	At      time.Time
	Failing bool // the last try to renew it failed, whatever the CA does now
}

// Outlook is what a forecast says.
type Outlook struct {
	Until   time.Time // so far it looks: the end of today's certificates, or as far as it came
	Devices int       // that own a valid certificate and are neither paused nor quarantined
	Held    int       // own one, and are paused or quarantined
	Expired int       // own one that has ended already

	Expiries  []Expiry    // of those devices, in their order; each device once
	Renewals  []time.Time // when the CA would be asked, rising; nil for an endless outage
	Recovered time.Time   // when the last of those is renewed that waited at the outage's end; zero: not as far as it looks
}

// First returns the first certificate to end; false if none does.
func (o Outlook) First() (Expiry, bool) {
	if len(o.Expiries) == 0 {
		return Expiry{}, false
	}
	return o.Expiries[0], true
}

// ExpiredBy counts the certificates that end up to a time.
func (o Outlook) ExpiredBy(t time.Time) int {
	n, _ := slices.BinarySearchFunc(o.Expiries, t, func(e Expiry, t time.Time) int {
		if e.At.After(t) {
			return 1
		}
		return -1
	})
	return n
}

// Busiest returns the most renewals in any such time, and when that begins.
func (o Outlook) Busiest(within time.Duration) (n int, from time.Time) {
	first := 0
	for last, at := range o.Renewals {
		for at.Sub(o.Renewals[first]) >= within {
			first++
		}
		if last-first+1 > n {
			n, from = last-first+1, o.Renewals[first]
		}
	}
	return n, from
}

// startsPerDevice bounds a forecast: certificates of two minutes beside ones of
// two years would have it go on for ever.
const startsPerDevice = 8

// Of returns the outlook of the devices of an inventory, in any order.
func (f Forecast) Of(rows []Row) Outlook {
	c := f.course(rows)
	if f.Outage.To.IsZero() {
		return c.endless()
	}
	return c.run()
}

// Bridge returns the devices that have to be renewed before an outage so that
// nobody's certificate ends because of it, the most urgent first, with the
// outlook after that. What still expires in it cannot be helped: those
// certificates do not live long enough.
func (f Forecast) Bridge(rows []Row) ([]Row, Outlook) {
	outlook := f.Of(rows)
	var candidates []Expiry
	for {
		known := devicesOf(candidates)
		n := len(candidates)
		for _, e := range outlook.Expiries {
			if !known[e.Device] {
				candidates = append(candidates, e)
			}
		}
		if len(candidates) == n {
			return f.fewest(rows, candidates)
		}
		slices.SortFunc(candidates, sooner)
		outlook = f.Of(f.bridged(rows, candidates))
	}
}

// fewest finds how few of the candidates, from the most urgent on, are enough:
// each one that is renewed before the outage leaves its place after it to
// another one.
func (f Forecast) fewest(rows []Row, candidates []Expiry) ([]Row, Outlook) {
	n := sort.Search(len(candidates), func(n int) bool {
		if n < len(candidates) && !candidates[n].At.After(f.back()) {
			return false
		}
		chosen := devicesOf(candidates[:n])
		return !slices.ContainsFunc(f.Of(f.bridged(rows, candidates[:n])).Expiries, func(e Expiry) bool { return !chosen[e.Device] })
	})
	at := make(map[string]int, len(rows))
	for i, r := range rows {
		at[r.Name] = i
	}
	bridge := make([]Row, n)
	for i, e := range candidates[:n] {
		bridge[i] = rows[at[e.Device]]
	}
	return bridge, f.Of(f.bridged(rows, candidates[:n]))
}

// bridged returns the rows as they are once some are renewed.
func (f Forecast) bridged(rows []Row, some []Expiry) []Row {
	chosen := devicesOf(some)
	out := slices.Clone(rows)
	for i, r := range rows {
		if chosen[r.Name] {
			out[i] = f.renewed(r, f.Now, 0)
		}
	}
	return out
}

func devicesOf(some []Expiry) map[string]bool {
	devices := make(map[string]bool, len(some))
	for _, e := range some {
		devices[e.Device] = true
	}
	return devices
}

// back is when the CA is asked again.
func (f Forecast) back() time.Time { return later(f.Outage.To, f.Now).Add(f.Resume) }

// renewed returns a device with the certificate that it would get at a time,
// its n-th in the forecast.
func (f Forecast) renewed(r Row, at time.Time, n int) Row {
	c := fleet.Certificate{NotBefore: at, NotAfter: at.Add(r.life())}
	c.SHA256 = sha256.Sum256(binary.BigEndian.AppendUint64([]byte(r.Name), uint64(n)))
	// Without the plan of the others there is nothing that could fail.
	r.RenewAt, _ = f.Window.Place(r.Name, c, at, fleet.Limits{Calendar: f.Bounds.CA.Calendar}, nil)
	r.NotBefore, r.NotAfter, r.EnrolledAt, r.NextAttempt, r.LastError = c.NotBefore, c.NotAfter, at, time.Time{}, ""
	return r
}

// life is how long the device's certificate has served when it ends: a CA that
// backdates gives less than the certificate says.
func (r Row) life() time.Duration {
	if r.EnrolledAt.After(r.NotBefore) && r.EnrolledAt.Before(r.NotAfter) {
		return r.NotAfter.Sub(r.EnrolledAt)
	}
	return r.NotAfter.Sub(r.NotBefore)
}

// course is one forecast as it goes on.
type course struct {
	Forecast
	rows    []Row
	index   map[string]int // of the rows
	expired []bool         // of the rows: they count once, and not if they had before
	out     Outlook
}

func (f Forecast) course(rows []Row) *course {
	c := &course{Forecast: f, index: make(map[string]int, len(rows))}
	for _, r := range rows {
		held, valid := r.Paused || r.Quarantined, r.NotAfter.After(f.Now)
		switch {
		case r.NotAfter.IsZero(), held && !valid:
			continue
		case held:
			c.out.Held++
			continue
		case valid:
			c.out.Devices++
		default:
			c.out.Expired++
		}
		c.index[r.Name] = len(c.rows)
		c.rows, c.expired = append(c.rows, r), append(c.expired, !valid)
	}
	return c
}

// expire notes that a certificate ends before it is renewed.
func (c *course) expire(i int) {
	if r := &c.rows[i]; !c.expired[i] {
		c.expired[i] = true
		c.out.Expiries = append(c.out.Expiries, Expiry{Device: r.Name, At: r.NotAfter, Failing: r.LastError != ""})
	}
}

// sooner orders expiries.
func sooner(a, b Expiry) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Device, b.Device)) }

func (c *course) end() Outlook {
	slices.SortFunc(c.out.Expiries, sooner)
	return c.out
}

// endless is the outlook if nothing is renewed any more.
func (c *course) endless() Outlook {
	for i := range c.rows {
		c.expire(i)
		c.out.Until = later(c.out.Until, c.rows[i].NotAfter)
	}
	return c.end()
}

func (c *course) run() Outlook {
	bounds := c.Bounds
	bounds.Once, bounds.Canary, bounds.MaxFailures, bounds.MaxShare = false, 0, 0, 0
	r := rehearse(bounds, c.Now, c.Took)
	r.started = func(_ Job, at time.Time) { c.out.Renewals = append(c.out.Renewals, at) }
	waiting := map[string]bool{} // since the outage
	n := 0
	r.done = func(j Job, at time.Time) {
		i := c.index[j.Device]
		if c.rows[i].NotAfter.Before(at) {
			c.expire(i)
		}
		n++
		c.rows[i] = c.renewed(c.rows[i], at, n)
		c.comes(r, i)
		if waiting[j.Device] {
			if delete(waiting, j.Device); len(waiting) == 0 {
				c.out.Recovered = at
			}
		}
	}
	c.out.Until = c.back()
	for i := range c.rows {
		c.comes(r, i)
		c.out.Until = later(c.out.Until, c.rows[i].NotAfter)
	}
	most := startsPerDevice * len(c.rows)
	if c.Outage.From.After(c.Now) {
		r.run(c.Outage.From.Add(-1), most)
	}
	r.skip(c.back())
	for _, j := range r.s.Left() {
		waiting[j.Device] = true
	}
	if len(waiting) == 0 {
		c.out.Recovered = c.back()
	}
	if r.run(c.out.Until, most) >= most {
		c.out.Until = r.now
	}
	for i := range c.rows {
		if !c.rows[i].NotAfter.After(c.out.Until) {
			c.expire(i)
		}
	}
	return c.end()
}

// comes has a device become due.
func (c *course) comes(r *rehearsal, i int) {
	row := &c.rows[i]
	at := row.RenewAt
	if at.IsZero() || row.NotAfter.Before(at) {
		at = row.NotAfter
	}
	if fleet.Waits(row.NextAttempt, c.Now, c.LongestWait) {
		at = later(at, row.NextAttempt)
	}
	r.due(Job{Device: row.Name, NotAfter: row.NotAfter, Due: at, Failing: row.LastError != ""}, later(at, r.now))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
