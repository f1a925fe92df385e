package pkimessage

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"math/big"

	"github.com/smallstep/pkcs7"
	"github.com/smallstep/scep"
)

// Message is one pkiMessage. A field without a value is an attribute that is
// absent.
type Message struct {
	Type           scep.MessageType // section 3.2.1.2; may be one that nobody knows
	TransactionID  string
	SenderNonce    []byte
	RecipientNonce []byte
	Status         scep.PKIStatus // section 3.2.1.3; of a CertRep
	FailInfo       scep.FailInfo  // section 3.2.1.4
	FailText       string
	Content        []byte // enveloped data (PKCS#7), see Open

	Certificates []*x509.Certificate // that came with it
	Signer       *x509.Certificate   // whose key the signature verifies
	WeakDigest   bool                // the signature is over SHA-1
}

// Signer signs messages.
type Signer struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// ParseReply parses a message that must carry exactly one signature, by the key
// of one of the certificates given. Errors wrap ErrMalformed or ErrSignature.
func ParseReply(ber []byte, by []*x509.Certificate) (*Message, error) {
	return guarded(ber, func([]*x509.Certificate) []*x509.Certificate { return by })
}

// ParseRequest parses a message that must carry exactly one signature, by the
// key of a certificate that it encloses. Errors wrap ErrMalformed or
// ErrSignature.
func ParseRequest(ber []byte) (*Message, error) {
	return guarded(ber, func(enclosed []*x509.Certificate) []*x509.Certificate { return enclosed })
}

func guarded(ber []byte, by func([]*x509.Certificate) []*x509.Certificate) (m *Message, err error) {
	defer guard(&err, errPanic)
	return parse(ber, by)
}

func parse(ber []byte, by func([]*x509.Certificate) []*x509.Certificate) (*Message, error) {
	if err := checkStructure(ber); err != nil {
		return nil, err
	}
	p7, err := pkcs7.Parse(ber)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(p7.Signers) != 1 {
		return nil, fmt.Errorf("%w: %d signers, exactly one is allowed", ErrSignature, len(p7.Signers))
	}
	m := &Message{Content: p7.Content, Certificates: p7.Certificates}
	if m.Signer, err = verify(p7, by(p7.Certificates)); err != nil {
		return nil, err
	}
	s := p7.Signers[0]
	m.WeakDigest = s.DigestAlgorithm.Algorithm.Equal(pkcs7.OIDDigestAlgorithmSHA1) ||
		s.DigestEncryptionAlgorithm.Algorithm.Equal(pkcs7.OIDDigestAlgorithmECDSASHA1)
	a, err := signedAttributes(p7)
	if err != nil {
		return nil, err
	}
	if !a.isData() {
		return nil, fmt.Errorf("%w: its content type attribute is not id-data", ErrMalformed)
	}
	if err := a.read(m); err != nil {
		return nil, err
	}
	return m, nil
}

// verify checks the one signature with the certificate that the message names,
// if that is among the ones given.
func verify(p7 *pkcs7.PKCS7, by []*x509.Certificate) (*x509.Certificate, error) {
	name := p7.Signers[0].IssuerAndSerialNumber
	for _, c := range by {
		if name.SerialNumber == nil || c.SerialNumber.Cmp(name.SerialNumber) != 0 || !bytes.Equal(c.RawIssuer, name.IssuerName.FullBytes) {
			continue
		}
		p7.Certificates = []*x509.Certificate{c}
		if err := p7.Verify(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		return c, nil
	}
	return nil, fmt.Errorf("%w: signed by serial number %.40s, which is none of %s", ErrSignature, hexadecimal(name.SerialNumber), subjects(by))
}

func hexadecimal(n *big.Int) string {
	if n == nil {
		return "?"
	}
	return n.Text(16)
}

func subjects(certificates []*x509.Certificate) string {
	var b bytes.Buffer
	for i, c := range certificates {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%s)", hexadecimal(c.SerialNumber), c.Subject)
	}
	return b.String()
}

// Sign encodes m, signed with SHA-256 by each of the signers; RFC 8894 wants
// one. The certificates of m, then the signers', are enclosed.
func Sign(m *Message, signers ...Signer) ([]byte, error) {
	signed, err := pkcs7.NewSignedData(m.Content)
	if err != nil {
		return nil, fmt.Errorf("sign SCEP message: %w", err)
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	for _, c := range m.Certificates {
		signed.AddCertificate(c)
	}
	for _, s := range signers {
		err := signed.AddSigner(s.Certificate, s.Key, pkcs7.SignerInfoConfig{ExtraSignedAttributes: m.list()})
		if err != nil {
			return nil, fmt.Errorf("sign SCEP message: %w", err)
		}
	}
	der, err := signed.Finish()
	if err != nil {
		return nil, fmt.Errorf("sign SCEP message: %w", err)
	}
	return der, nil
}
