package coaplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"

	"github.com/edgeclm/edgeclm/internal/coaplink/lossy"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// testDevice is a device with fake services and everything to reach it.
type testDevice struct {
	pkg      pkg
	key      *ibc.PrivateKey
	services *fakeServices
	addr     string
	log      *logBuffer
	stop     func()
}

func newTestDevice(t testing.TB) *testDevice {
	t.Helper()
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	d := &testDevice{
		pkg: p, key: key, log: &logBuffer{},
		services: &fakeServices{
			csr:      randomBytes(t, 700),
			response: enrol.VerifyResponse{Possession: randomBytes(t, 72), Statement: randomBytes(t, ibc.SignatureSize)},
			status:   sampleStatus(key.Identity()),
		},
	}
	s := newServer(key, newPeers("clm-1"), d.services)
	s.Log = d.log.logger()
	d.addr, d.stop = serve(t, s)
	return d
}

func (d *testDevice) raw(t testing.TB) *rawPeer {
	t.Helper()
	return accepted(t, d.pkg.key(t, ibc.RoleCLM, "clm-1", 1), d.addr)
}

func (d *testDevice) dial(t testing.TB) enrol.Device {
	t.Helper()
	return dial(t, d.pkg.dialer(t, "clm-1", 1), deviceAt(d.key, d.addr))
}

// TestLateDuplicate: the repetition of a request whose response was lost is
// answered from memory; the service does not run again (RFC 7252 section 4.5).
func TestLateDuplicate(t *testing.T) {
	d := newTestDevice(t)
	peer := d.raw(t)
	payload, err := encodeReference(enrol.ID{1}, [32]byte{2}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	request := peer.encodeMessage(message.Confirmable, codes.POST, pathActivate, withCBOR(payload))
	for i := range 3 {
		// One that overtakes the end of the first is dropped, as if it were lost.
		var m *pool.Message
		eventually(t, "an answer", func() bool {
			peer.send(request)
			m = peer.receive(time.Second)
			return m != nil
		})
		if m.Code() != codes.Changed || m.MessageID() != peer.mid {
			t.Fatalf("answer %d: %v", i, m)
		}
	}
	if n := d.services.count("activate"); n != 1 {
		t.Errorf("activated %d times", n)
	}
}

// TestDuplicateMeanwhile: repetitions while the device still works at the
// request neither run it again nor keep the session from answering a ping.
func TestDuplicateMeanwhile(t *testing.T) {
	d := newTestDevice(t)
	release, started := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.services.setHook(func(string) {
		once.Do(func() { close(started) })
		<-release
	})
	peer := d.raw(t)
	payload, err := encodeReference(enrol.ID{1}, [32]byte{2}, 0)
	if err != nil {
		t.Fatal(err)
	}
	request := peer.encodeMessage(message.Confirmable, codes.POST, pathActivate, withCBOR(payload))
	peer.send(request)
	<-started
	for range 5 {
		peer.send(request)
	}
	mid := peer.mid
	peer.send(peer.encodeMessage(message.Confirmable, codes.Empty, "", func(m *pool.Message) { m.SetToken(nil) }))
	if m := peer.receive(5 * time.Second); m == nil || m.Type() != message.Reset || m.MessageID() != peer.mid {
		t.Errorf("the ping was answered with %v", m)
	}
	close(release)
	if m := peer.receive(5 * time.Second); m == nil || m.Code() != codes.Changed || m.MessageID() != mid {
		t.Errorf("the request was answered with %v", m)
	}
	if n := d.services.count("activate"); n != 1 {
		t.Errorf("activated %d times", n)
	}
}

// TestServiceOutlivesPeer: what the device does for a CLM is not broken off
// because the connection is.
func TestServiceOutlivesPeer(t *testing.T) {
	d := newTestDevice(t)
	release, started := make(chan struct{}), make(chan struct{})
	link := d.dial(t)
	d.services.setHook(func(string) {
		close(started)
		<-release
	})
	go func() { _, _ = link.Status(context.Background()) }()
	<-started
	if err := link.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the device knows that the peer has gone", func() bool {
		return strings.Contains(d.log.String(), "session ended")
	})
	if d.services.ended() {
		t.Error("the service's context ended with the peer")
	}
	close(release)
	d.stop()
}

