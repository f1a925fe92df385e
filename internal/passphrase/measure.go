package passphrase

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/edgeclm/edgeclm/internal/pin"
)

// Required is how many bits a passphrase must have that a secret is sealed to.
const Required = 80

// ErrWeak is wrapped when a passphrase measures fewer bits than Required.
var ErrWeak = errors.New("the passphrase is too weak")

// Check holds a passphrase that a secret shall be sealed to, as Canonical
// returned it, to Required. The error wraps ErrWeak.
func Check(text []byte) error {
	if bits := Measure(text); bits < Required {
		return fmt.Errorf("%w: about %d bits, and %d are needed", ErrWeak, int(bits), Required)
	}
	return nil
}

// PINBits is the entropy of a PIN.
const PINBits = pin.Size * 8

// What pieces of a text count, in bits. A word of any language counts as one
// of the 7,776 of the usual lists for dice, however rare it is: no dictionary
// knows what a plant's people call things.
const (
	bitsOfWord      = 12.92 // log2(7776)
	bitsOfLetter    = 4.70  // log2(26)
	bitsOfDigit     = 3.32  // log2(10)
	bitsOfSymbol    = 5.0
	bitsOfKnown     = 1.0  // a symbol that occurred before
	bitsOfTurn      = 1.0  // from digits and symbols to letters, or to a capital
	bitsOfCase      = 1.0  // a capital at the begin, or all capitals
	bitsOfStart     = 6.0  // where a sequence begins, and which way it goes
	bitsOfShort     = 2.5  // a letter of a short word that stands alone: "the", "am"
	bitsInSentence  = 8.0  // a word of a sentence: one and a half for each letter
	bitsOfYear      = 7.0  // 1900 to 2099, those that people use
	bitsOfDate      = 15.2 // the days of a century
	bitsPerRunOn    = 2.06 // a letter of words without spaces: 12.92 per 6.25 letters
	shortWord       = 3    // letters
	shortInSentence = 4    // one word in so many is short, at least
	shortestRun     = 3    // of a sequence or repetition, in characters
	shortestOnKeys  = 4    // of neighbours on a keyboard
	hexDigits       = "0123456789abcdef"
	maxMeasured     = 256 // characters; what is behind them does not count
	separators      = " -"
)

// Measure estimates the entropy of a passphrase in bits. Generated ones and
// PINs are recognised by their check words and symbols, and counted exactly.
// All else is a guess, as every such measure is (zxcvbn's too): it cannot know
// how a text came about. It errs to the low side: repetitions, sequences,
// neighbours on a keyboard, years and dates count next to nothing, letters in a
// row are taken for words, and words among which many are short for a sentence.
// What others have written before, it still overestimates.
func Measure(text []byte) float64 {
	if _, err := Parse(text); err == nil {
		return Bits
	}
	if _, err := pin.Parse(text); err == nil {
		return PINBits
	}
	if !utf8.Valid(text) {
		return measureBytes(text)
	}
	m := measure{text: []rune(string(text)), ofWord: bitsOfWord}
	m.text = m.text[:min(len(m.text), maxMeasured)]
	m.fold = slices.Clone(m.text)
	for i, r := range m.fold {
		m.fold[i] = plain(r)
	}
	if isSentence(string(text)) {
		m.ofWord = bitsInSentence
	}
	return min(m.bits(), m.ceiling())
}

// measureBytes counts distinct bytes only.
func measureBytes(text []byte) float64 {
	distinct := map[byte]bool{}
	for _, b := range text {
		distinct[b] = true
	}
	return float64(len(distinct)) * bitsOfLetter
}

// plain undoes capitals and the usual substitutes of letters.
func plain(r rune) rune {
	switch r {
	case '@':
		return 'a'
	case '$':
		return 's'
	}
	return unicode.ToLower(r)
}

// isSentence reports whether so many words are short as in what people say.
func isSentence(text string) bool {
	all, short := strings.Fields(text), 0
	for _, w := range all {
		if utf8.RuneCountInString(w) <= shortWord {
			short++
		}
	}
	return len(all) >= shortInSentence && short*shortInSentence >= len(all)
}

// measure is a text being measured.
type measure struct {
	text, fold []rune
	ofWord     float64 // bits
}

// bits is the shortest description of the text in pieces.
func (m *measure) bits() float64 {
	least := make([]float64, len(m.text)+1)
	for i := range least[1:] {
		least[i+1] = math.Inf(1)
	}
	for at := range m.text {
		m.pieces(at, func(n int, bits float64) {
			least[at+n] = min(least[at+n], least[at]+bits)
		})
	}
	return least[len(m.text)]
}

// ceiling is what random characters of as many kinds would have.
func (m *measure) ceiling() float64 {
	var kinds float64
	hex, digit, lower, upper, other := true, false, false, false, false
	for _, r := range m.text {
		hex = hex && strings.ContainsRune(hexDigits, unicode.ToLower(r))
		switch {
		case unicode.IsDigit(r):
			digit = true
		case unicode.IsUpper(r):
			upper = true
		case unicode.IsLetter(r):
			lower = true
		default:
			other = true
		}
	}
	for _, k := range []struct {
		there bool
		size  float64
	}{{digit, 10}, {lower, 26}, {upper, 26}, {other, 32}} {
		if k.there {
			kinds += k.size
		}
	}
	if hex {
		kinds = min(kinds, 16)
	}
	return float64(len(m.text)) * math.Log2(max(kinds, 1))
}

