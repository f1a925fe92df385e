package coaplink

import (
	"context"

	coapdtls "github.com/plgd-dev/go-coap/v3/dtls/server"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/udp/client"
)

// newChannel is CoAP (RFC 7252) over an authenticated DTLS connection, which it
// owns: message IDs, tokens, pings and the sorting out of duplicates. Block
// transfers and retransmission are ours, since the library's stall or double
// their intervals when datagrams are lost. monitor sees every message before it
// is processed. Nothing is read before Run, which ends when either side closes
// the channel.
func newChannel(conn *coapnet.Conn, monitor client.RequestMonitorFunc, configure func(*client.Config), opts ...client.Option) *client.Conn {
	cfg := client.DefaultConfig
	cfg.MessagePool = pool.New(0, 0)
	cfg.BlockwiseEnable = false
	configure(&cfg)
	session := coapdtls.NewSession(context.Background(), conn, maxDatagram, maxDatagram, true)
	return client.NewConnWithOpts(session, &cfg, append(opts, client.WithRequestMonitor(monitor))...)
}
