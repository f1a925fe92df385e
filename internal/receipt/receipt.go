package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

const label = "edgeclm/v1/receipt"

// Kind says what a receipt is about.
type Kind string

// The kinds of receipts.
const (
	KindProvisioned  Kind = "provisioned"  // an endpoint took its own key bundle
	KindCommissioned Kind = "commissioned" // a CLM took the devices of a manifest
)

// Receipt is what is signed. Exactly one of Provisioned and Commissioned is
// there.
type Receipt struct {
	Signer       ibc.Identity `json:"signer"`
	ParamsID     bundle.Hash  `json:"params_id"` // under which Signer verifies
	Installation Installation `json:"installation"`
	// Board is Installation.Board of the machine's serial number; zero if it
	// has none that can be read.
	Board   bundle.Hash `json:"board,omitzero"`
	Time    time.Time   `json:"time"`    // by the signer's clock, which may be wrong; whole seconds
	Program string      `json:"program"` // that signed it, and its version

	Provisioned  *Provisioned  `json:"provisioned,omitempty"`
	Commissioned *Commissioned `json:"commissioned,omitempty"`
}

// Provisioned says that Signer has taken its key bundle.
type Provisioned struct {
	Payload bundle.Hash `json:"payload_sha256"` // of the bundle, as the ledger records it
	Outcome Outcome     `json:"outcome"`
}

// Outcome says what a bundle did.
type Outcome string

// The outcomes of provisioning.
const (
	Installed Outcome = "installed"
	Unchanged Outcome = "unchanged" // it was the endpoint's identity already
)

// Commissioned says that Signer has read a manifest and taken its devices, but
// for those of which it knew a later identity.
type Commissioned struct {
	Manifest  bundle.Hash       `json:"manifest_sha256"` // of the file
	Ledger    bundle.LedgerHead `json:"ledger"`          // that the manifest names
	Added     int               `json:"added"`
	Updated   int               `json:"updated"`
	Unchanged int               `json:"unchanged"`
	Skipped   int               `json:"skipped"` // rows of which a later identity was known
	Rows      int               `json:"rows"`
	RowsHash  bundle.Hash       `json:"rows_sha256"` // see Row
}

// Kind returns what the receipt is about, "" if it is not valid.
func (r *Receipt) Kind() Kind {
	switch {
	case r.Provisioned != nil && r.Commissioned == nil:
		return KindProvisioned
	case r.Commissioned != nil && r.Provisioned == nil:
		return KindCommissioned
	}
	return ""
}

// validate reports, as an error that wraps ErrFormat, what makes no sense.
func (r *Receipt) validate() error {
	malformed := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
	if err := r.Signer.Validate(); err != nil {
		return malformed("signer: %w", err)
	}
	if r.Installation == (Installation{}) {
		return malformed("no installation")
	}
	if r.Program == "" || len(r.Program) > maxProgram || strings.IndexFunc(r.Program, func(c rune) bool { return c < ' ' || c > '~' }) >= 0 {
		return malformed("the program is %.120q", r.Program)
	}
	switch r.Kind() {
	case KindProvisioned:
		if o := r.Provisioned.Outcome; o != Installed && o != Unchanged {
			return malformed("outcome %.20q", o)
		}
	case KindCommissioned:
		c := r.Commissioned
		if r.Signer.Role != ibc.RoleCLM {
			return malformed("devices commissioned by %s", r.Signer)
		}
		if c.Rows < 0 || c.Rows > MaxRows || min(c.Added, c.Updated, c.Unchanged, c.Skipped) < 0 {
			return malformed("%d rows, %d added, %d updated, %d unchanged, %d skipped", c.Rows, c.Added, c.Updated, c.Unchanged, c.Skipped)
		}
	default:
		return malformed("it is neither of one bundle nor of one manifest")
	}
	return nil
}

// FileName returns the name of the file,
//
//	<kind>-<role>-<name>.e<epoch>.g<generation>.<digest>.receipt.json
//
// with 16 hex digits over who says what of which bundle or manifest, on which
// machine: two devices or CLMs never have the same name, and what is done again
// has that of the first time. ':' in a name is written '=', as bundle.FileName does.
func (r *Receipt) FileName() (string, error) {
	said := *r
	said.Time, said.Program = time.Time{}, ""
	if r.Provisioned != nil {
		said.Provisioned = &Provisioned{Payload: r.Provisioned.Payload}
	}
	if r.Commissioned != nil {
		said.Commissioned = &Commissioned{Manifest: r.Commissioned.Manifest, Ledger: r.Commissioned.Ledger}
	}
	data, err := json.Marshal(content{Version, said})
	if err != nil {
		return "", fmt.Errorf("name a receipt: %w", err)
	}
	digest := sha256.Sum256(data)
	return string(r.Kind()) + "-" + bundle.Stem(r.Signer) + "." + hex.EncodeToString(digest[:8]) + Suffix, nil
}

// Suffix ends the names of receipts.
const Suffix = ".receipt.json"

