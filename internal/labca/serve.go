package labca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/smallstep/scep"
	"github.com/smallstep/scep/x509util"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// capabilities is the answer to GetCACaps (RFC 8894 section 3.5.2).
const capabilities = "AES\nPOSTPKIOperation\nSCEPStandard\nSHA-256\nSHA-512\n"

const typeMessage = "application/x-pki-message"

// serve answers one SCEP request (RFC 8894 section 4).
func (ca *CA) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", ca.options.Now().UTC().Format(http.TimeFormat))
	operation := r.URL.Query().Get("operation")
	switch {
	case operation == "PKIOperation":
		ca.pkiOperation(w, r)
	case r.Method != http.MethodGet:
		http.Error(w, "only PKIOperation is posted", http.StatusMethodNotAllowed)
	case operation == "GetCACaps":
		respond(w, http.StatusOK, "text/plain", []byte(capabilities))
	case operation == "GetCACert":
		ca.caCert(w, r)
	default:
		http.Error(w, "the operation is none of GetCACaps, GetCACert, PKIOperation", http.StatusBadRequest)
	}
}

func respond(w http.ResponseWriter, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone if it fails
}

// caCert answers GetCACert: one certificate, or all as PKCS#7.
func (ca *CA) caCert(w http.ResponseWriter, r *http.Request) {
	if ca.keys.ra.certificate == nil {
		respond(w, http.StatusOK, "application/x-x509-ca-cert", ca.Issuing().Raw)
		return
	}
	der, err := pkimessage.CertsOnly(ca.RA(), ca.Issuing(), ca.Root())
	if err != nil {
		ca.internal(w, r, err)
		return
	}
	respond(w, http.StatusOK, "application/x-x509-ca-ra-cert", der)
}

func (ca *CA) internal(w http.ResponseWriter, r *http.Request, err error) {
	ca.options.Log.ErrorContext(r.Context(), "lab CA", "error", err)
	http.Error(w, "internal error", http.StatusInternalServerError)
}

// pkiOperation answers a pkiMessage.
func (ca *CA) pkiOperation(w http.ResponseWriter, r *http.Request) {
	body, err := readMessage(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	misdeed := ca.misdeed()
	if misdeed.instead(w, r) {
		return
	}
	der, status, err := ca.answer(r.Context(), body, misdeed)
	switch {
	case errors.Is(err, errNoAnswer):
		http.Error(w, "this is no request that could be answered", http.StatusBadRequest)
	case err != nil:
		ca.internal(w, r, err)
	default:
		respond(w, status, typeMessage, der)
	}
}

var errTooLong = errors.New("the message is too long")

// readMessage takes the message out of a POST or GET request.
func readMessage(r *http.Request) ([]byte, error) {
	if r.Method == http.MethodPost {
		b, err := io.ReadAll(io.LimitReader(r.Body, pkimessage.MaxMessage+1))
		if err == nil && len(b) > pkimessage.MaxMessage {
			err = errTooLong
		}
		return b, err
	}
	message := r.URL.Query().Get("message")
	if len(message) > base64.StdEncoding.EncodedLen(pkimessage.MaxMessage) {
		return nil, errTooLong
	}
	// A plus sign that was not escaped arrives as a space.
	b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(message, " ", "+"))
	if err != nil {
		return nil, errors.New("the message is not base64")
	}
	return b, nil
}

// errNoAnswer: a request that cannot even be refused, as it names no nonce,
// transaction or signer to answer to.
var errNoAnswer = errors.New("no request that could be answered")

// refusal is why a request fails.
type refusal struct {
	info scep.FailInfo
	text string
}

// answer reads a request and makes the signed answer to it.
func (ca *CA) answer(ctx context.Context, body []byte, misdeed Hostile) (der []byte, status int, err error) {
	request, err := pkimessage.ParseRequest(body)
	if err != nil || request.TransactionID == "" || len(request.SenderNonce) == 0 {
		ca.options.Log.InfoContext(ctx, "lab CA: unreadable request", "error", err)
		return nil, 0, errNoAnswer
	}
	reply := &pkimessage.Message{
		Type: scep.CertRep, TransactionID: request.TransactionID,
		SenderNonce: make([]byte, 16), RecipientNonce: request.SenderNonce,
	}
	if _, err := io.ReadFull(ca.options.Random, reply.SenderNonce); err != nil {
		return nil, 0, err
	}
	certificates, pending, refused, err := ca.decide(request, misdeed)
	switch {
	case err != nil:
		return nil, 0, err
	case refused != nil:
		reply.Status, reply.FailInfo, reply.FailText = scep.FAILURE, refused.info, refused.text
	case pending:
		reply.Status = scep.PENDING
	default:
		reply.Status = scep.SUCCESS
		if err := ca.enclose(reply, certificates, request.Signer, misdeed); err != nil {
			return nil, 0, err
		}
	}
	ca.options.Log.InfoContext(ctx, "lab CA: request", "type", string(request.Type), "transaction", request.TransactionID,
		"status", string(reply.Status), "fail_info", string(reply.FailInfo), "text", reply.FailText)
	return ca.sign(reply, misdeed)
}

