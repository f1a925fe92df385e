package clmctl

import (
	"context"
	"io/fs"
	"os"
	"sync"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// livingDialer is the CLM's end of channels for as long as a process lasts. The
// identity may change meanwhile: a bundle of a later epoch or generation is
// taken, or an epoch is closed. What dials next is who the CLM is then.
type livingDialer struct {
	app  *app
	site *site

	mu   sync.Mutex
	file fs.FileInfo // of the identity that now is of
	now  *coaplink.Dialer
}

// livingDialer returns the dialer of an identity that was just read.
func (a *app) livingDialer(s *site, own *provision.Endpoint) (*livingDialer, error) {
	dialer, err := a.dialer(s, own)
	if err != nil {
		return nil, err
	}
	// No file yet: the first use reads it once more.
	return &livingDialer{app: a, site: s, now: dialer}, nil
}

var (
	_ enrol.Dialer  = (*livingDialer)(nil)
	_ enrol.Boatman = (*livingDialer)(nil)
)

// DeliverLifeboat implements enrol.Boatman.
func (l *livingDialer) DeliverLifeboat(ctx context.Context, d fleet.Device, payload []byte) error {
	dialer, err := l.present()
	if err != nil {
		return err
	}
	return dialer.DeliverLifeboat(ctx, d, payload)
}

// Dial implements enrol.Dialer.
func (l *livingDialer) Dial(ctx context.Context, d fleet.Device) (enrol.Device, error) {
	dialer, err := l.present()
	if err != nil {
		return nil, err
	}
	return dialer.Dial(ctx, d)
}

// params looks the parameters of an open epoch up.
func (l *livingDialer) params(epoch uint32) (enrol.Verifier, error) {
	dialer, err := l.present()
	if err != nil {
		return nil, err
	}
	return findParams(dialer.Params)(epoch)
}

// present returns the dialer of the identity that the data directory has.
func (l *livingDialer) present() (*coaplink.Dialer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, err := os.Stat(l.site.dir.path(provision.IdentityFile))
	if err != nil {
		return nil, err
	}
	// Every change is a rename: another file.
	if l.file != nil && os.SameFile(info, l.file) && info.ModTime().Equal(l.file.ModTime()) {
		return l.now, nil
	}
	own, err := l.site.dir.identity()
	if err != nil {
		return nil, err
	}
	defer own.Destroy()
	dialer, err := l.app.dialer(l.site, own)
	if err != nil {
		return nil, err
	}
	l.file, l.now = info, dialer
	return dialer, nil
}
