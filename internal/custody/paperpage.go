package custody

import (
	"fmt"
	"html"
	"slices"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// paperLinesPerCode is how many lines share a QR code: 17 of them make a code of
// version 20, 97 modules, which a phone reads off an ordinary printer's page.
const paperLinesPerCode = 17

// PaperCodes returns the texts of the QR codes of a share on paper: together they
// are its lines, with '/' between.
func PaperCodes(lines []string) []string {
	var codes []string
	for some := range slices.Chunk(lines, paperLinesPerCode) {
		dense := make([]string, len(some))
		for i, line := range some {
			if line != paperHeader {
				line = strings.ReplaceAll(line, " ", "")
			}
			dense[i] = line
		}
		codes = append(codes, strings.Join(dense, "/")+"/")
	}
	return codes
}

// PaperText returns a share on paper as text.
func PaperText(name string, sealed []byte) ([]byte, error) {
	lines, err := PaperLines(sealed)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s, sealed: what opens the file opens this.\n# To bring it back: type the lines into a file, then: pkg-offline shares from-paper FILE --out %s\n", name, name)
	b.WriteString(strings.Join(lines, "\n") + "\n")
	return []byte(b.String()), nil
}

// PaperPage returns a share on paper as a page to print: one HTML file that loads
// nothing, with the lines and QR codes of them.
func PaperPage(name string, sealed []byte) ([]byte, error) {
	lines, err := PaperLines(sealed)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	title := html.EscapeString(name)
	fmt.Fprintf(&b, `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>%s</title>
<style>
@page { size: A4; margin: 15mm }
body { font: 10pt sans-serif; max-width: 180mm; margin: auto }
h1 { font-size: 14pt }
pre { font: 9.5pt/1.35 monospace; break-inside: auto }
svg { width: 84mm; height: 84mm; margin: 1mm; break-inside: avoid }
</style>
<h1>%s</h1>
<p>A share of a master secret, or of what opens a recovery key, sealed: what opens the file (a passphrase or an age key) opens this, and is not to be kept with it.</p>
<p>To bring it back: scan all %d codes in any order, or type the lines below, into one text file; then<br>
<code>pkg-offline shares from-paper FILE --out %s</code><br>
Mistyped lines are named. Symbols are digits and letters without I, L, O and U; spaces and case do not matter.</p>
`, title, title, len(PaperCodes(lines)), title)
	for _, text := range PaperCodes(lines) {
		if err := drawCode(&b, text); err != nil {
			return nil, err
		}
	}
	b.WriteString("<pre>\n" + html.EscapeString(strings.Join(lines, "\n")) + "\n</pre>\n</html>\n")
	return []byte(b.String()), nil
}

// drawCode draws a QR code as SVG: one unit a module, with the four light ones
// around that ISO/IEC 18004 demands.
func drawCode(b *strings.Builder, text string) error {
	code, err := qr.Encode(text, qr.M, qr.AlphaNumeric)
	if err != nil {
		return fmt.Errorf("draw a QR code: %w", err)
	}
	const quiet = 4
	size := code.Bounds().Dx()
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges"><path fill="#000" d="`, size+2*quiet, size+2*quiet)
	for y := range size {
		for x := range size {
			if red, _, _, _ := code.At(x, y).RGBA(); red == 0 {
				fmt.Fprintf(b, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	b.WriteString(`"/></svg>` + "\n")
	return nil
}
