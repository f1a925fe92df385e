package clmctl

import (
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/store/oslock"
)

// renewLock is the file of the lock between renewing runs.
const renewLock = "renew.lock"

// lockRenewing makes this process the one that renews; a lock that another one
// holds is an *oslock.HeldError.
func (a *app) lockRenewing(s *site) (unlock func() error, err error) {
	unlock, err = oslock.RunLock(s.dir.path(renewLock), a.Now())
	var held *oslock.HeldError
	if err != nil && !errors.As(err, &held) {
		return nil, fmt.Errorf("lock renewing runs: %w", err)
	}
	return unlock, err
}

// explainLock says how long another run has had the lock, and what to do.
func (a *app) explainLock(err error, hint string) error {
	var held *oslock.HeldError
	if !errors.As(err, &held) {
		return err
	}
	if age := held.Age(a.Now()); age > 0 {
		err = fmt.Errorf("%w (%v ago)", err, age.Round(time.Second))
	}
	return clikit.WithHint(clikit.WithCode(err, clikit.ExitLocked), hint)
}
