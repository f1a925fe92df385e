package pkimessage

import (
	"bytes"
	"encoding/asn1"
	"fmt"

	"github.com/smallstep/pkcs7"
	"github.com/smallstep/scep"
)

// oids are the object identifiers of the SCEP attributes (RFC 8894 sections
// 3.2.1 and 3.2.1.4.1).
var (
	oidMessageType    = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 2}
	oidPKIStatus      = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 3}
	oidFailInfo       = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 4}
	oidSenderNonce    = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 5}
	oidRecipientNonce = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 6}
	oidTransactionID  = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 7}
	oidFailInfoText   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 24, 1}
)

// Bounds of the attributes.
const (
	maxAttributes = 32
	maxValue      = 1024 // bytes of one attribute's value
)

// attributes are the values of the signed attributes of one signer by type,
// each exactly one DER value.
type attributes map[string][]byte

// signedAttributes collects the attributes of a message with one signer. Two of
// one type, or one with several values, are refused.
func signedAttributes(p7 *pkcs7.PKCS7) (attributes, error) {
	list := p7.Signers[0].AuthenticatedAttributes
	if len(list) > maxAttributes {
		return nil, fmt.Errorf("%w: %d attributes", ErrMalformed, len(list))
	}
	out := make(attributes, len(list))
	for _, a := range list {
		var value asn1.RawValue
		rest, err := asn1.Unmarshal(a.Value.Bytes, &value)
		if err != nil || len(rest) > 0 || len(a.Value.Bytes) > maxValue {
			return nil, fmt.Errorf("%w: attribute %v has not exactly one value of at most %d bytes", ErrMalformed, a.Type, maxValue)
		}
		if _, twice := out[a.Type.String()]; twice {
			return nil, fmt.Errorf("%w: attribute %v twice", ErrMalformed, a.Type)
		}
		out[a.Type.String()] = a.Value.Bytes
	}
	return out, nil
}

// text returns a string attribute, "" if it is absent.
func (a attributes) text(oid asn1.ObjectIdentifier) (string, error) {
	der, ok := a[oid.String()]
	if !ok {
		return "", nil
	}
	var s string
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		return "", fmt.Errorf("%w: attribute %v is no string", ErrMalformed, oid)
	}
	return s, nil
}

// octets returns an octet string attribute, nil if it is absent.
func (a attributes) octets(oid asn1.ObjectIdentifier) ([]byte, error) {
	der, ok := a[oid.String()]
	if !ok {
		return nil, nil
	}
	var b []byte
	if _, err := asn1.Unmarshal(der, &b); err != nil {
		return nil, fmt.Errorf("%w: attribute %v is no octet string", ErrMalformed, oid)
	}
	return b, nil
}

// isData reports whether the content type attribute is there and says id-data
// (RFC 5652 section 11.1).
func (a attributes) isData() bool {
	der, err := asn1.Marshal(pkcs7.OIDData)
	return err == nil && bytes.Equal(a[pkcs7.OIDAttributeContentType.String()], der)
}

// read fills in the fields of m.
func (a attributes) read(m *Message) error {
	texts := []struct {
		oid asn1.ObjectIdentifier
		set func(string)
	}{
		{oidMessageType, func(s string) { m.Type = scep.MessageType(s) }},
		{oidTransactionID, func(s string) { m.TransactionID = s }},
		{oidPKIStatus, func(s string) { m.Status = scep.PKIStatus(s) }},
		{oidFailInfo, func(s string) { m.FailInfo = scep.FailInfo(s) }},
		{oidFailInfoText, func(s string) { m.FailText = s }},
	}
	for _, t := range texts {
		s, err := a.text(t.oid)
		if err != nil {
			return err
		}
		t.set(s)
	}
	var err error
	if m.SenderNonce, err = a.octets(oidSenderNonce); err != nil {
		return err
	}
	m.RecipientNonce, err = a.octets(oidRecipientNonce)
	return err
}

// list returns the attributes that m has, for signing.
func (m *Message) list() []pkcs7.Attribute {
	var out []pkcs7.Attribute
	texts := []struct {
		oid   asn1.ObjectIdentifier
		value string
	}{
		{oidMessageType, string(m.Type)},
		{oidTransactionID, m.TransactionID},
		{oidPKIStatus, string(m.Status)},
		{oidFailInfo, string(m.FailInfo)},
		{oidFailInfoText, m.FailText},
	}
	for _, t := range texts {
		if t.value != "" {
			out = append(out, pkcs7.Attribute{Type: t.oid, Value: t.value})
		}
	}
	if m.SenderNonce != nil {
		out = append(out, pkcs7.Attribute{Type: oidSenderNonce, Value: m.SenderNonce})
	}
	if m.RecipientNonce != nil {
		out = append(out, pkcs7.Attribute{Type: oidRecipientNonce, Value: m.RecipientNonce})
	}
	return out
}
