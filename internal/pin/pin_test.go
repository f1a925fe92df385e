package pin_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/pin"
)

const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

func draw(t *rapid.T) pin.PIN {
	var random [pin.Size]byte
	copy(random[:], rapid.SliceOfN(rapid.Byte(), pin.Size, pin.Size).Draw(t, "random"))
	return pin.New(random)
}

func TestKnownPIN(t *testing.T) {
	t.Parallel()
	var random [pin.Size]byte
	for i := range random {
		random[i] = byte(i * 29)
	}
	p := pin.New(random)
	if want := "00EK6-MNVMG-J6QCD-QT05J"; p.Text() != want {
		t.Errorf("PIN %q, want %q", p.Text(), want)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", p, p, p, p); strings.Contains(s, p.Text()) {
		t.Errorf("formatted, the PIN shows: %s", s)
	}
}

// Different random bytes give different PINs: no bit is lost.
func TestPINIsInjective(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for at := range pin.Size {
		for v := range 256 {
			var random [pin.Size]byte
			random[at] = byte(v)
			seen[pin.New(random).Text()] = true
		}
	}
	if want := pin.Size*255 + 1; len(seen) != want {
		t.Errorf("%d PINs of %d different inputs", len(seen), want)
	}
}

func TestParseAcceptsWhatPeopleType(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := draw(t)
		text := p.Text()
		for _, typed := range []string{
			text, strings.ToLower(text), strings.ReplaceAll(text, "-", ""), strings.ReplaceAll(text, "-", " "),
			"\ufeff" + text + "\r\n", strings.ReplaceAll(text, "0", "o"), strings.ReplaceAll(text, "1", "l"), strings.ReplaceAll(text, "1", "I"),
		} {
			if got, err := pin.Parse([]byte(typed)); err != nil || got != p {
				t.Fatalf("%q: %q, %v", typed, got.Text(), err)
			}
		}
	})
}

// Every single wrong symbol is told with its group; so are two symbols or two
// groups that changed places.
func TestTyposAreTold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := draw(t).Text()
		at := rapid.IntRange(0, len(text)-1).Filter(func(i int) bool { return text[i] != '-' }).Draw(t, "at")
		wrong := []byte(text)
		wrong[at] = alphabet[rapid.IntRange(0, 31).Draw(t, "symbol")]
		told(t, text, string(wrong), fmt.Sprintf("group %d of 4", at/6+1))

		group := at / 6 * 6
		a, b := group+rapid.IntRange(0, 4).Draw(t, "a"), group+rapid.IntRange(0, 4).Draw(t, "b")
		wrong = []byte(text)
		wrong[a], wrong[b] = wrong[b], wrong[a]
		told(t, text, string(wrong), fmt.Sprintf("group %d of 4", at/6+1))

		parts := strings.Split(text, "-")
		i, j := rapid.IntRange(0, 3).Draw(t, "i"), rapid.IntRange(0, 3).Draw(t, "j")
		parts[i], parts[j] = parts[j], parts[i]
		told(t, text, strings.Join(parts, "-"), fmt.Sprintf("group %d of 4", min(i, j)+1))
	})
}

func told(t *rapid.T, right, wrong, says string) {
	if wrong == right {
		return
	}
	_, err := pin.Parse([]byte(wrong))
	if !errors.Is(err, pin.ErrTypo) || !strings.Contains(err.Error(), says) {
		t.Fatalf("%q typed as %q: %v, want %s", right, wrong, err, says)
	}
	if strings.Contains(err.Error(), wrong) {
		t.Fatalf("the error holds the PIN: %v", err)
	}
}

func TestOtherTextIsNoPIN(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "2718", "correct horse battery staple", "U0000-00000-00000-00000", strings.Repeat("0", 21), strings.Repeat(" ", 300), "\xff\xfe0\x000\x00"} {
		if _, err := pin.Parse([]byte(text)); !errors.Is(err, pin.ErrForm) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(pin.New([pin.Size]byte{1, 2, 3}).Text()))
	f.Add([]byte("\ufeffk7qw3 0ZT4M_9XR2B–HC5VD\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := pin.Parse(data)
		if err != nil {
			return
		}
		if again, err := pin.Parse([]byte(p.Text())); err != nil || again != p {
			t.Errorf("%q is not canonical: %v", p.Text(), err)
		}
	})
}
