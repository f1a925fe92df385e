package labca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"github.com/smallstep/scep"
	"github.com/smallstep/scep/x509util"

	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

func TestMain(m *testing.M) {
	if err := pkimessage.Configure(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const testChallenge = "correct horse"

// client is a requester with its own RSA key, made once.
var client = sync.OnceValue(func() authority {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return selfSigned(key)
})

func selfSigned(key crypto.Signer) authority {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return authority{certificate: certificate, key: key}
}

func open(t testing.TB, dir string, o Options) *CA {
	t.Helper()
	if o.Challenge == nil {
		o.Challenge = []byte(testChallenge)
	}
	ca, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newCA opens a new CA that is closed at the end of the test.
func newCA(t testing.TB, o Options) *CA {
	t.Helper()
	ca := open(t, t.TempDir(), o)
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	return ca
}

// newCSR makes a CSR; edit may change its template.
func newCSR(t testing.TB, key crypto.Signer, challenge string, edit func(*x509.CertificateRequest)) []byte {
	t.Helper()
	if key == nil {
		fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = fresh
	}
	template := x509.CertificateRequest{Subject: pkix.Name{CommonName: "plc-0001"}, DNSNames: []string{"plc-0001.example"}}
	if edit != nil {
		edit(&template)
	}
	der, err := x509util.CreateCertificateRequest(rand.Reader, &x509util.CertificateRequest{
		CertificateRequest: template, ChallengePassword: challenge,
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// request is a pkiMessage as a client sends it.
func request(t testing.TB, ca *CA, kind scep.MessageType, transaction string, content []byte) []byte {
	t.Helper()
	sealed, err := pkimessage.Seal(content, ca.keys.front().certificate)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, &pkimessage.Message{Type: kind, TransactionID: transaction, SenderNonce: []byte("0123456789abcdef"), Content: sealed})
}

func sign(t testing.TB, m *pkimessage.Message) []byte {
	t.Helper()
	der, err := pkimessage.Sign(m, client().signer())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// post sends a pkiMessage and parses the answer; nil if it is none.
func post(t testing.TB, ca *CA, body []byte) *pkimessage.Message {
	t.Helper()
	w := do(ca, httptest.NewRequest(http.MethodPost, Path+"?operation=PKIOperation", bytes.NewReader(body)))
	if w.Code != http.StatusOK {
		return nil
	}
	m, err := pkimessage.ParseReply(w.Body.Bytes(), []*x509.Certificate{ca.keys.front().certificate})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func do(ca *CA, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	ca.Handler().ServeHTTP(w, r)
	return w
}

// certificate decrypts the issued certificate of an answer.
func certificate(t testing.TB, m *pkimessage.Message) *x509.Certificate {
	t.Helper()
	if m == nil || m.Status != scep.SUCCESS {
		t.Fatalf("no success: %+v", m)
	}
	key, ok := client().key.(*rsa.PrivateKey)
	if !ok {
		t.Fatal("the client's key is not RSA")
	}
	content, err := pkimessage.Open(m.Content, client().certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := pkimessage.ParseCertsOnly(content)
	if err != nil {
		t.Fatal(err)
	}
	return certificates[0]
}

// enrolled issues a certificate for a CSR under a transaction ID of its own.
func enrolled(t testing.TB, ca *CA, csr []byte) *x509.Certificate {
	t.Helper()
	sum := sha256.Sum256(csr)
	return certificate(t, post(t, ca, request(t, ca, scep.PKCSReq, fmt.Sprintf("%x", sum[:8]), csr)))
}

func verify(t testing.TB, ca *CA, c *x509.Certificate, at time.Time) {
	t.Helper()
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.Root())
	intermediates.AddCert(ca.Issuing())
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		t.Error(err)
	}
}

// TestHierarchy: every subject warns, nobody issues below the issuing CA, and a
// clock that is wrong by decades finds all of it valid.
func TestHierarchy(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Layout: LayoutRA, Key: KeyRSA}, {Layout: LayoutSingle}} {
		ca := newCA(t, o)
		for _, at := range []time.Time{time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), time.Now(), time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC)} {
			verify(t, ca, ca.Issuing(), at)
			if ca.RA() != nil {
				verify(t, ca, ca.RA(), at)
			}
		}
		for _, c := range []*x509.Certificate{ca.Root(), ca.Issuing(), ca.RA()} {
			if c != nil && !strings.Contains(c.Subject.String(), notForProduction) {
				t.Errorf("subject %s", c.Subject)
			}
		}
		if !ca.Issuing().MaxPathLenZero || !ca.Issuing().IsCA || ca.RA() != nil && ca.RA().IsCA {
			t.Error("wrong basic constraints")
		}
		if (ca.RA() == nil) != (o.Layout == LayoutSingle) {
			t.Errorf("layout %q, RA %v", o.Layout, ca.RA())
		}
	}
}

// TestIssue: names and usages as asked for, validity as configured.
func TestIssue(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	ca := newCA(t, Options{Lifetime: time.Minute, Backdate: time.Hour, Now: func() time.Time { return now }})
	usage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := enrolled(t, ca, newCSR(t, nil, testChallenge, func(r *x509.CertificateRequest) {
		r.Subject.OrganizationalUnit = []string{"line 3"}
		r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: usage}}
		r.URIs = []*url.URL{{Scheme: "urn", Opaque: "plc:1"}}
	}))
	verify(t, ca, c, now)
	if c.Subject.CommonName != "plc-0001" || c.Subject.OrganizationalUnit[0] != "line 3" || !slices.Equal(c.DNSNames, []string{"plc-0001.example"}) || c.URIs[0].String() != "urn:plc:1" {
		t.Errorf("names %s %v %v", c.Subject, c.DNSNames, c.URIs)
	}
	if c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.ExtKeyUsage) != 2 || c.IsCA {
		t.Errorf("usages %v %v", c.KeyUsage, c.ExtKeyUsage)
	}
	if !c.NotBefore.Equal(now.Add(-time.Hour)) || !c.NotAfter.Equal(now.Add(time.Minute)) {
		t.Errorf("validity %v to %v, now %v", c.NotBefore, c.NotAfter, now)
	}
	rsaKey := client().key
	c = enrolled(t, ca, newCSR(t, rsaKey, testChallenge, nil))
	if c.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment {
		t.Errorf("RSA without usages asked for: %v", c.KeyUsage)
	}
}

