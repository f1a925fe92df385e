package scep

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// entity is a certificate with its key.
type entity struct {
	*x509.Certificate
	key crypto.Signer
}

const (
	encrypts = x509.KeyUsageKeyEncipherment
	signs    = x509.KeyUsageDigitalSignature
	caUsage  = x509.KeyUsageCertSign
)

// entityKeys: one RSA and one ECDSA key for all entities, as who is who is told
// by names and usages. Two of one key would make chains ambiguous, so each
// entity beyond the first gets an ECDSA key of its own.
var entityRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// newEntity makes one that expired long ago: no date matters here.
func newEntity(t testing.TB, name string, usage x509.KeyUsage, rsaKey bool, issuer *entity) entity {
	t.Helper()
	var key crypto.Signer = entityRSA()
	if !rsaKey {
		fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = fresh
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0),
		KeyUsage: usage, BasicConstraintsValid: true, IsCA: usage&caUsage != 0,
	}
	by := entity{Certificate: template, key: key}
	if issuer != nil {
		by = *issuer
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return entity{Certificate: certificate, key: key}
}

func TestSelectAnchor(t *testing.T) {
	t.Parallel()
	root := newEntity(t, "root", caUsage, false, nil)
	issuing := newEntity(t, "issuing", caUsage, false, &root)
	issuingRSA := newEntity(t, "issuing RSA", caUsage, true, &root)
	ra := newEntity(t, "RA", encrypts|signs, true, &issuing)
	raEncrypts := newEntity(t, "RA encrypts", encrypts, true, &issuing)
	raSigns := newEntity(t, "RA signs", signs, false, &issuing)
	raSilent := newEntity(t, "RA without usage", 0, true, &issuing)
	stranger := newEntity(t, "stranger", encrypts|signs, true, nil)
	otherRoot := newEntity(t, "other root", caUsage, false, nil)

	type list = []*x509.Certificate
	fp := func(e entity) string { return Fingerprint(e.Certificate) }
	tests := []struct {
		name          string
		sent, vouched list
		fingerprint   string
		// who is who, or the error
		anchor, issuer, recipient entity
		signers                   []entity
		err                       error
		hint                      string
	}{
		{name: "all sent, fingerprint of the root", sent: list{ra.Certificate, issuing.Certificate, root.Certificate}, fingerprint: fp(root),
			anchor: root, issuer: issuing, recipient: ra, signers: []entity{ra, issuing}},
		{name: "in another order", sent: list{root.Certificate, ra.Certificate, issuing.Certificate, ra.Certificate}, fingerprint: strings.ToUpper(fp(root)),
			anchor: root, issuer: issuing, recipient: ra, signers: []entity{ra, issuing}},
		{name: "all sent, fingerprint of the issuing CA", sent: list{ra.Certificate, issuing.Certificate, root.Certificate}, fingerprint: fp(issuing),
			anchor: issuing, issuer: issuing, recipient: ra, signers: []entity{ra, issuing}},
		{name: "all sent, none given", sent: list{ra.Certificate, issuing.Certificate, root.Certificate},
			anchor: root, issuer: issuing, recipient: ra, signers: []entity{ra, issuing}},
		{name: "root vouched for", sent: list{issuingRSA.Certificate}, vouched: list{root.Certificate}, fingerprint: fp(root),
			anchor: root, issuer: issuingRSA, recipient: issuingRSA, signers: []entity{issuingRSA}},
		{name: "root vouched for, none given", sent: list{issuingRSA.Certificate, otherRoot.Certificate}, vouched: list{root.Certificate},
			anchor: root, issuer: issuingRSA, recipient: issuingRSA, signers: []entity{issuingRSA}},
		{name: "single certificate", sent: list{issuingRSA.Certificate}, fingerprint: fp(issuingRSA),
			anchor: issuingRSA, issuer: issuingRSA, recipient: issuingRSA, signers: []entity{issuingRSA}},
		{name: "only the RA sent", sent: list{ra.Certificate}, vouched: list{root.Certificate, issuing.Certificate}, fingerprint: fp(root),
			anchor: root, issuer: issuing, recipient: ra, signers: []entity{ra, issuing}},
		{name: "two RA certificates by their usages", sent: list{raSigns.Certificate, raEncrypts.Certificate, issuing.Certificate}, fingerprint: fp(issuing),
			anchor: issuing, issuer: issuing, recipient: raEncrypts, signers: []entity{raSigns, issuing}},
		{name: "an RA that does not say its usage", sent: list{raSilent.Certificate, issuing.Certificate}, fingerprint: fp(issuing),
			anchor: issuing, issuer: issuing, recipient: raSilent, signers: []entity{raSilent, issuing}},
		{name: "a self-signed RA that was vouched for", sent: list{stranger.Certificate, issuing.Certificate}, vouched: list{stranger.Certificate}, fingerprint: fp(issuing),
			anchor: issuing, issuer: issuing, recipient: stranger, signers: []entity{stranger, issuing}},

		{name: "root not sent", sent: list{issuingRSA.Certificate}, fingerprint: fp(root), err: ErrFingerprint, hint: fp(issuingRSA)},
		{name: "fingerprint of the RA", sent: list{ra.Certificate, issuing.Certificate}, fingerprint: fp(ra), err: ErrFingerprint, hint: "RA's"},
		{name: "not a fingerprint", sent: list{issuingRSA.Certificate}, fingerprint: "md5:00", err: ErrFingerprint, hint: "sha256:"},
		{name: "a self-signed RA", sent: list{stranger.Certificate, issuing.Certificate}, fingerprint: fp(issuing), err: ErrAuthority, hint: "anybody"},
		{name: "an RA of another CA", sent: list{ra.Certificate, issuing.Certificate, otherRoot.Certificate}, fingerprint: fp(otherRoot), err: ErrAuthority, hint: "anybody"},
		{name: "two recipients", sent: list{ra.Certificate, raEncrypts.Certificate, issuing.Certificate}, fingerprint: fp(issuing), err: ErrAuthority, hint: "2 RA"},
		{name: "ECDSA without RA", sent: list{issuing.Certificate}, fingerprint: fp(issuing), err: ErrAuthority, hint: "RSA"},
		{name: "no CA", sent: list{ra.Certificate}, err: ErrAuthority, hint: "none of them is a CA"},
		{name: "nothing", err: ErrAuthority},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := SelectAnchor(tt.sent, tt.vouched, tt.fingerprint)
			if tt.err != nil {
				if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.hint) {
					t.Fatalf("got %v, want %v: %s", err, tt.err, tt.hint)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !got.Anchor.Equal(tt.anchor.Certificate) || !got.Issuer.Equal(tt.issuer.Certificate) || !got.Recipient.Equal(tt.recipient.Certificate) {
				t.Errorf("anchor %s, issuer %s, recipient %s", got.Anchor.Subject, got.Issuer.Subject, got.Recipient.Subject)
			}
			if !slices.EqualFunc(got.Signers, tt.signers, func(c *x509.Certificate, e entity) bool { return c.Equal(e.Certificate) }) {
				t.Errorf("signers %s", describe(got.Signers))
			}
			pinned := append(got.Certificates(), got.Anchor)
			again, err := assign(got.Anchor, pinned, pinned)
			if err != nil || !again.Recipient.Equal(got.Recipient) || !again.Issuer.Equal(got.Issuer) || len(again.Signers) != len(got.Signers) {
				t.Errorf("what is pinned does not make up the same: %v", err)
			}
		})
	}
}

