package coaplink

import (
	"bytes"
	"crypto/sha256"

	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// assembly collects the blocks of one request body (RFC 7959 section 2.5). A
// peer has one at a time: another first block begins anew.
type assembly struct {
	key  [32]byte
	body []byte
}

// add takes one block. It returns the whole body with the last, and until then
// nil and the answer to give.
func (a *assembly) add(key [32]byte, b block, data []byte) (body []byte, out answer) {
	switch {
	case len(data) > b.size(), b.more && len(data) != b.size():
		return nil, problem(badRequest("the block has not the size that it states"))
	case b.offset()+len(data) > maxBody:
		a.clear()
		return nil, answer{code: codes.RequestEntityTooLarge, block1: &block{num: b.num, szx: b.szx}}
	case b.num == 0:
		a.clear()
		a.key = key
	case key != a.key || b.offset() > len(a.body):
		return nil, answer{code: codes.RequestEntityIncomplete, block1: &b}
	}
	switch end := b.offset() + len(data); {
	case b.offset() == len(a.body):
		a.body = append(a.body, data...)
	case end > len(a.body) || !bytes.Equal(a.body[b.offset():end], data):
		// Not what was there before under a new message ID.
		a.clear()
		return nil, answer{code: codes.RequestEntityIncomplete, block1: &b}
	}
	if b.more {
		return nil, answer{code: codes.Continue, block1: &b}
	}
	body = append([]byte{}, a.body...)
	a.clear()
	return body, answer{}
}

// clear forgets the body; it may hold a challenge.
func (a *assembly) clear() {
	clear(a.body)
	*a = assembly{}
}

// transfer holds the response whose first block was sent (RFC 7959 section 2.4).
type transfer struct {
	key    [32]byte
	whole  answer
	active bool
}

// begin returns the response, or its first block if it is longer than that.
func (t *transfer) begin(key [32]byte, a answer, szx uint8) answer {
	size := block{szx: szx}.size()
	if len(a.payload) <= size {
		return a
	}
	sum := sha256.Sum256(a.payload)
	a.etag = sum[:8]
	*t = transfer{key: key, whole: a, active: true}
	return t.cut(block{szx: szx})
}

// next returns a later block.
func (t *transfer) next(key [32]byte, b block) answer {
	if !t.active || key != t.key || b.offset() >= len(t.whole.payload) {
		return answer{code: codes.RequestEntityIncomplete}
	}
	a := t.cut(b)
	a.block1 = nil
	return a
}

func (t *transfer) cut(b block) answer {
	a, rest := t.whole, t.whole.payload[b.offset():]
	a.payload = rest[:min(b.size(), len(rest))]
	a.block2 = &block{num: b.num, more: len(rest) > b.size(), szx: b.szx}
	return a
}

func (t *transfer) clear() { *t = transfer{} }

func badRequest(detail string) *enrol.DeviceError {
	return &enrol.DeviceError{Problem: enrol.ProblemBadRequest, Detail: detail}
}

// problem is the answer that tells a refusal.
func problem(e *enrol.DeviceError) answer {
	payload, err := encodeProblem(e)
	if err != nil {
		return answer{code: codes.InternalServerError}
	}
	return answer{code: problemCodes()[e.Problem], format: formatProblem, payload: payload}
}
