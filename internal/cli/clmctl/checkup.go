package clmctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// verdict is what a check finds.
type verdict string

// The verdicts.
const (
	checkOK   verdict = "ok"
	checkWarn verdict = "warn"
	checkFail verdict = "fail"
	checkSkip verdict = "skip"
)

// checked is what one check found.
type checked struct {
	Check   string  `json:"check"`
	Outcome verdict `json:"outcome"`
	Says    string  `json:"says"`
	Remedy  *string `json:"remedy"` // what to do; null where nothing is to be done

	device bool // it is about devices, not about this CLM
}

// checkup collects what the checks of doctor find. Nothing of it changes
// anything, here or on a device.
type checkup struct {
	*app
	site *site

	sources   *sources            // of the configuration; nil: it cannot be read
	identity  *provision.Endpoint // nil: it cannot be read
	inventory inventory           // nil: it cannot be opened
	latest    time.Time           // of the times that were recorded here
	caDate    time.Time           // what the CA's clock showed, zero if not told
	caSkew    time.Duration       // and how far ours was ahead then
	contact   bool                // contact every device
	found     []checked
}

func (c *checkup) ok(check, format string, args ...any) { c.add(check, checkOK, "", format, args...) }
func (c *checkup) skip(check, format string, args ...any) {
	c.add(check, checkSkip, "", format, args...)
}

func (c *checkup) warn(check, remedy, format string, args ...any) {
	c.add(check, checkWarn, remedy, format, args...)
}

func (c *checkup) fail(check, remedy, format string, args ...any) {
	c.add(check, checkFail, remedy, format, args...)
}

func (c *checkup) add(check string, o verdict, remedy, format string, args ...any) {
	c.found = append(c.found, checked{
		Check: check, Outcome: o, Says: clikit.OneLine(fmt.Sprintf(format, args...)), Remedy: optional(clikit.OneLine(remedy)),
		device: strings.HasPrefix(check, "device"),
	})
}

// failError reports an error, with its own hint as remedy if it has one.
func (c *checkup) failError(check, remedy string, err error) {
	if hint := clikit.Hint(err); hint != "" {
		remedy = hint
	}
	c.fail(check, remedy, "%v", err)
}

// runCheckup examines this CLM.
func (a *app) runCheckup(cmd *cobra.Command, o doctorOptions) error {
	c := &checkup{app: a, contact: o.devices}
	s, err := a.openExisting(cmd)
	switch {
	case err != nil && clikit.Hint(err) != "": // there is no data directory
		return err
	case err != nil:
		c.failError("configuration", "correct the value; clmctl config show prints the configuration once it is read", err)
		if s, err = a.defaultSite(cmd); err != nil {
			return c.conclude()
		}
	default:
		x, err := readSources(cmd.Flags(), a.Streams)
		if err != nil {
			return err
		}
		c.sources = &x
	}
	c.site = s
	ctx := cmd.Context()
	defer c.close()
	// Permissions come first: opening the inventory would set its own right.
	for _, check := range []func(context.Context){
		c.checkConfiguration, c.checkDirectory, c.checkSpace, c.checkKeys, c.checkInventory, c.checkRuns, c.checkAuthorities, c.checkClock, c.checkNotifications, c.checkDevices,
	} {
		check(ctx)
		if err := ctx.Err(); err != nil {
			return errors.New("interrupted")
		}
	}
	return c.conclude()
}

func (c *checkup) close() {
	if c.identity != nil {
		c.identity.Destroy()
	}
	if c.inventory != nil {
		// Nothing was written.
		_ = c.inventory.Close()
	}
}

// defaultSite is a site whose configuration cannot be read: all defaults, in
// the data directory that flag and environment name.
func (a *app) defaultSite(cmd *cobra.Command) (*site, error) {
	dir, err := clikit.ResolveDataDir(clikit.DataCLM, flagValue(cmd.Flags(), clikit.FlagDataDir), "", a.Streams)
	if err != nil {
		return nil, err
	}
	bare := clikit.Streams{Getenv: func(string) string { return "" }}
	v, err := newViper(nil, cmd.Flags(), bare)
	if err != nil {
		return nil, err
	}
	config, err := fromViper(v)
	return &site{Config: config, dir: dataDir(dir)}, err
}

// checkupView is the result of doctor.
type checkupView struct {
	Passed  int       `json:"passed"`
	Warned  int       `json:"warned"`
	Failed  int       `json:"failed"`
	Skipped int       `json:"skipped"`
	Checks  []checked `json:"checks"`
}

// conclude shows what was found, and how the command ends.
func (c *checkup) conclude() error {
	v := checkupView{Checks: c.found}
	t := clikit.Table{Columns: clikit.Columns("outcome", "check", "says", "remedy")}
	failedHere, first := 0, ""
	for _, f := range c.found {
		switch f.Outcome {
		case checkOK:
			v.Passed++
		case checkWarn:
			v.Warned++
		case checkSkip:
			v.Skipped++
		case checkFail:
			v.Failed++
			if first == "" {
				first = deref(f.Remedy)
			}
			if !f.device {
				failedHere++
			}
		}
		t.Rows = append(t.Rows, []string{strings.ToUpper(string(f.Outcome)), f.Check, f.Says, deref(f.Remedy)})
	}
	if err := c.render(v, t); err != nil {
		return err
	}
	if v.Failed == 0 {
		return nil
	}
	err := fmt.Errorf("%d of %d checks failed", v.Failed, len(c.found))
	if failedHere == 0 {
		err = clikit.WithCode(err, clikit.ExitSomeFailed)
	}
	return clikit.WithHint(err, first)
}

// render writes a line for each check, and its remedy on the line below, since
// a table of both would be wider than any screen.
func (c *checkup) render(v checkupView, t clikit.Table) error {
	if c.Output != clikit.FormatTable {
		return clikit.Render(c.Out, c.Output, v, t)
	}
	width := 0
	for _, f := range v.Checks {
		width = max(width, len(f.Check))
	}
	for _, f := range v.Checks {
		text := fmt.Sprintf("%-4s  %-*s  %s\n", strings.ToUpper(string(f.Outcome)), width, f.Check, f.Says)
		if f.Remedy != nil {
			text += fmt.Sprintf("      %-*s  -> %s\n", width, "", *f.Remedy)
		}
		if _, err := fmt.Fprint(c.Out, text); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(c.Out, "passed=%d warned=%d failed=%d skipped=%d\n", v.Passed, v.Warned, v.Failed, v.Skipped)
	return err
}
