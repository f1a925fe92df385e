package fleet

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// ErrName is wrapped by every refusal of a certificate name.
var ErrName = errors.New("not a certificate name")

// NameKind is the kind of a name that a certificate may carry.
type NameKind string

// The kinds: the subject's common name, and three kinds of subject alternative
// name (RFC 5280 section 4.2.1.6).
const (
	KindCN  NameKind = "cn"
	KindDNS NameKind = "dns"
	KindIP  NameKind = "ip"
	KindURI NameKind = "uri"
)

const maxNameValue = 255

// Name is one name that a certificate may carry. Its text form is
// "<kind>:<value>", as in "dns:plc-0001.bilbao".
type Name struct {
	Kind  NameKind
	Value string
}

// ParseName parses the text form and checks the value by its kind. Values have
// 1 to 255 bytes of printable ASCII without ';'; a common name has at most 64
// (RFC 5280, ub-common-name); an IP address is in its canonical form. Errors
// wrap ErrName.
func ParseName(s string) (Name, error) {
	kind, value, ok := strings.Cut(s, ":")
	if !ok {
		return Name{}, fmt.Errorf("%w: %.80q has no kind (cn:, dns:, ip: or uri:)", ErrName, s)
	}
	n := Name{NameKind(kind), value}
	return n, n.Validate()
}

// Validate reports, as an error that wraps ErrName, what is wrong with n.
func (n Name) Validate() error {
	if n.Value == "" || len(n.Value) > maxNameValue || strings.ContainsFunc(n.Value, func(r rune) bool {
		return r < ' ' || r > '~' || r == ';'
	}) {
		return fmt.Errorf("%w: %.80q is not 1 to %d printable ASCII characters without ';'", ErrName, n.Value, maxNameValue)
	}
	switch n.Kind {
	case KindCN:
		if len(n.Value) > 64 {
			return fmt.Errorf("%w: the common name %q has more than 64 characters", ErrName, n.Value)
		}
	case KindDNS:
		if !IsHostName(n.Value) {
			return fmt.Errorf("%w: %q is not a host name", ErrName, n.Value)
		}
	case KindIP:
		if a, err := netip.ParseAddr(n.Value); err != nil || a.Zone() != "" || a.String() != n.Value {
			return fmt.Errorf("%w: %q is not an IP address in its canonical form", ErrName, n.Value)
		}
	case KindURI:
		if u, err := url.Parse(n.Value); err != nil || !u.IsAbs() || strings.Contains(n.Value, " ") {
			return fmt.Errorf("%w: %q is not an absolute URI", ErrName, n.Value)
		}
	default:
		return fmt.Errorf("%w: kind %.20q is none of cn, dns, ip, uri", ErrName, n.Kind)
	}
	return nil
}

// String returns the text form.
func (n Name) String() string { return string(n.Kind) + ":" + n.Value }

// MarshalText implements encoding.TextMarshaler.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it is as strict as ParseName.
func (n *Name) UnmarshalText(b []byte) error {
	parsed, err := ParseName(string(b))
	if err != nil {
		return err
	}
	*n = parsed
	return nil
}

// MaxNames bounds how many names one certificate or bundle may have.
const MaxNames = 32

// ParseNames parses names separated by ';', each in its text form, at most
// MaxNames and none twice. Errors wrap ErrName.
func ParseNames(s string) ([]Name, error) {
	var names []Name
	for part := range strings.SplitSeq(s, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		n, err := ParseName(part)
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, n) {
			return nil, fmt.Errorf("%w: %s is given twice", ErrName, n)
		}
		names = append(names, n)
	}
	if len(names) > MaxNames {
		return nil, fmt.Errorf("%w: %d names, at most %d are allowed", ErrName, len(names), MaxNames)
	}
	return names, nil
}

// DefaultNames are the names of a device for which none were given: its name
// as common name, and as DNS name if it is a valid host name.
func DefaultNames(device string) []Name {
	names := []Name{{KindCN, device}}
	if IsHostName(device) {
		names = append(names, Name{KindDNS, device})
	}
	return names
}

// IsHostName reports whether s is a host name of letter-digit-hyphen labels
// (RFC 1123 section 2.1), without trailing dot and not an IP address.
func IsHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	numeric := true
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		numeric = true
		for _, c := range []byte(label) {
			digit := c >= '0' && c <= '9'
			if !digit && c != '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
			numeric = numeric && digit
		}
	}
	// A last label of digits alone would make it look like an IPv4 address.
	return !numeric
}
