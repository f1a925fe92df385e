package clmctl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

type runwayOptions struct {
	from, until string
	by          string
}

const (
	flagDownFrom  = "ca-down-from"
	flagDownUntil = "ca-down-until"
)

func (a *app) runwayCommand() *cobra.Command {
	var o runwayOptions
	cmd := &cobra.Command{
		Use:   "runway",
		Short: "Say how long the certificates last without the CA",
		Long: `runway asks what becomes of the fleet if no CA can be had: from now on and for
good, or until a time (--ca-down-until). It plays the renewals of the real
inventory with the real scheduler, the CA's rate and the maintenance windows on a
clock of its own, and says whose certificate ends first, how many by when, and
where. It reads only.

Devices that are paused or quarantined, or whose certificate has ended already,
are counted apart. Every device is taken to answer. With -o wide, csv or json
each certificate that would end is listed.`,
		Example: "  clmctl runway\n  clmctl runway --ca-down-until 12h --by line\n  clmctl runway --ca-down-from 2d --ca-down-until 3d -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return a.runRunway(cmd.Context(), s, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.until, flagDownUntil, "", "when a CA can be had again: a time, or 12h from now (none: never)")
	f.StringVar(&o.from, flagDownFrom, "", "since when none can be had (none: from now on)")
	f.StringVar(&o.by, "by", "", "also count by the values of this label")
	return cmd
}

// outage is what the flags say.
func (o runwayOptions) outage(now time.Time) (out fleet.Span, err error) {
	out.From = now
	if o.from != "" {
		if out.From, err = parseWhen(flagDownFrom, o.from, now); err != nil {
			return out, err
		}
	}
	if o.until == "" {
		if o.from != "" {
			return out, clikit.Usage("--%s needs --%s", flagDownFrom, flagDownUntil)
		}
		return out, nil
	}
	if out.To, err = parseWhen(flagDownUntil, o.until, now); err == nil && !out.To.After(out.From) {
		err = clikit.Usage("--%s: %s is before the outage begins, at %s", flagDownUntil, stamp(out.To), stamp(out.From))
	}
	return out, err
}

func (a *app) runRunway(ctx context.Context, s *site, o runwayOptions) error {
	now := a.Now()
	outage, err := o.outage(now)
	if err != nil {
		return err
	}
	return s.dir.withInventory(ctx, func(inventory inventory) error {
		rows, err := inventory.Rows(ctx, "", 0)
		if err != nil {
			return err
		}
		f, err := s.forecast(ctx, inventory, now, outage)
		if err != nil {
			return err
		}
		return a.renderRunway(newRunwayView(f, f.Of(rows), rows, o.by))
	})
}

// forecast is the question of what becomes of the fleet in an outage.
func (s *site) forecast(ctx context.Context, inventory inventory, now time.Time, outage fleet.Span) (renewal.Forecast, error) {
	took, err := usualTime(ctx, inventory)
	if err != nil {
		return renewal.Forecast{}, err
	}
	_, shortest, err := inventory.Patience(ctx, now)
	return renewal.Forecast{
		Now: now.Round(0), Outage: outage, Resume: s.Policy.BreakerFor(shortest).BreakerLongest + s.Tick, Bounds: s.bounds(),
		Window: s.Policy.Window, Took: took, LongestWait: s.Policy.LongestWait(),
	}, err
}

// defaultTook is how long a renewal takes where none has been measured.
const defaultTook = 2 * time.Second

// usualTime is how long a renewal takes here, on average.
func usualTime(ctx context.Context, inventory inventory) (time.Duration, error) {
	_, steps, err := inventory.Tallies(ctx)
	for _, step := range steps {
		if step.Name == renewal.StepTotal && step.N > 0 {
			return step.Sum / time.Duration(step.N), err
		}
	}
	return defaultTook, err
}

// runwayView is a forecast as it is shown; its fields are a contract.
type runwayView struct {
	At          string  `json:"at"`
	CADownFrom  string  `json:"ca_down_from"`
	CADownUntil *string `json:"ca_down_until"` // null: it never ends
	Until       string  `json:"until"`         // so far it looks

	Devices        int `json:"devices"`         // that own a valid certificate, those held apart
	Held           int `json:"held"`            // paused or quarantined
	AlreadyExpired int `json:"already_expired"` // of those that are not held

	Runway      *float64     `json:"runway_seconds"` // until the first certificate ends; null: none does
	First       *expiryView  `json:"first"`
	Expire      int          `json:"expire"`
	Within      []withinView `json:"within"`
	By          []labelView  `json:"by,omitempty"`
	Names       []expiryView `json:"certificates"`
	Renewals    int          `json:"renewals"` // that the CA is asked for until then
	BusiestHour *busiestView `json:"busiest_hour"`
	RecoveredAt *string      `json:"recovered_at"` // when what the outage has left is renewed
	forecast    renewal.Forecast
	outlook     renewal.Outlook
}

type expiryView struct {
	Name      string            `json:"name"`
	ExpiresAt string            `json:"expires_at"`
	Failing   bool              `json:"failing"` // its last try failed
	Labels    map[string]string `json:"labels"`
}

type withinView struct {
	Within  string `json:"within"`
	Until   string `json:"until"`
	Expired int    `json:"expired"` // certificates that have ended by then
}

type labelView struct {
	Value   string  `json:"value"`
	Devices int     `json:"devices"`
	Expire  int     `json:"expire"`
	First   *string `json:"first"`
}

type busiestView struct {
	From     string `json:"from"`
	Renewals int    `json:"renewals"`
}

func newRunwayView(f renewal.Forecast, o renewal.Outlook, rows []renewal.Row, by string) *runwayView {
	v := &runwayView{
		At: stamp(f.Now), CADownFrom: stamp(f.Outage.From), CADownUntil: optionalTime(f.Outage.To), Until: stamp(o.Until),
		Devices: o.Devices, Held: o.Held, AlreadyExpired: o.Expired, Expire: len(o.Expiries), Names: []expiryView{}, Within: []withinView{},
		Renewals: len(o.Renewals), RecoveredAt: optionalTime(o.Recovered), forecast: f, outlook: o,
	}
	labels := make(map[string]map[string]string, len(rows))
	for _, r := range rows {
		labels[r.Name] = r.Labels
	}
	for _, e := range o.Expiries {
		v.Names = append(v.Names, expiryView{Name: e.Device, ExpiresAt: stamp(e.At), Failing: e.Failing, Labels: labels[e.Device]})
	}
	if first, ok := o.First(); ok {
		seconds := first.At.Sub(f.Now).Seconds()
		v.Runway, v.First = &seconds, &v.Names[0]
	}
	for _, d := range steps() {
		n := o.ExpiredBy(f.Now.Add(d))
		v.Within = append(v.Within, withinView{Within: shortly(d), Until: stamp(f.Now.Add(d)), Expired: n})
		if n == v.Expire && !f.Now.Add(d).Before(f.Outage.To) {
			break
		}
	}
	if n, from := o.Busiest(time.Hour); n > 0 {
		v.BusiestHour = &busiestView{From: stamp(from), Renewals: n}
	}
	if by != "" {
		v.By = groups(f, o, rows, by)
	}
	return v
}

// steps are the times within which certificates are counted.
func steps() []time.Duration {
	const day = 24 * time.Hour
	return []time.Duration{
		10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, day, 2 * day, 3 * day, 7 * day, 14 * day, 30 * day, 90 * day, 180 * day, 365 * day, 730 * day,
	}
}

// shortly is a duration in its largest unit.
func shortly(d time.Duration) string {
	if d >= 24*time.Hour {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	if d >= time.Hour {
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return strconv.Itoa(int(d/time.Minute)) + "m"
}

// groups counts by the values of a label, the first to lose a certificate in
// front.
func groups(f renewal.Forecast, o renewal.Outlook, rows []renewal.Row, by string) []labelView {
	value := make(map[string]string, len(rows))
	counts := map[string]*labelView{}
	for _, r := range rows {
		if r.Paused || r.Quarantined || !r.NotAfter.After(f.Now) {
			continue
		}
		v := r.Labels[by]
		value[r.Name] = v
		if counts[v] == nil {
			counts[v] = &labelView{Value: v}
		}
		counts[v].Devices++
	}
	for _, e := range o.Expiries {
		g := counts[value[e.Device]]
		if g.Expire++; g.First == nil {
			g.First = optionalTime(e.At)
		}
	}
	out := make([]labelView, 0, len(counts))
	for _, g := range counts {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b labelView) int {
		if (a.First == nil) != (b.First == nil) {
			return cmp.Compare(b.Expire, a.Expire)
		}
		return cmp.Or(cmp.Compare(deref(a.First), deref(b.First)), cmp.Compare(a.Value, b.Value))
	})
	return out
}

// words says a forecast in a few lines.
func (v *runwayView) words() []string {
	outage := "If the CA stopped now for good"
	switch o := v.forecast.Outage; {
	case !o.To.IsZero() && o.From.After(v.forecast.Now):
		outage = fmt.Sprintf("If the CA is down from %s to %s (%s)", stamp(o.From), stamp(o.To), about(o.To.Sub(o.From)))
	case !o.To.IsZero():
		outage = fmt.Sprintf("If the CA is down until %s (%s)", stamp(o.To), about(o.To.Sub(v.forecast.Now)))
	}
	var lines []string
	switch first, some := v.outlook.First(); {
	case v.Devices == 0:
		lines = append(lines, "No device owns a valid certificate that could end.")
	case !some:
		lines = append(lines, fmt.Sprintf("%s, none of %d certificates ends before it is renewed.", outage, v.Devices))
	default:
		lines = append(lines, fmt.Sprintf("%s, %d of %d certificates end before they are renewed.", outage, v.Expire, v.Devices),
			fmt.Sprintf("The first is that of %s, in %s, at %s.", first.Device, about(first.At.Sub(v.forecast.Now)), stamp(first.At)))
	}
	if v.RecoveredAt != nil && !v.forecast.Outage.To.IsZero() {
		lines = append(lines, fmt.Sprintf("What the outage leaves undone is done by %s.", *v.RecoveredAt))
	}
	if v.BusiestHour != nil {
		lines = append(lines, fmt.Sprintf("The CA's busiest hour begins at %s, with %s.", v.BusiestHour.From, count(v.BusiestHour.Renewals, "renewal")))
	}
	if v.Held+v.AlreadyExpired > 0 {
		lines = append(lines, fmt.Sprintf("Not counted: %d paused or quarantined, %d expired already.", v.Held, v.AlreadyExpired))
	}
	if v.Expire > 0 && !v.forecast.Outage.To.IsZero() {
		lines = append(lines, fmt.Sprintf("To renew those before that need it: clmctl renew --bridge %s", stamp(v.forecast.Outage.To)))
	}
	return lines
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// renderRunway writes a forecast; people get words, and how many by when.
func (a *app) renderRunway(v *runwayView) error {
	names := clikit.Table{Columns: clikit.Columns("name", "expires_at", "failing")}
	for _, e := range v.Names {
		names.Rows = append(names.Rows, []string{e.Name, e.ExpiresAt, strconv.FormatBool(e.Failing)})
	}
	if a.Output != clikit.FormatTable && a.Output != clikit.FormatWide {
		return clikit.Render(a.Out, a.Output, v, names)
	}
	for _, line := range v.words() {
		if _, err := fmt.Fprintln(a.Out, line); err != nil {
			return err
		}
	}
	tables := []clikit.Table{v.withinTable(), v.byTable()}
	if a.Output == clikit.FormatWide {
		tables = append(tables, names)
	}
	for _, t := range tables {
		if len(t.Rows) == 0 {
			continue
		}
		if _, err := fmt.Fprintln(a.Out); err != nil {
			return err
		}
		if err := clikit.Render(a.Out, a.Output, v, t); err != nil {
			return err
		}
	}
	return nil
}

func (v *runwayView) withinTable() clikit.Table {
	t := clikit.Table{Columns: clikit.Columns("within", "until", "expired")}
	if v.Expire == 0 {
		return t
	}
	for _, w := range v.Within {
		t.Rows = append(t.Rows, []string{w.Within, w.Until, strconv.Itoa(w.Expired)})
	}
	return t
}

func (v *runwayView) byTable() clikit.Table {
	t := clikit.Table{Columns: clikit.Columns("value", "devices", "expire", "first")}
	for _, g := range v.By {
		first := "-"
		if g.First != nil {
			first = *g.First
		}
		t.Rows = append(t.Rows, []string{cmp.Or(g.Value, "-"), strconv.Itoa(g.Devices), strconv.Itoa(g.Expire), first})
	}
	return t
}
