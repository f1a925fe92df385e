package agent_test

import (
	"context"
	"io/fs"
	"testing"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// meter counts what reaches the flash memory: each sync is a write of its own,
// with the file system's bookkeeping.
type meter struct {
	agent.OS
	syncs, bytes int
}

func (m *meter) Create(path string, perm fs.FileMode) (keyfile.File, error) {
	f, err := m.OS.Create(path, perm)
	return meteredFile{f, m}, err
}

func (m *meter) SyncDir(path string) error {
	m.syncs++
	return m.OS.SyncDir(path)
}

type meteredFile struct {
	keyfile.File
	meter *meter
}

func (f meteredFile) Write(p []byte) (int, error) {
	f.meter.bytes += len(p)
	return f.File.Write(p)
}

func (f meteredFile) Sync() error {
	f.meter.syncs++
	return f.File.Sync()
}

// TestFlashWritesOfRenewal: an SD card wears out by writes, so those of a
// renewal are counted. The key, the CSR and the CA; the certificate and its
// chain; and three commits of the state (new pair, switch, confirmation), or
// four with a reload hook, which can fail between the switch and its success.
func TestFlashWritesOfRenewal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		reload agent.Reload
		syncs  int
	}{
		{"without hook", nil, 14},
		{"with hook", func(context.Context, agent.Paths) error { return nil }, 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &meter{}
			d := newDevice(t, func(c *agent.Config) { c.Layer, c.Reload = m, tt.reload })
			d.enrol(1)
			d.enrol(2)
			*m = meter{}
			d.enrol(3)
			t.Logf("%d syncs, %d bytes", m.syncs, m.bytes)
			if m.syncs != tt.syncs {
				t.Errorf("a renewal took %d syncs, want %d", m.syncs, tt.syncs)
			}
			if m.bytes > 16<<10 {
				t.Errorf("a renewal wrote %d bytes", m.bytes)
			}
		})
	}
}
