package custody

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A share on paper is its sealed file, as lines that a person can type again:
//
//	EDGECLM SHARE 1
//	001 ABCDE FGHJK MNPQR STVWX YZ012 34567 89ABC DEFGH 4F7Q
//	002 ...
//	END 034 0123456789ABCDEFGHJK
//
// Each line has its number, 25 bytes in base32 (the last may have fewer) and 4
// check symbols; the end has the number of lines and a checksum of the file. The
// symbols are Crockford's, which leave out I, L, O and U: what is typed in lower
// case, with O for 0, or I or L for 1, is read as meant. Spaces and hyphens do not
// matter, lines that begin with '#' are skipped, and '/' separates lines too: a QR
// code has no line ends in its dense alphabet. Lines may come in any order.
const (
	paperHeader   = "EDGECLM SHARE 1"
	paperEnd      = "END"
	paperBytes    = 25 // a line
	paperCheck    = 4  // symbols of a line
	paperChecksum = 20 // symbols of the whole: 100 bits
	paperGroup    = 5
	// MaxPaper bounds typed text, in bytes.
	MaxPaper = 256 << 10
)

// ErrTyped is wrapped when typed text is not a share on paper; the error names
// the lines.
var ErrTyped = errors.New("mistyped")

func symbols() *base32.Encoding {
	return base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)
}

// check returns the first symbols of a SHA-256 over label, number and data: one
// mistake in a million is not seen by four of them, and then by the whole's.
func check(label string, number int, data []byte, n int) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "edgeclm/v1/paper %s %d\n", label, number) // a hash takes everything
	h.Write(data)
	return symbols().EncodeToString(h.Sum(nil))[:n]
}

// PaperLines returns the lines of a share's file on paper. Errors wrap ErrFormat.
func PaperLines(sealed []byte) ([]string, error) {
	if len(sealed) == 0 || len(sealed) > MaxShareFile {
		return nil, fmt.Errorf("%w: a share file of %d bytes", ErrFormat, len(sealed))
	}
	lines := []string{paperHeader}
	n := 0
	for part := range slices.Chunk(sealed, paperBytes) {
		n++
		text := symbols().EncodeToString(part)
		groups := []string{fmt.Sprintf("%03d", n)}
		for len(text) > 0 {
			groups = append(groups, text[:min(paperGroup, len(text))])
			text = text[min(paperGroup, len(text)):]
		}
		lines = append(lines, strings.Join(append(groups, check("line", n, part, paperCheck)), " "))
	}
	return append(lines, fmt.Sprintf("%s %03d %s", paperEnd, n, check("file", n, sealed, paperChecksum))), nil
}

// typed is a share on paper while it is read.
type typed struct {
	header bool
	parts  map[int][]byte
	count  int // of lines, by the end; 0: there is no end yet
	sum    string
	wrong  []string // the lines that cannot be, as they are to be named
}

// ParsePaper returns the share file of what was typed or scanned, byte for byte.
// Errors wrap ErrTyped and name every wrong or missing line.
func ParsePaper(text []byte) ([]byte, error) {
	if len(text) > MaxPaper {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTyped, MaxPaper)
	}
	t := typed{parts: map[int][]byte{}}
	n := 0
	for line := range bytes.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '/' }) {
		n++
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			t.line(n, string(line))
		}
	}
	return t.file()
}

// line reads a line, the n-th that is not empty.
func (t *typed) line(n int, text string) {
	text = strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '-' || r == '\r' {
			return -1
		}
		return r
	}, strings.ToUpper(text))
	if text == strings.ReplaceAll(paperHeader, " ", "") {
		t.header = true
		return
	}
	rest, end := strings.CutPrefix(text, paperEnd)
	rest = strings.NewReplacer("O", "0", "I", "1", "L", "1").Replace(rest)
	if len(rest) < 3 {
		t.wrong = append(t.wrong, fmt.Sprintf("the %d. line of the text is none of a share", n))
		return
	}
	number, err := strconv.ParseUint(rest[:3], 10, 16)
	rest = rest[3:]
	switch {
	case err != nil || number == 0:
		t.wrong = append(t.wrong, fmt.Sprintf("the %d. line of the text has no line number", n))
	case end && len(rest) != paperChecksum:
		t.wrong = append(t.wrong, "the line END is mistyped")
	case end:
		t.count, t.sum = int(number), rest
	default:
		t.part(int(number), rest)
	}
}

func (t *typed) part(number int, rest string) {
	name := fmt.Sprintf("line %03d", number)
	at := len(rest) - paperCheck
	if at < 2 {
		t.wrong = append(t.wrong, name+" is too short")
		return
	}
	data, err := symbols().DecodeString(rest[:at])
	switch known, twice := t.parts[number]; {
	case err != nil || len(data) > paperBytes || symbols().EncodeToString(data) != rest[:at] || check("line", number, data, paperCheck) != rest[at:]:
		t.wrong = append(t.wrong, name+" is mistyped")
	case twice && !bytes.Equal(known, data):
		t.wrong = append(t.wrong, name+" is there twice, and differs")
	default:
		t.parts[number] = data
	}
}

func (t *typed) file() ([]byte, error) {
	if !t.header {
		t.wrong = append(t.wrong, "the line "+paperHeader+" is not there")
	}
	if t.count == 0 {
		t.wrong = append(t.wrong, "the line END is not there")
	}
	var sealed []byte
	for number := 1; number <= t.count; number++ {
		data, there := t.parts[number]
		if name := fmt.Sprintf("line %03d", number); !there && !slices.Contains(t.wrong, name+" is mistyped") {
			t.wrong = append(t.wrong, name+" is not there")
		}
		sealed = append(sealed, data...)
	}
	if len(t.wrong) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrTyped, strings.Join(t.wrong[:min(len(t.wrong), 20)], "; "))
	}
	if len(t.parts) != t.count || check("file", t.count, sealed, paperChecksum) != t.sum {
		return nil, fmt.Errorf("%w: the lines hold, and the whole is not what END says: a line of another share is among them", ErrTyped)
	}
	return sealed, nil
}
