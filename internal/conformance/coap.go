package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

func coapRules() []rule {
	return []rule{
		{name: "coap.core", section: "5, RFC 6690", says: "/.well-known/core lists the resources", test: coapCore},
		{name: "coap.ping", section: "4.1, RFC 7252 section 4.3", says: "an empty confirmable message is answered with a reset", test: coapPing},
		{name: "coap.ping-busy", section: "4.1", says: "it is so while a request is being answered", test: coapPingBusy},
		{name: "coap.token", section: "4.1, RFC 7252 section 5.3.1", says: "the response has the token of the request, whatever its length", test: coapToken},
		{name: "coap.duplicate", section: "4.1, RFC 7252 section 4.5", says: "a repeated message ID gets the same response, and the request runs once", test: coapDuplicate},
		{name: "coap.non-confirmable", section: "4.1", says: "non-confirmable requests are ignored", test: coapNonConfirmable},
		{name: "coap.critical-option", section: "4.2, RFC 7252 section 5.4.1", says: "an unknown critical option is answered with 4.02", test: wants(get("/status").with(unknownCritical, 0), codes.BadOption)},
		{name: "coap.uri-query", section: "4.2", says: "so is Uri-Query", test: wants(get("/status").with(message.URIQuery, 'x'), codes.BadOption)},
		{name: "coap.elective-option", section: "4.2, RFC 7252 section 5.4.1", says: "an unknown elective option is ignored", test: wants(get("/status").with(unknownElective, 0), codes.Content)},
		{name: "coap.uri-host", section: "4.2", says: "Uri-Host and Uri-Port are ignored", test: wants(get("/status").with(message.URIHost, []byte("plc")...).with(message.URIPort, 0x16, 0x34), codes.Content)},
		{name: "coap.not-found", section: "4.2", says: "an unknown path is answered with 4.04 and no payload", test: coapNotFound},
		{name: "coap.method", section: "4.2", says: "a wrong method is answered with 4.05", test: func(ctx context.Context, t *tester) verdict {
			return all(wants(get("/activate"), codes.MethodNotAllowed)(ctx, t), wants(post("/status", []byte{0xa0}), codes.MethodNotAllowed)(ctx, t))
		}},
		{name: "coap.content-format", section: "4.2", says: "a body in another format, or in none, is answered with 4.15", test: coapContentFormat},
		{name: "coap.accept", section: "4.2, RFC 7252 section 5.10.4", says: "an Accept that does not fit is answered with 4.06", test: func(ctx context.Context, t *tester) verdict {
			r := get("/status")
			r.accept = formatJSON
			return wants(r, codes.NotAcceptable)(ctx, t)
		}},
	}
}

// wants makes a rule: the request has a response of that code.
func wants(r request, code codes.Code) func(context.Context, *tester) verdict {
	return func(ctx context.Context, t *tester) verdict {
		out, err := t.ask(ctx, r)
		if err != nil {
			return judge(err)
		}
		if out.code != code {
			return failed("%s was answered with %s instead of %s%s", r.path, codeText(out.code), codeText(code), explain(out))
		}
		return verdict{}
	}
}

// link is one of the links of RFC 6690 section 2.
var link = regexp.MustCompile(`^<([^>]*)>(;[a-zA-Z0-9!#$&+.^_|~*-]+(=("[^"]*"|[^";,]*))?)*$`)

// targets returns what the links of a description point to.
func targets(text string) ([]string, bool) {
	var out []string
	quoted, start := false, 0
	for i, r := range text + "," {
		if r == '"' {
			quoted = !quoted
		}
		if r != ',' || quoted {
			continue
		}
		m := link.FindStringSubmatch(strings.TrimSpace(text[start:i]))
		if m == nil {
			return nil, false
		}
		out, start = append(out, m[1]), i+1
	}
	return out, !quoted
}

