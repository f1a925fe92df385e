package bundle

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// ManifestName is the file name of the manifest on a medium.
const ManifestName = "manifest.json"

// Bounds of a manifest.
const (
	MaxManifestSize = 256 << 20
	MaxRows         = 200_000
)

// Row is one identity of a manifest: its latest bundle on the medium.
type Row struct {
	Role        ibc.Role          `json:"role"`
	Name        string            `json:"name"`
	Epoch       uint32            `json:"epoch"`
	Generation  uint32            `json:"generation"`
	PublicKey   string            `json:"public_key"` // Q in lower-case hex
	Address     string            `json:"address"`    // host:port or ""
	Labels      map[string]string `json:"labels"`
	Names       []fleet.Name      `json:"names"`           // certificate names of a device
	File        string            `json:"file"`            // relative to the manifest, with '/'
	SHA256      Hash              `json:"sha256,omitzero"` // of that file; zero: see SumsName
	LedgerIndex uint64            `json:"ledger_index"`    // of the entry that records the issue
}

// Identity returns whose row it is.
func (r Row) Identity() ibc.Identity {
	return ibc.Identity{Role: r.Role, Name: r.Name, Epoch: r.Epoch, Generation: r.Generation}
}

// LedgerHead is a head of the PKG's ledger: the number of entries and the hash
// of the last of them.
type LedgerHead struct {
	Index uint64 `json:"index"`
	Hash  Hash   `json:"sha256"`
}

// Manifest lists what a medium holds. It has no secrets and is all that a CLM
// needs to commission the devices.
type Manifest struct {
	Params *ibc.Params
	Ledger LedgerHead // when the manifest was written
	Rows   []Row      // one per role and name, in the order of their first issue
}

// manifestFile is the form of manifest.json. The signature covers the content
// without insignificant white space, so that reformatting does no harm.
type manifestFile struct {
	Version   int             `json:"version"`
	Params    *ibc.Params     `json:"params"`
	Content   json.RawMessage `json:"content"`
	Signature hexBytes        `json:"signature"`
}

type manifestContent struct {
	Version int        `json:"version"`
	Ledger  LedgerHead `json:"ledger"`
	Rows    []Row      `json:"rows"`
}

// Marshal signs the manifest and returns the file: indented JSON.
func (m *Manifest) Marshal(signer Signer) ([]byte, error) {
	signed, err := m.Sign(signer)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err = signed.WriteTo(&out)
	return out.Bytes(), err
}

// Content returns the bytes that the PKG signs.
func (m *Manifest) Content() ([]byte, error) {
	var out bytes.Buffer
	_, err := manifestWriter{m}.WriteTo(&out)
	return out.Bytes(), err
}

// ParseManifestContent parses what the PKG of params shall sign; it checks no
// signature. It must be exactly what Content returns. Errors wrap ErrFormat or
// ErrVersion.
func ParseManifestContent(data []byte, params *ibc.Params) (*Manifest, error) {
	if len(data) > MaxManifestSize {
		return nil, fmt.Errorf("manifest: %w: more than %d bytes", ErrFormat, MaxManifestSize)
	}
	m, err := parseContent(data, params)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if again, err := m.Content(); err != nil || !bytes.Equal(again, data) {
		return nil, fmt.Errorf("manifest: %w", errors.Join(errNotCanonical, err))
	}
	return m, nil
}

// ManifestParams returns the parameters that a manifest claims to be signed
// under. Nothing is verified.
func ManifestParams(data []byte) (*ibc.Params, error) {
	f, err := parseManifestFile(data)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return f.Params, nil
}

func parseManifestFile(data []byte) (*manifestFile, error) {
	if len(data) > MaxManifestSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxManifestSize)
	}
	var f manifestFile
	if err := decode(data, &f); err != nil {
		return nil, err
	}
	if f.Params == nil || len(f.Content) == 0 {
		return nil, fmt.Errorf("%w: no parameters or no content", ErrFormat)
	}
	return &f, nil
}

// ParseManifest parses a manifest and checks that the PKG of params signed it.
// Errors wrap ErrFormat, ErrVersion, ErrParams or ibc.ErrSignature.
func ParseManifest(data []byte, params *ibc.Params) (*Manifest, error) {
	return ParseManifestOf(data, []*ibc.Params{params})
}

