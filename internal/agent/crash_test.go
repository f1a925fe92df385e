package agent_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

// crasher is a CLM, a device, and a cut. What the CLM knows survives the
// device's death.
type crasher struct {
	*device
	hook  *hook
	layer *keyfiletest.Layer
	csrs  map[byte][]byte
	certs map[byte][][]byte
	shas  map[byte][32]byte
	may   map[[32]byte]bool // certificates that may be active

	spare  *authority
	bridge []byte // the spare's root, cross-signed

	generation uint32 // that the device has said to have taken
	serial     uint64 // of the anchor statement, likewise
}

// step is one request of the CLM, or a deed of the technician. It may be
// repeated.
type step func(*crasher) error

func doCSR(n byte) step {
	return func(c *crasher) error {
		csr, err := c.agent.CSR(context.Background(), c.peer, c.request(n))
		if err != nil {
			return err
		}
		if before := c.csrs[n]; before != nil && !bytes.Equal(before, csr) {
			c.t.Errorf("the CSR of enrolment %d is another one now", n)
		}
		if c.csrs[n] == nil {
			c.csrs[n], c.certs[n] = csr, c.ca.issue(c.t, csr)
		}
		return nil
	}
}

func doVerify(n byte) step {
	return func(c *crasher) error {
		v, err := c.verify(n, c.certs[n])
		c.shas[n] = v.Certificate
		return err
	}
}

// doOther has another certificate verified for the same CSR.
func doOther(n byte) step {
	return func(c *crasher) error {
		if !c.resumed() {
			c.certs[n] = c.ca.issue(c.t, c.csrs[n])
		}
		return doVerify(n)(c)
	}
}

func doActivate(n byte) step {
	return func(c *crasher) error {
		c.may[c.shas[n]] = true
		return c.activate(n, c.shas[n], time.Hour)
	}
}

// doFailingActivate is an activation whose hook fails once. After a crash the
// hook may have succeeded meanwhile.
func doFailingActivate(n byte) step {
	return func(c *crasher) error {
		if c.resumed() {
			c.hook.fails = 0
			return nil
		}
		c.may[c.shas[n]], c.hook.fails = true, 1
		err := c.activate(n, c.shas[n], time.Hour)
		var refusal *enrol.DeviceError
		if errors.As(err, &refusal) && refusal.Problem == enrol.ProblemRolledBack {
			return nil
		}
		return err
	}
}

func doConfirm(n byte) step { return func(c *crasher) error { return c.confirm(n, c.shas[n]) } }

// doRollback may find after a crash that the pair was dropped.
func doRollback(n byte) step {
	return func(c *crasher) error {
		err := c.rollback(n, c.shas[n])
		var refusal *enrol.DeviceError
		if c.resumed() && errors.As(err, &refusal) && refusal.Problem == enrol.ProblemUnknown {
			return nil
		}
		return err
	}
}

func doProvision(generation uint32) step {
	return func(c *crasher) error {
		c.kill()
		_, err := agent.Provision(c.cfg.Dir, c.cfg.Layer, newBundle(c.t, generation))
		if err == nil {
			c.start()
		}
		return err
	}
}

// doRecipient lets bundles be sealed to the device.
func doRecipient(c *crasher) error {
	_, _, err := agent.Provisioned(c.cfg.Dir, c.cfg.Layer).Recipient()
	return err
}

// doBundle delivers a bundle over the channel, and lets a CLM see the new
// identity.
func doBundle(generation uint32) step {
	return func(c *crasher) error {
		_, to, err := agent.Provisioned(c.cfg.Dir, keyfiletest.New(0, keyfiletest.Kill)).Recipient()
		if err != nil {
			return err
		}
		sealed, _, err := bundle.Seal(newBundle(c.t, generation), pkg(), to)
		if err != nil {
			return err
		}
		if err := c.agent.Bundle(context.Background(), c.peer, sealed); err != nil {
			return err
		}
		c.generation = generation
		c.agent.Settle(c.agent.Identity(), c.peer)
		return nil
	}
}

func doAnchors(serial uint64) step {
	return func(c *crasher) error {
		if err := c.statement(stated(c.t, serial, "*", c.ca.root.Raw)); err != nil {
			return err
		}
		c.serial = serial
		return nil
	}
}

func doPeers(c *crasher) error {
	peer := clm("clm-1")
	peer.Generation = 2
	if err := c.agent.Raise(peer, c.agent.Root()); err != nil {
		return err
	}
	return c.agent.Remember([32]byte{7}, peer)
}

// doStatement brings the anchors and demands that they are in force.
func doStatement(serial uint64) step {
	return func(c *crasher) error {
		err := c.statement(stated(c.t, serial, "plc-*", c.ca.root.Raw, c.spare.root.Raw))
		if s := c.status(); err == nil && (s.AnchorSerial != serial || len(s.Anchors) != 2) {
			c.t.Errorf("statement %d was accepted, the status says %d with %d anchors", serial, s.AnchorSerial, len(s.Anchors))
		}
		return err
	}
}

