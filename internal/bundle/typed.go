package bundle

import (
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/pin"
)

// OpenTyped opens a bundle that was sealed to a passphrase, which may be a PIN
// in any spelling that people type. A mistyped PIN is told by its check symbols:
// the error then wraps pin.ErrTypo beside those of Open.
func OpenTyped(sealed, typed []byte) (*Bundle, error) {
	p, typo := pin.Parse(typed)
	if typo == nil {
		b, err := openWith(sealed, []byte(p.Text()))
		if !errors.Is(err, ErrPassphrase) {
			return b, err
		}
	}
	b, err := openWith(sealed, typed)
	if errors.Is(err, ErrPassphrase) && errors.Is(typo, pin.ErrTypo) {
		return nil, fmt.Errorf("%w: %w", err, typo)
	}
	return b, err
}

func openWith(sealed, passphrase []byte) (*Bundle, error) {
	o, err := PassphraseOpener(passphrase)
	if err != nil {
		return nil, err
	}
	return Open(sealed, o)
}
