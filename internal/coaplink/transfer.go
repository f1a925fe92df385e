package coaplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// maxRestarts is how often a block transfer begins anew because the device
// lost its half of it.
const maxRestarts = 4

// errReply is wrapped when a device's response breaks the protocol.
var errReply = errors.New("the device's response is malformed")

// errRestart says that the device no longer has the body's other blocks.
var errRestart = errors.New("the device lost the transfer")

// call sends a request with a body of any allowed size and returns the whole
// response. The blocks (RFC 7959) are separate confirmable exchanges: the
// library's own transfer stalls when a middle block is lost.
func (l *link) call(ctx context.Context, r request) (*reply, error) {
	if len(r.payload) > maxBody {
		return nil, fmt.Errorf("a request of %d bytes, at most %d are allowed", len(r.payload), maxBody)
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeouts.Exchange)
	defer cancel()
	szx := uint8(maxSZX)
	var err error
	for range maxRestarts {
		var out *reply
		if out, err = l.transfer(ctx, r, szx); err == nil {
			if smaller, ok := wantsSmaller(out, szx); ok {
				szx = smaller
				err = errRestart
				continue
			}
			return out, nil
		}
		if !errors.Is(err, errRestart) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s %s: %w", l.identity, r.path, err)
}

// wantsSmaller reports whether the device refused the block size and named a
// smaller one (RFC 7959 section 2.9.3).
func wantsSmaller(r *reply, szx uint8) (uint8, bool) {
	if r.code != codes.RequestEntityTooLarge || r.block1 == nil || r.block1.szx >= szx {
		return 0, false
	}
	return r.block1.szx, true
}

// transfer uploads the request and downloads the response once.
func (l *link) transfer(ctx context.Context, r request, szx uint8) (*reply, error) {
	// The tag tells the device which blocks belong together (RFC 9175 section 3).
	tag, err := message.GetToken()
	if err != nil {
		return nil, fmt.Errorf("draw request tag: %w", err)
	}
	r.options = []message.Option{{ID: optionRequestTag, Value: tag}}
	last, err := l.upload(ctx, r, szx)
	if err != nil {
		return nil, err
	}
	if last.code == codes.RequestEntityIncomplete {
		return nil, errRestart
	}
	return l.download(ctx, r, last)
}

// upload sends the body, in blocks if one does not hold it, and returns the
// response to the last.
func (l *link) upload(ctx context.Context, r request, szx uint8) (*reply, error) {
	if len(r.payload) <= (block{szx: szx}).size() {
		return l.do(ctx, r)
	}
	body, options := r.payload, r.options
	for offset := 0; ; {
		size := block{szx: szx}.size()
		b := block{num: uint32(offset / size), more: offset+size < len(body), szx: szx}
		r.payload = body[offset:min(offset+size, len(body))]
		r.options = append(options[:len(options):len(options)], uintOption(message.Block1, b.value()))
		if offset == 0 {
			r.options = append(r.options, uintOption(message.Size1, uint32(len(body))))
		}
		out, err := l.do(ctx, r)
		if err != nil || !b.more || out.code != codes.Continue {
			return out, err
		}
		if out.block1 == nil || out.block1.num != b.num {
			return nil, fmt.Errorf("%w: block %d of the request is acknowledged as another", errReply, b.num)
		}
		offset += size
		szx = min(szx, out.block1.szx)
	}
}

// download fetches the blocks of the response behind its first.
func (l *link) download(ctx context.Context, r request, first *reply) (*reply, error) {
	if first.block2 == nil {
		return first, nil
	}
	if first.block2.num != 0 {
		return nil, fmt.Errorf("%w: it begins with block %d", errReply, first.block2.num)
	}
	out, b := *first, *first.block2
	out.payload = bytes.Clone(first.payload)
	options := r.options
	part := first
	for b.more {
		if len(part.payload) != b.size() || len(out.payload)+b.size() > maxBody {
			return nil, fmt.Errorf("%w: block %d has %d bytes", errReply, b.num, len(part.payload))
		}
		b = block{num: b.num + 1, szx: b.szx}
		r.payload = nil
		r.options = append(options[:len(options):len(options)], uintOption(message.Block2, b.value()))
		next, err := l.do(ctx, r)
		switch {
		case err != nil:
			return nil, err
		case next.code == codes.RequestEntityIncomplete, !bytes.Equal(next.etag, first.etag):
			return nil, errRestart
		case next.code != first.code || next.block2 == nil || next.block2.num != b.num || next.block2.szx != b.szx:
			return nil, fmt.Errorf("%w: block %d of it is another", errReply, b.num)
		}
		out.payload = append(out.payload, next.payload...)
		b, part = *next.block2, next
	}
	if len(part.payload) > b.size() {
		return nil, fmt.Errorf("%w: its last block has %d bytes", errReply, len(part.payload))
	}
	return &out, nil
}
