package passphrase_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/passphrase"
	"github.com/edgeclm/edgeclm/internal/pin"
)

const (
	consonants = "bcdfghjklnprstvx"
	vowels     = "eiou"
)

func draw(t *rapid.T) passphrase.Passphrase {
	return passphrase.New([passphrase.Size]byte(rapid.SliceOfN(rapid.Byte(), passphrase.Size, passphrase.Size).Draw(t, "random")))
}

func TestKnownPassphrase(t *testing.T) {
	t.Parallel()
	var random [passphrase.Size]byte
	for i := range random {
		random[i] = byte(i * 37)
	}
	p := passphrase.New(random)
	if want := "bebo hido juvi govi tule fepe guhu peke"; p.Text() != want {
		t.Errorf("passphrase %q, want %q", p.Text(), want)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", p, p, p, p); strings.Contains(s, p.Text()) {
		t.Errorf("formatted, the passphrase shows: %s", s)
	}
	drawn, err := passphrase.Generate(bytes.NewReader(random[:]))
	if err != nil || drawn != p {
		t.Errorf("drawn: %q, %v", drawn.Text(), err)
	}
	if _, err := passphrase.Generate(bytes.NewReader(random[1:])); err == nil {
		t.Error("drawn of too few random bytes")
	}
}

// The entropy is what is said: each of the 84 bits that are used is found again
// in the seven words, so 2^84 random values give as many passphrases, each as
// likely as the others.
func TestEntropy(t *testing.T) {
	t.Parallel()
	if passphrase.Bits != 84 || passphrase.Bits < passphrase.Required {
		t.Fatalf("%d bits, %d required", passphrase.Bits, passphrase.Required)
	}
	rapid.Check(t, func(t *rapid.T) {
		random := rapid.SliceOfN(rapid.Byte(), passphrase.Size, passphrase.Size).Draw(t, "random")
		words := strings.Fields(passphrase.New([passphrase.Size]byte(random)).Text())
		var bits []byte
		for _, w := range words[:7] {
			for i, width := range []int{4, 2, 4, 2} {
				set := consonants
				if i%2 == 1 {
					set = vowels
				}
				v := strings.IndexByte(set, w[i])
				for b := width - 1; b >= 0; b-- {
					bits = append(bits, byte(v>>b&1))
				}
			}
		}
		for at, bit := range bits {
			if random[at/8]>>(7-at%8)&1 != bit {
				t.Fatalf("bit %d of %x is lost in %q", at, random, words)
			}
		}
		if len(bits) != passphrase.Bits {
			t.Fatalf("%d bits in seven words", len(bits))
		}
	})
}

// A PIN of a sheet is as strong as what is required of a passphrase: eighty
// bits, every one of which changes it (see the test of package pin).
func TestPINIsStrongEnough(t *testing.T) {
	t.Parallel()
	if passphrase.PINBits != 80 || passphrase.PINBits < passphrase.Required {
		t.Fatalf("a PIN has %d bits", passphrase.PINBits)
	}
	rapid.Check(t, func(t *rapid.T) {
		p := pin.New([pin.Size]byte(rapid.SliceOfN(rapid.Byte(), pin.Size, pin.Size).Draw(t, "random"))).Text()
		for _, typed := range []string{p, strings.ToLower(p), strings.ReplaceAll(p, "-", ""), p + "\n"} {
			if bits := passphrase.Measure([]byte(typed)); bits != passphrase.PINBits {
				t.Fatalf("%q measures %v", typed, bits)
			}
			if text, err := passphrase.CanonicalNew([]byte(typed)); err != nil || string(text) != p {
				t.Fatalf("%q: %q, %v", typed, text, err)
			}
		}
	})
}