func TestParseFingerprint(t *testing.T) {
	t.Parallel()
	c := newEntity(t, "root", caUsage, false, nil).Certificate
	fp := Fingerprint(c)
	digits := strings.TrimPrefix(fp, "sha256:")
	var pairs []string
	for i := 0; i < len(digits); i += 2 {
		pairs = append(pairs, digits[i:i+2])
	}
	for _, s := range []string{fp, strings.ToUpper(fp), "sha256:" + strings.Join(pairs, ":"), "SHA256:" + strings.ToUpper(strings.Join(pairs, ":"))} {
		if got, err := ParseFingerprint(s); err != nil || got != fp {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "sha256:", digits, "sha1:" + digits, fp + "00", fp[:len(fp)-1], "sha256:" + strings.Repeat("zz", 32),
		"sha256:" + strings.Repeat(":", 95), strings.Repeat("sha256:", 1000)} {
		if got, err := ParseFingerprint(s); err == nil || len(err.Error()) > 300 {
			t.Errorf("%.80q: %q, %v", s, got, err)
		}
	}
}

// TestAttackEscapeInSubject: a certificate that a server sends before anybody
// has authenticated it must not control the administrator's terminal.
func TestAttackEscapeInSubject(t *testing.T) {
	t.Parallel()
	root := newEntity(t, "\x1b[2Jroot\r\n"+strings.Repeat("x", 5000), caUsage, false, nil)
	_, err := SelectAnchor([]*x509.Certificate{root.Certificate}, nil, "")
	if err == nil || strings.ContainsAny(err.Error(), "\x1b\r\n") || len(err.Error()) > 1000 {
		t.Errorf("got %q", err)
	}
}
