// Package pin is the PIN of a key bundle: what a person reads from a printed
// sheet and types on a device that nobody can log in to.
//
// A PIN is four groups of five symbols of Crockford's base 32, which leaves out
// I, L, O and U: "K7QW3-0ZT4M-9XR2B-HC5VD". The first four symbols of each
// group are 20 random bits, 80 in all; the fifth checks the group and its place,
// so that a mistyped symbol, two symbols or two groups in the wrong order are
// told, with the group, before a second of key derivation is spent on them.
//
// Eighty bits behind scrypt (2^15) are out of reach of a guess: at a million
// guesses a second it takes 10^10 years on average. Fewer would be enough
// against somebody who is at the device; the sealed bundle, though, travels on a
// memory card that can be copied, and is guessed at without anybody noticing.
package pin

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The form of a PIN.
const (
	groups    = 4
	perGroup  = 5                 // symbols, the last one is the check
	symbols   = groups * perGroup // without separators
	textLen   = symbols + groups - 1
	bitsEach  = 5 // of a symbol
	alphabet  = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	separator = '-'
)

// Size is how many random bytes a PIN is made of.
const Size = groups * (perGroup - 1) * bitsEach / 8

// MaxText bounds in bytes what Parse reads.
const MaxText = 256

// WorkFactor is the scrypt work, log2(N), that bundles are sealed to a PIN
// with: 32 MB of memory for a device. age's default of 18 takes 256 MB, and
// makes up for passphrases that people think of.
const WorkFactor = 15

// Errors of Parse.
var (
	// ErrForm: the text is not of the form of a PIN.
	ErrForm = errors.New("not a PIN, which has four groups of five letters and digits")
	// ErrTypo: it is of the form, but was mistyped.
	ErrTypo = errors.New("the PIN is mistyped")
)

// PIN is a PIN; the zero value is none.
type PIN struct{ text string }

// New makes a PIN of random bytes.
func New(random [Size]byte) PIN {
	var values [symbols]byte
	var acc, bits uint
	next := 0
	for at := range values {
		if at%perGroup == perGroup-1 {
			values[at] = check(values[at-perGroup+1:at], at/perGroup)
			continue
		}
		for bits < bitsEach {
			acc = acc<<8 | uint(random[next])
			next++
			bits += 8
		}
		bits -= bitsEach
		values[at] = byte(acc>>bits) & (1<<bitsEach - 1)
	}
	return fromValues(values)
}

func fromValues(values [symbols]byte) PIN {
	text := make([]byte, 0, textLen)
	for at, v := range values {
		if at > 0 && at%perGroup == 0 {
			text = append(text, separator)
		}
		text = append(text, alphabet[v])
	}
	return PIN{string(text)}
}

// Parse reads a PIN as people type it: in either case, groups apart or not, O
// for 0 and I or L for 1, the mark in front that some editors write. Errors
// wrap ErrForm, or ErrTypo and name the group; they never hold the text.
func Parse(typed []byte) (PIN, error) {
	if len(typed) > MaxText || !utf8.Valid(typed) {
		return PIN{}, ErrForm
	}
	var values [symbols]byte
	n := 0
	for _, r := range strings.TrimPrefix(string(typed), "\ufeff") {
		if strings.ContainsRune(" \t\r\n-_–—", r) {
			continue
		}
		v, ok := value(r)
		if !ok || n == symbols {
			return PIN{}, ErrForm
		}
		values[n] = v
		n++
	}
	if n != symbols {
		return PIN{}, fmt.Errorf("%w: there are %d", ErrForm, n)
	}
	for g := range groups {
		group := values[g*perGroup:][:perGroup]
		if check(group[:perGroup-1], g) != group[perGroup-1] {
			return PIN{}, fmt.Errorf("%w: look at group %d of %d", ErrTypo, g+1, groups)
		}
	}
	return fromValues(values), nil
}

func value(r rune) (byte, bool) {
	switch r = unicode.ToUpper(r); r {
	case 'O':
		r = '0'
	case 'I', 'L':
		r = '1'
	}
	at := strings.IndexRune(alphabet, r)
	return byte(at), at >= 0
}

// check returns the check symbol of a group: a sum over GF(32) with different
// weights, none of them 1, and a constant for the group's place. Any single
// error, any two symbols that changed places, and any two groups that did, give
// another sum.
func check(group []byte, place int) byte {
	sum := byte(place + 1)
	weight := byte(1)
	for _, v := range group {
		weight = multiply(weight, 2)
		sum ^= multiply(weight, v)
	}
	return sum
}

// multiply multiplies in GF(2)[x]/(x^5+x^2+1), in which x is primitive.
func multiply(a, b byte) byte {
	var product byte
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			product ^= a
		}
		if a <<= 1; a&0x20 != 0 {
			a ^= 0x25
		}
	}
	return product
}

// IsZero reports whether there is none.
func (p PIN) IsZero() bool { return p.text == "" }

// Text returns the PIN as it is printed, which is the passphrase that bundles
// are sealed to.
func (p PIN) Text() string { return p.text }

// String keeps the PIN out of logs and of %v.
func (p PIN) String() string { return "PIN" }

// GoString is String, for %#v.
func (p PIN) GoString() string { return p.String() }
