package e2e

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// TestEmulatedDevice: the agent that is built for a Raspberry Pi does whole
// enrolments, under user-mode emulation. Its size is looked at too.
func TestEmulatedDevice(t *testing.T) {
	const maxSize = 10 << 20
	for _, arch := range []struct {
		name, emulator string
		env            []string
	}{
		{"arm64", "qemu-aarch64-static", []string{"GOARCH=arm64"}},
		{"armv7", "qemu-arm-static", []string{"GOARCH=arm", "GOARM=7"}},
	} {
		t.Run(arch.name, func(t *testing.T) {
			emulator := testpeer.Look(t, arch.emulator)
			program := buildAgent(t, arch.env...)
			info := value[os.FileInfo](t)(os.Stat(program))
			t.Logf("devagent for %s: %.1f MB", arch.name, float64(info.Size())/1e6)
			if info.Size() > maxSize {
				t.Errorf("%d bytes, more than %d", info.Size(), maxSize)
			}
			p := newPlant(t)
			n := p.provision("plc-1", fleet.ECDSAP256)
			n.addr = emulate(t, emulator, program, n.dir)
			p.commission(map[string]string{n.name: n.addr})
			for range 2 {
				if result := p.run(n.name); result.Outcome != enrol.OutcomeRenewed {
					t.Fatalf("%s: %v", result.Outcome, result.Err)
				}
			}
			history := value[store.History](t)(p.store.History(context.Background(), n.name, 0))
			for _, e := range history.Enrolments {
				t.Logf("%s: %+v", arch.name, e.Steps)
			}
		})
	}
}

// emulate runs an agent for another architecture until the test ends, and
// returns its address.
func emulate(t *testing.T, emulator, program, dir string) (addr string) {
	t.Helper()
	p := value[*process](t)(startAgent(dir, "127.0.0.1:0", emulator, program))
	t.Cleanup(func() {
		if err := p.signal(syscall.SIGTERM); err != nil {
			t.Errorf("the agent ended with %v", err)
		}
		t.Log(p.log())
	})
	return p.addr
}
