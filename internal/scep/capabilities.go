package scep

import (
	"slices"
	"strings"
)

// Capabilities are the keywords of GetCACaps (RFC 8894 section 3.5.2), as the
// CA wrote them.
type Capabilities []string

// Keywords of GetCACaps.
const (
	capAES      = "AES"
	capPost     = "POSTPKIOperation"
	capSHA256   = "SHA-256"
	capStandard = "SCEPStandard" // AES, POSTPKIOperation and SHA-256
)

// Bounds of the answer to GetCACaps.
const (
	maxCapabilities = 64
	maxCapability   = 64 // bytes
)

// parseCapabilities takes one keyword per line. What is too long or too much is
// dropped, as unknown keywords are to be ignored anyway.
func parseCapabilities(b []byte) Capabilities {
	var out Capabilities
	for line := range strings.Lines(string(b)) {
		word := strings.TrimSpace(line)
		printable := !strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' })
		if word != "" && len(word) <= maxCapability && printable && len(out) < maxCapabilities {
			out = append(out, word)
		}
	}
	return out
}

// has reports whether a keyword is there, in whatever case; SCEPStandard stands
// for the ones that RFC 8894 makes mandatory.
func (c Capabilities) has(word string) bool {
	return slices.ContainsFunc(c, func(s string) bool {
		return strings.EqualFold(s, word) || strings.EqualFold(s, capStandard)
	})
}

// warnings says which capabilities that we rely on are not announced.
func (c Capabilities) warnings() []string {
	var out []string
	for _, word := range []string{capAES, capSHA256} {
		if !c.has(word) {
			out = append(out, "the CA does not announce "+word+", which is used all the same")
		}
	}
	return out
}