// TestCAUsageNotCopied: a CSR that asks for a CA gets none.
func TestCAUsageNotCopied(t *testing.T) {
	t.Parallel()
	ca := newCA(t, Options{})
	constraints, err := asn1.Marshal(struct{ IsCA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	c := enrolled(t, ca, newCSR(t, nil, testChallenge, func(r *x509.CertificateRequest) {
		r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: constraints}}
	}))
	if c.IsCA {
		t.Error("a CA was issued")
	}
}

// TestRepeat: the same transaction and CSR give the same certificate, unless
// the CA is to behave like step-ca; another CSR gives another.
func TestRepeat(t *testing.T) {
	t.Parallel()
	for _, reissue := range []bool{false, true} {
		ca := newCA(t, Options{Reissue: reissue})
		csr := newCSR(t, nil, testChallenge, nil)
		first, second := enrolled(t, ca, csr), enrolled(t, ca, csr)
		if first.Equal(second) == reissue {
			t.Errorf("reissue %v: the same certificate %v", reissue, !reissue)
		}
		other := newCSR(t, nil, testChallenge, nil)
		sum := sha256.Sum256(csr)
		c := certificate(t, post(t, ca, request(t, ca, scep.PKCSReq, fmt.Sprintf("%x", sum[:8]), other)))
		if c.Equal(first) {
			t.Error("another CSR under the same transaction got the first one's certificate")
		}
	}
}