// TestRefusedRequests: every request that breaks the rules gets its code, and
// the session goes on.
func TestRefusedRequests(t *testing.T) {
	d := newTestDevice(t)
	peer := d.raw(t)
	reference, err := encodeReference(enrol.ID{1}, [32]byte{2}, 0)
	if err != nil {
		t.Fatal(err)
	}
	block1 := func(num uint32, more bool, szx uint8, n int) func(*pool.Message) {
		return func(m *pool.Message) {
			withCBOR(bytes.Repeat([]byte{0xa0}, n))(m)
			m.SetOptionUint32(message.Block1, block{num, more, szx}.value())
		}
	}
	for _, c := range []struct {
		name   string
		code   codes.Code
		path   string
		change func(*pool.Message)
		want   codes.Code
		title  string
	}{
		{name: "unknown resource", code: codes.GET, path: "/secrets", want: codes.NotFound},
		{name: "no path", code: codes.GET, want: codes.NotFound},
		{name: "a deeper path", code: codes.GET, path: "/status/x", want: codes.NotFound},
		{name: "GET of a service", code: codes.GET, path: pathCSR, want: codes.MethodNotAllowed},
		{name: "DELETE of the status", code: codes.DELETE, path: pathStatus, want: codes.MethodNotAllowed},
		{name: "no content format", code: codes.POST, path: pathActivate, change: func(m *pool.Message) { m.SetBody(bytes.NewReader(reference)) }, want: codes.UnsupportedMediaType},
		{name: "wrong content format", code: codes.POST, path: pathActivate, change: func(m *pool.Message) {
			withCBOR(reference)(m)
			m.SetContentFormat(message.AppJSON)
		}, want: codes.UnsupportedMediaType},
		{name: "another format wanted", code: codes.GET, path: pathStatus, change: func(m *pool.Message) { m.SetAccept(message.AppJSON) }, want: codes.NotAcceptable},
		{name: "a query", code: codes.GET, path: pathStatus, change: func(m *pool.Message) { m.AddQuery("all") }, want: codes.BadOption},
		{name: "If-Match", code: codes.GET, path: pathStatus, change: func(m *pool.Message) { m.AddOptionBytes(message.IfMatch, []byte{1}) }, want: codes.BadOption},
		{name: "a proxy", code: codes.GET, path: pathStatus, change: func(m *pool.Message) { m.AddOptionString(message.ProxyURI, "coap://x") }, want: codes.BadOption},
		{name: "an unknown critical option", code: codes.GET, path: pathStatus, change: func(m *pool.Message) { m.AddOptionBytes(65001, []byte{1}) }, want: codes.BadOption},
		{name: "no CBOR", code: codes.POST, path: pathActivate, change: withCBOR([]byte("hello")), want: codes.BadRequest, title: "bad-request"},
		{name: "empty", code: codes.POST, path: pathActivate, change: withCBOR([]byte{}), want: codes.BadRequest, title: "bad-request"},
		{name: "version 2", code: codes.POST, path: pathActivate, change: withCBOR([]byte{0xa1, 0x00, 0x02}), want: codes.BadRequest, title: "bad-request"},
		{name: "something behind the CBOR", code: codes.POST, path: pathActivate, change: withCBOR(append(bytes.Clone(reference), 0)), want: codes.BadRequest, title: "bad-request"},
		{name: "reserved block size", code: codes.POST, path: pathActivate, change: func(m *pool.Message) {
			withCBOR(reference)(m)
			m.SetOptionUint32(message.Block1, 7)
		}, want: codes.BadRequest, title: "bad-request"},
		{name: "a later block without the first", code: codes.POST, path: pathActivate, change: block1(1, true, 6, 1024), want: codes.RequestEntityIncomplete},
		{name: "a block of another size", code: codes.POST, path: pathActivate, change: block1(0, true, 6, 1000), want: codes.BadRequest, title: "bad-request"},
		{name: "a last block that is too long", code: codes.POST, path: pathActivate, change: block1(0, false, 2, 65), want: codes.BadRequest, title: "bad-request"},
		{name: "a block beyond the largest body", code: codes.POST, path: pathActivate, change: block1(72, true, 6, 1024), want: codes.RequestEntityTooLarge},
		{name: "a late block of a response", code: codes.GET, path: pathStatus, change: func(m *pool.Message) {
			m.SetOptionUint32(message.Block2, block{num: 3, szx: 6}.value())
		}, want: codes.RequestEntityIncomplete},
		{name: "Observe is not offered", code: codes.GET, path: pathStatus, change: func(m *pool.Message) { m.SetObserve(0) }, want: codes.Content},
		{name: "the resources", code: codes.GET, path: pathCore, want: codes.Content},
	} {
		m := peer.ask(c.code, c.path, c.change)
		if m.Code() != c.want {
			t.Errorf("%s: %v, want %v", c.name, m.Code(), c.want)
		}
		format, err := m.ContentFormat()
		if hasTitle := err == nil && format == formatProblem; hasTitle != (c.title != "") {
			t.Errorf("%s: content format %v", c.name, format)
		}
		if c.title != "" {
			var p problemDetails
			if err := decode(mustBody(t, m), &p); err != nil || p.Title != c.title || p.Detail == "" {
				t.Errorf("%s: %+v, %v", c.name, p, err)
			}
		}
	}
	d.stop()
	if len(d.services.calls) != 1 {
		t.Errorf("the services were called: %v", d.services.calls)
	}
}

