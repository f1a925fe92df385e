package coaplink

import (
	"bytes"
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// rawPeer is an accepted CLM that sends whatever bytes it likes.
type rawPeer struct {
	t    testing.TB
	conn *dtls.Conn
	mid  int32
}

// accepted connects as a CLM that the device accepts.
func accepted(t testing.TB, clm *ibc.PrivateKey, addr string) *rawPeer {
	t.Helper()
	certificate := bound(t, clm, nil).tls()
	conn, err := connect(t, addr, dtls.WithGetClientCertificate(func(*dtls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &certificate, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return &rawPeer{t: t, conn: conn, mid: 100}
}

func (r *rawPeer) send(data []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(data); err != nil {
		r.t.Fatalf("send: %v", err)
	}
}

// receive returns the next message, nil if none comes in time.
func (r *rawPeer) receive(within time.Duration) *pool.Message {
	r.t.Helper()
	_ = r.conn.SetReadDeadline(time.Now().Add(within))
	b := make([]byte, maxDatagram)
	n, err := r.conn.Read(b)
	if err != nil {
		return nil
	}
	m := pool.NewMessage(context.Background())
	if _, err := m.UnmarshalWithDecoder(coder.DefaultCoder, b[:n]); err != nil {
		r.t.Fatalf("received %x: %v", b[:n], err)
	}
	return m
}

// encodeMessage makes a message with the peer's next message ID.
func (r *rawPeer) encodeMessage(typ message.Type, code codes.Code, path string, change func(*pool.Message)) []byte {
	r.t.Helper()
	r.mid++
	m := pool.NewMessage(context.Background())
	m.SetType(typ)
	m.SetCode(code)
	m.SetMessageID(r.mid)
	m.SetToken(message.Token{byte(r.mid)})
	if path != "" {
		m.MustSetPath(path)
	}
	if change != nil {
		change(m)
	}
	data, err := m.MarshalWithEncoder(coder.DefaultCoder)
	if err != nil {
		r.t.Fatal(err)
	}
	return bytes.Clone(data)
}

// ask sends a confirmable request and returns the piggybacked response.
func (r *rawPeer) ask(code codes.Code, path string, change func(*pool.Message)) *pool.Message {
	r.t.Helper()
	r.send(r.encodeMessage(message.Confirmable, code, path, change))
	m := r.receive(5 * time.Second)
	if m == nil {
		r.t.Fatalf("%v %s: no answer", code, path)
	}
	if m.Type() != message.Acknowledgement || m.MessageID() != r.mid || !bytes.Equal(m.Token(), []byte{byte(r.mid)}) {
		r.t.Fatalf("%v %s: answered with %v", code, path, m)
	}
	return m
}

func withCBOR(payload []byte) func(*pool.Message) {
	return func(m *pool.Message) {
		m.SetContentFormat(formatCBOR)
		m.SetBody(bytes.NewReader(payload))
	}
}

func mustBody(t testing.TB, m *pool.Message) []byte {
	t.Helper()
	b, err := m.ReadBody()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
