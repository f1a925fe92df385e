package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
)

// Retransmission as the CLM does it.
const (
	firstInterval = 400 * time.Millisecond
	lastInterval  = 2 * time.Second
)

// maxStrays bounds the messages that are kept beside the one that is waited for.
const maxStrays = 64

// Content formats, and the options that the library does not name.
const (
	formatLinks   = 40
	formatJSON    = 50
	formatCBOR    = 60
	formatProblem = 257
	formatPKCS10  = 286
	noFormat      = -1

	optionRequestTag message.OptionID = 292 // RFC 9175
	unknownElective  message.OptionID = 65000
	unknownCritical  message.OptionID = 65001
)

// The response codes that the library does not name.
const (
	conflict      codes.Code = 4<<5 | 9
	unprocessable codes.Code = 4<<5 | 22
)

// errSilence is wrapped when no response came in time.
var errSilence = errors.New("no response")

// request is a request to be sent.
type request struct {
	code    codes.Code
	path    string
	format  int // of the body; noFormat
	accept  int // noFormat: anything
	body    []byte
	options message.Options // more of them
}

func get(path string) request {
	return request{code: codes.GET, path: path, format: noFormat, accept: noFormat}
}

func post(path string, body []byte) request {
	return request{code: codes.POST, path: path, format: formatCBOR, accept: noFormat, body: body}
}

func (r request) with(id message.OptionID, value ...byte) request {
	r.options = append(slices.Clone(r.options), message.Option{ID: id, Value: value})
	return r
}

