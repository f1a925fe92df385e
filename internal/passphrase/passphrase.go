// Package passphrase makes the passphrases that secrets are sealed to, reads
// them back as people type them, and measures those that people think of.
//
// A generated one is eight words of two syllables, "dexo tipu…": a consonant
// and a vowel each. Seven words are random, 12 bits each, 84 in all; the eighth
// checks them, so that a mistyped word and two words that changed places are
// told before a second of key derivation is spent on them.
//
// There is no list of words, which would have to be somebody's and in some
// language. The letters are those that lie on the same key of a QWERTY, a
// QWERTZ and an AZERTY keyboard (so no a, m, q, w, y or z), and so does the
// space: a passphrase types the same though the machine takes its keyboard for
// another country's.
package passphrase

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/edgeclm/edgeclm/internal/pin"
)

// The form of a generated passphrase.
const (
	consonants = "bcdfghjklnprstvx"
	vowels     = "eiou"

	randomWords = 7
	words       = randomWords + 1 // the last one is the check
	wordLen     = 4               // letters: two syllables
	bitsEach    = 12              // of a word: (16 · 4)² of them
	letters     = words * wordLen
)

// Bits is the entropy of a generated passphrase.
const Bits = randomWords * bitsEach

// Size is how many random bytes one is made of; the last four bits of them are
// left over.
const Size = (Bits + 7) / 8

// MaxText bounds in bytes what is taken for a generated passphrase.
const MaxText = 256

// Errors of Parse and Canonical.
var (
	// ErrForm: the text is not of the form of a generated passphrase.
	ErrForm = errors.New("not a generated passphrase, which has eight words such as hove (letters of bcdfghjklnprstvx, each followed by e, i, o or u)")
	// ErrTypo: it is of the form, but was mistyped.
	ErrTypo = errors.New("the passphrase is mistyped")
)

// Passphrase is a generated passphrase; the zero value is none.
type Passphrase struct{ text string }

// Generate draws a passphrase.
func Generate(random io.Reader) (Passphrase, error) {
	var b [Size]byte
	defer clear(b[:])
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return Passphrase{}, fmt.Errorf("draw a passphrase: %w", err)
	}
	return New(b), nil
}

// New makes a passphrase of random bytes.
func New(random [Size]byte) Passphrase {
	var values [words]uint16
	var acc, bits uint
	next := 0
	for at := range randomWords {
		for bits < bitsEach {
			acc = acc<<8 | uint(random[next])
			next++
			bits += 8
		}
		bits -= bitsEach
		values[at] = uint16(acc>>bits) & (1<<bitsEach - 1)
	}
	values[randomWords] = check(values[:randomWords])
	return fromValues(values)
}

func fromValues(values [words]uint16) Passphrase {
	text := make([]byte, 0, letters+words-1)
	for at, v := range values {
		if at > 0 {
			text = append(text, ' ')
		}
		for _, syllable := range []uint16{v >> 6, v & 0x3f} {
			text = append(text, consonants[syllable>>2], vowels[syllable&3])
		}
	}
	return Passphrase{string(text)}
}

// Parse reads a generated passphrase as people type it: in either case, words
// apart or not, with spaces or hyphens. Errors wrap ErrForm, or ErrTypo; they
// never hold the text.
func Parse(typed []byte) (Passphrase, error) {
	if len(typed) > MaxText || !utf8.Valid(typed) {
		return Passphrase{}, ErrForm
	}
	var values [words]uint16
	n := 0
	for _, r := range strings.TrimPrefix(string(typed), "\ufeff") {
		if strings.ContainsRune(" \t\r\n-", r) {
			continue
		}
		set, width := consonants, 4
		if n%2 == 1 {
			set, width = vowels, 2
		}
		v := strings.IndexRune(set, unicode.ToLower(r))
		if v < 0 || n == letters {
			return Passphrase{}, ErrForm
		}
		values[n/wordLen] = values[n/wordLen]<<width | uint16(v)
		n++
	}
	if n != letters {
		return Passphrase{}, ErrForm
	}
	if check(values[:randomWords]) != values[randomWords] {
		return Passphrase{}, fmt.Errorf("%w: its last word does not fit the others", ErrTypo)
	}
	return fromValues(values), nil
}

// check returns the check word: a sum over GF(4096) with different weights,
// none of them 1, and a constant. Any one wrong word, and any two words that
// changed places, give another sum; of other mistakes one in 4,096 does not.
func check(values []uint16) uint16 {
	sum, weight := uint16(1), uint16(1)
	for _, v := range values {
		weight = multiply(weight, 2)
		sum ^= multiply(weight, v)
	}
	return sum
}

// multiply multiplies in GF(2)[x]/(x^12+x^6+x^4+x+1), in which x is primitive.
func multiply(a, b uint16) uint16 {
	var product uint16
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			product ^= a
		}
		if a <<= 1; a&(1<<bitsEach) != 0 {
			a ^= 0x1053
		}
	}
	return product
}

// IsZero reports whether there is none.
func (p Passphrase) IsZero() bool { return p.text == "" }

// Text returns the passphrase as it is printed, which is what secrets are
// sealed to.
func (p Passphrase) Text() string { return p.text }

// String keeps the passphrase out of logs and of %v.
func (p Passphrase) String() string { return "passphrase" }

// GoString is String, for %#v.
func (p Passphrase) GoString() string { return p.String() }

// Canonical returns the bytes that a secret is sealed to, and opened with, when
// this was typed: of a generated passphrase and of a PIN as they are printed,
// of everything else as typed. The error wraps ErrTypo if it was mistyped.
func Canonical(typed []byte) ([]byte, error) {
	p, err := Parse(typed)
	if err == nil {
		return []byte(p.Text()), nil
	}
	if errors.Is(err, ErrTypo) {
		return nil, err
	}
	if p, err := pin.Parse(typed); err == nil {
		return []byte(p.Text()), nil
	}
	return append([]byte(nil), typed...), nil
}

// CanonicalNew is Canonical for what a secret shall be sealed to: a mistyped PIN
// is refused too, since nobody could open the secret with the right one. The
// error then wraps pin.ErrTypo.
func CanonicalNew(typed []byte) ([]byte, error) {
	if _, err := pin.Parse(typed); errors.Is(err, pin.ErrTypo) {
		return nil, err
	}
	return Canonical(typed)
}
