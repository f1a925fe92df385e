package scep

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/smallstep/scep"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// Config is what a Client needs. URL, Anchor, Certificates and Capabilities
// are what Fetch and SelectAnchor found and the CLM has kept since.
type Config struct {
	URL          string
	Anchor       []byte   // trust anchor, DER
	Certificates [][]byte // the pinned CA and RA certificates, DER; see Authority.Certificates
	Capabilities Capabilities
	RA           RA
	// Challenge returns the challengePassword for a device's CSR; nil if the CA
	// wants none.
	Challenge func(ctx context.Context, device string) ([]byte, error)
	HTTP      HTTPOptions
	Random    io.Reader        // nil: crypto/rand
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger     // nil: none
}

// Client enrols at one CA. It implements enrol.CA and may be used by many
// goroutines at once. One enrolment costs two RSA private operations.
type Client struct {
	endpoint  *endpoint
	authority Authority
	post      bool
	signer    pkimessage.Signer // signs requests
	decrypter crypto.Decrypter  // opens answers
	challenge func(ctx context.Context, device string) ([]byte, error)
	random    io.Reader
	log       *slog.Logger
	warned    atomic.Bool // of SHA-1
}

var _ enrol.CA = (*Client)(nil)

// New makes a client. Errors wrap ErrURL, ErrRA, ErrAuthority or
// pkimessage.ErrConfiguration.
func New(c Config) (*Client, error) {
	if !pkimessage.Configured() {
		return nil, pkimessage.ErrConfiguration
	}
	if err := c.RA.check(); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	e, err := newEndpoint(c.URL, c.HTTP, c.Now)
	if err != nil {
		return nil, err
	}
	anchor, err := x509.ParseCertificate(c.Anchor)
	if err != nil {
		return nil, fmt.Errorf("%w: trust anchor: %w", ErrAuthority, err)
	}
	all := []*x509.Certificate{anchor}
	for _, der := range c.Certificates {
		pinned, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAuthority, err)
		}
		all = append(all, pinned)
	}
	all = unique(all)
	authority, err := assign(anchor, all, all)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		endpoint:  e,
		authority: authority,
		post:      c.Capabilities.has(capPost),
		signer:    pkimessage.Signer{Certificate: c.RA.Certificate, Key: c.RA.Key},
		decrypter: c.RA.Key,
		challenge: c.Challenge,
		random:    cmp.Or(c.Random, rand.Reader),
		log:       c.Log,
	}, nil
}

// Anchor implements enrol.CA.
func (c *Client) Anchor() []byte { return c.authority.Anchor.Raw }

// Challenge implements enrol.CA.
func (c *Client) Challenge(ctx context.Context, device string) ([]byte, error) {
	if c.challenge == nil {
		return nil, nil
	}
	return c.challenge(ctx, device)
}

// Close drops the connections that are kept open.
func (c *Client) Close() { c.endpoint.http.CloseIdleConnections() }

// Submit implements enrol.CA: PKCSReq (RFC 8894 section 3.3.1). A pending
// transaction is polled with CertPoll (section 3.3.2), and by repeating the
// PKCSReq if the CA knows no CertPoll.
func (c *Client) Submit(ctx context.Context, s enrol.Submission) (enrol.Answer, error) {
	csr, err := x509.ParseCertificateRequest(s.CSR)
	if err != nil {
		return enrol.Answer{}, fmt.Errorf("submit: parse CSR: %w", err)
	}
	if !isHex(s.TransactionID) {
		return enrol.Answer{}, fmt.Errorf("submit: the transaction ID %.80q is not hexadecimal", s.TransactionID)
	}
	if s.Pending {
		answer, err := c.poll(ctx, s.TransactionID, csr)
		if err == nil || !unknownPoll(err) {
			return answer, err
		}
		c.log.DebugContext(ctx, "CertPoll failed, repeating the request", "transaction", s.TransactionID, "error", err)
	}
	return c.exchange(ctx, scep.PKCSReq, s.TransactionID, csr, csr.Raw)
}

// exchange sends one request and judges the answer.
func (c *Client) exchange(ctx context.Context, kind scep.MessageType, transaction string, csr *x509.CertificateRequest, content []byte) (enrol.Answer, error) {
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(c.random, nonce); err != nil {
		return enrol.Answer{}, fmt.Errorf("submit: %w", err)
	}
	request, err := c.request(kind, transaction, nonce, content)
	if err != nil {
		return enrol.Answer{}, fmt.Errorf("submit: %w", err)
	}
	res, err := c.endpoint.pkiOperation(ctx, request, c.post)
	if err != nil {
		return enrol.Answer{}, err
	}
	answer, err := c.judge(ctx, res, transaction, nonce, csr)
	answer.Date = res.date
	return answer, err
}

