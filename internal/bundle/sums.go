package bundle

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// SumsName is the file on a medium with the SHA-256 of its bundles, as sha256sum
// writes and checks it. It is not signed: it tells a damaged medium, not a forged
// one. A row of a manifest that was signed before its bundle could be sealed
// (because the holders of shares sign first) has its hash only here, and its
// bundle proves itself: by the PKG's signature and its key's pairing.
const SumsName = "SHA256SUMS"

// MaxSumsSize is the size in bytes of the largest such file.
const MaxSumsSize = MaxRows * (64 + 2 + 160)

// Sums are the hashes of the files of a medium, by their paths with '/'.
type Sums map[string]Hash

// Marshal returns the file: one line "<hex>  <path>" each, in order of the paths.
func (s Sums) Marshal() []byte {
	var out bytes.Buffer
	for _, file := range slices.Sorted(maps.Keys(s)) {
		_, _ = fmt.Fprintf(&out, "%s  %s\n", s[file], file)
	}
	return out.Bytes()
}

// ParseSums parses what Marshal or sha256sum wrote: text or binary mode, no
// escapes, no path twice or out of the medium. Errors wrap ErrFormat.
func ParseSums(data []byte) (Sums, error) {
	if len(data) > MaxSumsSize {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", SumsName, ErrFormat, MaxSumsSize)
	}
	sums, n := Sums{}, 0
	for line := range bytes.Lines(data) {
		n++
		digits, file, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		var h Hash
		if !ok || len(file) < 2 || file[0] != ' ' && file[0] != '*' || h.UnmarshalText([]byte(digits)) != nil {
			return nil, fmt.Errorf("%s: line %d: %w", SumsName, n, ErrFormat)
		}
		file = file[1:]
		if _, twice := sums[file]; twice || path.IsAbs(file) || path.Clean(file) != file || strings.HasPrefix(file, "..") {
			return nil, fmt.Errorf("%s: line %d: %w: %.200q is there twice or is no path of a medium", SumsName, n, ErrFormat, file)
		}
		sums[file] = h
	}
	return sums, nil
}

// Of returns the hash of a row's bundle: the one that was signed with the row,
// else the one of these sums. Zero: there is none.
func (s Sums) Of(r Row) Hash {
	if r.SHA256 != (Hash{}) {
		return r.SHA256
	}
	return s[r.File]
}

// Complete gives rows that were signed without a hash the one of these sums.
func (s Sums) Complete(rows []Row) {
	for i := range rows {
		rows[i].SHA256 = s.Of(rows[i])
	}
}
