package coaplink

import (
	"errors"
	"fmt"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/pool"
)

// maxSZX is the exponent of the largest block, 2^(6+4) = 1024 bytes. A
// datagram with it stays below the smallest MTU of IPv6 (1280 bytes), DTLS
// included.
const maxSZX = 6

// maxBody bounds a request or response body in bytes, all blocks together: a
// chain of certificates and what stands around it.
const maxBody = 72 << 10

var errBlock = errors.New("malformed block option")

// block is the value of a Block1 or Block2 option (RFC 7959 section 2.2).
type block struct {
	num  uint32 // number of the block, below 2^20
	more bool
	szx  uint8 // size exponent, at most maxSZX
}

// size is the block size in bytes.
func (b block) size() int { return 16 << b.szx }

// offset is where the block begins in the body.
func (b block) offset() int { return int(b.num) * b.size() }

// value encodes the option.
func (b block) value() uint32 {
	v := b.num<<4 | uint32(b.szx)
	if b.more {
		v |= 1 << 3
	}
	return v
}

// parseBlock decodes the option from its bytes, which are at most three
// (RFC 7959 section 2.1) and big-endian.
func parseBlock(raw []byte) (block, error) {
	if len(raw) > 3 {
		return block{}, fmt.Errorf("%w: %d bytes", errBlock, len(raw))
	}
	var v uint32
	for _, b := range raw {
		v = v<<8 | uint32(b)
	}
	out := block{num: v >> 4, more: v&8 != 0, szx: uint8(v & 7)}
	if out.szx > maxSZX {
		return block{}, fmt.Errorf("%w: reserved size exponent", errBlock)
	}
	return out, nil
}

// readBlock returns the message's block option of that number, nil if it has
// none. It must not be repeated.
func readBlock(m *pool.Message, id message.OptionID) (*block, error) {
	var found *block
	for _, o := range m.Options() {
		if o.ID != id {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: option %d is repeated", errBlock, id)
		}
		b, err := parseBlock(o.Value)
		if err != nil {
			return nil, err
		}
		found = &b
	}
	return found, nil
}

// uintOption encodes an option of format uint (RFC 7252 section 3.2).
func uintOption(id message.OptionID, v uint32) message.Option {
	raw := []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
	for len(raw) > 0 && raw[0] == 0 {
		raw = raw[1:]
	}
	return message.Option{ID: id, Value: raw}
}