// nonceSize is that of RFC 8894 section 3.2.1.5, in bytes.
const nonceSize = 16

// request builds one signed pkiMessage.
func (c *Client) request(kind scep.MessageType, transaction string, nonce, content []byte) ([]byte, error) {
	sealed, err := pkimessage.Seal(content, c.authority.Recipient)
	if err != nil {
		return nil, err
	}
	m := &pkimessage.Message{Type: kind, TransactionID: transaction, SenderNonce: nonce, Content: sealed}
	return pkimessage.Sign(m, c.signer)
}

// judge decides what an HTTP response means for a request. A pkiMessage counts
// under any HTTP status.
func (c *Client) judge(ctx context.Context, res *response, transaction string, nonce []byte, csr *x509.CertificateRequest) (enrol.Answer, error) {
	m, err := pkimessage.ParseReply(res.body, c.authority.Signers)
	switch {
	case errors.Is(err, pkimessage.ErrSignature):
		return enrol.Answer{}, fmt.Errorf("%w: %w", enrol.ErrCAUnauthenticated, err)
	case err != nil && res.status == http.StatusOK:
		return enrol.Answer{}, fmt.Errorf("%w: HTTP content of type %q: %w", enrol.ErrCAUnauthenticated, clean(res.kind), err)
	case err != nil:
		return enrol.Answer{}, c.endpoint.failure(opPKIOperation, res)
	}
	// Anybody on the path can have the CA sign an answer to a request of his
	// own, so an answer that is not to this very request proves nothing.
	switch {
	case !bytes.Equal(m.RecipientNonce, nonce):
		return enrol.Answer{}, fmt.Errorf("%w: its recipientNonce is not our nonce: a replay?", enrol.ErrCAUnauthenticated)
	case m.TransactionID != transaction:
		return enrol.Answer{}, fmt.Errorf("%w: it is about transaction %.80q", enrol.ErrCAUnauthenticated, m.TransactionID)
	case m.Type != scep.CertRep:
		return enrol.Answer{}, fmt.Errorf("%w: its message type is %.10q, not CertRep", enrol.ErrCAUnauthenticated, string(m.Type))
	}
	if m.WeakDigest && !c.warned.Swap(true) {
		c.log.WarnContext(ctx, "the CA signs its answers with SHA-1", "signer", m.Signer.Subject.String())
	}
	switch m.Status {
	case scep.SUCCESS:
		return c.issued(m, csr)
	case scep.PENDING:
		return enrol.Answer{Pending: true, RetryAfter: res.after}, nil
	case scep.FAILURE:
		return enrol.Answer{}, rejection(m, csr)
	}
	return enrol.Answer{}, fmt.Errorf("%w: its pkiStatus is %.10q", enrol.ErrCAUnauthenticated, string(m.Status))
}

// issued takes the certificates out of a successful answer.
func (c *Client) issued(m *pkimessage.Message, csr *x509.CertificateRequest) (enrol.Answer, error) {
	content, err := pkimessage.Open(m.Content, c.signer.Certificate, c.decrypter)
	if err != nil {
		// Not a mismatch: it may answer somebody else's request with our nonce.
		return enrol.Answer{}, fmt.Errorf("%w: %w", enrol.ErrCAUnauthenticated, err)
	}
	certificates, err := pkimessage.ParseCertsOnly(content)
	if err != nil {
		return enrol.Answer{}, &enrol.CAMismatch{What: fmt.Sprintf("something that is no certificate: %v", err)}
	}
	var own, cas []*x509.Certificate
	for _, x := range append(certificates, c.authority.CAs...) {
		switch {
		case bytes.Equal(x.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo):
			own = append(own, x)
		case isCA(x) && !x.Equal(c.authority.Anchor):
			cas = append(cas, x)
		}
	}
	if len(own) == 0 {
		return enrol.Answer{}, &enrol.CAMismatch{What: "a certificate for another key: " + Describe(certificates[0])}
	}
	chain := unique(append(own, cas...))
	if len(chain) > enrol.MaxChain {
		return enrol.Answer{}, &enrol.CAMismatch{What: fmt.Sprintf("a chain of %d certificates", len(chain))}
	}
	var answer enrol.Answer
	for _, x := range chain {
		answer.Certificates = append(answer.Certificates, x.Raw)
	}
	return answer, nil
}
