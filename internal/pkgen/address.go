package pkgen

import (
	"net"
	"net/netip"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
)

// defaultPort is that of CoAP over DTLS (RFC 7252 section 12.7).
const defaultPort = "5684"

// NormaliseAddress returns the host:port of an address as people write it:
// without a port it is CoAP's 5684. The empty string stays empty. Errors wrap
// bundle.ErrFormat.
func NormaliseAddress(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil || !strings.Contains(s, ":") {
		s = net.JoinHostPort(bare, defaultPort)
	}
	return s, bundle.ValidateAddress(s)
}
