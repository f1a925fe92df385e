package clmctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

// rollingSite is what the subcommands of a rollover work with.
type rollingSite struct {
	*site
	file     authorityJSON
	identity *provision.Endpoint
	devices  inventory
	fleet    []fleet.Device // all of them, in the order of their names
}

// openRolling opens all of that; the caller closes it.
func (a *app) openRolling(ctx context.Context, s *site) (_ *rollingSite, err error) {
	w := &rollingSite{site: s}
	if w.file, err = s.dir.authorities(); err != nil {
		return nil, err
	}
	if w.identity, err = s.dir.identity(); err != nil {
		return nil, err
	}
	if w.devices, err = s.dir.inventory(ctx, true); err != nil {
		w.identity.Destroy()
		return nil, err
	}
	if w.fleet, err = store.Collect(w.devices.ListDevices(ctx, store.Filter{})); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *rollingSite) close() error {
	w.identity.Destroy()
	return w.devices.Close()
}

// turnover returns the rollover that is under way, or errNoRollover.
func (w *rollingSite) turnover() (*turnover, error) {
	if w.file.Rollover == nil {
		return nil, errNoRollover
	}
	return w.file.turnover(w.identity.Verifying())
}

// underWay runs do on the rollover that is under way.
func (a *app) underWay(ctx context.Context, s *site, do func(*rollingSite, *turnover) error) (err error) {
	w, err := a.openRolling(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	t, err := w.turnover()
	if err != nil {
		return err
	}
	return do(w, t)
}

// save makes a rollover the one on record; nil ends it.
func (w *rollingSite) save(authorities []authority, r *rollover) (err error) {
	unlock, err := w.dir.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	next := authorityJSON{Authorities: authorities, Rollover: r, Failover: w.file.Failover}
	if err := next.checkRollover(); err != nil {
		return err
	}
	if err := w.dir.saveAuthorities(next); err != nil {
		return err
	}
	w.file = next
	return nil
}

// readStatements reads anchor statements and demands that every device that is
// not paused has one, with a serial number above those in force.
func (w *rollingSite) readStatements(ctx context.Context, files []string, inForce *turnover) ([][]byte, error) {
	var raws [][]byte
	var sets []*bundle.AnchorSet
	for _, file := range files {
		raw, err := keyfile.Read(file, bundle.MaxAnchorFile)
		if err != nil {
			return nil, clikit.WithCode(err, clikit.ExitUsage)
		}
		set, _, err := bundle.ParseAnchorsOf(raw, w.identity.Accepted())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		raws, sets = append(raws, raw), append(sets, set)
	}
	var without []string
	for _, d := range w.fleet {
		covered := slices.ContainsFunc(sets, func(s *bundle.AnchorSet) bool { return s.Pattern.Matches(d.Name) })
		if !covered && !d.Paused {
			without = append(without, d.Name)
		}
		// A device takes none that is earlier than its last one.
		seen, err := w.devices.LastSighting(ctx, d.Name)
		if err != nil {
			return nil, err
		}
		least := seen.Serial
		if inForce != nil {
			if before := inForce.statementFor(d.Name); before != nil {
				least = max(least, before.Serial+1)
			}
		}
		for _, s := range sets {
			if s.Pattern.Matches(d.Name) && s.Serial < least {
				return nil, fmt.Errorf("%w: statement %d is too old for %s, which needs number %d or a later one", errStatement, s.Serial, d.Name, least)
			}
		}
	}
	if len(without) > 0 {
		return nil, fmt.Errorf("%w: the patterns leave out %s", errStatement, few(without))
	}
	return raws, nil
}

// startRollover enters the first stage.
func (a *app) startRollover(ctx context.Context, s *site, o rolloverStartOptions) (err error) {
	w, err := a.openRolling(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if w.file.Rollover != nil {
		return fmt.Errorf("%w, from CA %s to CA %s", errRollover, w.file.Authorities[0].Name, w.file.Authorities[1].Name)
	}
	now := a.Now().UTC()
	r := &rollover{Stage: stageTrustBoth, StartedAt: now, ChangedAt: now}
	if o.crossSigned != "" {
		r.CrossSigned, err = readCrossSigned(o.crossSigned)
	} else {
		r.Statements, err = w.readStatements(ctx, o.statements, nil)
	}
	if err != nil {
		return err
	}
	next, challenge, err := a.askAuthority(ctx, s, o.caAddOptions)
	if err != nil {
		return err
	}
	defer clear(challenge)
	old := w.file.Authorities[0]
	t, err := newTurnover(old, next, r, w.identity.Verifying())
	if err != nil {
		return err
	}
	if err := w.dir.keepChallenge(&next, challenge); err != nil {
		return err
	}
	if err := w.save([]authority{old, next}, r); err != nil {
		return err
	}
	a.note("stage %s: devices learn to trust CA %s beside CA %s", r.Stage, next.Name, old.Name)
	return a.visitAll(ctx, w, t)
}

func readCrossSigned(file string) ([]byte, error) {
	found, err := readCertificates([]string{file})
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, clikit.Usage("%s: %d certificates, not one", file, len(found))
	}
	return found[0].Raw, nil
}

// newTurnover checks that a rollover makes sense.
func newTurnover(old, next authority, r *rollover, params []*ibc.Params) (*turnover, error) {
	if old.Name == next.Name {
		return nil, clikit.WithHint(clikit.Usage("CA %s is the one in use", old.Name), "give the new CA another name: --name NAME")
	}
	t, err := authorityJSON{Authorities: []authority{old, next}, Rollover: r}.turnover(params)
	if err != nil {
		return nil, err
	}
	anchor, err := next.anchor()
	if err != nil {
		return nil, err
	}
	if bytes.Equal(old.Anchor, next.Anchor) || leadsTo(old.Anchor, anchor) {
		return nil, clikit.WithHint(clikit.Usage("devices that trust CA %s trust CA %s already", old.Name, next.Name), "put it into use with clmctl ca add URL")
	}
	if r.CrossSigned != nil {
		return t, t.checkCrossSigned()
	}
	return t, t.checkStatements(true, true)
}

// visitAll brings what the devices need for the stage, and shows how far it has
// come.
func (a *app) visitAll(ctx context.Context, w *rollingSite, t *turnover) error {
	why, err := a.bring(ctx, w, t, t.fits)
	if err != nil {
		return err
	}
	return a.showStage(ctx, w, t, why)
}

// showStage shows how far a stage has come.
func (a *app) showStage(ctx context.Context, w *rollingSite, t *turnover, why map[string]string) error {
	v, err := w.view(ctx, t, why)
	if err != nil {
		return err
	}
	return v.render(a)
}

// bring queues a change of anchors for every device whose last sighting does
// not fit, visits those that are not paused, and returns why some could not be
// visited. What was queued for a stage before is superseded: it must not reach
// a device any more.
func (a *app) bring(ctx context.Context, w *rollingSite, t *turnover, fits func(enrol.Sighting) bool) (map[string]string, error) {
	var queue []enrol.Delivery
	p := &plan{}
	for _, d := range w.fleet {
		seen, err := w.devices.LastSighting(ctx, d.Name)
		if err != nil {
			return nil, err
		}
		if t.statementFor(d.Name) == nil && t.CrossSigned == nil || seen.Of(d) && fits(seen) {
			continue
		}
		queue = append(queue, t.delivery(d.Name, a.Now()))
		if !d.Paused {
			p.take(d)
		}
	}
	if _, err := w.devices.QueueDeliveries(ctx, queue); err != nil {
		return nil, err
	}
	why := map[string]string{}
	if len(p.due) == 0 {
		return why, nil
	}
	dialer, err := a.dialer(w.site, w.identity)
	if err != nil {
		return nil, err
	}
	watch, log := a.progress()
	visitor := &enrol.Visitor{
		Courier: enrol.Courier{Store: w.devices, Queue: w.devices, Sightings: w.devices, Dialer: dialer, Boats: dialer, Params: findParams(dialer.Params), Now: a.Now, Log: log},
		Change:  t.change, Fits: fits,
	}
	b := a.batch(w.site, visitor, renewal.Bounds{Devices: w.Concurrency}, watch)
	r := b.run(ctx, p)
	for _, o := range r.Devices {
		if o.Error != nil {
			why[o.Name] = *o.Error
		}
	}
	if r.interrupted {
		return nil, r.err()
	}
	return why, nil
}

// showRollover shows what is on record.
func (a *app) showRollover(ctx context.Context, s *site) error {
	return a.underWay(ctx, s, func(w *rollingSite, t *turnover) error { return a.showStage(ctx, w, t, nil) })
}

// nextStage leaves a stage that every device has acknowledged.
func (a *app) nextStage(ctx context.Context, s *site, files []string) error {
	return a.underWay(ctx, s, func(w *rollingSite, t *turnover) error { return a.leaveStage(ctx, w, t, files) })
}

func (a *app) leaveStage(ctx context.Context, w *rollingSite, t *turnover, files []string) (err error) {
	dropping := t.Stage == stageIssueNew
	if dropping != (len(files) > 0) {
		if dropping {
			return fmt.Errorf("%w: the stage %s needs statements that list CA %s and not CA %s", errStatement, stageDropOld, t.next.Name, t.old.Name)
		}
		return clikit.Usage("--statement is for the step from %s to %s", stageIssueNew, stageDropOld)
	}
	var drop *turnover
	if dropping {
		if drop, err = w.withStatements(ctx, t, files, stageDropOld, false, true); err != nil {
			return err
		}
	}
	why, err := a.bring(ctx, w, t, t.fits)
	if err != nil {
		return err
	}
	v, err := w.view(ctx, t, why)
	if err != nil {
		return err
	}
	if v.HeldUp > 0 {
		return errors.Join(v.render(a), fmt.Errorf("%w: %s", errHeldUp, few(v.heldUp())))
	}
	if left := v.paused(); len(left) > 0 {
		a.warn("paused and left behind: %s", few(left))
	}
	return a.enterNext(ctx, w, t, drop)
}

// enterNext enters the stage after a turnover's; drop is that of stageDropOld.
func (a *app) enterNext(ctx context.Context, w *rollingSite, t, drop *turnover) error {
	now := a.Now().UTC()
	switch t.Stage {
	case stageTrustBoth:
		t.Stage, t.ChangedAt = stageIssueNew, now
		if err := w.save(w.file.Authorities, &t.rollover); err != nil {
			return err
		}
		a.note("stage %s: the next certificates come from CA %s; clmctl renew --force --all gets them now", t.Stage, t.next.Name)
	case stageIssueNew:
		drop.ChangedAt = now
		if err := w.save(w.file.Authorities, &drop.rollover); err != nil {
			return err
		}
		a.note("stage %s: devices forget CA %s", drop.Stage, t.old.Name)
		return a.visitAll(ctx, w, drop)
	case stageDropOld:
		if err := w.save([]authority{t.next}, nil); err != nil {
			return err
		}
		a.note("the rollover is complete: CA %s is the one in use, CA %s is forgotten", t.next.Name, t.old.Name)
		return a.renderAuthority(t.next)
	}
	return a.showStage(ctx, w, t, nil)
}

// withStatements returns a turnover with other statements, for a stage.
func (w *rollingSite) withStatements(ctx context.Context, t *turnover, files []string, to stage, wantOld, wantNew bool) (*turnover, error) {
	raws, err := w.readStatements(ctx, files, t)
	if err != nil {
		return nil, err
	}
	r := t.rollover
	r.Stage, r.Statements, r.CrossSigned = to, raws, nil
	next, err := authorityJSON{Authorities: w.file.Authorities, Rollover: &r}.turnover(w.identity.Verifying())
	if err != nil {
		return nil, err
	}
	return next, next.checkStatements(wantOld, wantNew)
}

// previousStage is the way back.
func (a *app) previousStage(ctx context.Context, s *site, files []string) error {
	return a.underWay(ctx, s, func(w *rollingSite, t *turnover) error { return a.goBack(ctx, w, t, files) })
}

func (a *app) goBack(ctx context.Context, w *rollingSite, t *turnover, files []string) (err error) {
	switch t.Stage {
	case stageTrustBoth:
		return a.giveUp(ctx, w, t, files)
	case stageIssueNew:
		if len(files) > 0 {
			return clikit.Usage("--statement is of no use on the way from %s to %s: devices trust both CAs", stageIssueNew, stageTrustBoth)
		}
		t.Stage, t.ChangedAt = stageTrustBoth, a.Now().UTC()
		if err := w.save(w.file.Authorities, &t.rollover); err != nil {
			return err
		}
		a.note("stage %s: the next certificates come from CA %s again", t.Stage, t.old.Name)
	case stageDropOld:
		if len(files) == 0 {
			return fmt.Errorf("%w: devices may have forgotten CA %s; the way back needs statements that list both CAs", errStatement, t.old.Name)
		}
		if t, err = w.withStatements(ctx, t, files, stageIssueNew, true, true); err != nil {
			return err
		}
		t.ChangedAt = a.Now().UTC()
		if err := w.save(w.file.Authorities, &t.rollover); err != nil {
			return err
		}
		a.note("stage %s: devices learn to trust CA %s again", t.Stage, t.old.Name)
		return a.visitAll(ctx, w, t)
	}
	return a.showStage(ctx, w, t, nil)
}

// giveUp ends a rollover in its first stage.
func (a *app) giveUp(ctx context.Context, w *rollingSite, t *turnover, files []string) error {
	if len(files) > 0 {
		undo, err := w.withStatements(ctx, t, files, stageTrustBoth, true, false)
		if err != nil {
			return err
		}
		why, err := a.bring(ctx, w, undo, func(s enrol.Sighting) bool { return undo.accepted(s) })
		if err != nil {
			return err
		}
		if len(why) > 0 {
			a.warn("%s not answer; what they need to forget CA %s is queued", devicesDo(len(why)), t.next.Name)
		}
	} else {
		a.warn("devices go on trusting CA %s beside CA %s, also those that learn it only now, until a statement of the PKG says otherwise", t.next.Name, t.old.Name)
	}
	if err := w.save([]authority{t.old}, nil); err != nil {
		return err
	}
	a.note("the rollover is given up: CA %s is the one in use", t.old.Name)
	return a.renderAuthority(t.old)
}

func devicesDo(n int) string {
	if n == 1 {
		return "1 device does"
	}
	return devices(n) + " do"
}
