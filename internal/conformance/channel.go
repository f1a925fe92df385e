package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"
	"github.com/pion/dtls/v3/pkg/protocol/extension"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/logging"
	"github.com/plgd-dev/go-coap/v3/message"
)

const (
	contextSize = 28   // bytes of the client random that a device binds to
	maxRecord   = 2048 // bytes of a record on the wire
	readBuffer  = 8192
	// handshakeTime bounds one handshake: a device may also refuse by silence.
	handshakeTime = 10 * time.Second
	flightTime    = 400 * time.Millisecond
)

// style is how a handshake is begun.
type style struct {
	suites      []dtls.CipherSuiteID
	ems         dtls.ExtendedMasterSecretType
	certificate *tls.Certificate // nil: the target's
	none        bool             // no certificate at all
}

func ours() []dtls.CipherSuiteID {
	return []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
}

// proper is a handshake as a CLM makes it, but for what it would not accept.
func proper() style { return style{suites: ours(), ems: dtls.RequestExtendedMasterSecret} }

// flight is what was seen of a handshake.
type flight struct {
	mu           sync.Mutex
	datagrams    int
	longest      int  // record on the wire, in bytes
	cookie       bool // HelloVerifyRequest came before everything else
	suite        dtls.CipherSuiteID
	hello        bool // a ServerHello was understood
	ems          bool
	cid          int // bytes of the connection ID that the device gave out
	certificates [][]byte
	clientRandom [contextSize]byte
}

// Content types and messages of RFC 6347 that are looked at.
const (
	contentHandshake   = 22
	recordHeader       = 13
	handshakeHeader    = 12
	typeServerHello    = 2
	typeVerifyRequest  = 3
	offsetRecordLength = 11
)

// watch looks at a datagram of the device, as long as it is in the clear.
func (f *flight) watch(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.datagrams++
	for len(b) >= recordHeader {
		length := int(b[offsetRecordLength])<<8 | int(b[offsetRecordLength+1])
		if len(b) < recordHeader+length {
			return
		}
		record := b[recordHeader : recordHeader+length]
		f.longest = max(f.longest, recordHeader+length)
		clear := b[3] == 0 && b[4] == 0 // epoch 0
		if b[0] == contentHandshake && clear && length > handshakeHeader {
			f.message(record)
		}
		b = b[recordHeader+length:]
	}
}

func (f *flight) message(m []byte) {
	switch m[0] {
	case typeVerifyRequest:
		f.cookie = f.cookie || !f.hello
	case typeServerHello:
		var h handshake.MessageServerHello
		if h.Unmarshal(m[handshakeHeader:]) != nil {
			return
		}
		f.hello = true
		if h.CipherSuiteID != nil {
			f.suite = dtls.CipherSuiteID(*h.CipherSuiteID)
		}
		for _, e := range h.Extensions {
			switch e := e.(type) {
			case *extension.UseExtendedMasterSecret:
				f.ems = e.Supported
			case *extension.ConnectionID:
				f.cid = len(e.CID)
			}
		}
	}
}

// watched is a socket whose incoming datagrams are watched.
type watched struct {
	net.PacketConn
	seen *flight
}

func (w watched) ReadFrom(p []byte) (int, net.Addr, error) {
	n, addr, err := w.PacketConn.ReadFrom(p)
	if err == nil {
		w.seen.watch(p[:n])
	}
	return n, addr, err
}

// channel is a DTLS connection, and what is known of the CoAP messages on it.
type channel struct {
	conn *dtls.Conn
	mid  uint16
	// strays are messages that came while another was waited for.
	strays []*message.Message
}

// connect makes a handshake. What was seen of it is returned in any case.
func (t *tester) connect(ctx context.Context, how func() style) (*channel, *flight, error) {
	seen, s := &flight{}, how()
	random, err := t.draw(contextSize + 2)
	if err != nil {
		return nil, seen, err
	}
	seen.clientRandom = [contextSize]byte(random)
	socket, err := (&net.Dialer{}).DialContext(ctx, "udp", t.Address)
	if err != nil {
		return nil, seen, err
	}
	conn, err := dtls.ClientWithOptions(watched{dtlsnet.PacketConnFromConn(socket), seen}, socket.RemoteAddr(), t.options(s, seen)...)
	if err != nil {
		_ = socket.Close()
		return nil, seen, fmt.Errorf("set up a handshake: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, seen, err
	}
	return &channel{conn: conn, mid: uint16(random[contextSize])<<8 | uint16(random[contextSize+1])}, seen, nil
}

func (t *tester) options(s style, seen *flight) []dtls.ClientOption {
	certificate := t.Certificate
	if s.certificate != nil {
		certificate = *s.certificate
	}
	if s.none {
		certificate = tls.Certificate{}
	}
	return []dtls.ClientOption{
		dtls.WithCipherSuites(s.suites...),
		dtls.WithSignatureSchemes(tls.ECDSAWithP256AndSHA256),
		dtls.WithExtendedMasterSecret(s.ems),
		dtls.WithFlightInterval(flightTime),
		dtls.WithDisableRetransmitBackoff(true),
		dtls.WithInsecureSkipVerify(true), // the rules judge the certificate
		dtls.WithLoggerFactory(&logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}),
		dtls.WithGetClientCertificate(func(*dtls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }),
		dtls.WithHelloRandomBytesGenerator(func() [handshake.RandomBytesLength]byte { return seen.clientRandom }),
		dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()),
		dtls.WithVerifyPeerCertificate(func(certificates [][]byte, _ [][]*x509.Certificate) error {
			seen.certificates = certificates
			return nil
		}),
	}
}

func (c *channel) close() { _ = c.conn.Close() }

// alertOf returns the name of the alert with which a handshake ended, "" if
// none came. The library keeps its type of alerts to itself.
func alertOf(err error) string {
	var a interface {
		error
		IsFatalOrCloseNotify() bool
		String() string
	}
	if !errors.As(err, &a) {
		return ""
	}
	words := strings.Fields(a.String())
	return words[len(words)-1]
}
