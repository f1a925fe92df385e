package bundle

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// MaxAnchorFile is the size in bytes of the largest anchor statement.
const MaxAnchorFile = 64 << 10

// AnchorSet is what an anchor statement of the PKG says: the whole set of
// trust anchors of the devices whose names fit a pattern.
type AnchorSet struct {
	ParamsID Hash   // of the PKG that signs it
	Epoch    uint32 // of those parameters
	Serial   uint64 // from 1; a device takes none that is not above its last
	Pattern  Pattern
	Anchors  [][]byte // DER certificates of CAs, 1 to MaxAnchors, no two the same
}

// Pattern says which device names a statement is for: one name, or a text with
// one '*', which stands for any characters, also for none. "*" fits them all.
type Pattern string

// Validate reports, as an error that wraps ErrFormat, what is wrong with p:
// with a digit or nothing for the '*' it has to be a name.
func (p Pattern) Validate() error {
	isName := func(s string) bool {
		return ibc.Identity{Role: ibc.RoleDevice, Name: s, Epoch: 1, Generation: 1}.Validate() == nil
	}
	before, after, wild := strings.Cut(string(p), "*")
	if isName(string(p)) || wild && (isName(before+"0"+after) || isName(before+after)) {
		return nil
	}
	return fmt.Errorf("%w: the pattern %.80q is neither a device name nor one with a single '*'", ErrFormat, p)
}

// Matches reports whether a device name fits.
func (p Pattern) Matches(name string) bool {
	before, after, wild := strings.Cut(string(p), "*")
	if !wild {
		return name == before
	}
	return len(name) >= len(before)+len(after) && strings.HasPrefix(name, before) && strings.HasSuffix(name, after)
}

// anchorPayload is the signed part, in the order in which it is encoded.
type anchorPayload struct {
	Version  int      `json:"version"`
	ParamsID Hash     `json:"params_id"`
	Epoch    uint32   `json:"epoch"`
	Serial   uint64   `json:"serial"`
	Pattern  Pattern  `json:"pattern"`
	Anchors  [][]byte `json:"anchors"`
}

// anchorFile is the form of a statement. The signature covers the exact bytes
// of the payload. The parameters are for whoever has none of his own.
type anchorFile struct {
	Version   int         `json:"version"`
	Params    *ibc.Params `json:"params"`
	Payload   []byte      `json:"payload"`
	Signature hexBytes    `json:"signature"`
}

// Payload returns the bytes that the PKG signs. Equal sets have equal payloads.
func (s *AnchorSet) Payload() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(anchorPayload{Version, s.ParamsID, s.Epoch, s.Serial, s.Pattern, s.Anchors})
}

// Validate reports, as an error that wraps ErrFormat, what is wrong with s.
func (s *AnchorSet) Validate() error {
	id := ibc.Identity{Role: ibc.RoleDevice, Name: "a", Epoch: s.Epoch, Generation: 1}
	switch {
	case id.Validate() != nil:
		return fmt.Errorf("%w: epoch %d", ErrFormat, s.Epoch)
	case s.Serial == 0:
		return fmt.Errorf("%w: no serial number", ErrFormat)
	case len(s.Anchors) < 1 || len(s.Anchors) > MaxAnchors:
		return fmt.Errorf("%w: %d trust anchors, 1 to %d are allowed", ErrFormat, len(s.Anchors), MaxAnchors)
	}
	if err := s.Pattern.Validate(); err != nil {
		return err
	}
	for i, der := range s.Anchors {
		if err := ValidateAnchor(der); err != nil {
			return err
		}
		for _, other := range s.Anchors[:i] {
			if bytes.Equal(der, other) {
				return fmt.Errorf("%w: a trust anchor is listed twice", ErrFormat)
			}
		}
	}
	return nil
}

// ValidateAnchor checks the form of a trust anchor: the certificate of a CA, in
// DER, of at most MaxAnchorSize bytes. Errors wrap ErrFormat.
func ValidateAnchor(der []byte) error {
	if len(der) > MaxAnchorSize {
		return fmt.Errorf("%w: a trust anchor of %d bytes, at most %d are allowed", ErrFormat, len(der), MaxAnchorSize)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("%w: trust anchor: %w", ErrFormat, err)
	}
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("%w: the trust anchor %.200q is not the certificate of a CA", ErrFormat, c.Subject)
	}
	return nil
}

// Marshal signs the set under params, whose ID and epoch it writes to s, and
// returns the file and the SHA-256 of the signed payload, which is what the
// ledger records.
func (s *AnchorSet) Marshal(params *ibc.Params, signer Signer) (data []byte, payloadHash Hash, err error) {
	s.ParamsID, s.Epoch = params.ID(), params.Epoch()
	document, err := s.Payload()
	if err != nil {
		return nil, Hash{}, fmt.Errorf("encode anchor statement: %w", err)
	}
	signature, err := signer.Sign(ibc.KindAnchor, document)
	if err != nil {
		return nil, Hash{}, fmt.Errorf("sign anchor statement: %w", err)
	}
	out, err := json.MarshalIndent(anchorFile{Version, params, document, signature}, "", " ")
	if err != nil {
		return nil, Hash{}, fmt.Errorf("encode anchor statement: %w", err)
	}
	if len(out) >= MaxAnchorFile {
		return nil, Hash{}, fmt.Errorf("encode anchor statement: %w: %d bytes", ErrFormat, len(out))
	}
	return append(out, '\n'), sha256.Sum256(document), nil
}

