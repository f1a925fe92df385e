package scep

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// Errors of the choice of a trust anchor.
var (
	// ErrFingerprint: no certificate has the fingerprint that was given.
	ErrFingerprint = errors.New("no CA certificate has the fingerprint")
	// ErrAuthority: the certificates do not make up a CA that can be used.
	ErrAuthority = errors.New("the CA's certificates cannot be used")
)

// Authority is who is who among the certificates of a CA. All of them chain to
// the anchor.
type Authority struct {
	Anchor    *x509.Certificate   // the trust anchor: root or issuing CA
	Issuer    *x509.Certificate   // the issuing CA
	Recipient *x509.Certificate   // to whose key requests are encrypted: RA or issuing CA
	Signers   []*x509.Certificate // who may sign answers: RA and issuing CA
	CAs       []*x509.Certificate // all CA certificates, without the anchor
	Warnings  []string            // what the administrator should know
}

// Certificates returns what is to be pinned, each once: the CA and RA
// certificates without the anchor.
func (a Authority) Certificates() []*x509.Certificate {
	out := slices.Clone(a.CAs)
	for _, c := range append([]*x509.Certificate{a.Recipient}, a.Signers...) {
		if !c.Equal(a.Anchor) && !slices.ContainsFunc(out, c.Equal) {
			out = append(out, c)
		}
	}
	return out
}

// Fingerprint names a certificate: "sha256:" and the hash of its DER in hex.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return fingerprintPrefix + hex.EncodeToString(sum[:])
}

const fingerprintPrefix = "sha256:"

// ParseFingerprint reads "sha256:" and 64 hexadecimal digits, with or without
// colons between the bytes, and returns it as Fingerprint writes it.
func ParseFingerprint(s string) (string, error) {
	digits, ok := strings.CutPrefix(strings.ToLower(s), fingerprintPrefix)
	if ok && len(digits) == 3*sha256.Size-1 {
		digits = strings.ReplaceAll(digits, ":", "")
	}
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != sha256.Size {
		return "", fmt.Errorf("a fingerprint is written sha256: and %d hexadecimal digits, not %.80q", 2*sha256.Size, s)
	}
	return fingerprintPrefix + digits, nil
}

// SelectAnchor chooses the trust anchor among the certificates that a CA sent
// and others that the administrator vouches for, and finds out who is who. The
// anchor is the CA certificate with the fingerprint; if that is empty, the
// highest one, which the administrator has to compare. Errors wrap
// ErrFingerprint (perhaps the root must be given, because the CA does not send
// it) or ErrAuthority.
func SelectAnchor(sent, vouched []*x509.Certificate, fingerprint string) (Authority, error) {
	all := unique(append(slices.Clone(sent), vouched...))
	cas, _ := split(all)
	if len(cas) == 0 {
		return Authority{}, fmt.Errorf("%w: none of them is a CA certificate (%s)", ErrAuthority, describe(all))
	}
	var anchor *x509.Certificate
	if fingerprint == "" {
		anchor = highest(cas, vouched)
		return assign(anchor, all, vouched)
	}
	wanted, err := ParseFingerprint(fingerprint)
	if err != nil {
		return Authority{}, fmt.Errorf("%w: %w", ErrFingerprint, err)
	}
	at := slices.IndexFunc(all, func(c *x509.Certificate) bool { return Fingerprint(c) == wanted })
	switch {
	case at < 0:
		return Authority{}, fmt.Errorf("%w %s; the CA has %s", ErrFingerprint, wanted, describe(all))
	case !isCA(all[at]):
		return Authority{}, fmt.Errorf("%w: %s is the RA's, not a CA's", ErrFingerprint, wanted)
	}
	return assign(all[at], all, vouched)
}

