// Package demo shows the whole life of a certificate on this machine's
// loopback, in a temporary directory: keys from a PKG, four devices with four
// kinds of key, a CA whose certificates live for minutes, enrolment, renewal,
// and a check of everything that came of it.
//
// It runs the real programs as a user would, and shows the commands. What it
// starts ends with it, however it ends.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Kinds of CA.
const (
	LabCA  = "lab"
	StepCA = "step-ca"
)

// ErrProgram is wrapped when one of the programs that the demo runs is missing.
var ErrProgram = errors.New("a program is missing")

// Options of a demo.
type Options struct {
	Programs string    // directory of the three programs
	CA       string    // LabCA or StepCA
	Keep     bool      // leave the temporary directory behind
	Out      io.Writer // the story
	Now      func() time.Time
}

// Certificates live this long, and are renewed within this part of it: a
// device then owns a valid certificate throughout, and nobody waits for long.
const (
	lifetime   = 5 * time.Minute
	windowFrom = 0.03
	windowTo   = 0.05
)

// device is one of the demo's devices.
type device struct {
	name string
	key  fleet.KeyAlgorithm
	dir  string // data directory
	age  string // file of its age recipient
}

func devices() []device {
	var out []device
	for i, key := range []fleet.KeyAlgorithm{fleet.ECDSAP256, fleet.ECDSAP384, fleet.RSA2048, fleet.RSA3072} {
		out = append(out, device{
			name: fmt.Sprintf("plc-%04d.bilbao", i+1), key: key,
			dir: fmt.Sprintf("dev%d", i+1), age: fmt.Sprintf("dev%d.age", i+1),
		})
	}
	return out
}

// show is one run of the demo.
type show struct {
	Options
	dir     string // temporary
	devices []device
	stops   []func() // end what runs
	step    int

	url, fingerprint, root string // of the CA; root is the path of its root certificate
}

// Run plays the demo. Errors that wrap ErrProgram or labpeer.ErrNotInstalled say
// which program is missing.
func Run(ctx context.Context, o Options) (err error) {
	s := &show{Options: o, devices: devices()}
	if err := s.findPrograms(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "edgeclm-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.cleanUp()) }()
	began := s.Now()
	for _, act := range []func(context.Context) error{
		s.makePKG, s.makeRecipients, s.issueBundles, s.startDevices, s.startCA, s.commission, s.enrol, s.renew, s.check,
	} {
		if err := act(ctx); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return err
		}
	}
	s.say("\nDone in %v. Everything was as it should be.\n", s.Now().Sub(began).Round(time.Second))
	return nil
}

// cleanUp ends what runs and removes the directory.
func (s *show) cleanUp() error {
	for _, stop := range s.stops {
		stop()
	}
	if s.Keep {
		s.say("Kept: %s\n", s.dir)
		return nil
	}
	return os.RemoveAll(s.dir)
}

func (s *show) path(name string) string { return filepath.Join(s.dir, name) }

func (s *show) write(name, content string) error {
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o700); err != nil {
		return err
	}
	return os.WriteFile(s.path(name), []byte(content), 0o600)
}

// say writes a part of the story; who stopped listening does not stop it.
func (s *show) say(format string, args ...any) { _, _ = fmt.Fprintf(s.Out, format, args...) }

// title begins a step.
func (s *show) title(what, why string) {
	s.step++
	s.say("\n%d. %s\n   %s\n", s.step, what, why)
}
