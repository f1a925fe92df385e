package coaplink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/net/responsewriter"
	"github.com/plgd-dev/go-coap/v3/udp/client"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// session is one authenticated peer of a device.
type session struct {
	server *serving
	root   uint32       // of trust, under which both sides proved themselves
	own    ibc.Identity // that the device proved
	peer   ibc.Identity
	source netip.AddrPort
	begun  time.Duration // uptime
	// stranger: the peer has proved nothing, and may do nothing but deliver a
	// lifeboat.
	stranger bool
	cc       *client.Conn
	close    func()       // the channel, without waiting for the end of a request
	seen     atomic.Int64 // uptime at the last message, in nanoseconds
	busy     atomic.Int32 // 1 while a request is being answered

	mu       sync.Mutex // one request at a time
	closed   bool
	upload   assembly
	download transfer
}

func newSession(v *serving, h *clmHandshake, conn *coapnet.Conn) *session {
	s := &session{server: v, root: h.root, own: h.own.Identity(), peer: h.peer, source: h.flow.key, stranger: h.stranger, begun: v.uptime()}
	s.touch()
	s.cc = newChannel(conn, s.monitor, func(c *client.Config) {
		c.Handler = s.handle
		c.Errors = func(err error) { v.Log.Debug("CoAP", "peer", s.name(), "err", err) }
	}, client.WithResponseMessageCache(newReplies()))
	s.close = sync.OnceFunc(s.closeChannel)
	return s
}

