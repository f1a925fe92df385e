package coaplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/udp/client"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// maxDatagram is the largest record that the DTLS library reads; a smaller
// buffer above it would end the session at the first longer datagram.
const maxDatagram = 8192

// Retransmission of a confirmable request (RFC 7252 section 4.2 lets an
// implementation choose): the first intervals suit a lossy link, the later
// ones a device that is busy making a key.
const (
	firstRetransmit  = 400 * time.Millisecond
	maxRetransmit    = 2 * time.Second
	retransmitGrowth = 1.25
)

// pingShare of the silence that ends a channel passes without a ping.
const pingShare = 8

// link is an authenticated channel to one device; it implements enrol.Device.
type link struct {
	cc       *client.Conn
	identity ibc.Identity
	address  string
	timeouts Timeouts
	heard    atomic.Pointer[time.Time] // the device's last message; nil: none
	// do is exchange.
	do func(context.Context, request) (*reply, error)
}

func newLink(conn net.Conn, id ibc.Identity, address string, timeouts Timeouts) *link {
	l := &link{identity: id, address: address, timeouts: timeouts}
	l.do = l.exchange
	l.cc = newChannel(coapnet.NewConn(conn), l.monitor, func(c *client.Config) { c.Errors = func(error) {} })
	go func() { _ = l.cc.Run() }() // Close waits for its end
	return l
}

// errSilent says that a device gave no sign of life.
var errSilent = errors.New("no sign of life")

// monitor sees every message before it is processed.
func (l *link) monitor(*client.Conn, *pool.Message) (drop bool, err error) {
	now := time.Now()
	l.heard.Store(&now)
	return false, nil
}

// silentSince is when the device was heard last, or since when it should have been.
func (l *link) silentSince(began time.Time) time.Time {
	if heard := l.heard.Load(); heard != nil && heard.After(began) {
		return *heard
	}
	return began
}

// Identity implements enrol.Device.
func (l *link) Identity() ibc.Identity { return l.identity }

// Close implements enrol.Device; it returns when the channel's goroutines have ended.
func (l *link) Close() error {
	err := l.cc.Close()
	<-l.cc.Done()
	if err != nil {
		return fmt.Errorf("close channel to %s: %w", l.identity, err)
	}
	return nil
}

// request is one CoAP request of one datagram.
type request struct {
	code    codes.Code
	path    string
	format  message.MediaType // of payload
	payload []byte
	accept  message.MediaType // 0: anything
	options []message.Option
}

// reply is one CoAP response.
type reply struct {
	code    codes.Code
	format  message.MediaType // noFormat if the response has none
	payload []byte
	block1  *block
	block2  *block
	etag    []byte
}

// exchange sends a confirmable request, and again until the response comes.
// The library's own retransmission doubles its intervals and so gives up or
// takes minutes at 30 % loss. The repetitions carry the same message ID, so the
// device runs the request once (RFC 7252 section 4.5).
func (l *link) exchange(ctx context.Context, r request) (*reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	token, err := message.GetToken()
	if err != nil {
		return nil, fmt.Errorf("draw token: %w", err)
	}
	mid := l.cc.GetMessageID()
	first, err := l.message(ctx, r, token, mid)
	if err != nil {
		return nil, err
	}
	defer l.cc.ReleaseMessage(first)
	again, err := l.message(ctx, r, token, mid)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(l.repeat(ctx, again))
	}()
	response, err := l.cc.Do(first)
	cancel(nil)
	<-done
	l.cc.ReleaseMessage(again)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
			err = cause
		}
		return nil, fmt.Errorf("%w: %s at %s: %w", enrol.ErrUnreachable, l.identity, l.address, err)
	}
	defer l.cc.ReleaseMessage(response)
	return readReply(response)
}

// repeat sends the message at growing intervals until the context ends. A
// device that is busy with the request drops the repetitions, so once it has
// been silent for a while it is pinged too (RFC 7252 section 4.3); if that
// finds nobody either the device has restarted and forgotten the channel, or is
// gone, and repeat returns errSilent.
func (l *link) repeat(ctx context.Context, m *pool.Message) error {
	began := time.Now()
	interval := firstRetransmit
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.cc.Context().Done():
			return nil
		case <-timer.C:
		}
		silent := time.Since(l.silentSince(began))
		if silent > l.timeouts.Silence {
			return fmt.Errorf("%w for %s", errSilent, silent.Round(time.Second))
		}
		// A failed write is a lost datagram; a closed channel ends the exchange.
		_ = l.cc.Session().WriteMessage(m)
		if silent > l.timeouts.Silence/pingShare {
			l.ping(ctx)
		}
		interval = min(time.Duration(float64(interval)*retransmitGrowth), maxRetransmit)
		timer.Reset(interval)
	}
}

// ping provokes a Reset message; like a repetition it may be lost.
func (l *link) ping(ctx context.Context) {
	m := l.cc.AcquireMessage(ctx)
	defer l.cc.ReleaseMessage(m)
	m.SetType(message.Confirmable)
	m.SetCode(codes.Empty)
	m.SetMessageID(l.cc.GetMessageID())
	_ = l.cc.Session().WriteMessage(m)
}

func (l *link) message(ctx context.Context, r request, token message.Token, mid int32) (*pool.Message, error) {
	m := l.cc.AcquireMessage(ctx)
	m.SetType(message.Confirmable)
	m.SetCode(r.code)
	m.SetToken(token)
	m.SetMessageID(mid)
	if err := m.SetPath(r.path); err != nil {
		l.cc.ReleaseMessage(m)
		return nil, fmt.Errorf("set path: %w", err)
	}
	if r.accept != 0 {
		m.SetAccept(r.accept)
	}
	if r.payload != nil {
		m.SetContentFormat(r.format)
		m.SetBody(bytes.NewReader(r.payload))
	}
	for _, o := range r.options {
		m.AddOptionBytes(o.ID, o.Value)
	}
	return m, nil
}

func readReply(m *pool.Message) (*reply, error) {
	out := &reply{code: m.Code(), format: noFormat}
	var err error
	if out.payload, err = m.ReadBody(); err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	if f, err := m.ContentFormat(); err == nil {
		out.format = f
	}
	if out.block1, err = readBlock(m, message.Block1); err != nil {
		return nil, err
	}
	if out.block2, err = readBlock(m, message.Block2); err != nil {
		return nil, err
	}
	if tag, err := m.ETag(); err == nil {
		out.etag = bytes.Clone(tag)
	}
	return out, nil
}
