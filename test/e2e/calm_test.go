package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// TestCalmDevice: an agent on the default configuration that nobody talks to
// stays small, and does not wake up; it has just served renewals. The runtime of
// the language looks after itself once a minute, and is allowed that.
func TestCalmDevice(t *testing.T) {
	const maxMemory, watched, maxWakeUps = 15 << 20, 5 * time.Second, 3
	p := newPlant(t)
	n := p.provision("plc-1", fleet.ECDSAP256)
	agent := value[*process](t)(startAgent(n.dir, "127.0.0.1:0", buildAgent(t)))
	defer func() {
		if err := agent.signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}()
	p.commission(map[string]string{n.name: agent.addr})
	for range 2 {
		if result := p.run(n.name); result.Err != nil {
			t.Fatal(result.Err)
		}
	}
	// What follows a renewal is over when the processor is left alone.
	before, quiet := agent.wakeUps(t), 0
	for try := 0; try < 12; try++ {
		time.Sleep(watched)
		now := agent.wakeUps(t)
		if quiet = now - before; quiet <= maxWakeUps {
			break
		}
		before = now
	}
	memory := agent.status(t, "VmRSS")
	t.Logf("%.1f MB resident, %d wake-ups in %s", float64(memory)/1e6, quiet, watched)
	if quiet > maxWakeUps {
		t.Errorf("%d wake-ups in %s", quiet, watched)
	}
	if memory > maxMemory {
		t.Errorf("%d bytes are resident, more than %d", memory, maxMemory)
	}
}
