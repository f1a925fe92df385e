// Package coaplink is the channel between the Certificate Lifecycle Management
// (CLM) side and a device: DTLS 1.2 (RFC 6347) whose endpoints prove
// identity-based keys, and CoAP (RFC 7252) with the paper's two services and
// what surrounds them. Both ends are here: Dialer is the CLM's and implements
// enrol.Dialer, Server is the device's and calls Services.
//
// Everything on the wire is specified in docs/protocol.md.
//
// Where to look:
//
//	binding.go, certificate.go   the extension that ties a raw public key to an identity, and its X.509 shell
//	credential.go                the CLM's durable key and binding
//	accept.go                    who is accepted, in which order of checks
//	dialer.go, device.go         the CLM's end
//	exchange.go, transfer.go     one confirmable exchange; blocks (RFC 7959) on top of it
//	server.go, handshake.go      the device's end: from datagram to session
//	demux.go, gate.go            one socket, many peers; what strangers may cost
//	session.go, assembly.go      one peer's requests; blocks on the device's side
//	wire_*.go, problem.go, pkcs7.go   payloads
package coaplink
