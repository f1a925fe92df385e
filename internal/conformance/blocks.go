package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

const (
	maxSZX  = 6
	maxBody = 73728 // bytes of a request, all blocks together
)

// block is a Block option (RFC 7959 section 2.2).
type block struct {
	num  int
	more bool
	szx  int
}

func (b block) size() int { return 16 << b.szx }

func (b block) value() []byte {
	v := uint32(b.num)<<4 | uint32(b.szx)
	if b.more {
		v |= 8
	}
	return uintValue(v)
}

// blockOf returns the option of a response, if it has one.
func blockOf(r *response, id message.OptionID) (block, bool) {
	v, err := r.options.GetUint32(id)
	if err != nil {
		return block{}, false
	}
	return block{num: int(v >> 4), more: v&8 != 0, szx: int(v & 7)}, true
}

func blockRules() []rule {
	return []rule{
		{name: "block.upload", section: "4.3, RFC 7959 section 2.5", says: "a body in blocks of 1,024 bytes is put together", test: func(ctx context.Context, t *tester) verdict {
			return t.upload(ctx, maxSZX)
		}},
		{name: "block.upload-small", section: "4.3, RFC 7959 section 2.5", says: "so is one in blocks of 64 bytes", test: func(ctx context.Context, t *tester) verdict {
			return t.upload(ctx, 2)
		}},
		{name: "block.repeated", section: "4.3", says: "a block that repeats what is there is acknowledged", test: blockRepeated},
		{name: "block.gap", section: "4.3, RFC 7959 section 2.9.2", says: "a block that does not follow on is answered with 4.08", test: blockGap},
		{name: "block.tag", section: "4.3, RFC 9175 section 3", says: "so is a block with another Request-Tag", test: blockTag},
		{name: "block.reserved", section: "4.3, RFC 7959 section 2.2", says: "SZX 7 is answered with 4.00", test: blockReserved},
		{name: "block.too-large", section: "4.3, RFC 7959 section 2.9.3", says: "a body of more than 73,728 bytes is answered with 4.13", test: blockTooLarge},
		{name: "block.download", section: "4.3, RFC 7959 section 2.4", says: "a response is cut into the blocks that were asked for, with an ETag", test: blockDownload},
		{name: "block.download-lost", section: "4.3", says: "a later block of a response that the device does not have is answered with 4.08", test: blockDownloadLost},
	}
}

// block is a request of a block transfer.
func (r request) block(tag []byte, b block, body []byte) request {
	r = r.with(message.Block1, b.value()...).with(optionRequestTag, tag...)
	r.body = body
	return r
}

// long is a request of three blocks for /verify-certificate, in an enrolment
// that nobody began.
func (t *tester) long() ([]byte, error) {
	var list [][]byte
	for size := 0; size < 2100; {
		some, err := t.lonely()
		if err != nil {
			return nil, err
		}
		list, size = append(list, some...), size+len(some[0])
	}
	return t.verification(nil, func() ([][]byte, error) { return list, nil })
}

// piece returns a block of a body.
func piece(body []byte, num, szx int) (block, []byte) {
	size := block{szx: szx}.size()
	end := min((num+1)*size, len(body))
	return block{num: num, more: end < len(body), szx: szx}, body[num*size : end]
}

// upload sends a body in blocks; the device may ask for smaller ones.
func (t *tester) upload(ctx context.Context, szx int) verdict {
	body, err := t.long()
	if err != nil {
		return judge(err)
	}
	tag, err := t.draw(8)
	if err != nil {
		return judge(err)
	}
	for offset := 0; ; {
		b, data := piece(body, offset>>(4+szx), szx)
		out, err := t.ask(ctx, post("/verify-certificate", nil).block(tag, b, data))
		if err != nil {
			return judge(err)
		}
		if !b.more {
			return all(unknownEnrolment(out), echoes(out, b))
		}
		got, ok := blockOf(out, message.Block1)
		if out.code != codes.Continue || !ok || got.num != b.num || got.szx > szx {
			return failed("block %d was answered with %s, Block1 %+v", b.num, out, got)
		}
		offset += len(data)
		szx = got.szx
	}
}

// echoes wants the Block1 option of the last block in the response.
func echoes(out *response, b block) verdict {
	if got, ok := blockOf(out, message.Block1); !ok || got.num != b.num {
		return warned("the response to the last block does not repeat its Block1 option")
	}
	return verdict{outcome: Pass}
}

// unknownEnrolment wants the response to a body about an enrolment that nobody
// began.
func unknownEnrolment(out *response) verdict {
	if out.code != codes.NotFound {
		return failed("it was answered %s instead of 4.04%s", out, explain(out))
	}
	return verdict{outcome: Pass}
}

// script sends blocks, each with the code that its response must have.
func (t *tester) script(ctx context.Context, steps ...func() (request, codes.Code)) verdict {
	for i, step := range steps {
		r, code := step()
		out, err := t.ask(ctx, r)
		if err != nil {
			return judge(err)
		}
		if out.code != code {
			return failed("step %d was answered with %s instead of %s%s", i+1, out, codeText(code), explain(out))
		}
	}
	return verdict{}
}

// sender makes steps of script from blocks of one body.
type sender struct {
	body []byte
	tags [2][]byte
}

