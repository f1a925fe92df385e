package pkimessage

import (
	"bytes"
	"fmt"
)

// maxDepth bounds the nesting of a message. A real one reaches about 15.
const maxDepth = 32

// indefinite is the length of an element that ends at two zero bytes.
const indefinite = -1

// checkStructure walks BER without recursion and accepts exactly one element
// whose parts lie within their parents, nested at most maxDepth deep. The
// PKCS#7 library converts BER to DER by unbounded recursion, overlooks trailing
// bytes and misreads an empty element of indefinite length, so it is given none
// of these. Tags above 30 do not occur.
func checkStructure(ber []byte) error {
	if len(ber) > MaxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrMalformed, len(ber), MaxMessage)
	}
	endMark := []byte{0, 0}
	var ends []int // of the open elements
	for at := 0; ; {
		for len(ends) > 0 && ends[len(ends)-1] == at {
			ends = ends[:len(ends)-1]
		}
		if len(ends) == 0 && at > 0 {
			if at != len(ber) {
				return fmt.Errorf("%w: %d bytes after its end", ErrMalformed, len(ber)-at)
			}
			return nil
		}
		rest := ber[at:innermost(ends, len(ber))]
		if len(ends) > 0 && ends[len(ends)-1] == indefinite && bytes.HasPrefix(rest, endMark) {
			at += len(endMark)
			ends = ends[:len(ends)-1]
			continue
		}
		constructed, length, header, err := readHeader(rest)
		switch {
		case err != nil:
			return err
		case constructed && len(ends) == maxDepth:
			return fmt.Errorf("%w: nested deeper than %d", ErrMalformed, maxDepth)
		case length == indefinite && bytes.HasPrefix(rest[header:], endMark):
			return fmt.Errorf("%w: an empty element of indefinite length", ErrMalformed)
		}
		at += header
		switch {
		case !constructed:
			at += length
		case length == indefinite:
			ends = append(ends, indefinite)
		default:
			ends = append(ends, at+length)
		}
	}
}

// innermost returns the end of the innermost element of definite length.
func innermost(ends []int, whole int) int {
	for i := len(ends) - 1; i >= 0; i-- {
		if ends[i] != indefinite {
			return ends[i]
		}
	}
	return whole
}

// readHeader reads one identifier and length. The length is indefinite, or the
// content lies within b.
func readHeader(b []byte) (constructed bool, length, header int, err error) {
	if len(b) < 2 || b[0]&0x1f == 0x1f {
		return false, 0, 0, fmt.Errorf("%w: not BER", ErrMalformed)
	}
	constructed = b[0]&0x20 != 0
	switch n := int(b[1]); {
	case n < 0x80:
		length, header = n, 2
	case n == 0x80:
		if !constructed {
			return false, 0, 0, fmt.Errorf("%w: a primitive element of indefinite length", ErrMalformed)
		}
		return true, indefinite, 2, nil
	default:
		header = 2 + n - 0x80
		if header > 5 || len(b) < header {
			return false, 0, 0, fmt.Errorf("%w: a length that is too long", ErrMalformed)
		}
		for _, c := range b[2:header] {
			length = length<<8 | int(c)
		}
	}
	if length > len(b)-header {
		return false, 0, 0, fmt.Errorf("%w: an element longer than its parent", ErrMalformed)
	}
	return constructed, length, header, nil
}