func doCrossSigned(c *crasher) error {
	err := c.crossSigned(c.bridge)
	if s := c.status(); err == nil && len(s.Anchors) != 2 {
		c.t.Errorf("the root was accepted, the status lists %d anchors", len(s.Anchors))
	}
	return err
}

func doStart(c *crasher) error {
	c.kill()
	c.start()
	if c.layer.Cut() && !c.resumed() {
		return keyfiletest.ErrCut
	}
	return nil
}

// resumed reports whether the cut is past.
func (c *crasher) resumed() bool { return c.cfg.Layer != agent.Layer(c.layer) }

func stageSteps(n byte) []step { return []step{doCSR(n), doVerify(n)} }
func enrolSteps(n byte) []step { return append(stageSteps(n), doActivate(n), doConfirm(n)) }

func join(steps ...[]step) []step { return slices.Concat(steps...) }

// kill ends the agent as a crash does: it writes nothing.
func (c *crasher) kill() {
	if c.agent != nil {
		c.ok(c.agent.Close())
	}
	c.agent = nil
}

// scattered is how often the power fails at each operation, each time with
// another part of what was not synced.
var scattered = flag.Uint64("scattered", 1, "power cuts at each operation that scatter what was not synced")

// way is a way to cut a run.
type way struct {
	name string
	at   func(n int) *keyfiletest.Layer
}

func cuts() []way {
	out := []way{
		{"killed", func(n int) *keyfiletest.Layer { return keyfiletest.New(n, keyfiletest.Kill) }},
		{"power lost", func(n int) *keyfiletest.Layer { return keyfiletest.New(n, keyfiletest.PowerLoss) }},
	}
	for seed := range *scattered {
		out = append(out, way{
			fmt.Sprintf("scattered by seed %d", seed),
			func(n int) *keyfiletest.Layer { return keyfiletest.NewScattered(n, seed) },
		})
	}
	return out
}

// TestCrash cuts a run at each operation on the file system, with and without
// loss of what was not synced, and resumes it. Whatever the cut, the device
// has one complete, matching pair all the time if it had one before, keeps its
// identity, and comes to the same end.
func TestCrash(t *testing.T) {
	provisioned := []step{doProvision(1)}
	for _, sc := range []struct {
		name    string
		prepare []step
		steps   []step
		active  byte // enrolment in the end
		pairs   int
	}{
		{"provision", nil, []step{doProvision(1)}, 0, 0},
		{"first", join(provisioned), enrolSteps(1), 1, 1},
		{"renewal", join(provisioned, enrolSteps(1), enrolSteps(2)), enrolSteps(3), 3, 2},
		{"superseded", join(provisioned, enrolSteps(1), stageSteps(2)), stageSteps(3), 1, 2},
		{"staged again", join(provisioned, enrolSteps(1), stageSteps(2)), []step{doOther(2), doActivate(2)}, 2, 2},
		{"rollback", join(provisioned, enrolSteps(1), stageSteps(2)),
			[]step{doActivate(2), doRollback(2), doActivate(2)}, 2, 2},
		{"rollback without room", join(provisioned, enrolSteps(1), enrolSteps(2), []step{doCSR(3)}), []step{doRollback(2)}, 1, 2},
		{"failing hook", join(provisioned, enrolSteps(1), stageSteps(2)), []step{doFailingActivate(2), doActivate(2)}, 2, 2},
		{"failing first hook", join(provisioned, stageSteps(1)), []step{doFailingActivate(1), doActivate(1)}, 1, 1},
		{"cross-signed root, statement", join(provisioned, enrolSteps(1)), []step{doCrossSigned, doStatement(3)}, 1, 1},
		{"later statement", join(provisioned, []step{doStatement(3)}, enrolSteps(1)), []step{doStatement(4)}, 1, 1},
		{"three starts", join(provisioned, enrolSteps(1), stageSteps(2), []step{doActivate(2), doStart}), []step{doStart}, 1, 2},
		{"bundles and anchors", join([]step{doRecipient}, provisioned, enrolSteps(1)),
			[]step{doBundle(2), doAnchors(1), doCSR(2), doBundle(3), doAnchors(2)}, 1, 2},
		{"later bundle and peers", join(provisioned, enrolSteps(1)), []step{doProvision(2), doPeers}, 1, 1},
	} {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			prepared := newCrasher(t, filepath.Join(memoryDir(t), "agent"))
			prepared.run(keyfiletest.New(0, keyfiletest.Kill), sc.prepare)
			prepared.kill()
			for _, layer := range cuts() {
				for n := 1; ; n++ {
					c := prepared.clone(t, filepath.Join(memoryDir(t), "agent"))
					name := fmt.Sprintf("%s, cut at %d", layer.name, n)
					c.run(layer.at(n), sc.steps)
					c.check(name, c.shas[sc.active], sc.pairs)
					c.kill()
					if t.Failed() {
						t.Fatal(name)
					}
					if !c.layer.Cut() {
						t.Logf("%s: %d operations", layer.name, n-1)
						break
					}
				}
			}
		})
	}
}