// content is the signed object.
type content struct {
	Version int `json:"version"`
	Receipt
}

// file is the form of a receipt.
type file struct {
	Version   int             `json:"version"`
	Content   json.RawMessage `json:"content"`
	Signature string          `json:"signature"` // hex
	Rows      json.RawMessage `json:"rows,omitempty"`
}

// Sign returns the file of a receipt, signed with the key of its signer, which
// Sign enters together with the parameters. Rows are those of a Commissioned,
// whose count and digest Sign enters. Errors wrap ErrFormat.
func Sign(r Receipt, rows []Row, key *ibc.PrivateKey, random io.Reader) (data []byte, err error) {
	r.Signer, r.ParamsID = key.Identity(), key.Params().ID()
	r.Time = r.Time.UTC().Truncate(time.Second)
	f := file{Version: Version}
	if r.Commissioned != nil {
		c := *r.Commissioned
		c.Rows, r.Commissioned = len(rows), &c
		f.Rows, c.RowsHash = encodeRows(rows)
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	if f.Content, err = json.Marshal(content{Version, r}); err != nil {
		return nil, fmt.Errorf("encode a receipt: %w", err)
	}
	m, err := message(f.Content)
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(random, m)
	if err != nil {
		return nil, fmt.Errorf("sign a receipt: %w", err)
	}
	f.Signature = hex.EncodeToString(signature)
	return f.encode()
}

// encode writes the members indented, each row on a line of its own.
func (f file) encode() ([]byte, error) {
	rows := f.Rows
	f.Rows = nil
	out, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode a receipt: %w", err)
	}
	if len(rows) > 0 {
		out = append(bytes.TrimSuffix(out, []byte("\n}")), ",\n \"rows\": "...)
		out = append(append(out, rows...), "\n}"...)
	}
	if out = append(out, '\n'); len(out) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(out))
	}
	return out, nil
}

func message(document []byte) ([]byte, error) {
	digest := sha256.Sum256(document)
	return ibc.LP([]byte(label), digest[:])
}

// Signed is a receipt as it was read.
type Signed struct {
	Receipt
	// ID is the SHA-256 of what is signed: the same again has the same.
	ID bundle.Hash
	// File is the SHA-256 of the file without insignificant white space.
	File bundle.Hash

	document  []byte
	signature []byte
	rows      []byte // JSON, found whole
}

// Parse reads a receipt and checks its form, its rows against their digest
// included. Errors wrap ErrFormat or ErrVersion. Who signed it is for Verify to
// find out.
func Parse(data []byte) (*Signed, error) {
	s, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return s, nil
}

func parse(data []byte) (*Signed, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxSize)
	}
	var f file
	if err := decode(data, &f); err != nil {
		return nil, err
	}
	var whole, document bytes.Buffer
	if err := json.Compact(&whole, data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(f.Content) == 0 || len(f.Content) > maxContent {
		return nil, fmt.Errorf("%w: content of %d bytes, 1 to %d are allowed", ErrFormat, len(f.Content), maxContent)
	}
	if err := json.Compact(&document, f.Content); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	var c content
	if err := decode(f.Content, &c); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	signature, err := hex.DecodeString(f.Signature)
	if err != nil || len(signature) != ibc.SignatureSize || hex.EncodeToString(signature) != f.Signature {
		return nil, fmt.Errorf("%w: the signature is not %d bytes in lower-case hex", ErrFormat, ibc.SignatureSize)
	}
	s := &Signed{
		Receipt: c.Receipt, ID: sha256.Sum256(document.Bytes()), File: sha256.Sum256(whole.Bytes()),
		document: document.Bytes(), signature: signature, rows: f.Rows,
	}
	return s, s.checkRows()
}

// Verify checks the signature under the parameters of the signer's epoch: of
// another PKG wraps bundle.ErrParams, else ibc.ErrEpoch, ibc.ErrEncoding or
// ibc.ErrSignature.
func (s *Signed) Verify(params *ibc.Params) error {
	if s.ParamsID != params.ID() {
		return fmt.Errorf("receipt of %s: it is %w: its params_id is %s", s.Signer, bundle.ErrParams, s.ParamsID)
	}
	m, err := message(s.document)
	if err == nil {
		err = params.Verify(s.Signer, m, s.signature)
	}
	if err != nil {
		return fmt.Errorf("receipt of %s: %w", s.Signer, err)
	}
	return nil
}

// Claim returns what ibc.Params.VerifyAll checks. It says nothing about ParamsID.
func (s *Signed) Claim() (ibc.Claim, error) {
	m, err := message(s.document)
	return ibc.Claim{Identity: s.Signer, Message: m, Signature: s.signature}, err
}

// Compact returns the file without insignificant white space: one line.
func Compact(data []byte) ([]byte, error) {
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return out.Bytes(), nil
}

// decode parses one JSON object into v after its version was found to be ours.
func decode(data []byte, v any) error {
	var probe struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if probe.Version != Version {
		return fmt.Errorf("%w: %d, this release reads %d", ErrVersion, probe.Version, Version)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}