// AnchorParams returns the parameters that a statement claims to be signed
// under. Nothing is verified.
func AnchorParams(data []byte) (*ibc.Params, error) {
	f, err := parseAnchorFile(data)
	if err == nil && f.Params == nil {
		err = fmt.Errorf("%w: no parameters", ErrFormat)
	}
	if err != nil {
		return nil, fmt.Errorf("anchor statement: %w", err)
	}
	return f.Params, nil
}

func parseAnchorFile(data []byte) (*anchorFile, error) {
	if len(data) > MaxAnchorFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxAnchorFile)
	}
	var f anchorFile
	if err := decode(data, &f); err != nil {
		return nil, err
	}
	return &f, nil
}

// ParseAnchors parses an anchor statement, checks that the PKG of params signed
// it, and returns the SHA-256 of the signed payload too: two statements are the
// same if it is. Errors wrap ErrFormat, ErrVersion, ErrParams or
// ibc.ErrSignature.
func ParseAnchors(data []byte, params *ibc.Params) (*AnchorSet, Hash, error) {
	return ParseAnchorsOf(data, []*ibc.Params{params})
}

// ParseAnchorsOf is ParseAnchors under those of the parameters that the
// statement names: one of several epochs of a PKG, the present one last.
func ParseAnchorsOf(data []byte, known []*ibc.Params) (*AnchorSet, Hash, error) {
	s, hash, err := parseAnchors(data, known)
	if err != nil {
		return nil, Hash{}, fmt.Errorf("anchor statement: %w", err)
	}
	return s, hash, nil
}

func parseAnchors(data []byte, known []*ibc.Params) (*AnchorSet, Hash, error) {
	f, err := parseAnchorFile(data)
	if err != nil {
		return nil, Hash{}, err
	}
	p, err := parseAnchorPayload(f.Payload)
	if err != nil {
		return nil, Hash{}, err
	}
	// Whose it is goes first: a stranger's says nothing about its signature.
	at := slices.IndexFunc(known, func(k *ibc.Params) bool { return p.ParamsID == Hash(k.ID()) && p.Epoch == k.Epoch() })
	if at < 0 {
		params := known[len(known)-1]
		return nil, Hash{}, fmt.Errorf("it is %w: its params_id is %s (epoch %d), expected %x (epoch %d)", ErrParams, p.ParamsID, p.Epoch, params.ID(), params.Epoch())
	}
	if err := known[at].VerifyStatement(ibc.KindAnchor, f.Payload, f.Signature); err != nil {
		return nil, Hash{}, err
	}
	if err := p.Validate(); err != nil {
		return nil, Hash{}, fmt.Errorf("payload: %w", err)
	}
	return p, sha256.Sum256(f.Payload), nil
}

func parseAnchorPayload(data []byte) (*AnchorSet, error) {
	var p anchorPayload
	if err := decode(data, &p); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	return &AnchorSet{ParamsID: p.ParamsID, Epoch: p.Epoch, Serial: p.Serial, Pattern: p.Pattern, Anchors: p.Anchors}, nil
}

// ParseAnchorPayload parses what the PKG shall sign, or has signed; it checks no
// signature. It must be exactly what Payload returns. Errors wrap ErrFormat or
// ErrVersion.
func ParseAnchorPayload(data []byte) (*AnchorSet, error) {
	s, err := parseAnchorPayload(data)
	if err != nil {
		return nil, err
	}
	if again, err := s.Payload(); err != nil || !bytes.Equal(again, data) {
		return nil, fmt.Errorf("anchor statement %d: %w", s.Serial, errors.Join(errNotCanonical, err))
	}
	return s, nil
}

// Names of the files of anchor statements.
const (
	anchorPrefix = "anchors-"
	anchorSuffix = ".anchor.json"
)

// AnchorFileName returns the name of a statement's file on a medium,
// "anchors-<serial>.anchor.json".
func AnchorFileName(serial uint64) string {
	return anchorPrefix + strconv.FormatUint(serial, 10) + anchorSuffix
}

// ParseAnchorFileName is the inverse of AnchorFileName. Errors wrap ErrFormat.
func ParseAnchorFileName(name string) (serial uint64, err error) {
	digits, isStatement := strings.CutPrefix(name, anchorPrefix)
	digits, hasSuffix := strings.CutSuffix(digits, anchorSuffix)
	serial, err = strconv.ParseUint(digits, 10, 64)
	if !isStatement || !hasSuffix || err != nil || serial == 0 || AnchorFileName(serial) != name {
		return 0, fmt.Errorf("%w: %.200q is not the file name of an anchor statement", ErrFormat, name)
	}
	return serial, nil
}

// AnchorHashes returns the SHA-256 of each trust anchor.
func AnchorHashes(anchors [][]byte) []Hash {
	out := make([]Hash, len(anchors))
	for i, der := range anchors {
		out[i] = sha256.Sum256(der)
	}
	return out
}

// IsAnchorStatement reports whether a JSON document has the form of an anchor
// statement rather than that of a manifest; its content is not looked at.
func IsAnchorStatement(data []byte) bool {
	var probe struct {
		Payload json.RawMessage `json:"payload"`
	}
	return json.Unmarshal(data, &probe) == nil && len(probe.Payload) > 0
}