func newCrasher(t testing.TB, dir string) *crasher {
	c := &crasher{
		device: &device{t: t, ca: newAuthority(t, "plant"), peer: clm("clm-1")}, hook: &hook{t: t},
		csrs: map[byte][]byte{}, certs: map[byte][][]byte{}, shas: map[byte][32]byte{}, may: map[[32]byte]bool{},
	}
	c.cfg = agent.Config{Dir: dir, Reload: c.hook.run}
	c.spare = newAuthority(t, "spare")
	c.bridge = c.ca.crossSign(t, c.spare.root)
	return c
}

// clone copies a world in which no agent runs.
func (c *crasher) clone(t testing.TB, dir string) *crasher {
	t.Helper()
	out := newCrasher(t, dir)
	out.ca, out.spare, out.bridge = c.ca, c.spare, c.bridge
	for n := range c.csrs {
		out.csrs[n], out.certs[n], out.shas[n] = c.csrs[n], c.certs[n], c.shas[n]
	}
	for sha := range c.may {
		out.may[sha] = true
	}
	if _, err := os.Stat(c.cfg.Dir); err == nil {
		copyTree(t, c.cfg.Dir, dir)
	}
	return out
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(path, from)
		switch {
		case e.IsDir():
			return os.Mkdir(target, 0o700)
		case e.Type()&os.ModeSymlink != 0:
			link, err := os.Readlink(path)
			return errors.Join(err, os.Symlink(link, target))
		}
		data, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(target, data, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// run takes the steps on a layer. When it cuts, the device restarts on a sound
// one, and the step is taken again.
func (c *crasher) run(layer *keyfiletest.Layer, steps []step) {
	c.t.Helper()
	c.layer, c.cfg.Layer = layer, layer
	linked := [32]byte{}
	if c.agent == nil && len(c.csrs) > 0 {
		linked = linkedPair(c.t, c.cfg.Dir)
	}
	if _, err := os.Stat(filepath.Join(c.cfg.Dir, "identity.json")); err == nil {
		c.start()
	}
	for i, s := range steps {
		err := s(c)
		if c.layer.Cut() && !c.resumed() {
			c.kill()
			now := linkedPair(c.t, c.cfg.Dir)
			if now == ([32]byte{}) && linked != ([32]byte{}) || now != ([32]byte{}) && !c.may[now] {
				c.t.Errorf("the cut in step %d left the device with certificate %x", i, now[:4])
			}
			c.cfg.Layer = keyfiletest.New(0, keyfiletest.Kill)
			if _, err := os.Stat(filepath.Join(c.cfg.Dir, "identity.json")); err == nil {
				c.start()
				c.consistent()
			}
			err = s(c)
		}
		if err != nil {
			c.t.Fatalf("step %d: %v", i, err)
		}
		linked = linkedPair(c.t, c.cfg.Dir)
	}
}

// consistent checks that what the agent says is what services find.
func (c *crasher) consistent() {
	c.t.Helper()
	s := c.status()
	checkPairs(c.t, c.cfg.Dir, s)
	if s.Identity.Generation < c.generation || c.agent.Identity() != s.Identity || s.AnchorSerial < c.serial {
		c.t.Errorf("generation %d and anchors %d, taken were %d and %d", s.Identity.Generation, s.AnchorSerial, c.generation, c.serial)
	}
	active := [32]byte{}
	if s.Active != nil {
		active = s.Active.SHA256
	}
	c.wantActive(active)
	if active != ([32]byte{}) && !c.may[active] {
		c.t.Errorf("the active certificate is %x, which nobody activated", active[:4])
	}
	if saw := c.hook.saw; len(saw) > 0 && active != ([32]byte{}) && saw[len(saw)-1] != active {
		c.t.Errorf("the services were reloaded with %x last, active is %x", saw[len(saw)-1][:4], active[:4])
	}
}

// check looks at the end of a run.
func (c *crasher) check(name string, active [32]byte, pairs int) {
	c.t.Helper()
	c.consistent()
	c.wantActive(active)
	if c.agent.Identity().Name != "plc-1" {
		c.t.Errorf("%s: the identity is %s", name, c.agent.Identity())
	}
	var found []string
	err := filepath.WalkDir(c.cfg.Dir, func(path string, e os.DirEntry, err error) error {
		if strings.HasPrefix(e.Name(), ".") {
			c.t.Errorf("%s: left %s", name, path)
		}
		if filepath.Base(filepath.Dir(path)) == "pairs" {
			found = append(found, e.Name())
		}
		return err
	})
	c.ok(err)
	if len(found) != pairs {
		c.t.Errorf("%s: left the pairs %v, want %d", name, found, pairs)
	}
}