// TestLaterBlocksBelongToTheirRequest: the later blocks of a response are given
// out for the request that they answer, and only until the next one.
func TestLaterBlocksBelongToTheirRequest(t *testing.T) {
	d := newTestDevice(t)
	peer := d.raw(t)
	get := func(path string, tag byte, num uint32) *pool.Message {
		return peer.ask(codes.GET, path, func(m *pool.Message) {
			m.AddOptionBytes(optionRequestTag, []byte{tag})
			m.SetOptionUint32(message.Block2, block{num: num, szx: 2}.value())
		})
	}
	first := get(pathStatus, 1, 0)
	if n := len(mustBody(t, first)); first.Code() != codes.Content || n != 64 {
		t.Fatalf("first block: %v, %d bytes", first.Code(), n)
	}
	for _, c := range []struct {
		name string
		path string
		tag  byte
		num  uint32
		want codes.Code
	}{
		{"the next block", pathStatus, 1, 1, codes.Content},
		{"another resource", pathCore, 1, 1, codes.RequestEntityIncomplete},
		{"another request", pathStatus, 2, 1, codes.RequestEntityIncomplete},
		{"beyond the end", pathStatus, 1, 1000, codes.RequestEntityIncomplete},
		{"the next block again", pathStatus, 1, 1, codes.Content},
		{"a new request", pathCore, 3, 0, codes.Content},
		{"the former request", pathStatus, 1, 1, codes.RequestEntityIncomplete},
	} {
		if m := get(c.path, c.tag, c.num); m.Code() != c.want {
			t.Errorf("%s: %v, want %v", c.name, m.Code(), c.want)
		}
	}
	if n := d.services.count("status"); n != 1 {
		t.Errorf("the status was made %d times", n)
	}
}

