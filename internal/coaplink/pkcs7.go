package coaplink

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	encodingasn1 "encoding/asn1"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// Object identifiers of RFC 5652 sections 4 and 5.
func oidData() encodingasn1.ObjectIdentifier {
	return encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
}

func oidSignedData() encodingasn1.ObjectIdentifier {
	return encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
}

// encodeCertsOnly writes a degenerate SignedData (RFC 5652 section 5.1 with no
// content and no signer; RFC 8551 section 3.8), in which certificates travel.
func encodeCertsOnly(certificates [][]byte) ([]byte, error) {
	if len(certificates) == 0 || len(certificates) > enrol.MaxChain {
		return nil, fmt.Errorf("%d certificates, 1 to %d are allowed", len(certificates), enrol.MaxChain)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData())
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(asn1.SET, func(*cryptobyte.Builder) {})
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData()) })
				b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
					for _, c := range certificates {
						b.AddBytes(c)
					}
				})
				b.AddASN1(asn1.SET, func(*cryptobyte.Builder) {})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode certificates: %w", err)
	}
	return der, nil
}

// parseCertsOnly reads the certificates of a degenerate SignedData in DER, in
// the order in which they stand there. Revocation lists are skipped; content
// and signers are refused. The certificates themselves are bounded but not
// parsed. Errors wrap errPayload.
func parseCertsOnly(der []byte) ([][]byte, error) {
	set, ok := certificateSet(der)
	if !ok {
		return nil, fmt.Errorf("%w: not a certs-only PKCS#7 in DER", errPayload)
	}
	var out [][]byte
	for !set.Empty() {
		var c cryptobyte.String
		if !set.ReadASN1Element(&c, asn1.SEQUENCE) {
			return nil, fmt.Errorf("%w: something else than a certificate in the PKCS#7", errPayload)
		}
		if len(out) == enrol.MaxChain || len(c) > enrol.MaxCertificate {
			return nil, fmt.Errorf("%w: too many or too large certificates in the PKCS#7", errPayload)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no certificate in the PKCS#7", errPayload)
	}
	return out, nil
}

// certificateSet walks down to the certificates field (RFC 5652 sections 3 and 5.1).
func certificateSet(der []byte) (set cryptobyte.String, ok bool) {
	var outer, explicit, signedData cryptobyte.String
	var contentType encodingasn1.ObjectIdentifier
	input := cryptobyte.String(der)
	ok = input.ReadASN1(&outer, asn1.SEQUENCE) && input.Empty() &&
		outer.ReadASN1ObjectIdentifier(&contentType) && contentType.Equal(oidSignedData()) &&
		outer.ReadASN1(&explicit, asn1.Tag(0).ContextSpecific().Constructed()) && outer.Empty() &&
		explicit.ReadASN1(&signedData, asn1.SEQUENCE) && explicit.Empty()
	if !ok {
		return nil, false
	}
	var algorithms, content, crls, signers cryptobyte.String
	var version int64
	ok = signedData.ReadASN1Integer(&version) && version == 1 &&
		signedData.ReadASN1(&algorithms, asn1.SET) &&
		signedData.ReadASN1(&content, asn1.SEQUENCE) &&
		content.ReadASN1ObjectIdentifier(&contentType) && contentType.Equal(oidData()) && content.Empty() &&
		signedData.ReadASN1(&set, asn1.Tag(0).ContextSpecific().Constructed()) &&
		signedData.ReadOptionalASN1(&crls, nil, asn1.Tag(1).ContextSpecific().Constructed()) &&
		signedData.ReadASN1(&signers, asn1.SET) && signers.Empty() && signedData.Empty()
	return set, ok
}
