package clmctl

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// records is what the inventory says of the fleet as a whole, and how its old
// history is dropped.
type records interface {
	Census(ctx context.Context, now time.Time, longest time.Duration) (renewal.Census, error)
	Patience(ctx context.Context, now time.Time) (since time.Time, shortest time.Duration, err error)
	Troubles(ctx context.Context, now time.Time, limit int) (found []alert.Trouble, more int, err error)
	Breaker(ctx context.Context, ca string) (enrol.Breaker, error)
	Rows(ctx context.Context, after string, limit int) ([]renewal.Row, error)
	Tallies(ctx context.Context) ([]renewal.Count, []renewal.Step, error)
	Prune(ctx context.Context, before time.Time, limit int) (int, error)
}

// maxTroubles is how many devices in trouble are read; the census counts all.
// Those that expired first stand in front: with less, the scrap of a large plant
// would leave no room for what fails today.
const maxTroubles = 2000

// gathering is the facts as they are gathered.
type gathering struct {
	*keeper
	now   time.Time
	facts alert.Facts
}

// facts gathers what alerts are judged by. What cannot be found out is logged
// and stands in Unknown: that the inventory cannot be read is no reason to be
// silent about the disk.
func (k *keeper) facts(ctx context.Context, now time.Time) alert.Facts {
	g := &gathering{keeper: k, now: now, facts: alert.Facts{RenewBy: k.site.Policy.Window.To, Maintenance: k.site.Limits.Calendar}}
	g.part(g.fleet(ctx), alert.KindNoSuccess, alert.KindNeverReached, alert.KindFailing, alert.KindEnding, alert.KindExpired,
		alert.KindQuarantined, alert.KindRunway, alert.KindClock)
	g.part(g.authorities(ctx), alert.KindCADown, alert.KindCAExpiry)
	g.part(g.disk(), alert.KindDisk)
	if k.holds {
		g.part(g.lock(), alert.KindLock)
	} else {
		g.facts.Unknown = append(g.facts.Unknown, alert.KindLock)
	}
	return g.facts
}

// part notes that the facts of some kinds of alerts are not known.
func (g *gathering) part(err error, kinds ...alert.Kind) {
	if err != nil {
		g.log.Error("look for alerts", "error", err)
		g.facts.Unknown = append(g.facts.Unknown, kinds...)
	}
}

func (g *gathering) fleet(ctx context.Context) (err error) {
	f := &g.facts
	if f.Census, err = g.records.Census(ctx, g.now, g.site.Policy.LongestWait()); err != nil {
		return err
	}
	if f.DueSince, f.Lifetime, err = g.records.Patience(ctx, g.now); err != nil {
		return err
	}
	if f.Troubles, f.More, err = g.records.Troubles(ctx, g.now, maxTroubles); err != nil {
		return err
	}
	f.ClockDoubt = clockDoubt(g.now, *f)
	return nil
}

// clockDoubt says why our clock may be wrong, as far as the inventory can tell.
// That nothing synchronises it is for doctor: many plants have no NTP.
func clockDoubt(now time.Time, f alert.Facts) string {
	if f.Census.LastTry.Sub(now) > smallSkew {
		return "an enrolment was worked on at " + stamp(f.Census.LastTry) + ", which is in the future"
	}
	for _, d := range f.Troubles {
		if d.Class == enrol.ClassClock {
			return fmt.Sprintf("%s: %s", d.Device, d.LastError)
		}
	}
	return ""
}

func (g *gathering) authorities(ctx context.Context) error {
	cas, err := g.site.dir.knownCAs(ctx, g.records)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, ca := range cas {
		g.facts.CAs = append(g.facts.CAs, ca.breaker)
		certificates, err := ca.pins()
		if err != nil {
			return err
		}
		for i, c := range certificates {
			if known[string(c.Raw)] {
				continue
			}
			known[string(c.Raw)] = true
			g.facts.Certificates = append(g.facts.Certificates, alert.Certificate{
				Role: pinRole(i, c), Name: clikit.OneLine(c.Subject.String()), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			})
		}
	}
	return nil
}

// pins returns the certificates of a CA that were pinned, its trust anchor first.
func (ca authority) pins() ([]*x509.Certificate, error) {
	anchor, err := ca.anchor()
	if err != nil {
		return nil, err
	}
	out := []*x509.Certificate{anchor}
	for _, der := range ca.Certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("a certificate of CA %s does not parse: %w", ca.Name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func pinRole(i int, c *x509.Certificate) string {
	switch {
	case i == 0:
		return "trust anchor"
	case c.IsCA:
		return "CA"
	}
	return "RA"
}

func (g *gathering) disk() error {
	dir := string(g.site.dir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	block := uint64(st.Bsize)
	g.facts.Disk = alert.Disk{Path: dir, Free: st.Bavail * block, Size: st.Blocks * block}
	return nil
}