// serve answers requests until either side closes the channel, and returns
// when the last one has been answered and the goodbye is on its way: the
// channel reads as closed before the library has written its close_notify, and
// the caller may take the socket away.
func (s *session) serve() {
	defer s.close()
	if err := s.cc.Run(); err != nil && s.server.ctx.Err() == nil {
		s.server.Log.Debug("session ended", "peer", s.name(), "err", err)
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
}

func (s *session) closeChannel() {
	if err := s.cc.Close(); err != nil && !errors.Is(err, context.Canceled) {
		s.server.Log.Debug("close session", "peer", s.name(), "err", err)
	}
}

func (s *session) touch() { s.seen.Store(int64(s.server.uptime())) }

// expire closes the session if the peer has been silent for too long.
func (s *session) expire() {
	now := s.server.uptime()
	if s.stranger && now-s.begun > s.server.limits.StrangerEnd {
		s.close()
	}
	if idle := now - time.Duration(s.seen.Load()); s.busy.Load() == 0 && idle > s.server.limits.Idle {
		s.close()
	}
}

// monitor sees every message before it is processed.
func (s *session) monitor(*client.Conn, *pool.Message) (drop bool, err error) {
	s.touch()
	return false, nil
}

// handle answers one message of the peer. The library has sorted out
// duplicates (RFC 7252 section 4.5). Only confirmable requests are answered:
// their retransmission is what makes the protocol reliable.
func (s *session) handle(w *responsewriter.ResponseWriter[*client.Conn], m *pool.Message) {
	if m.Type() != message.Confirmable || m.Code() == codes.Empty || m.Code()>>5 != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.busy.Store(1)
	defer s.busy.Store(0)
	s.write(w, s.answer(m))
	s.touch()
}

// answer is what a request leads to.
type answer struct {
	code    codes.Code
	format  message.MediaType
	payload []byte
	block1  *block
	block2  *block
	etag    []byte
}

func (s *session) write(w *responsewriter.ResponseWriter[*client.Conn], a answer) {
	m := w.Message()
	m.SetCode(a.code)
	if a.etag != nil {
		m.AddOptionBytes(message.ETag, a.etag)
	}
	if a.payload != nil {
		m.SetContentFormat(a.format)
		m.SetBody(bytes.NewReader(a.payload))
	}
	if a.block2 != nil {
		m.SetOptionUint32(message.Block2, a.block2.value())
	}
	if a.block1 != nil {
		m.SetOptionUint32(message.Block1, a.block1.value())
	}
	m.SetModified(true)
}

// answer routes a request, puts its blocks together and cuts the response.
func (s *session) answer(m *pool.Message) answer {
	path, err := m.Path()
	if err != nil {
		path = ""
	}
	if a, ok := checkOptions(m); !ok {
		return a
	}
	res, ok := s.server.resource(path)
	if !ok {
		return answer{code: codes.NotFound}
	}
	if m.Code() != res.method {
		return answer{code: codes.MethodNotAllowed}
	}
	block1, err1 := readBlock(m, message.Block1)
	block2, err2 := readBlock(m, message.Block2)
	body, err3 := m.ReadBody()
	if err := errors.Join(err1, err2, err3); err != nil {
		return problem(badRequest(err.Error()))
	}
	if s.restricted() && !deliversLifeboat(res, block1, body) {
		return problem(s.strange())
	}
	key := transferKey(m, path)
	if block2 != nil && block2.num > 0 {
		return s.download.next(key, *block2)
	}
	s.download.clear()
	if block1 != nil {
		var a answer
		if body, a = s.upload.add(key, *block1, body); body == nil {
			return a
		}
	} else if len(body) > maxDatagram {
		return answer{code: codes.RequestEntityTooLarge}
	}
	a := s.run(m, res, body)
	a.block1 = block1
	szx := uint8(maxSZX)
	if block2 != nil {
		szx = block2.szx
	}
	return s.download.begin(key, a, szx)
}

// run checks the formats and calls the service.
func (s *session) run(m *pool.Message, res resource, body []byte) answer {
	in := content{noFormat, body}
	if len(res.takes) > 0 {
		format, err := m.ContentFormat()
		if err != nil || !slices.Contains(res.takes, format) {
			return answer{code: codes.UnsupportedMediaType}
		}
		in.format = format
	}
	if accept, err := m.Accept(); err == nil && res.format != noFormat && accept != res.format {
		return answer{code: codes.NotAcceptable}
	}
	err := s.current(res)
	var payload []byte
	if err == nil {
		payload, err = res.run(s.server.ctx, s, in)
	}
	if err == nil {
		err = s.current(res) // it may have changed meanwhile
	}
	if err != nil {
		e := refusal(err)
		s.server.Log.Warn("request refused", "peer", s.name(), "resource", res.path, "problem", e.Problem, "err", err)
		return problem(e)
	}
	code := codes.Changed
	if res.method == codes.GET {
		code = codes.Content
	}
	return answer{code: code, format: res.format, payload: payload}
}

// current refuses what was asked of an identity that the device no longer
// presents: the answer would be its successor's, and nobody has seen that one
// prove itself here. What delivers a bundle may see it through.
func (s *session) current(res resource) error {
	if s.restricted() {
		if res.path == pathBundle { // with a lifeboat, or an answer to one
			return nil
		}
		return s.strange()
	}
	now := s.server.identity()
	if now == s.own || res.path == pathBundle || res.path == pathStatus {
		return nil
	}
	return &enrol.DeviceError{
		Problem: enrol.ProblemReplaced,
		Detail:  fmt.Sprintf("this device is %s now, connect again", now),
	}
}

// checkOptions refuses critical options that the library knows but that mean
// nothing here (RFC 7252 section 5.4.1).
func checkOptions(m *pool.Message) (answer, bool) {
	for _, o := range m.Options() {
		switch o.ID {
		case message.URIHost, message.URIPort, message.URIPath, message.Accept, message.Block1, message.Block2:
		default:
			if o.ID%2 == 1 {
				return answer{code: codes.BadOption}, false
			}
		}
	}
	return answer{}, true
}

// transferKey tells block transfers of one peer apart (RFC 9175 section 3).
func transferKey(m *pool.Message, path string) [32]byte {
	tag, err := m.GetOptionBytes(optionRequestTag)
	if err != nil || len(tag) > maxRequestTag {
		tag = nil
	}
	return sha256.Sum256(append([]byte(path+"\x00"), tag...))
}
