// Package mdns lets devices be found on their own link without a server: a
// responder for one service of DNS-Based Service Discovery (RFC 6763) over
// Multicast DNS (RFC 6762), and the one query that looks for it.
//
// What it says is a hint and nothing more. A device announces a port under an
// opaque name; who is there is proved by the handshake of the channel. Neither
// side believes anything else that it hears, and the responder answers only
// those on its own link.
//
// It speaks over IPv4, one socket for each interface.
package mdns

import (
	"errors"
	"net/netip"
	"time"
)

// The names, see RFC 6763 sections 4 and 9.
const (
	Service     = "_edgeclm._udp.local."
	serviceList = "_services._dns-sd._udp.local."
)

// The group and port of RFC 6762 section 3.
const group = "224.0.0.251:5353"

// Lifetimes of records in seconds (RFC 6762 sections 6.7 and 10).
const (
	ttlShared = 4500
	ttlHost   = 120
	ttlLegacy = 10
)

// Bounds of what is read.
const (
	maxPacket    = 1472
	maxQuestions = 32
	maxRecords   = 64
	maxFound     = 4096
)

const cacheFlush = 0x8000 // top bit of the class, RFC 6762 section 10.2

var errMessage = errors.New("not a message for us")

// Announcement is what a device says.
type Announcement struct {
	Instance string // a DNS label of letters and digits; opaque
	Port     uint16
	// Only is the address that the device listens on; invalid: all of the
	// interface's.
	Only netip.Addr
}

func (a Announcement) instance() string { return a.Instance + "." + Service }
func (a Announcement) host() string     { return a.Instance + ".local." }

// rescan is how often the interfaces are looked at: addresses come and go.
const rescan = time.Minute