func coapCore(ctx context.Context, t *tester) verdict {
	out, v := t.want(ctx, get("/.well-known/core"), codes.Content, formatLinks)
	if v.outcome != Pass {
		return v
	}
	body, err := t.whole(ctx, get("/.well-known/core"), out)
	if err != nil {
		return judge(err)
	}
	links, ok := targets(string(body))
	if !ok {
		return failed("not in the format of RFC 6690: %q", body)
	}
	for _, path := range []string{"/csr-generation-request", "/verify-certificate", "/activate", "/confirm", "/rollback", "/status"} {
		if !slices.Contains(links, path) {
			return failed("%s is missing", path)
		}
	}
	for _, path := range []string{"/bundle", "/anchors"} {
		if !slices.Contains(links, path) {
			return warned("%s is missing: new keys or trust anchors need a visit", path)
		}
	}
	return verdict{}
}

// ping sends pings until one is answered.
func (t *tester) ping(ctx context.Context, c *channel) error {
	c.mid++
	mid := c.mid
	b, err := encode(message.Message{Type: message.Confirmable, Code: codes.Empty, MessageID: int32(mid)})
	if err != nil {
		return err
	}
	m, err := c.wait(ctx, t.Patience, b, func(m *message.Message) bool { return m.MessageID == int32(mid) })
	if err == nil && (m.Type != message.Reset || m.Code != codes.Empty) {
		err = fmt.Errorf("the ping was answered with %s %s", m.Type, codeText(m.Code))
	}
	return err
}

func coapPing(ctx context.Context, t *tester) verdict {
	c, err := t.channel(ctx)
	if err != nil {
		return judge(err)
	}
	if err := t.ping(ctx, c); err != nil {
		t.noPing = true
		t.hangUp()
		return judge(err)
	}
	return verdict{}
}

// unansweredPings in a row, each with time for its reset, say that a device
// does nothing else while it is busy.
const unansweredPings = 3

// coapPingBusy gives the device something to do, then pings it until the
// response has come.
func coapPingBusy(ctx context.Context, t *tester) verdict {
	if t.noPing {
		return skipped("it does not answer pings at all")
	}
	c, err := t.channel(ctx)
	if err != nil {
		return judge(err)
	}
	token, err := t.draw(4)
	if err != nil {
		return judge(err)
	}
	work, err := t.reference()
	if err != nil {
		return judge(err)
	}
	c.mid++
	request, ping := c.mid, c.mid+1
	b, err := post("/activate", work).message(message.Confirmable, request, token)
	if err != nil {
		return judge(err)
	}
	if err := c.send(b); err != nil {
		return judge(err)
	}
	pings, deadline := 0, time.Now().Add(t.Patience)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		c.mid++
		pings++
		b, err := encode(message.Message{Type: message.Confirmable, Code: codes.Empty, MessageID: int32(c.mid)})
		if err != nil {
			return judge(err)
		}
		if err := c.send(b); err != nil {
			return judge(err)
		}
		for until := time.Now().Add(firstInterval); ; {
			m, err := c.receive(until)
			if errors.Is(err, errSilence) {
				break
			}
			switch {
			case err != nil:
				t.hangUp()
				return judge(err)
			case m.Type == message.Reset && m.MessageID >= int32(ping):
				return t.drain(ctx, c, request, token)
			case bytes.Equal(m.Token, token) && m.Code != codes.Empty && pings > unansweredPings:
				t.hangUp()
				return failed("%d pings were not answered before the response", pings-1)
			case bytes.Equal(m.Token, token) && m.Code != codes.Empty:
				return t.answered(ctx, c)
			}
		}
	}
	t.hangUp()
	return failed("neither ping nor request was answered in %s", t.Patience)
}

// drain waits for the response that is under way, so that it is not taken for
// another one.
func (t *tester) drain(ctx context.Context, c *channel, mid uint16, token []byte) verdict {
	for _, m := range c.strays {
		if m.MessageID == int32(mid) {
			return verdict{}
		}
	}
	if _, err := c.finish(ctx, t.Patience, nil, mid, token); err != nil {
		t.hangUp()
		return judge(err)
	}
	return verdict{}
}

