package coaplink

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/protocol/alert"
	coapnet "github.com/plgd-dev/go-coap/v3/net"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// handshakeKey is a device's P-256 key, in memory only. The binding around it
// is fresh in every handshake.
type handshakeKey struct {
	key *ecdsa.PrivateKey
}

func newServing(ctx context.Context, s *Server) (*serving, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make handshake key: %w", err)
	}
	limits := s.Limits.withDefaults()
	return &serving{
		Server: s, ctx: ctx, limits: limits, key: handshakeKey{key},
		gate:     newGate(limits, s.Trusted, s.Now),
		begun:    s.Now(),
		opened:   make(chan struct{}, 1),
		sessions: map[*session]struct{}{},
	}, nil
}

// open is called for the first ClientHello of an unknown peer.
func (v *serving) open(f *flow, p *pass) {
	v.wg.Go(func() {
		ctx, cancel := context.WithCancel(v.ctx)
		defer cancel()
		defer func() { _ = f.Close() }()
		v.greet(ctx, cancel, f, p)
	})
}

// greet does the handshake and then serves the session.
func (v *serving) greet(ctx context.Context, cancel func(), f *flow, p *pass) {
	h := &clmHandshake{serving: v, ctx: ctx, flow: f, pass: p}
	h.present()
	h.timer = time.AfterFunc(v.limits.FirstFlight, cancel)
	conn, err := dtls.ServerWithOptions(f, f.addr, h.options()...)
	if err != nil {
		h.timer.Stop()
		p.release()
		v.Log.Error("cannot set up a handshake", "err", err)
		return
	}
	err = conn.HandshakeContext(ctx)
	h.timer.Stop()
	p.release()
	if err != nil {
		_ = conn.Close()
		h.report(err)
		return
	}
	s := newSession(v, h, coapnet.NewConn(conn))
	admit := v.admit
	if h.stranger {
		admit = v.admitStranger
	}
	if err := admit(s); err != nil {
		s.close()
		s.serve() // returns at once and ends the library's goroutines
		h.refusal = err
		h.report(err)
		return
	}
	v.Log.Info("session opened", "peer", s.name(), "source", f.key)
	s.serve()
	v.dismiss(s)
	v.Log.Info("session closed", "peer", s.name(), "source", f.key)
}

// clmHandshake is one handshake with a CLM.
type clmHandshake struct {
	*serving
	ctx   context.Context // the library's callbacks have none
	flow  *flow
	pass  *pass
	timer *time.Timer

	root     uint32          // of trust, when own was read
	own      *ibc.PrivateKey // that this handshake proves
	params   []*ibc.Params
	stranger bool   // the peer is bound to no identity
	claimed  string // the identity that the peer's certificate names
	verified [32]byte
	peer     ibc.Identity
	refusal  error
}

// present reads who the device is. Should that change in between, root is the
// earlier one, and the session void from its beginning.
func (h *clmHandshake) present() {
	h.root = h.Self.Root()
	h.own, h.params = h.Self.Present()
}

func (h *clmHandshake) options() []dtls.ServerOption {
	opts := []dtls.ServerOption{
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		// Without certificates of its own the library asks for one each time.
		dtls.WithGetCertificate(h.certificate),
		dtls.WithVerifyPeerCertificate(h.verifyPeer),
		dtls.WithVerifyConnection(h.verifyConnection),
		dtls.WithConnectionIDGenerator(h.connectionID),
	}
	for _, o := range dtlsProfile() {
		opts = append(opts, o)
	}
	return opts
}

// certificate is called when the client has returned its cookie.
func (h *clmHandshake) certificate(hello *dtls.ClientHelloInfo) (*tls.Certificate, error) {
	h.flow.proved.Store(true)
	h.timer.Reset(2 * h.limits.Handshake)
	if err := h.pass.proved(h.ctx); err != nil {
		h.refusal = err
		return nil, err
	}
	h.timer.Reset(h.limits.Handshake)
	h.present()
	der, err := bind(h.own, h.Random, h.key.key, hello.RandomBytes[:])
	if err != nil {
		h.refusal = err
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: h.key.key}, nil
}

// verifyPeer is called when the client has proved its handshake key.
func (h *clmHandshake) verifyPeer(certificates [][]byte, _ [][]*x509.Certificate) error {
	p, params, err := acceptCLM(certificates, h.params, h.Peers)
	if errors.Is(err, errStranger) {
		h.stranger, h.verified = true, p.sum
		return nil
	}
	if p != nil {
		h.claimed = p.binding.Identity.String()
	}
	if err == nil && params != nil {
		err = h.verifyBinding(p, params)
	}
	if err != nil {
		h.refusal = err
		return err
	}
	h.verified, h.peer = p.sum, p.binding.Identity
	return nil
}

func (h *clmHandshake) verifyBinding(p *presented, params *ibc.Params) error {
	if err := h.pass.pairing(h.ctx); err != nil {
		return err
	}
	if err := p.verify(params); err != nil {
		return err
	}
	if err := h.Peers.Remember(p.sum, p.binding.Identity); err != nil {
		// The next handshake costs a pairing again; that is all.
		h.Log.Warn("cannot remember a peer's binding", "peer", p.binding.Identity, "err", err)
	}
	return nil
}

// verifyConnection runs even where the library skips verifyPeer.
func (h *clmHandshake) verifyConnection(s *dtls.State) error {
	if err := sameCertificate(s, h.verified); err != nil {
		h.refusal = err
		return err
	}
	return nil
}

func (h *clmHandshake) connectionID() []byte {
	cid := make([]byte, cidSize)
	if _, err := io.ReadFull(h.Random, cid); err != nil {
		return nil
	}
	h.mux.addCID(cid, h.flow)
	return cid
}

// report logs why there is no session. Strangers that did not get as far as a
// certificate are not worth a line at the usual level.
func (h *clmHandshake) report(err error) {
	switch {
	case h.refusal != nil && errors.Is(h.refusal, ErrBinding):
		h.Log.Warn("refused a peer", "source", h.flow.key, "claims", h.claimed, "device", h.own.Identity(), "err", h.refusal)
	case h.refusal != nil:
		h.Log.Info("handshake refused", "source", h.flow.key, "err", h.refusal)
	case isAlert(err, alert.BadCertificate):
		h.Log.Warn("a peer does not accept this device", "source", h.flow.key, "device", h.own.Identity())
	default:
		h.Log.Debug("handshake failed", "source", h.flow.key, "err", err)
	}
}
