package fleet

import (
	"errors"
	"fmt"
)

// ErrAsset is wrapped by every refusal of an asset name.
var ErrAsset = errors.New("not an asset name")

const maxAsset = 64

// ValidateAsset checks the name of an asset, which is the place or machine that
// a device serves: 1 to 64 letters, digits, blanks and . _ : / -, beginning and
// ending with a letter or digit. Errors wrap ErrAsset.
func ValidateAsset(s string) error {
	if s == "" || len(s) > maxAsset {
		return fmt.Errorf("%w: %.80q has not 1 to %d characters", ErrAsset, s, maxAsset)
	}
	for i, c := range []byte(s) {
		edge := i == 0 || i == len(s)-1
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case !edge && (c == ' ' || c == '.' || c == '_' || c == ':' || c == '/' || c == '-'):
		default:
			return fmt.Errorf("%w: %q is not of letters, digits, blanks and . _ : / -, with a letter or digit at each end", ErrAsset, s)
		}
	}
	return nil
}