// enclose puts certificates into an answer, encrypted to whoever asked.
func (ca *CA) enclose(reply *pkimessage.Message, certificates []*x509.Certificate, to *x509.Certificate, misdeed Hostile) error {
	content, err := pkimessage.CertsOnly(certificates...)
	if err != nil {
		return err
	}
	if content, to, err = ca.tamperContent(content, to, misdeed); err != nil {
		return err
	}
	reply.Content, err = pkimessage.Seal(content, to)
	return err
}

// decide says what becomes of a request: certificates, a wait, or a refusal.
func (ca *CA) decide(request *pkimessage.Message, misdeed Hostile) ([]*x509.Certificate, bool, *refusal, error) {
	if request.WeakDigest {
		return nil, false, &refusal{scep.BadAlg, "the request is signed with SHA-1"}, nil
	}
	if _, ok := request.Signer.PublicKey.(*rsa.PublicKey); !ok {
		return nil, false, &refusal{scep.BadAlg, "the request's signer has no RSA key, so it could not read the answer"}, nil
	}
	key, ok := ca.keys.front().key.(*rsa.PrivateKey)
	if !ok {
		return nil, false, nil, errors.New("the key that decrypts requests is not RSA")
	}
	content, err := pkimessage.Open(request.Content, ca.keys.front().certificate, key)
	if err != nil {
		return nil, false, &refusal{scep.BadMessageCheck, "the request cannot be decrypted"}, nil
	}
	defer clear(content) // it holds the challenge
	switch request.Type {
	case scep.PKCSReq:
		return ca.enrol(request.TransactionID, content, misdeed)
	case scep.CertPoll:
		return ca.poll(request.TransactionID, misdeed)
	}
	return nil, false, &refusal{scep.BadRequest, "this type of request is not supported"}, nil
}

// enrol decides on a PKCSReq.
func (ca *CA) enrol(id string, der []byte, misdeed Hostile) ([]*x509.Certificate, bool, *refusal, error) {
	csr, err := enrol.ParseCSR(der)
	if err != nil {
		return nil, false, &refusal{scep.BadRequest, "the CSR is malformed or not signed by its key"}, nil
	}
	challenge, err := x509util.ParseChallengePassword(der)
	if err != nil || !ca.challengeHolds(challenge) {
		return nil, false, &refusal{scep.BadRequest, "the challenge is wrong"}, nil
	}
	if !ca.acceptable(csr.PublicKey) {
		return nil, false, &refusal{scep.BadAlg, "the key is neither RSA of a sufficient size nor ECDSA P-256 or P-384"}, nil
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	x := ca.transactions.find(id, csr.Raw)
	if x == nil {
		// The CSR lies in the decrypted content, which is about to be zeroed.
		copied, err := x509.ParseCertificateRequest(bytes.Clone(csr.Raw))
		if err != nil {
			return nil, false, nil, err
		}
		x = &transaction{csr: copied, pending: ca.options.Pending}
		ca.transactions.add(id, x)
	}
	return ca.proceed(id, x, misdeed)
}

// challengeHolds compares in a time that does not depend on the challenge.
func (ca *CA) challengeHolds(got string) bool {
	want, have := sha256.Sum256(ca.options.Challenge), sha256.Sum256([]byte(got))
	return len(ca.options.Challenge) == 0 || subtle.ConstantTimeCompare(want[:], have[:]) == 1
}

func (ca *CA) acceptable(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= ca.options.MinRSA
	case *ecdsa.PublicKey:
		return k.Curve.Params().BitSize == 256 || k.Curve.Params().BitSize == 384
	}
	return false
}

// poll decides on a CertPoll (RFC 8894 section 3.3.2). The transaction ID says
// which request is meant; issuer and subject, which it also carries, need not.
func (ca *CA) poll(id string, misdeed Hostile) ([]*x509.Certificate, bool, *refusal, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	x := ca.transactions.find(id, nil)
	if x == nil {
		return nil, false, &refusal{scep.BadCertID, "there is no such transaction"}, nil
	}
	return ca.proceed(id, x, misdeed)
}

// proceed takes a transaction one step on. The caller holds the lock.
func (ca *CA) proceed(id string, x *transaction, misdeed Hostile) ([]*x509.Certificate, bool, *refusal, error) {
	if x.pending > 0 {
		x.pending--
		return nil, true, nil, nil
	}
	if x.certificate == nil || ca.options.Reissue || misdeed != "" {
		c, err := ca.issueAs(x, misdeed)
		if err != nil {
			return nil, false, nil, err
		}
		if err := ca.record(c, id); err != nil {
			return nil, false, nil, err
		}
		x.certificate = c
	}
	return []*x509.Certificate{x.certificate, ca.Issuing()}, false, nil, nil
}
