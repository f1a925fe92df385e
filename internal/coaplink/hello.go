package coaplink

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
)

// Constants of the record and handshake layers (RFC 6347 sections 4.1 and
// 4.2.2, RFC 9146 section 4).
const (
	recordAlert     = 21
	recordHandshake = 22
	recordCID       = 25
	recordHeader    = 13

	handshakeHeader    = 12
	messageClientHello = 1
	messageHelloVerify = 3

	randomSize = 32
	cookieSize = 20
)

// hello is what matters of a ClientHello to somebody who keeps no state.
type hello struct {
	record   uint64 // sequence number of the record
	sequence uint16 // of the message: 0 before the cookie exchange, 1 after it
	random   []byte
	cookie   []byte
}

// parseHello looks for a plaintext ClientHello at the beginning of a datagram.
// What is returned points into it.
func parseHello(data []byte) (hello, bool) {
	if len(data) < recordHeader+handshakeHeader || data[0] != recordHandshake || data[1] != 0xfe ||
		data[3] != 0 || data[4] != 0 || data[recordHeader] != messageClientHello {
		return hello{}, false
	}
	h := hello{
		record:   binary.BigEndian.Uint64(data[3:11]), // epoch 0 and 48 bits of sequence number
		sequence: binary.BigEndian.Uint16(data[recordHeader+4:]),
	}
	// Version, random, session ID, cookie (RFC 6347 section 4.2.1).
	rest := data[recordHeader+handshakeHeader:]
	if len(rest) < 2+randomSize+1 {
		return hello{}, false
	}
	h.random, rest = rest[2:2+randomSize], rest[2+randomSize:]
	session := 1 + int(rest[0])
	if len(rest) < session+1 {
		return hello{}, false
	}
	rest = rest[session:]
	if len(rest) < 1+int(rest[0]) {
		return hello{}, false
	}
	h.cookie = rest[1 : 1+int(rest[0])]
	return h, true
}

// cookies asks senders of first flights to prove their address without keeping
// anything of them (RFC 6347 section 4.2.1). The DTLS library keeps a whole
// connection for each; this is for when there are too many.
type cookies struct {
	key [32]byte
}

func newCookies(random io.Reader) (*cookies, error) {
	c := new(cookies)
	if _, err := io.ReadFull(random, c.key[:]); err != nil {
		return nil, fmt.Errorf("draw cookie key: %w", err)
	}
	return c, nil
}

func (c *cookies) cookie(from netip.AddrPort, h hello) []byte {
	m := hmac.New(sha256.New, c.key[:])
	addr := from.Addr().As16()
	m.Write(addr[:])
	m.Write(binary.BigEndian.AppendUint16(nil, from.Port()))
	m.Write(h.random)
	return m.Sum(nil)[:cookieSize]
}

func (c *cookies) valid(from netip.AddrPort, h hello) bool {
	return hmac.Equal(c.cookie(from, h), h.cookie)
}

// verifyRequest is the HelloVerifyRequest to a ClientHello; it is shorter than
// that, so that nobody gains by a forged address.
func (c *cookies) verifyRequest(from netip.AddrPort, h hello) []byte {
	const body = 2 + 1 + cookieSize
	out := []byte{recordHandshake, 0xfe, 0xff}
	out = binary.BigEndian.AppendUint64(out, h.record)
	out = binary.BigEndian.AppendUint16(out, handshakeHeader+body)
	out = append(out, messageHelloVerify, 0, 0, body, 0, 0, 0, 0, 0, 0, 0, body, 0xfe, 0xff, cookieSize)
	return append(out, c.cookie(from, h)...)
}

// disown tells a client that its handshake is not known here (any more), so
// that it begins anew at once: a fatal internal_error in plaintext (RFC 5246
// section 7.2). It takes the record number of what it answers, since the client
// drops one that it has seen.
func disown(h hello) []byte {
	const fatal, internalError = 2, 80
	out := []byte{recordAlert, 0xfe, 0xfd}
	out = binary.BigEndian.AppendUint64(out, h.record)
	return append(out, 0, 2, fatal, internalError)
}