// The letters are on the same keys in the three families of keyboards.
func TestLettersLieOnTheSameKeys(t *testing.T) {
	t.Parallel()
	rows := [][]string{{"qwertyuiop", "asdfghjkl;", "zxcvbnm,./"}, {"qwertzuiop", "asdfghjklö", "yxcvbnm,.-"}, {"azertyuiop", "qsdfghjklm", "wxcvbn,;:!"}}
	for _, letter := range consonants + vowels {
		for row := range 3 {
			at := slices.Index([]rune(rows[0][row]), letter)
			for _, keyboard := range rows[1:] {
				if slices.Index([]rune(keyboard[row]), letter) != at {
					t.Errorf("%c moves", letter)
				}
			}
		}
	}
}

func TestParseAcceptsWhatPeopleType(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := draw(t)
		text := p.Text()
		for _, typed := range []string{
			text, strings.ToUpper(text), strings.ReplaceAll(text, " ", ""), strings.ReplaceAll(text, " ", "-"),
			"\ufeff" + text + "\r\n", "  " + strings.ReplaceAll(text, " ", "   "),
		} {
			got, err := passphrase.Parse([]byte(typed))
			if err != nil || got != p {
				t.Fatalf("%q: %q, %v", typed, got.Text(), err)
			}
			if c, err := passphrase.Canonical([]byte(typed)); err != nil || string(c) != text {
				t.Fatalf("%q: %q, %v", typed, c, err)
			}
			if bits := passphrase.Measure([]byte(typed)); bits != passphrase.Bits {
				t.Fatalf("%q measures %v", typed, bits)
			}
		}
	})
}

// Any one wrong word, whatever is wrong with it, and any two words that changed
// places are told.
func TestTyposAreTold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := draw(t).Text()
		wrong := strings.Fields(text)
		at := rapid.IntRange(0, 7).Draw(t, "at")
		other := strings.Fields(draw(t).Text())
		wrong[at] = other[rapid.IntRange(0, 7).Draw(t, "from")]
		told(t, text, strings.Join(wrong, " "))

		wrong = strings.Fields(text)
		other2 := rapid.IntRange(0, 7).Draw(t, "other")
		wrong[at], wrong[other2] = wrong[other2], wrong[at]
		told(t, text, strings.Join(wrong, " "))
	})
}

func told(t *rapid.T, right, wrong string) {
	if wrong == right {
		return
	}
	_, err := passphrase.Canonical([]byte(wrong))
	if !errors.Is(err, passphrase.ErrTypo) {
		t.Fatalf("%q typed as %q: %v", right, wrong, err)
	}
	if strings.Contains(err.Error(), wrong) {
		t.Fatalf("the error holds the passphrase: %v", err)
	}
}