// pieces yields what may stand at a place: how many runes it has, and what it
// counts.
func (m *measure) pieces(at int, yield func(n int, bits float64)) {
	runs := []struct {
		longest, shortest int
		bits              float64
	}{
		{m.repeats(at), shortestRun, 1 + math.Log2(float64(max(at, 1)))},
		{m.sequence(at), shortestRun, bitsOfStart},
		{m.neighbours(at), shortestOnKeys, bitsOfStart},
	}
	for _, run := range runs {
		for n := run.shortest; n <= run.longest; n++ {
			yield(n, run.bits+math.Log2(float64(n)))
		}
	}
	switch r := m.text[at]; {
	case unicode.IsLetter(r):
		m.words(at, yield)
	case unicode.IsDigit(r):
		m.numbers(at, yield)
	case strings.ContainsRune(separators, r):
		yield(1, 0)
	case slices.Contains(m.text[:at], r):
		yield(1, bitsOfKnown)
	default:
		yield(1, bitsOfSymbol)
	}
}

// repeats returns how much at a place occurred before, capitals aside.
func (m *measure) repeats(at int) int {
	longest := 0
	for from := range at {
		n := 0
		for at+n < len(m.fold) && m.fold[from+n] == m.fold[at+n] {
			n++
		}
		longest = max(longest, n)
	}
	return longest
}

// sequence returns the length of a run like "aaaa", "abcd" or "7654".
func (m *measure) sequence(at int) int {
	if at+1 >= len(m.fold) {
		return 0
	}
	step := m.fold[at+1] - m.fold[at]
	if step < -1 || step > 1 {
		return 0
	}
	n := 2
	for at+n < len(m.fold) && m.fold[at+n]-m.fold[at+n-1] == step {
		n++
	}
	return n
}

// keyboards are rows and columns of keys in several countries.
func keyboards() []string {
	return []string{
		"1234567890", "qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "qsdfghjklm", "zxcvbnm", "yxcvbnm", "wxcvbn",
		"1qaz2wsx3edc4rfv5tgb6yhn7ujm", "1qay2wsx3edc4rfv5tgb6zhn7ujm", "!@#$%^&*()", "!\"§$%&/()=",
	}
}

// neighbours returns the length of a run along the keys of a keyboard.
func (m *measure) neighbours(at int) int {
	longest := 0
	for _, row := range keyboards() {
		keys := []rune(row)
		for start := range keys {
			for _, step := range []int{1, -1} {
				n := 0
				for k := start; k >= 0 && k < len(keys) && at+n < len(m.fold) && (keys[k] == m.fold[at+n] || keys[k] == m.text[at+n]); k += step {
					n++
				}
				longest = max(longest, n)
			}
		}
	}
	return longest
}

// words yields letters in a row up to the next capital, and with what stands for
// letters between them ("p@ssw0rd") if that can be spoken.
func (m *measure) words(at int, yield func(n int, bits float64)) {
	extra := m.turn(at)
	if unicode.IsUpper(m.text[at]) {
		extra += bitsOfCase
	}
	disguised := false
	for n := 1; ; n++ {
		count := float64(n)
		if !disguised || n > shortWord && m.spoken(at, n) {
			yield(n, extra+min(bitsOfLetter*count, max(m.ofWord, bitsPerRunOn*count)))
		}
		if n <= shortWord && !disguised && m.alone(at, n) {
			yield(n, extra+bitsOfShort*count)
		}
		next := at + n
		switch {
		case next == len(m.text):
			return
		case m.disguised(next):
			disguised = true
			extra += bitsOfCase
		case !unicode.IsLetter(m.text[next]), unicode.IsUpper(m.text[next]) && !unicode.IsUpper(m.text[next-1]):
			return
		}
	}
}

// turn is what it counts that letters follow something else than a space.
func (m *measure) turn(at int) float64 {
	if at == 0 || strings.ContainsRune(separators, m.text[at-1]) {
		return 0
	}
	return bitsOfTurn
}

// disguised reports whether a letter is written otherwise at a place.
func (m *measure) disguised(at int) bool {
	return strings.ContainsRune("@$013457", m.text[at]) && at+1 < len(m.text) && unicode.IsLetter(m.text[at-1]) && unicode.IsLetter(m.text[at+1])
}

// spoken reports whether enough of a word with disguised letters are vowels.
func (m *measure) spoken(at, n int) bool {
	found := 0
	for _, r := range m.fold[at : at+n] {
		if strings.ContainsRune("aeiouy@0134", r) {
			found++
		}
	}
	return 4*found >= n
}

// alone reports whether a piece stands between spaces.
func (m *measure) alone(at, n int) bool {
	end := at + n
	return (at == 0 || unicode.IsSpace(m.text[at-1])) && (end == len(m.text) || unicode.IsSpace(m.text[end]))
}

// numbers yields digits in a row.
func (m *measure) numbers(at int, yield func(n int, bits float64)) {
	n := 0
	for at+n < len(m.text) && unicode.IsDigit(m.text[at+n]) {
		n++
		yield(n, bitsOfDigit*float64(n))
	}
	switch text := string(m.text[at : at+n]); {
	case at > 0 && unicode.IsDigit(m.text[at-1]):
	case n == 4 && (text[:2] == "19" || text[:2] == "20"):
		yield(n, bitsOfYear)
	case n == 6 || n == 8:
		yield(n, bitsOfDate)
	}
}