// TestFewRepliesAreKept, the latest ones.
func TestFewRepliesAreKept(t *testing.T) {
	r := newReplies()
	m := pool.NewMessage(context.Background())
	m.SetType(message.Acknowledgement)
	m.SetCode(codes.Changed)
	for i := range 3 * keptReplies {
		m.SetMessageID(int32(i))
		for range 2 {
			if err := r.Store(strconv.Itoa(i), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(r.byMID) != keptReplies || len(r.order) != keptReplies {
		t.Errorf("%d replies are kept", len(r.byMID))
	}
	for i, want := range map[int]bool{0: false, 2*keptReplies - 1: false, 2 * keptReplies: true, 3*keptReplies - 1: true} {
		got := pool.NewMessage(context.Background())
		if ok, err := r.Load(strconv.Itoa(i), got); ok != want || err != nil || ok && got.MessageID() != int32(i) {
			t.Errorf("reply %d: %v, %v", i, ok, err)
		}
	}
}

// TestNotConfirmable: requests that are not confirmable are ignored.
func TestNotConfirmable(t *testing.T) {
	d := newTestDevice(t)
	peer := d.raw(t)
	peer.send(peer.encodeMessage(message.NonConfirmable, codes.GET, pathStatus, nil))
	peer.send(peer.encodeMessage(message.Acknowledgement, codes.GET, pathStatus, nil))
	if m := peer.receive(100 * time.Millisecond); m != nil {
		t.Errorf("answered with %v", m)
	}
	peer.ask(codes.GET, pathStatus, nil)
	if n := d.services.count("status"); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

// TestMalformedDatagrams: nothing that an accepted peer sends ends its session
// or the server, short of hanging up.
func TestMalformedDatagrams(t *testing.T) {
	d := newTestDevice(t)
	peer := d.raw(t)
	valid := peer.encodeMessage(message.Confirmable, codes.POST, pathActivate, withCBOR([]byte{0xa0}))
	bad := [][]byte{
		{0}, {0x40}, {0x40, 1}, {0x40, 1, 0}, {0x80, 1, 0, 1}, {0xc0, 1, 0, 1},
		{0x49, 1, 0, 1}, {0x4f, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		{0x48, 1, 0, 1, 1}, {0x40, 1, 0, 2, 0xff}, {0x40, 1, 0, 3, 0xf1, 1}, {0x40, 1, 0, 4, 0x1f},
		{0x40, 1, 0, 5, 0xdd}, {0x40, 1, 0, 6, 0xee, 0xff, 0xff, 0xff, 0xff}, {0x40, 0, 0, 7, 1, 2, 3},
		bytes.Repeat([]byte{0xff}, 1500), bytes.Repeat([]byte{0x11}, 1900),
	}
	dice := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		b := bytes.Clone(valid)
		for range 1 + dice.IntN(4) {
			b[dice.IntN(len(b))] = byte(dice.Uint32())
		}
		bad = append(bad, b[:1+dice.IntN(len(b))])
	}
	for _, b := range bad {
		peer.send(b)
	}
	for peer.receive(200*time.Millisecond) != nil { // whatever the device made of it
		continue
	}
	peer.mid = 30000
	if m := peer.ask(codes.GET, pathStatus, nil); m.Code() != codes.Content {
		t.Errorf("afterwards: %v", m)
	}
}

// TestProblemsReachTheCLM: each problem arrives as it was told, an internal
// error without its details, and no control characters of a device get through.
func TestProblemsReachTheCLM(t *testing.T) {
	d := newTestDevice(t)
	link := d.dial(t)
	for problem := range problemCodes() {
		d.services.fail(&enrol.DeviceError{Problem: problem, Detail: "because of " + string(problem)})
		err := link.Activate(context.Background(), enrol.ID{}, [32]byte{}, 0)
		var got *enrol.DeviceError
		if !errors.As(err, &got) || got.Problem != problem || got.Detail != "because of "+string(problem) {
			t.Errorf("%s arrived as %v", problem, err)
		}
	}
	for name, c := range map[string]struct {
		err    error
		want   enrol.Problem
		detail string
	}{
		"wrapped":         {fmt.Errorf("activate: %w", &enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "x"}), enrol.ProblemConflict, "x"},
		"internal":        {errors.New("open /root/secret: no such file"), enrol.ProblemInternal, "internal error, see the device's log"},
		"disk full":       {fmt.Errorf("store: %w", &fs.PathError{Op: "write", Path: "/root/secret", Err: syscall.ENOSPC}), enrol.ProblemFull, "no space left on the device"},
		"unknown problem": {&enrol.DeviceError{Problem: "novel", Detail: "x"}, enrol.ProblemInternal, "internal error, see the device's log"},
		"too long":        {&enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: strings.Repeat("é", 200)}, enrol.ProblemConflict, strings.Repeat("é", 128)},
		"for a terminal":  {&enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "a\x1b[31m\nb\u009b"}, enrol.ProblemConflict, "a[31mb"},
		"no detail":       {&enrol.DeviceError{Problem: enrol.ProblemUnknown}, enrol.ProblemUnknown, "response code 4.04"},
	} {
		d.services.fail(c.err)
		_, err := link.Status(context.Background())
		var got *enrol.DeviceError
		if !errors.As(err, &got) || got.Problem != c.want || got.Detail != c.detail {
			t.Errorf("%s: arrived as %v", name, err)
		}
	}
}

// TestProblemOfBareCodes: a device that gives no details.
func TestProblemOfBareCodes(t *testing.T) {
	for code, want := range map[codes.Code]enrol.Problem{
		codes.NotFound:              enrol.ProblemBadRequest, // no such resource; an unknown enrolment says so
		codes.MethodNotAllowed:      enrol.ProblemBadRequest,
		codes.RequestEntityTooLarge: enrol.ProblemBadRequest,
		codes.Unauthorized:          enrol.ProblemForbidden,
		codeConflict:                enrol.ProblemConflict,
		codeUnprocessableEntity:     enrol.ProblemUnverified,
		codes.TooManyRequests:       enrol.ProblemUnavailable,
		codes.ServiceUnavailable:    enrol.ProblemUnavailable,
		codes.NotImplemented:        enrol.ProblemInternal,
	} {
		if got := decodeProblem(&reply{code: code, format: noFormat}); got.Problem != want {
			t.Errorf("%v: %v", code, got.Problem)
		}
	}
	payload, err := encodeProblem(&enrol.DeviceError{Problem: enrol.ProblemUnknown, Detail: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if got := decodeProblem(&reply{code: codeConflict, format: formatProblem, payload: payload}); got.Problem != enrol.ProblemConflict {
		t.Errorf("code and title disagree: %v", got)
	}
}

// TestNothingSecretIsLogged, at any level, whether the device agrees or not.
func TestNothingSecretIsLogged(t *testing.T) {
	d := newTestDevice(t)
	link := d.dial(t)
	req := sampleCSRRequest()
	req.Challenge = []byte("tell-nobody")
	if _, err := link.RequestCSR(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	d.services.fail(&enrol.DeviceError{Problem: enrol.ProblemForbidden, Detail: "no"})
	_, err := link.RequestCSR(context.Background(), req)
	if err == nil || strings.Contains(err.Error(), "tell-nobody") {
		t.Errorf("err = %v", err)
	}
	d.stop()
	if log := d.log.String(); strings.Contains(log, "tell-nobody") || !strings.Contains(log, "request refused") {
		t.Errorf("log:\n%s", log)
	}
}

// TestNewPortMidway: a network address translator forgets the CLM and gives it
// another port; the connection ID keeps the session (RFC 9146).
func TestNewPortMidway(t *testing.T) {
	d := newTestDevice(t)
	proxy := lossy.New(t, d.addr, lossy.Faults{})
	link := dial(t, d.pkg.dialer(t, "clm-1", 1), deviceAt(d.key, proxy.Addr()))
	for range 3 {
		if _, err := link.Status(context.Background()); err != nil {
			t.Fatal(err)
		}
		proxy.Rebind()
	}
	d.stop()
	if n := strings.Count(d.log.String(), "session opened"); n != 1 {
		t.Errorf("%d sessions", n)
	}
}
