package coaplink

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	coapdtls "github.com/plgd-dev/go-coap/v3/dtls"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/net/blockwise"
	"github.com/plgd-dev/go-coap/v3/options"
	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// blockDevice is a device without a network: it answers the blocks of one
// resource, which returns a response to the whole body.
type blockDevice struct {
	upload   assembly
	download transfer
	respond  func(body []byte) []byte
	ran      int

	prefers uint8                              // block size of 2.31, if smaller
	spoil   func(n int, r request, out *reply) // the nth answer
	n       int
}

func (d *blockDevice) do(_ context.Context, r request) (*reply, error) {
	var block1, block2 *block
	var tag []byte
	for _, o := range r.options {
		switch o.ID {
		case message.Block1, message.Block2:
			b, err := parseBlock(o.Value)
			if err != nil {
				return nil, err
			}
			if o.ID == message.Block1 {
				block1 = &b
			} else {
				block2 = &b
			}
		case optionRequestTag:
			tag = o.Value
		}
	}
	var key [32]byte
	copy(key[:], tag)
	a := d.answer(key, block1, block2, r.payload)
	out := &reply{code: a.code, format: a.format, payload: bytes.Clone(a.payload), block1: a.block1, block2: a.block2, etag: a.etag}
	if d.prefers > 0 && out.code == codes.Continue {
		out.block1.szx = min(out.block1.szx, d.prefers)
	}
	d.n++
	if d.spoil != nil {
		d.spoil(d.n, r, out)
	}
	return out, nil
}

func (d *blockDevice) answer(key [32]byte, block1, block2 *block, body []byte) answer {
	if block2 != nil && block2.num > 0 {
		return d.download.next(key, *block2)
	}
	if block1 != nil {
		var a answer
		if body, a = d.upload.add(key, *block1, body); body == nil {
			return a
		}
	}
	d.ran++
	return d.download.begin(key, answer{code: codes.Changed, format: formatCBOR, payload: d.respond(body), block1: block1}, maxSZX)
}

func (d *blockDevice) link() *link {
	return &link{timeouts: Timeouts{}.withDefaults(), do: d.do}
}

func drawBody(t *rapid.T, label string) []byte {
	n := rapid.OneOf(
		rapid.IntRange(0, maxBody),
		rapid.SampledFrom([]int{0, 1, 15, 16, 1023, 1024, 1025, 2047, 2048, 2049, maxBody - 1, maxBody}),
	).Draw(t, label)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + n)
	}
	return b
}

// TestBodiesOfAnySize arrive whole in both directions, whatever block size the
// device prefers, also if it forgets the transfer once on the way.
func TestBodiesOfAnySize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent, returned := drawBody(t, "request"), drawBody(t, "response")
		var arrived []byte
		d := &blockDevice{
			prefers: rapid.Uint8Range(0, maxSZX).Draw(t, "szx"),
			respond: func(body []byte) []byte {
				arrived = bytes.Clone(body)
				return returned
			},
		}
		if forgets := rapid.IntRange(-50, 100).Draw(t, "forgets"); forgets > 0 {
			d.spoil = func(n int, _ request, out *reply) {
				if n == forgets {
					d.upload.clear()
					d.download.clear()
					*out = reply{code: codes.RequestEntityIncomplete}
				}
			}
		}
		out, err := d.link().call(context.Background(), request{code: codes.POST, payload: sent})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(arrived, sent) || !bytes.Equal(out.payload, returned) || out.code != codes.Changed || out.format != formatCBOR {
			t.Fatalf("sent %d, arrived %d; returned %d, arrived %d; %v", len(sent), len(arrived), len(returned), len(out.payload), out.code)
		}
	})
}

