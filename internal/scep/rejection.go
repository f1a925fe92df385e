package scep

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/smallstep/scep"
	"github.com/smallstep/scep/x509util"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// failInfo is a code of RFC 8894 section 3.2.1.4.1 in words.
type failInfo struct{ name, meaning string }

func failInfos() map[scep.FailInfo]failInfo {
	return map[scep.FailInfo]failInfo{
		scep.BadAlg:          {"badAlg", "it does not support an algorithm or key of the request"},
		scep.BadMessageCheck: {"badMessageCheck", "it could not verify or decrypt the request; has its RA certificate changed?"},
		scep.BadRequest:      {"badRequest", "it does not permit the request; is the challenge right?"},
		scep.BadTime:         {"badTime", "the signing time is too far from its clock"},
		scep.BadCertID:       {"badCertId", "it knows no such certificate or request"},
	}
}

// rejection reads an authenticated failure.
func rejection(m *pkimessage.Message, csr *x509.CertificateRequest) error {
	info, ok := failInfos()[m.FailInfo]
	if !ok {
		info = failInfo{name: clean(fmt.Sprintf("failInfo %.10q", string(m.FailInfo)))}
	}
	text := cmp.Or(clean(redact(m.FailText, csr)), info.meaning)
	return &enrol.CARejection{FailInfo: info.name, Text: text}
}

// redact removes the CSR's challenge from a text that the CA wrote.
func redact(text string, csr *x509.CertificateRequest) string {
	challenge, err := x509util.ParseChallengePassword(csr.Raw)
	if err != nil || challenge == "" {
		return text
	}
	return strings.ReplaceAll(text, challenge, "[challenge]")
}

// issuerAndSubject is the content of CertPoll (RFC 8894 section 3.3.3).
type issuerAndSubject struct {
	Issuer, Subject asn1.RawValue
}

// poll asks for a pending certificate.
func (c *Client) poll(ctx context.Context, transaction string, csr *x509.CertificateRequest) (enrol.Answer, error) {
	content, err := asn1.Marshal(issuerAndSubject{
		Issuer:  asn1.RawValue{FullBytes: c.authority.Issuer.RawSubject},
		Subject: asn1.RawValue{FullBytes: csr.RawSubject},
	})
	if err != nil {
		return enrol.Answer{}, fmt.Errorf("submit: %w", err)
	}
	return c.exchange(ctx, scep.CertPoll, transaction, csr, content)
}

// unknownPoll reports whether a CA may have failed because it knows no
// CertPoll. A CA that rejects the request itself says so again to the repeated
// one.
func unknownPoll(err error) bool {
	var (
		rejected *enrol.CARejection
		later    *enrol.TryLater
	)
	if errors.As(err, &later) {
		return false
	}
	return errors.As(err, &rejected) || errors.Is(err, errStatus)
}

// isHex reports whether s is a transaction ID as every CA takes it.
func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && s != "" && len(s) <= 128
}
