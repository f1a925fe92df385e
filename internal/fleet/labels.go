package fleet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrLabel is wrapped by every refusal of labels.
var ErrLabel = errors.New("not a label")

// Bounds of labels.
const (
	MaxLabels     = 32
	maxLabelKey   = 63
	maxLabelValue = 63
)

// ParseLabels parses "k=v;k=v": at most MaxLabels, no key twice. Keys match
// [A-Za-z0-9][A-Za-z0-9._/-]{0,62}, values are up to 63 bytes of UTF-8 without
// control characters, ';' and '='. The empty string has no labels. Errors wrap
// ErrLabel.
func ParseLabels(s string) (map[string]string, error) {
	labels := map[string]string{}
	for part := range strings.SplitSeq(s, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("%w: %.80q is not key=value", ErrLabel, part)
		}
		if _, twice := labels[key]; twice {
			return nil, fmt.Errorf("%w: %.80q is given twice", ErrLabel, key)
		}
		labels[key] = value
	}
	return labels, ValidateLabels(labels)
}

// FormatLabels is the inverse of ParseLabels, in the order of the keys.
func FormatLabels(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ";")
}

// ValidateLabels reports, as an error that wraps ErrLabel, what is wrong with
// labels.
func ValidateLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("%w: %d labels, at most %d are allowed", ErrLabel, len(labels), MaxLabels)
	}
	for k, v := range labels {
		if !validLabelKey(k) {
			return fmt.Errorf("%w: the key %.80q is not 1 to %d of A-Z, a-z, 0-9, '.', '_', '/', '-'", ErrLabel, k, maxLabelKey)
		}
		if len(v) > maxLabelValue || v != strings.ToValidUTF8(v, "") || v != strings.TrimSpace(v) || strings.ContainsFunc(v, func(r rune) bool {
			return r < ' ' || r >= 0x7f && r < 0xa0 || r == ';' || r == '='
		}) {
			return fmt.Errorf("%w: the value %.80q of %s is not up to %d bytes without control characters, ';' and '='", ErrLabel, v, k, maxLabelValue)
		}
	}
	return nil
}

func validLabelKey(k string) bool {
	if k == "" || len(k) > maxLabelKey {
		return false
	}
	for i, c := range []byte(k) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._/-", rune(c))) {
			return false
		}
	}
	return true
}
