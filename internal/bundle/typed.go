package bundle

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/passphrase"
	"github.com/edgeclm/edgeclm/internal/pin"
)

// OpenTyped opens a bundle that was sealed to a passphrase, which may be a
// generated one or a PIN in any spelling that people type. A mistyped one is told
// by its check word or symbols: the error then wraps passphrase.ErrTypo or
// pin.ErrTypo beside those of Open.
func OpenTyped(sealed, typed []byte) (*Bundle, error) {
	if text, err := passphrase.Canonical(typed); err != nil {
		return nil, fmt.Errorf("open bundle: %w: %w", ErrPassphrase, err)
	} else if !bytes.Equal(text, typed) {
		b, err := openWith(sealed, text)
		if !errors.Is(err, ErrPassphrase) {
			return b, err
		}
	}
	b, err := openWith(sealed, typed)
	if _, typo := pin.Parse(typed); errors.Is(err, ErrPassphrase) && errors.Is(typo, pin.ErrTypo) {
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