// ParseManifestOf is ParseManifest under those of the parameters that the
// manifest names: one of several epochs of a PKG, the present one last.
func ParseManifestOf(data []byte, known []*ibc.Params) (*Manifest, error) {
	m, err := parseManifest(data, known)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

func parseManifest(data []byte, known []*ibc.Params) (*Manifest, error) {
	f, err := parseManifestFile(data)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(known, f.Params.Equal)
	if at < 0 {
		params := known[len(known)-1]
		return nil, fmt.Errorf("it is %w: its params_id is %x (epoch %d), expected %x (epoch %d)", ErrParams, f.Params.ID(), f.Params.Epoch(), params.ID(), params.Epoch())
	}
	params := known[at]
	var document bytes.Buffer
	if err := json.Compact(&document, f.Content); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := params.VerifyStatement(ibc.KindManifest, document.Bytes(), f.Signature); err != nil {
		return nil, err
	}
	return parseContent(f.Content, params)
}

func parseContent(data []byte, params *ibc.Params) (*Manifest, error) {
	var c manifestContent
	if err := decode(data, &c); err != nil {
		return nil, err
	}
	if len(c.Rows) > MaxRows {
		return nil, fmt.Errorf("%w: %d rows, at most %d are allowed", ErrFormat, len(c.Rows), MaxRows)
	}
	seen := make(map[Subject]bool, len(c.Rows))
	for i, r := range c.Rows {
		err := r.validate(params.Epoch())
		if err == nil && seen[r.Subject()] {
			err = fmt.Errorf("%w: %s %s is listed twice", ErrFormat, r.Role, r.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
		seen[r.Subject()] = true
	}
	return &Manifest{Params: params, Ledger: c.Ledger, Rows: c.Rows}, nil
}

// validate checks the form of a row; that public_key is that of the identity
// is for whoever wants to spend a hash to the curve on it.
func (r Row) validate(epoch uint32) error {
	if err := r.Identity().Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if r.Epoch > epoch {
		return fmt.Errorf("%w: epoch %d is later than the manifest's %d", ErrFormat, r.Epoch, epoch)
	}
	if q, err := hex.DecodeString(r.PublicKey); err != nil || len(q) != ibc.PublicKeySize {
		return fmt.Errorf("%w: the public key of %s is not %d bytes in hex", ErrFormat, r.Name, ibc.PublicKeySize)
	}
	// The path is joined to a directory by its readers: it must not leave it.
	if path.Base(r.File) != FileName(r.Identity()) || path.Clean(r.File) != r.File || path.IsAbs(r.File) || strings.HasPrefix(r.File, "..") {
		return fmt.Errorf("%w: %.200q is not the bundle file of %s", ErrFormat, r.File, r.Name)
	}
	if r.LedgerIndex == 0 {
		return fmt.Errorf("%w: %s has no ledger entry", ErrFormat, r.Name)
	}
	if len(r.Names) > fleet.MaxNames {
		return fmt.Errorf("%w: %s has %d certificate names", ErrFormat, r.Name, len(r.Names))
	}
	for _, n := range r.Names {
		if err := n.Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	if err := fleet.ValidateLabels(r.Labels); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if r.Address == "" {
		return nil
	}
	return ValidateAddress(r.Address)
}

// Subject is whom rows are about: a role and a name, of any generation.
type Subject struct {
	Role ibc.Role
	Name string
}

// Subject returns whom the row is about.
func (r Row) Subject() Subject { return Subject{r.Role, r.Name} }

// Outcome says what Merge did.
type Outcome int

// The outcomes of Merge.
const (
	Unchanged Outcome = iota // the same (epoch, generation), nothing newer about it
	Updated                  // a later (epoch, generation), or a newer address, labels or names
	Skipped                  // an earlier (epoch, generation)
)

// Merge returns what is known about a subject after next has been seen, so
// that manifests may arrive in any order: (epoch, generation) never falls;
// between rows of the same one, address, labels and names follow the higher
// ledger index.
func (r Row) Merge(next Row) (Row, Outcome) {
	switch version := r.Identity().Compare(next.Identity()); {
	case version > 0:
		return r, Skipped
	case version == 0 && cmp.Compare(r.LedgerIndex, next.LedgerIndex) >= 0:
		return r, Unchanged
	}
	return next, Updated
}