// uintValue is an option of format uint (RFC 7252 section 3.2).
func uintValue(v uint32) []byte {
	b := []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// message encodes the request under a message ID and token.
func (r request) message(typ message.Type, mid uint16, token []byte) ([]byte, error) {
	m := message.Message{Type: typ, Code: r.code, MessageID: int32(mid), Token: token, Payload: r.body}
	for _, segment := range bytes.Split([]byte(r.path), []byte("/"))[1:] {
		m.Options = m.Options.Add(message.Option{ID: message.URIPath, Value: segment})
	}
	if r.format != noFormat {
		m.Options = m.Options.Add(message.Option{ID: message.ContentFormat, Value: uintValue(uint32(r.format))})
	}
	if r.accept != noFormat {
		m.Options = m.Options.Add(message.Option{ID: message.Accept, Value: uintValue(uint32(r.accept))})
	}
	for _, o := range r.options {
		m.Options = m.Options.Add(o)
	}
	return encode(m)
}

func encode(m message.Message) ([]byte, error) {
	size, err := coder.DefaultCoder.Size(m)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	b := make([]byte, size)
	if _, err := coder.DefaultCoder.Encode(m, b); err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return b, nil
}

// response is what a device answered.
type response struct {
	code     codes.Code
	format   int // noFormat if none is stated
	body     []byte
	options  message.Options
	separate bool // not piggybacked on the acknowledgement
}

func (r *response) String() string {
	if r.format == noFormat {
		return codeText(r.code)
	}
	return fmt.Sprintf("%s in format %d", codeText(r.code), r.format)
}

func codeText(c codes.Code) string { return fmt.Sprintf("%d.%02d", c>>5, c&0x1f) }

func readResponse(m *message.Message, separate bool) *response {
	r := &response{code: m.Code, format: noFormat, body: m.Payload, options: m.Options, separate: separate}
	if f, err := m.Options.GetUint32(message.ContentFormat); err == nil {
		r.format = int(f)
	}
	return r
}

// send hands one message to the channel.
func (c *channel) send(b []byte) error {
	if _, err := c.conn.Write(b); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// receive returns the next message that comes before the time.
func (c *channel) receive(until time.Time) (*message.Message, error) {
	if err := c.conn.SetReadDeadline(until); err != nil {
		return nil, err
	}
	b := make([]byte, readBuffer)
	n, err := c.conn.Read(b)
	if err != nil {
		var network net.Error
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &network) && network.Timeout() {
			return nil, errSilence
		}
		return nil, fmt.Errorf("the device ended the connection: %w", err)
	}
	m := &message.Message{Options: make(message.Options, 0, 16)}
	if _, err := coder.DefaultCoder.Decode(b[:n], m); err != nil {
		return nil, fmt.Errorf("the device sent no CoAP message: %w: %x", err, b[:n])
	}
	return m, nil
}

// wait sends what is given, and again at growing intervals, until one of the
// messages that come is the wanted one. Others are kept.
func (c *channel) wait(ctx context.Context, patience time.Duration, b []byte, wanted func(*message.Message) bool) (*message.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for interval := firstInterval; ; interval = min(interval*5/4, lastInterval) {
		if b != nil {
			if err := c.send(b); err != nil {
				return nil, err
			}
		}
		for until := time.Now().Add(interval); ; {
			m, err := c.receive(until)
			if errors.Is(err, errSilence) {
				break
			}
			if err != nil {
				return nil, err
			}
			if wanted(m) {
				return m, nil
			}
			if len(c.strays) < maxStrays {
				c.strays = append(c.strays, m)
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w within %s", errSilence, patience)
		}
	}
}

// exchange sends a confirmable request and returns the response, piggybacked or
// separate.
func (t *tester) exchange(ctx context.Context, c *channel, r request) (*response, error) {
	token, err := t.draw(4)
	if err != nil {
		return nil, err
	}
	c.mid++
	b, err := r.message(message.Confirmable, c.mid, token)
	if err != nil {
		return nil, err
	}
	return c.finish(ctx, t.Patience, b, c.mid, token)
}

// finish sends an encoded request until its response comes.
func (c *channel) finish(ctx context.Context, patience time.Duration, b []byte, mid uint16, token []byte) (*response, error) {
	mine := func(m *message.Message) bool {
		if m.Type == message.Acknowledgement || m.Type == message.Reset {
			return m.MessageID == int32(mid)
		}
		return m.Type == message.Confirmable && m.Code != codes.Empty && bytes.Equal(m.Token, token)
	}
	m, err := c.wait(ctx, patience, b, mine)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Type == message.Reset:
		return nil, errors.New("the request was rejected with a reset")
	case m.Type == message.Acknowledgement && m.Code == codes.Empty:
		// The response comes separately (RFC 7252 section 5.2.2).
		m, err = c.wait(ctx, patience, nil, func(m *message.Message) bool {
			return m.Type == message.Confirmable && m.Code != codes.Empty && bytes.Equal(m.Token, token)
		})
		if err != nil {
			return nil, fmt.Errorf("acknowledged, but: %w", err)
		}
	}
	if !bytes.Equal(m.Token, token) {
		return nil, fmt.Errorf("the response has the token %x instead of %x", []byte(m.Token), token)
	}
	if m.Type != message.Confirmable {
		return readResponse(m, false), nil
	}
	ack, err := encode(message.Message{Type: message.Acknowledgement, Code: codes.Empty, MessageID: m.MessageID})
	if err != nil {
		return nil, err
	}
	return readResponse(m, true), c.send(ack)
}

// ask sends a request on the main connection, which is made anew if it ended.
func (t *tester) ask(ctx context.Context, r request) (*response, error) {
	c, err := t.channel(ctx)
	if err != nil {
		return nil, err
	}
	out, err := t.exchange(ctx, c, r)
	if err != nil {
		// What comes late must not be taken for the answer to something else.
		t.hangUp()
		return nil, fmt.Errorf("%s: %w", r.path, err)
	}
	return out, nil
}

// channel returns the main connection.
func (t *tester) channel(ctx context.Context) (*channel, error) {
	if t.offline != nil {
		return nil, errOffline
	}
	if t.main == nil {
		c, _, err := t.connect(ctx, proper)
		if err != nil {
			return nil, fmt.Errorf("no connection: %w", err)
		}
		t.main = c
	}
	return t.main, nil
}

// want asks and compares code and format of the response.
func (t *tester) want(ctx context.Context, r request, code codes.Code, format int) (*response, verdict) {
	out, err := t.ask(ctx, r)
	if err != nil {
		return nil, judge(err)
	}
	if out.code != code || out.format != format {
		wanted := &response{code: code, format: format}
		return out, failed("it answered %s instead of %s%s", out, wanted, explain(out))
	}
	return out, verdict{outcome: Pass}
}

// all merges verdicts: the first failure, else the first warning.
func all(verdicts ...verdict) verdict {
	for _, o := range []Outcome{Fail, Warn, Skip} {
		for _, v := range verdicts {
			if v.outcome == o {
				return v
			}
		}
	}
	return verdicts[0]
}
