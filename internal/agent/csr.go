package agent

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"
	"net"
	"net/url"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// csrContent is what a CSR says.
type csrContent struct {
	subject     []fleet.Attribute
	sans        []fleet.Name
	keyUsage    []string
	extKeyUsage []string
	challenge   []byte
}

// newCSR makes a PKCS#10 (RFC 2986) in DER, signed by key.
func newCSR(random io.Reader, key crypto.Signer, content csrContent) ([]byte, error) {
	usages, err := enrol.UsageExtensions(content.keyUsage, content.extKeyUsage)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{Subject: enrol.SubjectName(content.subject), ExtraExtensions: usages}
	for _, n := range content.sans {
		switch n.Kind {
		case fleet.KindDNS:
			template.DNSNames = append(template.DNSNames, n.Value)
		case fleet.KindIP:
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(n.Value))
		case fleet.KindURI:
			u, err := url.Parse(n.Value)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", fleet.ErrName, err)
			}
			template.URIs = append(template.URIs, u)
		default:
			return nil, fmt.Errorf("%w: %s is no alternative name", fleet.ErrName, n)
		}
	}
	der, err := x509.CreateCertificateRequest(random, template, key)
	if err == nil && len(content.challenge) > 0 {
		der, err = withChallenge(random, key, der, content.challenge)
	}
	if err != nil {
		return nil, fmt.Errorf("make CSR: %w", err)
	}
	// What goes out must parse and verify at the other end.
	if _, err := enrol.ParseCSR(der); err != nil {
		return nil, fmt.Errorf("make CSR: %w", err)
	}
	return der, nil
}

// The parts of a PKCS#10 (RFC 2986 section 4).
type (
	certificationRequest struct {
		Info      asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	certificationRequestInfo struct {
		Version    int
		Subject    asn1.RawValue
		PublicKey  asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0,set"`
	}
	challengeAttribute struct {
		Type   asn1.ObjectIdentifier
		Values []string `asn1:"set"`
	}
)

// oidChallengePassword is of RFC 2985 section 5.4.1.
func oidChallengePassword() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
}

// withChallenge adds the challengePassword attribute, a DirectoryString, and
// signs anew: crypto/x509 cannot encode an attribute that is no sequence.
func withChallenge(random io.Reader, key crypto.Signer, der, challenge []byte) ([]byte, error) {
	var outer certificationRequest
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	var info certificationRequestInfo
	if _, err := asn1.Unmarshal(outer.Info.FullBytes, &info); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	attribute, err := asn1.Marshal(challengeAttribute{oidChallengePassword(), []string{string(challenge)}})
	if err != nil {
		return nil, fmt.Errorf("encode challengePassword: %w", err)
	}
	info.Attributes = append(info.Attributes, asn1.RawValue{FullBytes: attribute})
	signed, err := asn1.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	// The hash is the one that crypto/x509 chose for this key.
	digest, hash := enrol.PossessionDigest(key.Public(), signed)
	signature, err := key.Sign(random, digest, hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return asn1.Marshal(certificationRequest{
		Info: asn1.RawValue{FullBytes: signed}, Algorithm: outer.Algorithm,
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
}