// assign finds out who is who below an anchor.
func assign(anchor *x509.Certificate, all, vouched []*x509.Certificate) (Authority, error) {
	a := Authority{Anchor: anchor}
	cas, ras := split(all)
	for _, c := range cas {
		if !c.Equal(anchor) && chains(anchor, c, cas) {
			a.CAs = append(a.CAs, c)
		}
	}
	a.Issuer = lowest(anchor, a.CAs)
	var encrypters []*x509.Certificate
	for _, c := range ras {
		if !chains(anchor, c, cas) && !slices.ContainsFunc(vouched, c.Equal) {
			return Authority{}, fmt.Errorf("%w: the RA certificate %s was not issued below %s, so anybody may have put it there",
				ErrAuthority, Describe(c), Describe(anchor))
		}
		if usable(c, x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment) {
			encrypters = append(encrypters, c)
		}
		if usable(c, x509.KeyUsageDigitalSignature) {
			a.Signers = append(a.Signers, c)
		}
		a.Warnings = append(a.Warnings, fmt.Sprintf("requests go to the RA certificate %s: any certificate of this CA could pose as one, so compare it with the CA's operator",
			Describe(c)))
	}
	a.Signers = append(a.Signers, a.Issuer)
	switch len(encrypters) {
	case 0:
		a.Recipient = a.Issuer
	case 1:
		a.Recipient = encrypters[0]
	default:
		return Authority{}, fmt.Errorf("%w: %d RA certificates for encryption (%s), one is wanted", ErrAuthority, len(encrypters), describe(encrypters))
	}
	if _, ok := a.Recipient.PublicKey.(*rsa.PublicKey); !ok {
		return Authority{}, fmt.Errorf("%w: requests would be encrypted to %s, whose key is not RSA: the CA needs an RSA RA (decrypter) certificate",
			ErrAuthority, Describe(a.Recipient))
	}
	return a, nil
}

// isCA: a certificate without basic constraints but signed by itself is an old
// root.
func isCA(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA || c.Version == 1 && bytes.Equal(c.RawIssuer, c.RawSubject)
}

func split(certificates []*x509.Certificate) (cas, ras []*x509.Certificate) {
	for _, c := range certificates {
		if isCA(c) {
			cas = append(cas, c)
		} else {
			ras = append(ras, c)
		}
	}
	return cas, ras
}

func unique(certificates []*x509.Certificate) []*x509.Certificate {
	var out []*x509.Certificate
	for _, c := range certificates {
		if !slices.ContainsFunc(out, c.Equal) {
			out = append(out, c)
		}
	}
	return out
}

// chains reports whether c is the anchor or was issued below it. No date is
// looked at: our clock may be wrong.
func chains(anchor, c *x509.Certificate, cas []*x509.Certificate) bool {
	if c.Equal(anchor) {
		return true
	}
	_, err := enrol.VerifyChain(anchor.Raw, c, cas)
	return err == nil
}

// usable reports whether a certificate's key usage allows one of these, or does
// not say.
func usable(c *x509.Certificate, usage x509.KeyUsage) bool {
	return c.KeyUsage == 0 || c.KeyUsage&usage != 0
}

// issued reports whether the subject of a is the issuer of another certificate
// in the list.
func issued(a *x509.Certificate, list []*x509.Certificate) bool {
	return slices.ContainsFunc(list, func(c *x509.Certificate) bool {
		return !c.Equal(a) && bytes.Equal(c.RawIssuer, a.RawSubject)
	})
}

// highest returns a CA certificate that no other one in the list has issued;
// one that was vouched for is preferred.
func highest(cas, vouched []*x509.Certificate) *x509.Certificate {
	best := cas[0]
	for _, c := range cas {
		below := slices.ContainsFunc(cas, func(o *x509.Certificate) bool { return !o.Equal(c) && bytes.Equal(o.RawSubject, c.RawIssuer) })
		if below {
			continue
		}
		if best = c; slices.ContainsFunc(vouched, c.Equal) {
			break
		}
	}
	return best
}

// lowest returns the CA certificate below the anchor that has issued no other.
func lowest(anchor *x509.Certificate, below []*x509.Certificate) *x509.Certificate {
	for _, c := range below {
		if !issued(c, below) {
			return c
		}
	}
	return anchor
}

// Describe names a certificate by its subject, made harmless to a terminal, and
// its fingerprint.
func Describe(c *x509.Certificate) string {
	return fmt.Sprintf("%s (%s)", clean(c.Subject.String()), Fingerprint(c))
}

// describe lists certificates for an error text.
func describe(certificates []*x509.Certificate) string {
	out := make([]string, len(certificates))
	for i, c := range certificates {
		out[i] = Describe(c)
	}
	return strings.Join(out, ", ")
}