// TestPending: PENDING as often as configured, however it is asked.
func TestPending(t *testing.T) {
	t.Parallel()
	ca := newCA(t, Options{Pending: 2})
	csr := newCSR(t, nil, testChallenge, nil)
	for i, kind := range []scep.MessageType{scep.PKCSReq, scep.CertPoll, scep.CertPoll, scep.PKCSReq} {
		m := post(t, ca, request(t, ca, kind, "aa", csr))
		if want := i < 2; (m.Status == scep.PENDING) != want {
			t.Errorf("request %d: status %q", i, m.Status)
		}
		if i >= 2 {
			certificate(t, m)
		}
	}
}

// TestRefusals: a bad request is refused with a signed answer that says why.
func TestRefusals(t *testing.T) {
	t.Parallel()
	ca := newCA(t, Options{})
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := newCSR(t, nil, testChallenge, nil)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	elsewhere, err := pkimessage.Seal(good, client().certificate)
	if err != nil {
		t.Fatal(err)
	}
	nonce := []byte("0123456789abcdef")
	for name, tt := range map[string]struct {
		body []byte
		want scep.FailInfo
	}{
		"wrong challenge":     {request(t, ca, scep.PKCSReq, "01", newCSR(t, nil, "guess", nil)), scep.BadRequest},
		"no challenge":        {request(t, ca, scep.PKCSReq, "02", newCSR(t, nil, "", nil)), scep.BadRequest},
		"not signed by key":   {request(t, ca, scep.PKCSReq, "03", forged), scep.BadRequest},
		"no CSR":              {request(t, ca, scep.PKCSReq, "04", []byte("x")), scep.BadRequest},
		"RSA-1024":            {request(t, ca, scep.PKCSReq, "05", newCSR(t, small, testChallenge, nil)), scep.BadAlg},
		"P-224":               {request(t, ca, scep.PKCSReq, "06", newCSR(t, p224, testChallenge, nil)), scep.BadAlg},
		"unknown transaction": {request(t, ca, scep.CertPoll, "07", good), scep.BadCertID},
		"GetCRL":              {request(t, ca, scep.GetCRL, "08", good), scep.BadRequest},
		"encrypted elsewhere": {sign(t, &pkimessage.Message{Type: scep.PKCSReq, TransactionID: "09", SenderNonce: nonce, Content: elsewhere}), scep.BadMessageCheck},
		"not encrypted":       {sign(t, &pkimessage.Message{Type: scep.PKCSReq, TransactionID: "0a", SenderNonce: nonce, Content: good}), scep.BadMessageCheck},
	} {
		m := post(t, ca, tt.body)
		if m == nil || m.Status != scep.FAILURE || m.FailInfo != tt.want || m.FailText == "" || !bytes.Equal(m.RecipientNonce, nonce) {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if b, err := os.ReadFile(ca.index.Name()); err != nil || len(b) != 0 {
		t.Errorf("the index holds %q, %v", b, err)
	}
	for name, body := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"), "three bytes": {0x30, 0x80, 0x24},
		"no nonce":       sign(t, &pkimessage.Message{Type: scep.PKCSReq, TransactionID: "01"}),
		"no transaction": sign(t, &pkimessage.Message{Type: scep.PKCSReq, SenderNonce: nonce}),
		"too long":       make([]byte, pkimessage.MaxMessage+1),
	} {
		if m := post(t, ca, body); m != nil {
			t.Errorf("%s: answered with %+v", name, m)
		}
	}
}

// TestWeakSigner: nobody can be answered who has no RSA key.
func TestWeakSigner(t *testing.T) {
	t.Parallel()
	ca := newCA(t, Options{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pkimessage.Sign(&pkimessage.Message{Type: scep.PKCSReq, TransactionID: "01", SenderNonce: []byte("n")}, selfSigned(key).signer())
	if err != nil {
		t.Fatal(err)
	}
	if m := post(t, ca, der); m == nil || m.FailInfo != scep.BadAlg {
		t.Errorf("%+v", m)
	}
}

// TestSHA1: a request signed over SHA-1 is refused.
func TestSHA1(t *testing.T) {
	t.Parallel()
	ca := newCA(t, Options{})
	signed, err := pkcs7.NewSignedData(seal(t, ca, newCSR(t, nil, testChallenge, nil)))
	if err != nil {
		t.Fatal(err)
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA1)
	scepAttribute := func(last int, value any) pkcs7.Attribute {
		return pkcs7.Attribute{Type: asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, last}, Value: value}
	}
	err = signed.AddSigner(client().certificate, client().key, pkcs7.SignerInfoConfig{ExtraSignedAttributes: []pkcs7.Attribute{
		scepAttribute(2, "19"), scepAttribute(5, []byte("0123456789abcdef")), scepAttribute(7, "01"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	der, err := signed.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if m := post(t, ca, der); m == nil || m.FailInfo != scep.BadAlg || !strings.Contains(m.FailText, "SHA-1") {
		t.Errorf("%+v", m)
	}
}

// TestHTTP: the forms of RFC 8894 section 4 and nothing else.
func TestHTTP(t *testing.T) {
	t.Parallel()
	ca := newCA(t, Options{})
	csr := newCSR(t, nil, testChallenge, nil)
	message := base64.StdEncoding.EncodeToString(request(t, ca, scep.PKCSReq, "01", csr))
	for _, tt := range []struct {
		method, query string
		status        int
		kind          string
	}{
		{"GET", "operation=GetCACaps", 200, "text/plain"},
		{"GET", "operation=GetCACert", 200, "application/x-x509-ca-ra-cert"},
		{"GET", "operation=PKIOperation&message=" + url.QueryEscape(message), 200, typeMessage},
		{"GET", "operation=PKIOperation&message=" + message, 200, typeMessage}, // plus signs not escaped
		{"GET", "operation=PKIOperation&message=!", 400, "text/plain; charset=utf-8"},
		{"GET", "operation=PKIOperation&message=" + strings.Repeat("A", 200<<10), 400, "text/plain; charset=utf-8"},
		{"GET", "operation=PKIOperation", 400, "text/plain; charset=utf-8"},
		{"GET", "operation=GetNextCACert", 400, "text/plain; charset=utf-8"},
		{"GET", "", 400, "text/plain; charset=utf-8"},
		{"POST", "operation=GetCACert", 405, "text/plain; charset=utf-8"},
	} {
		w := do(ca, httptest.NewRequest(tt.method, Path+"?"+tt.query, nil))
		if w.Code != tt.status || w.Header().Get("Content-Type") != tt.kind {
			t.Errorf("%s %.60s: %d %s", tt.method, tt.query, w.Code, w.Header().Get("Content-Type"))
		}
	}
	if w := do(ca, httptest.NewRequest(http.MethodGet, "/other", nil)); w.Code != http.StatusNotFound {
		t.Errorf("another path: %d", w.Code)
	}
}

// TestTransactionsBounded: old transactions are forgotten.
func TestTransactionsBounded(t *testing.T) {
	t.Parallel()
	x := newTransactions()
	csr := &x509.CertificateRequest{Raw: []byte("csr")}
	for i := range maxTransactions + 10 {
		x.add(fmt.Sprint(i), &transaction{csr: csr})
	}
	x.add("50", &transaction{csr: csr})
	if len(x.byID) != maxTransactions || len(x.order) != maxTransactions || x.find("9", nil) != nil || x.find("10", csr.Raw) == nil || x.find("10", []byte("other")) != nil {
		t.Errorf("%d, %d", len(x.byID), len(x.order))
	}
}

// TestHostileNames: every misdeed has a name that is read back.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	for _, h := range append(Misdeeds(), Honest) {
		if got, err := ParseHostile(string(h)); err != nil || got != h {
			t.Errorf("%q: %q, %v", h, got, err)
		}
	}
	if _, err := ParseHostile("kind"); !errors.Is(err, ErrOptions) {
		t.Error(err)
	}
}
