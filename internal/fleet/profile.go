package fleet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// KeyAlgorithm is the kind and size of a certificate's key.
type KeyAlgorithm string

// The key algorithms a device may be asked for. RSA-1024 exists for the
// paper's comparison and only behind an explicit lab flag.
const (
	ECDSAP256 KeyAlgorithm = "ecdsa-p256"
	ECDSAP384 KeyAlgorithm = "ecdsa-p384"
	RSA1024   KeyAlgorithm = "rsa-1024"
	RSA2048   KeyAlgorithm = "rsa-2048"
	RSA3072   KeyAlgorithm = "rsa-3072"
	RSA4096   KeyAlgorithm = "rsa-4096"
)

// KeyAlgorithms lists every known algorithm, the default first.
func KeyAlgorithms() []KeyAlgorithm {
	return []KeyAlgorithm{ECDSAP256, ECDSAP384, RSA2048, RSA3072, RSA4096, RSA1024}
}

// ErrProfile is wrapped by every refusal of a certificate profile.
var ErrProfile = errors.New("not a certificate profile")

// ParseKeyAlgorithm parses the text form. Errors wrap ErrProfile.
func ParseKeyAlgorithm(s string) (KeyAlgorithm, error) {
	if a := KeyAlgorithm(s); slices.Contains(KeyAlgorithms(), a) {
		return a, nil
	}
	return "", fmt.Errorf("%w: key algorithm %.30q is none of %v", ErrProfile, s, KeyAlgorithms())
}

// Attribute is one attribute of a subject, by its short name (RFC 4519).
type Attribute struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// SubjectTypes are the attribute types a subject may have, in the order in
// which they are encoded. Only CN names the device; the rest place it.
func SubjectTypes() []string { return []string{"C", "ST", "L", "O", "OU", "CN"} }

// Profile says what certificate a device gets.
type Profile struct {
	Name        string            `json:"name"`
	Match       map[string]string `json:"match"`         // labels a device must have; empty matches all
	Key         KeyAlgorithm      `json:"key"`           // "" leaves the choice to the device
	Subject     []Attribute       `json:"subject"`       // empty: the names configured on the device
	SANs        []Name            `json:"sans"`          // values may hold {name}
	KeyUsage    []string          `json:"key_usage"`     // as in KeyUsages; empty leaves it to the CA
	ExtKeyUsage []string          `json:"ext_key_usage"` // as in ExtKeyUsages; empty leaves it to the CA
	Endpoint    string            `json:"endpoint"`      // [host]:port where TLS serves the certificate, or NoEndpoint; "" leaves it to the device
}

// NoEndpoint as a profile's endpoint says that nobody serves the certificate.
const NoEndpoint = "none"

// KeyUsages maps the RFC 5280 section 4.2.1.3 names to their bit numbers.
func KeyUsages() map[string]int {
	return map[string]int{"digitalSignature": 0, "contentCommitment": 1, "keyEncipherment": 2, "dataEncipherment": 3, "keyAgreement": 4}
}

// ExtKeyUsages maps the RFC 5280 section 4.2.1.12 names to the arcs of their
// object identifiers.
func ExtKeyUsages() map[string][]int {
	return map[string][]int{
		"serverAuth":      {1, 3, 6, 1, 5, 5, 7, 3, 1},
		"clientAuth":      {1, 3, 6, 1, 5, 5, 7, 3, 2},
		"codeSigning":     {1, 3, 6, 1, 5, 5, 7, 3, 3},
		"emailProtection": {1, 3, 6, 1, 5, 5, 7, 3, 4},
		"timeStamping":    {1, 3, 6, 1, 5, 5, 7, 3, 8},
		"ocspSigning":     {1, 3, 6, 1, 5, 5, 7, 3, 9},
	}
}

// Validate reports, as an error that wraps ErrProfile, what is wrong with p.
func (p Profile) Validate() error {
	if p.Key != "" {
		if _, err := ParseKeyAlgorithm(string(p.Key)); err != nil {
			return fmt.Errorf("profile %q: %w", p.Name, err)
		}
	}
	for _, a := range p.Subject {
		if !slices.Contains(SubjectTypes(), a.Type) || a.Value == "" || len(a.Value) > 64 {
			return fmt.Errorf("%w: profile %q: subject attribute %s=%.70q: types are %v, values 1 to 64 characters", ErrProfile, p.Name, a.Type, a.Value, SubjectTypes())
		}
	}
	for _, n := range p.SANs {
		if n.Kind == KindCN {
			return fmt.Errorf("%w: profile %q: %s belongs into the subject", ErrProfile, p.Name, n)
		}
	}
	for _, u := range p.KeyUsage {
		if _, ok := KeyUsages()[u]; !ok {
			return fmt.Errorf("%w: profile %q: key usage %q is none of %v", ErrProfile, p.Name, u, slices.Sorted(maps.Keys(KeyUsages())))
		}
	}
	for _, u := range p.ExtKeyUsage {
		if _, ok := ExtKeyUsages()[u]; !ok {
			return fmt.Errorf("%w: profile %q: extended key usage %q is none of %v", ErrProfile, p.Name, u, slices.Sorted(maps.Keys(ExtKeyUsages())))
		}
	}
	return nil
}

// SelectProfile returns the first profile whose labels device has, and the
// zero Profile (everything as configured on the device) if none matches.
func SelectProfile(profiles []Profile, d Device) Profile {
	for _, p := range profiles {
		if d.HasLabels(p.Match) {
			return p
		}
	}
	return Profile{}
}

// For returns the profile with {name} and {asset} in its subject and SANs
// replaced by those of the device. Errors wrap ErrName or ErrProfile; one is
// that the device has no asset yet.
func (p Profile) For(d Device) (Profile, error) {
	out := p
	out.Subject = slices.Clone(p.Subject)
	var missing bool
	fill := func(value *string) {
		missing = missing || d.Asset == "" && strings.Contains(*value, "{asset}")
		*value = strings.NewReplacer("{name}", d.Name, "{asset}", d.Asset).Replace(*value)
	}
	for i := range out.Subject {
		fill(&out.Subject[i].Value)
	}
	out.SANs = slices.Clone(p.SANs)
	for i := range out.SANs {
		fill(&out.SANs[i].Value)
	}
	if missing {
		return Profile{}, fmt.Errorf("%w: profile %q names the asset, and %s has no asset yet", ErrProfile, p.Name, d.Name)
	}
	for _, n := range out.SANs {
		if err := n.Validate(); err != nil {
			return Profile{}, fmt.Errorf("profile %q: %w", p.Name, err)
		}
	}
	return out, out.Validate()
}