func TestOtherTextIsNoGeneratedPassphrase(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("bebo ", 8)
	for _, text := range []string{"", "bebo", "correct horse battery staple", long + "bebo", "a" + long[1:], "be bo1" + long[5:], strings.Repeat(" ", 300) + long, "\xff" + long} {
		if _, err := passphrase.Parse([]byte(text)); !errors.Is(err, passphrase.ErrForm) {
			t.Errorf("%q: %v", text, err)
		}
		if got, err := passphrase.Canonical([]byte(text)); err != nil || string(got) != text {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
	if _, err := passphrase.CanonicalNew([]byte("K7QW3-0ZT4M-9XR2B-HC5VD")); !errors.Is(err, pin.ErrTypo) {
		t.Errorf("a mistyped PIN to seal to: %v", err)
	}
	if _, err := passphrase.Canonical([]byte("K7QW3-0ZT4M-9XR2B-HC5VD")); err != nil {
		t.Errorf("what looks like a PIN, to open with: %v", err)
	}
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	weak := []string{
		"", "1234", "swordfish", "correct horse", "correct horse battery staple", "correcthorsebatterystaple", "CorrectHorseBatteryStaple", // four words are 52 bits
		"Summer2026!", "P@ssw0rd123!", "Tr0ub4dor&3", "31.12.1999 24.12.2001",
		strings.Repeat("a", 4000), strings.Repeat("password ", 400), "abcdefghijklmnopqrstuvwxyz0123456789", "zyxwvutsrqponmlkjihgfedcba",
		"qwertyuiopasdfghjklzxcvbnm1234567890", "1qaz2wsx3edc4rfv5tgb6yhn", "a b c d e f g h i j k l m n o p q r s t u v",
		"!!!!!!!!!!!!????????????........", "wir treffen uns am hafen um acht uhr wieder", "the quick brown fox jumps over the lazy dog",
		"unhappy ladder ticket orbit velvet cactus", // six words of a list for dice are 77 bits
		"天地玄黃宇宙洪荒日月盈昃辰宿列張", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"0000000000000000000000000000000000000000000000000000000000000000", "deadbeefdeadbeefdeadbeefdeadbeef",
	}
	strong := []string{
		"unhappy ladder ticket orbit velvet cactus maple", "unhappy-ladder-ticket-orbit-velvet-cactus-maple", // seven words
		"zufällig überlegt Straße Öl Käse Grün Bär Tür Hafenkran",
		"kX9vQ2mLr8TzWp4bNs7d", "q83vEjRWeJCrze8SNFZ4kKvN7w==", "9f86d081884c7d659a2feaa0c55ad015", "H7J2KQ4MZX5T3NPL6VRB2CWYD8", "31415926535897932384626433832795",
	}
	for _, text := range weak {
		if err := passphrase.Check([]byte(text)); !errors.Is(err, passphrase.ErrWeak) {
			t.Errorf("%.60q measures %v", text, passphrase.Measure([]byte(text)))
		} else if len(text) > 3 && strings.Contains(err.Error(), text) {
			t.Errorf("the error holds the passphrase: %v", err)
		}
	}
	for _, text := range strong {
		if err := passphrase.Check([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whatever is random counts no more than it is drawn with, and what is longer
// by a repetition gains little.
func TestMeasureStaysBelowWhatWasDrawn(t *testing.T) {
	t.Parallel()
	for name, alphabet := range map[string]string{"digits": "0123456789", "hex": "0123456789abcdef", "lower": "abcdefghijklmnopqrstuvwxyz", "base 32": "0123456789ABCDEFGHJKMNPQRSTVWXYZ"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				text := rapid.StringOfN(rapid.SampledFrom([]rune(alphabet)), 1, 60, -1).Draw(t, "text")
				drawn, bits := float64(len(text))*log2(len(alphabet)), passphrase.Measure([]byte(text))
				if _, err := pin.Parse([]byte(text)); err != nil && bits > drawn+8 {
					t.Fatalf("%q measures %v of %v", text, bits, drawn)
				}
				if twice := passphrase.Measure([]byte(text + text)); len(text) > 24 && twice > bits+20 {
					t.Fatalf("%q measures %v, twice %v", text, bits, twice)
				}
			})
		})
	}
}

func log2(n int) float64 {
	bits := 0.0
	for p := 1; p < n; p *= 2 {
		bits++
	}
	return bits
}

func FuzzMeasure(f *testing.F) {
	for _, text := range []string{"", "correct horse", "K7QW3-0ZT4M", "\xff\xfe", "İıſ", "bebo hido juvi govi tule fepe guhu peke", "aB3$ 1qaz2wsx"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4096 {
			return
		}
		before := bytes.Clone(text)
		if bits := passphrase.Measure(text); bits < 0 || bits != bits || bits > 8*float64(len(text))+1 {
			t.Fatalf("%q measures %v", text, bits)
		}
		if !bytes.Equal(text, before) {
			t.Fatal("the text was changed")
		}
		if p, err := passphrase.Parse(text); err == nil {
			if again, err := passphrase.Parse([]byte(p.Text())); err != nil || again != p {
				t.Fatalf("%q: %q, %v", text, again.Text(), err)
			}
		}
	})
}
