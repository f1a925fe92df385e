package coaplink

import (
	"fmt"
	"maps"
	"slices"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Bounds of a CSR request.
const (
	maxChallenge = 255 // pkcs-9-ub-challengePassword (RFC 2985 appendix A)
	maxSubject   = 16
)

// csrRequest is the body of /csr-generation-request.
type csrRequest struct {
	Version     uint64   `cbor:"0,keyasint"`
	Enrolment   []byte   `cbor:"1,keyasint"`
	CA          []byte   `cbor:"2,keyasint,omitempty"`  // trust anchor, DER
	CAHash      []byte   `cbor:"3,keyasint"`            // SHA-256 of it
	Key         uint64   `cbor:"4,keyasint,omitempty"`  // keyCodes; absent: the device's choice
	Subject     *[]pair  `cbor:"5,keyasint,omitempty"`  // with 6, or neither
	SANs        *[]pair  `cbor:"6,keyasint,omitempty"`  // with 5, or neither
	KeyUsage    uint64   `cbor:"7,keyasint,omitempty"`  // bit n: bit n of KeyUsage
	ExtKeyUsage []uint64 `cbor:"8,keyasint,omitempty"`  // n: 1.3.6.1.5.5.7.3.n
	Challenge   []byte   `cbor:"9,keyasint,omitempty"`  // challengePassword
	Time        *int64   `cbor:"10,keyasint,omitempty"` // Unix time of the CLM
}

// pair is [type, value]: an attribute of the subject by the last arc of its
// type under 2.5.4, or a subject alternative name by its tag in GeneralName.
type pair struct {
	_     struct{} `cbor:",toarray"`
	Type  uint64
	Value string
}

func keyCodes() map[fleet.KeyAlgorithm]uint64 {
	return map[fleet.KeyAlgorithm]uint64{
		fleet.ECDSAP256: 1, fleet.ECDSAP384: 2,
		fleet.RSA2048: 3, fleet.RSA3072: 4, fleet.RSA4096: 5, fleet.RSA1024: 6,
	}
}

func attributeCodes() map[string]uint64 {
	return map[string]uint64{"CN": 3, "C": 6, "L": 7, "ST": 8, "O": 10, "OU": 11}
}

func nameCodes() map[fleet.NameKind]uint64 {
	return map[fleet.NameKind]uint64{fleet.KindDNS: 2, fleet.KindURI: 6, fleet.KindIP: 7}
}

// keyOf inverts one of the tables above.
func keyOf[K comparable](table map[K]uint64, code uint64) (K, bool) {
	for k, v := range table {
		if v == code {
			return k, true
		}
	}
	var zero K
	return zero, false
}

func encodeCSRRequest(req enrol.CSRRequest) ([]byte, error) {
	out := csrRequest{
		Version: wireVersion, Enrolment: req.Enrolment[:], CA: req.CA, CAHash: req.CAHash[:],
		Challenge: req.Challenge,
	}
	if req.Key != "" {
		code, ok := keyCodes()[req.Key]
		if !ok {
			return nil, fmt.Errorf("key algorithm %q has no code", req.Key)
		}
		out.Key = code
	}
	if req.Enclosed {
		subject, sans := make([]pair, 0, len(req.Subject)), make([]pair, 0, len(req.SANs))
		for _, a := range req.Subject {
			code, ok := attributeCodes()[a.Type]
			if !ok {
				return nil, fmt.Errorf("subject attribute %q has no code", a.Type)
			}
			subject = append(subject, pair{Type: code, Value: a.Value})
		}
		for _, n := range req.SANs {
			code, ok := nameCodes()[n.Kind]
			if !ok {
				return nil, fmt.Errorf("%s cannot be a subject alternative name", n)
			}
			sans = append(sans, pair{Type: code, Value: n.Value})
		}
		out.Subject, out.SANs = &subject, &sans
	}
	for _, u := range req.KeyUsage {
		bit, ok := fleet.KeyUsages()[u]
		if !ok {
			return nil, fmt.Errorf("key usage %q has no code", u)
		}
		out.KeyUsage |= 1 << bit
	}
	for _, u := range req.ExtKeyUsage {
		oid, ok := fleet.ExtKeyUsages()[u]
		if !ok {
			return nil, fmt.Errorf("extended key usage %q has no code", u)
		}
		out.ExtKeyUsage = append(out.ExtKeyUsage, uint64(oid[len(oid)-1]))
	}
	if !req.Time.IsZero() {
		seconds := req.Time.Unix()
		out.Time = &seconds
	}
	return encode(out)
}

func decodeCSRRequest(data []byte) (enrol.CSRRequest, error) {
	var in csrRequest
	fail := func(err error) (enrol.CSRRequest, error) { return enrol.CSRRequest{}, err }
	if err := decode(data, &in); err != nil {
		return fail(err)
	}
	if err := checkVersion(in.Version); err != nil {
		return fail(err)
	}
	var out enrol.CSRRequest
	if err := fixed(out.Enrolment[:], in.Enrolment, "enrolment ID"); err != nil {
		return fail(err)
	}
	if err := fixed(out.CAHash[:], in.CAHash, "hash of the CA"); err != nil {
		return fail(err)
	}
	if in.CA != nil {
		if err := bounded(in.CA, enrol.MaxCertificate, "CA certificate"); err != nil {
			return fail(err)
		}
		out.CA = in.CA
	}
	if in.Challenge != nil {
		if err := bounded(in.Challenge, maxChallenge, "challenge"); err != nil {
			return fail(err)
		}
		out.Challenge = in.Challenge
	}
	if in.Key != 0 {
		key, ok := keyOf(keyCodes(), in.Key)
		if !ok {
			return fail(fmt.Errorf("%w: key algorithm %d", errPayload, in.Key))
		}
		out.Key = key
	}
	if in.Time != nil {
		at, err := toTime(*in.Time)
		if err != nil {
			return fail(err)
		}
		out.Time = at
	}
	if err := decodeNames(&in, &out); err != nil {
		return fail(err)
	}
	return out, decodeUsages(&in, &out)
}

func decodeNames(in *csrRequest, out *enrol.CSRRequest) error {
	if in.Subject == nil && in.SANs == nil {
		return nil
	}
	if in.Subject == nil || in.SANs == nil {
		return fmt.Errorf("%w: subject and alternative names go together", errPayload)
	}
	if len(*in.Subject) > maxSubject || len(*in.SANs) > fleet.MaxNames {
		return fmt.Errorf("%w: %d subject attributes and %d names", errPayload, len(*in.Subject), len(*in.SANs))
	}
	out.Enclosed = true
	for _, p := range *in.Subject {
		t, ok := keyOf(attributeCodes(), p.Type)
		if !ok || p.Value == "" || len(p.Value) > 64 {
			return fmt.Errorf("%w: subject attribute 2.5.4.%d of %d bytes", errPayload, p.Type, len(p.Value))
		}
		out.Subject = append(out.Subject, fleet.Attribute{Type: t, Value: p.Value})
	}
	for _, p := range *in.SANs {
		kind, ok := keyOf(nameCodes(), p.Type)
		if !ok {
			return fmt.Errorf("%w: alternative name of kind %d", errPayload, p.Type)
		}
		n := fleet.Name{Kind: kind, Value: p.Value}
		if err := n.Validate(); err != nil {
			return fmt.Errorf("%w: %w", errPayload, err)
		}
		out.SANs = append(out.SANs, n)
	}
	return nil
}

func decodeUsages(in *csrRequest, out *enrol.CSRRequest) error {
	usages := fleet.KeyUsages()
	byBit := slices.SortedFunc(maps.Keys(usages), func(a, b string) int { return usages[a] - usages[b] })
	left := in.KeyUsage
	for _, u := range byBit {
		if bit := uint64(1) << usages[u]; in.KeyUsage&bit != 0 {
			out.KeyUsage = append(out.KeyUsage, u)
			left &^= bit
		}
	}
	if left != 0 {
		return fmt.Errorf("%w: key usage %#x", errPayload, in.KeyUsage)
	}
	arcs := map[string]uint64{}
	for u, oid := range fleet.ExtKeyUsages() {
		arcs[u] = uint64(oid[len(oid)-1])
	}
	for _, arc := range in.ExtKeyUsage {
		u, ok := keyOf(arcs, arc)
		if !ok || slices.Contains(out.ExtKeyUsage, u) {
			return fmt.Errorf("%w: extended key usage %d", errPayload, arc)
		}
		out.ExtKeyUsage = append(out.ExtKeyUsage, u)
	}
	return nil
}