// TestDeviceOfSmallBlocks: a device that refuses the first block as too large
// and names another size gets the body in that size (RFC 7959 section 2.9.3).
func TestDeviceOfSmallBlocks(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789"), 500)
	var arrived []byte
	largest := 0
	d := &blockDevice{respond: func(b []byte) []byte { arrived = b; return nil }}
	d.spoil = func(n int, r request, out *reply) {
		if n == 1 {
			d.upload.clear()
			*out = reply{code: codes.RequestEntityTooLarge, block1: &block{szx: 2}}
			return
		}
		largest = max(largest, len(r.payload))
	}
	if _, err := d.link().call(context.Background(), request{code: codes.POST, payload: sent}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(arrived, sent) || largest != 64 {
		t.Errorf("arrived %d bytes in blocks of %d", len(arrived), largest)
	}
	// Or it takes the first block and names a smaller size for the others.
	largest = 0
	d = &blockDevice{prefers: 2, respond: d.respond}
	d.spoil = func(n int, r request, _ *reply) {
		if n > 1 {
			largest = max(largest, len(r.payload))
		}
	}
	if _, err := d.link().call(context.Background(), request{code: codes.POST, payload: sent}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(arrived, sent) || largest != 64 {
		t.Errorf("arrived %d bytes in blocks of %d after the first", len(arrived), largest)
	}
}

// TestBrokenTransfers: a device whose blocks do not fit together is told, not
// believed; one that always forgets is given up.
func TestBrokenTransfers(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(n int, r request, out *reply)
		want  error
	}{
		"acknowledges another block": {func(n int, _ request, out *reply) {
			if n == 1 {
				out.block1.num = 5
			}
		}, errReply},
		"acknowledges no block": {func(n int, _ request, out *reply) {
			if n == 1 {
				out.block1 = nil
			}
		}, errReply},
		"begins in the middle": {func(_ int, _ request, out *reply) {
			if out.block2 != nil {
				out.block2.num++
			}
		}, errReply},
		"sends a block of another size": {func(_ int, _ request, out *reply) {
			if out.block2 != nil && out.block2.num == 1 {
				out.payload = out.payload[1:]
			}
		}, errReply},
		"sends another block than asked for": {func(_ int, _ request, out *reply) {
			if out.block2 != nil && out.block2.num == 1 {
				out.block2.num = 2
			}
		}, errReply},
		"stops saying what it sends": {func(_ int, _ request, out *reply) {
			if out.block2 != nil && out.block2.num == 1 {
				out.block2 = nil
			}
		}, errReply},
		"a last block that is too long": {func(_ int, _ request, out *reply) {
			if out.block2 != nil && !out.block2.more {
				out.payload = make([]byte, 2000)
			}
		}, errReply},
		"changes its response on the way": {func(n int, _ request, out *reply) {
			out.etag = []byte{byte(n)}
		}, errRestart},
		"never ends": {func(_ int, r request, out *reply) {
			if last := r.options[len(r.options)-1]; last.ID == message.Block2 {
				b, err := parseBlock(last.Value)
				if err != nil {
					return
				}
				*out = reply{code: codes.Changed, format: formatCBOR, payload: make([]byte, 1024), block2: &block{num: b.num, more: true, szx: b.szx}}
			}
			out.etag = nil
		}, errReply},
		"always forgets": {func(_ int, _ request, out *reply) {
			*out = reply{code: codes.RequestEntityIncomplete}
		}, errRestart},
	} {
		d := &blockDevice{spoil: c.spoil, respond: func([]byte) []byte { return make([]byte, 5000) }}
		_, err := d.link().call(context.Background(), request{code: codes.POST, payload: make([]byte, 3000)})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if d.n > 300 {
			t.Errorf("%s: given up after %d exchanges", name, d.n)
		}
	}
	if _, err := new(link).call(context.Background(), request{payload: make([]byte, maxBody+1)}); err == nil {
		t.Error("a request above the limit was sent")
	}
}

// TestBlockRepeatedUnderNewID: a client that lost the response to a block and
// sends it again under a new message ID goes on; other bytes in its place do not.
func TestBlockRepeatedUnderNewID(t *testing.T) {
	var a assembly
	key := [32]byte{1}
	first, second := bytes.Repeat([]byte{1}, 64), bytes.Repeat([]byte{2}, 64)
	add := func(num uint32, data []byte, more bool) codes.Code {
		body, out := a.add(key, block{num: num, more: more, szx: 2}, data)
		if body != nil {
			return codes.Changed
		}
		return out.code
	}
	for i, step := range []struct {
		num  uint32
		data []byte
		want codes.Code
	}{
		{0, first, codes.Continue}, {1, second, codes.Continue}, {1, second, codes.Continue},
		{0, first, codes.Continue}, {1, second, codes.Continue}, {3, second, codes.RequestEntityIncomplete},
		{1, first, codes.RequestEntityIncomplete}, {2, first, codes.RequestEntityIncomplete},
	} {
		if got := add(step.num, step.data, true); got != step.want {
			t.Fatalf("step %d: %v, want %v", i, got, step.want)
		}
	}
	// Another request's blocks are not mixed in.
	add(0, first, true)
	if body, out := a.add([32]byte{2}, block{num: 1, szx: 2}, second); body != nil || out.code != codes.RequestEntityIncomplete {
		t.Errorf("a block of another request: %v", out.code)
	}
}

// TestStockClient: the block transfer of an unmodified CoAP library works with
// a device, as long as nothing is lost.
func TestStockClient(t *testing.T) {
	d := newTestDevice(t)
	d.services.csr = randomBytes(t, 5000)
	certificate := bound(t, d.pkg.key(t, ibc.RoleCLM, "clm-1", 1), nil).tls()
	conn, err := connect(t, d.addr, dtls.WithGetClientCertificate(func(*dtls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &certificate, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	cc := coapdtls.Client(conn, options.WithCloseSocket(), options.WithBlockwise(true, blockwise.SZX256, 10*time.Second))
	defer func() { _ = cc.Close() }()
	req := sampleCSRRequest()
	payload, err := encodeCSRRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	response, err := cc.Post(ctx, pathCSR, formatCBOR, bytes.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	if got := mustBody(t, response); response.Code() != codes.Changed || !bytes.Equal(got, d.services.csr) {
		t.Errorf("%v, %d bytes", response.Code(), len(got))
	}
	if got, _, _ := d.services.got(); got.Enrolment != req.Enrolment || len(got.CA) != len(req.CA) {
		t.Errorf("the request arrived as %+v", got)
	}
}