func (t *tester) sender() (*sender, error) {
	body, err := t.long()
	if err != nil {
		return nil, err
	}
	s := &sender{body: body}
	for i := range s.tags {
		if s.tags[i], err = t.draw(8); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *sender) step(tag, num int, code codes.Code) func() (request, codes.Code) {
	return func() (request, codes.Code) {
		b, data := piece(s.body, num, maxSZX)
		return post("/verify-certificate", nil).block(s.tags[tag], b, data), code
	}
}

func blockRepeated(ctx context.Context, t *tester) verdict {
	s, err := t.sender()
	if err != nil {
		return judge(err)
	}
	return t.script(ctx,
		s.step(0, 0, codes.Continue), s.step(0, 1, codes.Continue), s.step(0, 1, codes.Continue), s.step(0, 2, codes.NotFound))
}

func blockGap(ctx context.Context, t *tester) verdict {
	s, err := t.sender()
	if err != nil {
		return judge(err)
	}
	return t.script(ctx,
		s.step(0, 0, codes.Continue), s.step(0, 2, codes.RequestEntityIncomplete),
		s.step(1, 0, codes.Continue), s.step(1, 1, codes.Continue), s.step(1, 2, codes.NotFound))
}

func blockTag(ctx context.Context, t *tester) verdict {
	s, err := t.sender()
	if err != nil {
		return judge(err)
	}
	return t.script(ctx, s.step(0, 0, codes.Continue), s.step(1, 1, codes.RequestEntityIncomplete))
}

func blockReserved(ctx context.Context, t *tester) verdict {
	body, err := t.reference()
	if err != nil {
		return judge(err)
	}
	return wants(post("/activate", body).with(message.Block1, 7), codes.BadRequest)(ctx, t)
}

// blockTooLarge sends one block more than a body may have.
func blockTooLarge(ctx context.Context, t *tester) verdict {
	tag, err := t.draw(8)
	if err != nil {
		return judge(err)
	}
	body := bytes.Repeat([]byte{0x5a}, maxBody+1025)
	for num, szx := 0, maxSZX; ; num++ {
		b, data := piece(body, num, szx)
		out, err := t.ask(ctx, post("/verify-certificate", nil).block(tag, b, data))
		if err != nil {
			return judge(err)
		}
		smaller, ok := blockOf(out, message.Block1)
		switch {
		case out.code == codes.RequestEntityTooLarge && (num+1)*b.size() > maxBody:
			return verdict{}
		case out.code == codes.RequestEntityTooLarge:
			return warned("it takes no more than %d bytes", num*b.size())
		case out.code != codes.Continue:
			return failed("block %d was answered with %s", num, out)
		case ok && smaller.szx < szx:
			// 1,024 bytes are there; they are so many smaller blocks.
			num, szx = b.size()>>(4+smaller.szx)*(num+1)-1, smaller.szx
		}
		if !b.more {
			return failed("%d bytes were accepted", len(body))
		}
	}
}

// whole fetches the rest of a response.
func (t *tester) whole(ctx context.Context, r request, first *response) ([]byte, error) {
	body := bytes.Clone(first.body)
	b, ok := blockOf(first, message.Block2)
	if !ok {
		return body, nil
	}
	etag, err := first.options.GetBytes(message.ETag)
	if err != nil {
		return nil, errors.New("a response of several blocks has no ETag")
	}
	for size := len(first.body); b.more; {
		if size != b.size() {
			return nil, fmt.Errorf("block %d has %d bytes, not the size that it states", b.num, size)
		}
		next := block{num: b.num + 1, szx: b.szx}
		out, err := t.ask(ctx, r.with(message.Block2, next.value()...))
		if err != nil {
			return nil, err
		}
		again, _ := out.options.GetBytes(message.ETag)
		got, ok := blockOf(out, message.Block2)
		if out.code != first.code || !ok || got.num != next.num || got.szx != b.szx || !bytes.Equal(etag, again) || len(body) > maxBody {
			return nil, fmt.Errorf("block %d was answered with %s, Block2 %+v, ETag %x after %x", next.num, out, got, again, etag)
		}
		body, b, size = append(body, out.body...), got, len(out.body)
	}
	return body, nil
}

func blockDownload(ctx context.Context, t *tester) verdict {
	const path = "/.well-known/core"
	out, err := t.ask(ctx, get(path))
	if err != nil {
		return judge(err)
	}
	want, err := t.whole(ctx, get(path), out)
	if err != nil {
		return judge(err)
	}
	tag, err := t.draw(8)
	if err != nil {
		return judge(err)
	}
	small := get(path).with(optionRequestTag, tag...)
	out, err = t.ask(ctx, small.with(message.Block2, block{szx: 1}.value()...))
	if err != nil {
		return judge(err)
	}
	if b, ok := blockOf(out, message.Block2); out.code != codes.Content || !ok || b.szx > 1 || len(out.body) > 32 {
		return failed("%d bytes in answer to a request for 32: %s, Block2 %+v", len(out.body), out, b)
	}
	got, err := t.whole(ctx, small, out)
	if err != nil {
		return judge(err)
	}
	if !bytes.Equal(got, want) {
		return failed("the blocks are not the whole: %q", got)
	}
	return verdict{}
}

func blockDownloadLost(ctx context.Context, t *tester) verdict {
	// /status fits into a block: there is no second one of 1,024 bytes.
	tag, err := t.draw(8)
	if err != nil {
		return judge(err)
	}
	return wants(get("/status").with(optionRequestTag, tag...).with(message.Block2, block{num: 40, szx: maxSZX}.value()...), codes.RequestEntityIncomplete)(ctx, t)
}
