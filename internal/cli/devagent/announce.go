package devagent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"

	"github.com/edgeclm/edgeclm/internal/mdns"
)

// announce announces a listening agent, if that is wished, until the function
// that it returns was called. The name that it goes by is the same for good and
// tells nobody which device it is; who wants to know does a handshake.
func announce(ctx context.Context, wished bool, device string, listening net.Addr, log *slog.Logger) (stop func()) {
	at, ok := listening.(*net.UDPAddr)
	if !wished || !ok {
		return func() {}
	}
	name := sha256.Sum256([]byte("edgeclm/v1/mdns/" + device))
	a := mdns.Announcement{
		Instance: hex.EncodeToString(name[:8]), Port: at.AddrPort().Port(), Only: at.AddrPort().Addr().Unmap(),
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		mdns.Respond(ctx, a, log)
	}()
	return func() {
		cancel()
		<-done
	}
}
