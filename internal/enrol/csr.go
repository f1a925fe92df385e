package enrol

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// ErrCSR is wrapped by every refusal of a CSR.
var ErrCSR = errors.New("the CSR is not acceptable")

// MaxCSR bounds a PKCS#10 in bytes.
const MaxCSR = 8 << 10

// ParseCSR parses exactly one PKCS#10 (RFC 2986) in DER and checks its
// self-signature, the proof of possession. Errors wrap ErrCSR.
func ParseCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > MaxCSR {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrCSR, len(der), MaxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: self-signature: %w", ErrCSR, err)
	}
	return csr, nil
}

// CheckCSR checks a CSR against what the enrolment asked for: self-signature,
// names, and a key of the kind wanted. Errors wrap ErrCSR.
func CheckCSR(der []byte, e *Enrolment) (*x509.CertificateRequest, error) {
	csr, err := ParseCSR(der)
	if err != nil {
		return nil, err
	}
	key, err := PublicKeyAlgorithm(csr.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	// RSA-1024 is accepted only when asked for.
	if e.Key != "" && key != e.Key || e.Key == "" && key == fleet.RSA1024 {
		return nil, fmt.Errorf("%w: its key is %s, wanted %s", ErrCSR, key, wantedKey(e.Key))
	}
	if got, want := SubjectAttributes(csr.Subject), sortedSubject(e.Subject); !slices.Equal(got, want) {
		return nil, fmt.Errorf("%w: its subject is %v, wanted %v", ErrCSR, got, want)
	}
	names, err := AlternativeNames(csr.DNSNames, csr.IPAddresses, csr.URIs, csr.EmailAddresses)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	if want := sortedNames(e.SANs); !slices.Equal(names, want) {
		return nil, fmt.Errorf("%w: its alternative names are %v, wanted %v", ErrCSR, names, want)
	}
	return csr, nil
}

func wantedKey(k fleet.KeyAlgorithm) string {
	if k == "" {
		return "any but " + string(fleet.RSA1024)
	}
	return string(k)
}

// PublicKeyAlgorithm names the kind and size of a public key; one that is not
// in fleet.KeyAlgorithms is an error.
func PublicKeyAlgorithm(pub any) (fleet.KeyAlgorithm, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return fleet.ECDSAP256, nil
		case elliptic.P384():
			return fleet.ECDSAP384, nil
		}
		return "", fmt.Errorf("the curve %s is not supported", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if k.E != 65537 {
			return "", errors.New("the RSA exponent is not 65537")
		}
		return fleet.ParseKeyAlgorithm(fmt.Sprintf("rsa-%d", k.N.BitLen()))
	}
	return "", fmt.Errorf("a key of type %T is not supported", pub)
}

// SubjectName returns the name with these attributes, for a CSR.
func SubjectName(attributes []fleet.Attribute) pkix.Name {
	var n pkix.Name
	for _, a := range attributes {
		switch a.Type {
		case "C":
			n.Country = append(n.Country, a.Value)
		case "ST":
			n.Province = append(n.Province, a.Value)
		case "L":
			n.Locality = append(n.Locality, a.Value)
		case "O":
			n.Organization = append(n.Organization, a.Value)
		case "OU":
			n.OrganizationalUnit = append(n.OrganizationalUnit, a.Value)
		case "CN":
			n.CommonName = a.Value
		}
	}
	return n
}

// SubjectAttributes returns the attributes of a parsed name, sorted. A type
// that fleet.SubjectTypes does not list appears under its object identifier,
// so that it never equals a wanted one.
func SubjectAttributes(n pkix.Name) []fleet.Attribute {
	types := map[string]string{
		"2.5.4.6": "C", "2.5.4.8": "ST", "2.5.4.7": "L", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.3": "CN",
	}
	out := make([]fleet.Attribute, 0, len(n.Names))
	for _, a := range n.Names {
		name, ok := types[a.Type.String()]
		if !ok {
			name = a.Type.String()
		}
		out = append(out, fleet.Attribute{Type: name, Value: fmt.Sprint(a.Value)})
	}
	return sortedSubject(out)
}

func sortedSubject(attributes []fleet.Attribute) []fleet.Attribute {
	out := slices.Clone(attributes)
	slices.SortFunc(out, func(a, b fleet.Attribute) int {
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	})
	return out
}

// AlternativeNames returns subject alternative names as fleet.Names, sorted.
func AlternativeNames(dns []string, ips []net.IP, uris []*url.URL, emails []string) ([]fleet.Name, error) {
	if len(emails) > 0 {
		return nil, errors.New("it names an e-mail address")
	}
	var names []fleet.Name
	for _, d := range dns {
		names = append(names, fleet.Name{Kind: fleet.KindDNS, Value: d})
	}
	for _, ip := range ips {
		names = append(names, fleet.Name{Kind: fleet.KindIP, Value: ip.String()})
	}
	for _, u := range uris {
		names = append(names, fleet.Name{Kind: fleet.KindURI, Value: u.String()})
	}
	return sortedNames(names), nil
}

func sortedNames(names []fleet.Name) []fleet.Name {
	out := slices.Clone(names)
	slices.SortFunc(out, func(a, b fleet.Name) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out)
}

// SplitNames divides names into a subject (the first common name) and subject
// alternative names.
func SplitNames(names []fleet.Name) (subject []fleet.Attribute, sans []fleet.Name) {
	for _, n := range names {
		switch {
		case n.Kind != fleet.KindCN:
			sans = append(sans, n)
		case len(subject) == 0:
			subject = append(subject, fleet.Attribute{Type: "CN", Value: n.Value})
		}
	}
	return subject, sans
}

// OIDs of the extensions that a CSR may ask for.
var (
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// UsageExtensions encodes key usages and extended key usages (by their names
// in fleet) as extensions for a CSR.
func UsageExtensions(keyUsage, extKeyUsage []string) ([]pkix.Extension, error) {
	var out []pkix.Extension
	if len(keyUsage) > 0 {
		bits := asn1.BitString{Bytes: make([]byte, 1)}
		for _, u := range keyUsage {
			bit, ok := fleet.KeyUsages()[u]
			if !ok {
				return nil, fmt.Errorf("%w: key usage %.30q", fleet.ErrProfile, u)
			}
			bits.Bytes[0] |= 0x80 >> bit
			bits.BitLength = max(bits.BitLength, bit+1)
		}
		der, err := asn1.Marshal(bits)
		if err != nil {
			return nil, fmt.Errorf("encode key usage: %w", err)
		}
		out = append(out, pkix.Extension{Id: oidKeyUsage, Critical: true, Value: der})
	}
	if len(extKeyUsage) > 0 {
		oids := make([]asn1.ObjectIdentifier, 0, len(extKeyUsage))
		for _, u := range extKeyUsage {
			oid, ok := fleet.ExtKeyUsages()[u]
			if !ok {
				return nil, fmt.Errorf("%w: extended key usage %.30q", fleet.ErrProfile, u)
			}
			oids = append(oids, oid)
		}
		der, err := asn1.Marshal(oids)
		if err != nil {
			return nil, fmt.Errorf("encode extended key usage: %w", err)
		}
		out = append(out, pkix.Extension{Id: oidExtKeyUsage, Value: der})
	}
	return out, nil
}
