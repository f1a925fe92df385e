package custody_test

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
)

// hybridShare is a share sealed to a hybrid recipient, the largest that there is.
func hybridShare(t testing.TB) []byte {
	t.Helper()
	_, to, err := bundle.GenerateOpener()
	if err != nil {
		t.Fatal(err)
	}
	shares, _ := deal(t, setup(t), 2, 1, names[:2]...)
	sealed, err := shares[0].Seal(to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestPaper: what is typed again, as people type, is the file.
func TestPaper(t *testing.T) {
	for _, sealed := range [][]byte{{1}, bytes.Repeat([]byte{0xa5}, 25), bytes.Repeat([]byte{7}, 51), hybridShare(t)} {
		text, err := custody.PaperText("share-1-alice.s1.share.age", sealed)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		slices.Reverse(lines)
		for what, typed := range map[string]string{
			"as printed":   string(text),
			"lower case":   strings.ToLower(string(text)),
			"O for 0":      strings.ReplaceAll(string(text), "0", "o"),
			"l for 1":      strings.ReplaceAll(strings.Replace(string(text), "SHARE 1", "SHARE @", 1), "1", "l"),
			"other spaces": strings.ReplaceAll(string(text), " ", "  "),
			"Windows":      strings.ReplaceAll(string(text), "\n", "\r\n"),
			"backwards":    strings.Join(lines, "\n"),
		} {
			got, err := custody.ParsePaper([]byte(strings.Replace(typed, "SHARE @", "SHARE 1", 1)))
			if err != nil || !bytes.Equal(got, sealed) {
				t.Errorf("%d bytes, %s: %v", len(sealed), what, err)
			}
		}
	}
}

// TestPaperMistyped: the line of a mistake is named, wherever it is.
func TestPaperMistyped(t *testing.T) {
	sealed := hybridShare(t)
	lines, err := custody.PaperLines(sealed)
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Join(lines, "\n")
	for n := 1; n < len(lines)-1; n++ {
		for at := 4; at < len(lines[n]); at += 7 {
			if lines[n][at] == ' ' {
				continue
			}
			typo := []byte(lines[n])
			typo[at] = map[bool]byte{true: 'Y', false: 'X'}[typo[at] == 'X']
			changed := slices.Clone(lines)
			changed[n] = string(typo)
			_, err := custody.ParsePaper([]byte(strings.Join(changed, "\n")))
			if want := fmt.Sprintf("line %03d is mistyped", n); !errors.Is(err, custody.ErrTyped) || !strings.HasSuffix(err.Error(), ": "+want) {
				t.Fatalf("line %d, symbol %d: %v", n, at, err)
			}
		}
	}
	other, err := custody.PaperLines(hybridShare(t))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ text, want string }{
		"a line left out":    {strings.Join(slices.Delete(slices.Clone(lines), 3, 4), "\n"), "line 003 is not there"},
		"no end":             {strings.Join(lines[:len(lines)-1], "\n"), "the line END is not there"},
		"no header":          {strings.Join(lines[1:], "\n"), "the line EDGECLM SHARE 1 is not there"},
		"another's line":     {strings.Replace(whole, lines[5], other[5], 1), "a line of another share is among them"},
		"two differ":         {whole + "\n" + other[5], "line 005 is there twice, and differs"},
		"lines exchanged":    {strings.NewReplacer("005 ", "006 ", "006 ", "005 ").Replace(whole), "line 006 is mistyped; line 005 is mistyped"},
		"a wrong end":        {whole[:len(whole)-1] + "?", "the whole is not what END says"},
		"a line of nonsense": {whole + "\nhello world", "line of the text has no line number"},
		"nothing":            {"", "is not there"},
	} {
		if _, err := custody.ParsePaper([]byte(c.text)); !errors.Is(err, custody.ErrTyped) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestPaperCodes: another program than the one that drew them reads the codes off
// the page, and what they say is the file.
func TestPaperCodes(t *testing.T) {
	sealed := hybridShare(t)
	page, err := custody.PaperPage("share-1-<alice>.s1.share.age", sealed)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(page), "<alice>") || strings.Contains(string(page), "src=") {
		t.Error("the page has markup of a name, or loads something")
	}
	drawn := regexp.MustCompile(`viewBox="0 0 (\d+) \d+".*?d="([^"]+)"`).FindAllStringSubmatch(string(page), -1)
	var scanned []string
	for _, svg := range drawn {
		size, _ := strconv.Atoi(svg[1])
		scanned = append(scanned, scan(t, size, svg[2]))
	}
	if len(scanned) < 2 {
		t.Fatalf("%d codes", len(scanned))
	}
	slices.Reverse(scanned)
	got, err := custody.ParsePaper([]byte(strings.Join(scanned, "\n")))
	if err != nil || !bytes.Equal(got, sealed) {
		t.Fatalf("%d codes: %v", len(scanned), err)
	}
	_, text, _ := bytes.Cut(page, []byte("<pre>"))
	text, _, _ = bytes.Cut(text, []byte("</pre>"))
	if got, err := custody.ParsePaper(text); err != nil || !bytes.Equal(got, sealed) {
		t.Fatalf("the lines: %v", err)
	}
}

// scan reads a code that is drawn of squares.
func scan(t *testing.T, size int, path string) string {
	t.Helper()
	const scale = 4
	img := image.NewGray(image.Rect(0, 0, size*scale, size*scale))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	for _, square := range regexp.MustCompile(`M(\d+) (\d+)h1v1h-1z`).FindAllStringSubmatch(path, -1) {
		x, _ := strconv.Atoi(square[1])
		y, _ := strconv.Atoi(square[2])
		for i := range scale * scale {
			img.SetGray(x*scale+i%scale, y*scale+i/scale, color.Gray{})
		}
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	// The image is drawn and not photographed: finding a code in a picture is not
	// what is tested, and this reader fails at it once in a while.
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_PURE_BARCODE: true})
	if err != nil {
		t.Fatal(err)
	}
	return result.GetText()
}

// FuzzParsePaper: what is taken is a share on paper.
func FuzzParsePaper(f *testing.F) {
	text, err := custody.PaperText("share", bytes.Repeat([]byte("share"), 12))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("EDGECLM SHARE 1/001 04 4F7Q/END 001 0123456789ABCDEFGHJK"))
	f.Fuzz(func(t *testing.T, text []byte) {
		sealed, err := custody.ParsePaper(text)
		if err != nil {
			return
		}
		lines, err := custody.PaperLines(sealed)
		if err != nil {
			return // longer than a share
		}
		if again, err := custody.ParsePaper([]byte(strings.Join(lines, "\n"))); err != nil || !bytes.Equal(again, sealed) {
			t.Fatal(err)
		}
	})
}