// answered wants the reset to a ping that the response overtook.
func (t *tester) answered(ctx context.Context, c *channel) verdict {
	if err := t.ping(ctx, c); err != nil {
		t.hangUp()
		return judge(err)
	}
	return passed("the response came before the device was seen busy")
}

// askStatus makes a request for /status, with a fresh message ID and token, for
// the channel that it returns; nothing is sent.
func (t *tester) askStatus(ctx context.Context, kind message.Type, tokenSize int) (c *channel, datagram, token []byte, err error) {
	if c, err = t.channel(ctx); err != nil {
		return nil, nil, nil, err
	}
	if token, err = t.draw(tokenSize); err != nil {
		return nil, nil, nil, err
	}
	c.mid++
	datagram, err = get("/status").message(kind, c.mid, token)
	return c, datagram, token, err
}

func coapToken(ctx context.Context, t *tester) verdict {
	for _, size := range []int{0, 1, 8} {
		c, b, token, err := t.askStatus(ctx, message.Confirmable, size)
		if err != nil {
			return judge(err)
		}
		if _, err := c.finish(ctx, t.Patience, b, c.mid, token); err != nil {
			t.hangUp()
			return failed("a token of %d bytes: %v", size, err)
		}
	}
	return verdict{}
}

// coapDuplicate repeats a request when the clock in its response would show
// another time.
func coapDuplicate(ctx context.Context, t *tester) verdict {
	c, b, token, err := t.askStatus(ctx, message.Confirmable, 4)
	if err != nil {
		return judge(err)
	}
	var bodies [2][]byte
	for i := range bodies {
		out, err := c.finish(ctx, t.Patience, b, c.mid, token)
		if err != nil {
			t.hangUp()
			return judge(err)
		}
		if bodies[i] = out.body; out.separate && i == 0 {
			return passed("the response is separate, so a repetition is only acknowledged")
		}
		if i == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(t.Repeat):
			}
		}
	}
	if !bytes.Equal(bodies[0], bodies[1]) {
		return failed("the repetition was answered with another body: %x, then %x", bodies[0], bodies[1])
	}
	return verdict{}
}

// coapNonConfirmable sends such a request, and another behind it: before its
// response the other's would have come.
func coapNonConfirmable(ctx context.Context, t *tester) verdict {
	c, b, token, err := t.askStatus(ctx, message.NonConfirmable, 8)
	if err != nil {
		return judge(err)
	}
	if err := c.send(b); err != nil {
		return judge(err)
	}
	if _, err := t.exchange(ctx, c, get("/status")); err != nil {
		t.hangUp()
		return judge(err)
	}
	for _, m := range c.strays {
		if bytes.Equal(m.Token, token) {
			c.strays = nil
			return warned("it was answered")
		}
	}
	c.strays = nil
	return verdict{}
}

func coapNotFound(ctx context.Context, t *tester) verdict {
	out, err := t.ask(ctx, get("/no-such-resource"))
	switch {
	case err != nil:
		return judge(err)
	case out.code != codes.NotFound:
		return failed("%s", out)
	case out.format == formatProblem:
		return failed("with problem details, which say that the enrolment is unknown%s", explain(out))
	case len(out.body) > 0:
		return warned("with a payload of %d bytes", len(out.body))
	}
	return verdict{}
}

func coapContentFormat(ctx context.Context, t *tester) verdict {
	body, err := t.reference()
	if err != nil {
		return judge(err)
	}
	var verdicts []verdict
	for _, format := range []int{formatJSON, noFormat} {
		r := post("/activate", body)
		r.format = format
		verdicts = append(verdicts, wants(r, codes.UnsupportedMediaType)(ctx, t))
	}
	return all(verdicts...)
}
